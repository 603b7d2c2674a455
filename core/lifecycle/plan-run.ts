import { addSteps, type Asked, breathe, createPlanCollector, createRecords, type PlanCollector, type RecordSet, type RunBase } from '../hooks/index.ts';
import { fail } from '../errors/index.ts';
import { BITS, encodePlan, forgiving, op, orderSteps, slots, undoSteps, type Effect, type Origin, type PlannedStep } from '../plan/index.ts';
import { REGISTER, type RunContext } from '../contracts/common/index.ts';
import { type Endpoint } from '../contracts/network/index.ts';
import { type AttachStreams, type ContainerRecord, type WindowSize } from '../api/index.ts';
import { type Linux, type Spec } from '../spec/index.ts';
import { groupRequest } from './adapters.ts';
import { type Core } from './core.ts';
import { driversOf, entriesOf, type ContainerDrivers } from './drivers.ts';
import { attachmentOf } from './endpoints.ts';
import { reachSources } from './requested.ts';
import { checkSections } from './sections.ts';

/** <linux/sched.h>. The cgroup namespace is unshared by init itself once it has joined; a user namespace needs a stage. */
const CLONE: Partial<Record<NonNullable<Linux['namespaces']>[number]['type'], number>> = {
  mount: 0x20000, uts: 0x4000000, ipc: 0x8000000, pid: 0x20000000, network: 0x40000000, time: 0x80,
};

export interface StreamOptions {
  readonly attach: AttachStreams;
  readonly windowSize?: WindowSize;
}
export interface PlanOptions extends StreamOptions {
  /** Where it is connected in this run. */
  readonly endpoints?: readonly Endpoint[];
  /** What is made for this run alone, and goes with it: before all else. */
  readonly prepare?: readonly { readonly plugin: string; readonly effects: readonly Effect[] }[];
  /** Its program has the standard streams of the caller's process, and waits for somebody to start it when all is ready. */
  readonly handOver?: true;
}
/** Bits of BITS.STDIO. */
export function streamFlags(request: { terminal: boolean; openStdin: boolean; stdinOnce?: boolean }, attach: AttachStreams): number {
  const { STDIO } = BITS;
  return (request.terminal ? STDIO.terminal : 0) | (request.openStdin ? STDIO.stdin : 0) | (request.stdinOnce ? STDIO.stdinOnce : 0)
    | (attach.stdin ? STDIO.attachStdin : 0) | (attach.stdout ? STDIO.attachStdout : 0) | (attach.stderr ? STDIO.attachStderr : 0);
}

/**
 * The spec of the next run: the container's, then the taps on `configure`. A prepared bundle is run as it is. `asked`: who put what there.
 */
export async function configureSpec(core: Core, record: ContainerRecord, run: RunContext, records?: RecordSet): Promise<{ spec: Spec; asked: Asked }> {
  if (record.request.bundle !== undefined) return { spec: record.spec, asked: new Map() };
  const plan = createPlanCollector();
  plan.close();
  const { value, asked } = await core.parts.hooks.callWaterfall('configure', record.spec, { container: record, run, spec: record.spec, plan, trace: core.trace, ...(records && { records }) });
  return { spec: value, asked };
}

/** The first operation of a run: what becomes of the standard streams and the log. */
function addStreams(core: Core, plan: PlanCollector, drivers: ContainerDrivers, base: RunBase, streams: PlanOptions): void {
  const { container, run } = base;
  const { log } = drivers;
  const settings = log?.driver.planLog({ container: container.id, folder: `${core.folderOf(container.id)}/log`, options: container.request.log.options }, run);
  const size = streams.windowSize ?? container.request.windowSize;
  plan.writer(log?.choice.plugin ?? 'core', 'prepareRootfs').at('/process/terminal').add('shim.stdio', op.stdio({
    flags: streamFlags({ ...container.request, terminal: base.spec.process?.terminal ?? false }, streams.attach) | (streams.handOver && !base.spec.process?.terminal ? BITS.STDIO.inherit : 0), ...settings, ...(size && { rows: size.rows, cols: size.cols }),
  }));
}

/** What nobody else has planned: the birth of init, and the sync point that holds it until the host side of its network is there. */
function addMissing(plan: PlanCollector, spec: Spec): void {
  const own = plan.writer('core', 'createNamespaces');
  const there = new Set(plan.steps().map(({ operation }) => operation.name));
  if (!there.has('spawn')) {
    const flags = (spec.linux?.namespaces ?? []).reduce((bits, { type, path }) => (path ? bits : bits | (CLONE[type] ?? 0)), 0);
    own.at('/linux/namespaces').add('shim.spawn', op.spawn({ flags: BigInt(flags), pid: REGISTER.init, pidfd: REGISTER.initPidfd }));
  }
  if (!there.has('keepNamespaces')) own.add('shim.started', op.keepNamespaces({ pid: REGISTER.init }));
}

/** Sync point at which init waits for the steps of `shim.attach`. Plugins that need one of their own take another number. */
export const ATTACHED = 1;

/** init goes on from its network slot only when all of `shim.attach` is done. Who plans this point himself has said where. */
export function withSync(steps: readonly PlannedStep[]): readonly PlannedStep[] {
  const isThere = steps.some(({ operation }) => operation.name === 'reach' && operation.args['point'] === ATTACHED);
  // an attachment that only serves another sync point needs none of its own
  const needed = steps.some((s) => s.slot === 'shim.attach' && s.operation.name !== 'awaitPoint' && s.operation.name !== 'release');
  if (!needed || isThere) return steps;
  const origin: Origin = { plugin: 'core', hook: 'attachNetwork' };
  const reach: PlannedStep = { slot: 'init.netns', operation: op.reach({ point: ATTACHED }), undo: [], origin };
  const wait: PlannedStep = { slot: 'shim.attach', operation: op.awaitPoint({ point: ATTACHED }), undo: [], origin };
  const release: PlannedStep = { slot: 'shim.attach', operation: op.release({ point: ATTACHED }), undo: [], origin };
  return orderSteps([reach, ...steps, wait, release]);
}

/** The program waits for its start; after that come hooks of the spec that are run then, and its exec. */
export function withAwaitStart(steps: readonly PlannedStep[]): readonly PlannedStep[] {
  const at = steps.findIndex(({ slot, operation: { name } }) => slot === 'init.exec' && (name === 'hook' || name === 'exec'));
  if (at < 0) throw fail('ERR_PLUGIN_MISSING', 'no plugin plans the program of the container: nothing is added to slot init.exec');
  return steps.toSpliced(at, 0, { slot: 'init.exec', operation: op.awaitStart({}), undo: [], origin: { plugin: 'core', hook: 'applyLimits' } });
}

/** The undo: processes first (nothing else can be undone under them), then the host's steps backwards. */
function undoOf(steps: readonly PlannedStep[]): readonly PlannedStep[] {
  const undo = undoSteps(steps);
  const kills = undo.filter((s) => s.operation.name === 'cgroupKill');
  return [...kills, ...undo.filter((s) => s.operation.name !== 'cgroupKill')];
}

/** Slots of init before the first that depends on its program, its user or its limits. */
const COMMON: ReadonlySet<string> = new Set(slots.init.slice(0, slots.init.indexOf('limits')).map((name) => `init.${name}`));

export interface RunPlan {
  readonly spec: Spec;
  readonly steps: readonly PlannedStep[];
  readonly bytes: Uint8Array;
  /** Operations of part init that do not depend on what is run, or as whom: see SpawnShim.pool. */
  readonly prefix: number;
  /** Of barriers, ms, by the index of their operation. */
  readonly deadlines: ReadonlyMap<number, number>;
  /** Names of the handlers of those. */
  readonly handlers: readonly string[];
  /** What plugins keep with the container from this run on, when one of them said so. */
  readonly plugins?: NonNullable<ContainerRecord['plugins']>;
  /** See RunRecord.group. */
  readonly group?: string;
}

/** From a container's record to the plan of its next run. Reads only. */
export async function planRun(core: Core, record: ContainerRecord, run: RunContext, streams: PlanOptions): Promise<RunPlan> {
  const { hooks } = core.parts;
  // the config.json of one that is handed over has just been read
  if (!streams.handOver) await reachSources(record.request);
  core.phase?.('drivers');
  const drivers = await driversOf(core.registry, record);
  core.phase?.('plan');
  const records = createRecords(record, { writable: true });
  const { spec, asked } = await configureSpec(core, record, run, records);
  if (!spec.process?.args?.length) throw fail('ERR_INVALID_VALUE', 'no command specified');
  checkSections(spec, core.registry.sections(entriesOf(drivers)), drivers.cgroup !== undefined);
  const plan = createPlanCollector({ asked });
  const base: RunBase = { container: record, run, spec, plan, records, trace: core.trace };
  for (const { plugin, effects } of streams.prepare ?? []) addSteps(plan.writer(plugin, 'create'), effects.map((e) => ({ ...e, slot: 'shim.stdio' as const, undo: e.undo.map(forgiving) })));
  addStreams(core, plan, drivers, base, streams);
  for (const hook of ['prepareRootfs', 'createNamespaces', 'applyLimits'] as const) await hooks.call(hook, {}, base);
  await hooks.call('attachNetwork', await attachmentOf(core, record.id, streams.endpoints ?? []), base);
  addMissing(plan, spec);
  plan.close();
  const synced = withSync(plan.steps());
  const forward = streams.handOver ? withAwaitStart(synced) : synced;
  const steps = [...forward, ...undoOf(forward)];
  await hooks.call('beforeStart', { steps }, base);
  const plugins = records.changed();
  await breathe();
  core.phase?.('encode');
  const prefix = steps.filter(({ slot }) => COMMON.has(slot)).length;
  const barriers = steps.flatMap(({ operation: { name, args } }, i) => (name === 'barrier' ? [[i, args] as const] : []));
  const deadlines = new Map(barriers.map(([i, args]) => [i, Number(args['deadline'])] as const));
  const handlers = barriers.map(([, args]) => String(args['handler']));
  const { path: group } = groupRequest(record, spec, run);
  return { spec, steps, bytes: encodePlan({ steps }), prefix, deadlines, handlers, ...(plugins && { plugins }), ...(group !== undefined && { group }) };
}
