import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { BITS, op, type Arguments } from '@engine/core/plan';
import { REGISTER, type Machine, type RunContext } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Process, type Spec } from '@engine/core/spec';
import { readNamespaces, type NamespacePlan } from './namespaces.ts';
import { planStartHooks } from './hooks.ts';
import { IOPRIO_CLASS, IOPRIO_CLASS_SHIFT, O, MAGIC, PERSONALITY, RLIM_INFINITY, RLIMIT } from './kernel.ts';
import { affinityMask, planScheduler } from './scheduling.ts';

/** Annotations by which the core hands over what the OCI spec has no word for. Images and users can't set this namespace. */
export const ANNOTATION = { init: 'engine.internal/init', groupAdd: 'engine.internal/group-add' } as const;

type Part = 'init' | 'exec';
export type ProcessRun = Pick<RunContext, 'container' | 'runFolder' | 'bundle'>;
/** Permitted set of the engine: what a process that nobody restricts gets. */
function ownCapabilities(machine: Machine): bigint {
  const hex = /^CapPrm:\s*([0-9a-f]+)$/m.exec(machine.read('/proc/self/status') ?? '')?.[1];
  return hex === undefined ? 0n : BigInt(`0x${hex}`);
}

/** Highest id that exists; 2^32-1 means "no change" to the kernel (CVE-2024-40635, CVE-2026-47262). */
const MAX_ID = 0xffff_fffe;
function id(value: number, name: string): number {
  if (!Number.isInteger(value) || value < 0 || value > MAX_ID) throw fail('ERR_INVALID_VALUE', `process.user.${name}: ${value} is not in 0..${MAX_ID}`);
  return value;
}

/** `user[:group]` for resolveUser, and groups on top of it. A bundle's are numbers, as `username` is for Windows there (config.md), and 0 when not said. Errors: ERR_INVALID_VALUE. */
export function userOf(process: Process, annotations: Readonly<Record<string, string>> | undefined, isBundle = false): { readonly user: string; readonly extra: readonly string[] } {
  const { uid = 0, additionalGids = [] } = process.user;
  const [username, gid] = isBundle ? [undefined, process.user.gid ?? 0] : [process.user.username, process.user.gid];
  const user = username !== undefined && username !== '' ? username : `${id(uid, 'uid')}${gid === undefined ? '' : `:${id(gid, 'gid')}`}`;
  const extra = additionalGids.map((group) => String(id(group, 'additionalGids')));
  const added = annotations?.[ANNOTATION.groupAdd];
  if (added) extra.push(...(JSON.parse(added) as string[]));
  return { user, extra };
}

/** Registers `uid gid groups`, then the standard streams, owned by that user. */
function planStreams(plan: PlanWriter, spec: Spec, process: Process, part: Part, run: ProcessRun): void {
  const { user, extra } = userOf(process, spec.annotations, run.bundle !== undefined);
  plan.at('/process/user').add(`${part}.terminal`, op.resolveUser({ root: REGISTER.rootfs, user, extra, uid: REGISTER.uid, gid: REGISTER.gid, groups: REGISTER.groups }));
  if (run.bundle) {
    // resolveUser counts the primary group among them
    const ids = new Uint8Array(Uint32Array.from(process.user.additionalGids ?? []).buffer);
    plan.at('/process/user/additionalGids').add(`${part}.terminal`, op.idList({ ids, out: REGISTER.groups }));
  }
  const streams = plan.at('/process/terminal');
  if (!process.terminal) streams.add(`${part}.terminal`, op.pipes({ uid: REGISTER.uid }));
  else if (part === 'init') streams.add('init.terminal', op.terminal({ devpts: REGISTER.devpts, root: REGISTER.rootfs, uid: REGISTER.uid, console: 1 }));
  else streams.add('exec.terminal', op.terminal({ devpts: REGISTER.devpts, uid: REGISTER.uid }));
}

/** A resource limit as the kernel takes it. JSON numbers can't hold 2^64-1, and -1 is what people write for it. */
function limit(value: number, name: string): bigint {
  if (value === -1 || value >= 2 ** 63) return RLIM_INFINITY;
  if (!Number.isSafeInteger(value) || value < 0) throw fail('ERR_INVALID_VALUE', `rlimit ${name}: ${value} is not a limit`);
  return BigInt(value);
}

/** Hard limits of the engine, by the kernel's words for them; what cannot be read limits nothing. */
const LIMIT_NAMES: Readonly<Record<string, string>> = {
  RLIMIT_CPU: 'cpu time', RLIMIT_FSIZE: 'file size', RLIMIT_DATA: 'data size', RLIMIT_STACK: 'stack size', RLIMIT_CORE: 'core file size', RLIMIT_RSS: 'resident set', RLIMIT_NPROC: 'processes',
  RLIMIT_NOFILE: 'open files', RLIMIT_MEMLOCK: 'locked memory', RLIMIT_AS: 'address space', RLIMIT_LOCKS: 'file locks', RLIMIT_SIGPENDING: 'pending signals', RLIMIT_MSGQUEUE: 'msgqueue size',
  RLIMIT_NICE: 'nice priority', RLIMIT_RTPRIO: 'realtime priority', RLIMIT_RTTIME: 'realtime timeout',
};
function ownHardLimit(machine: Machine, type: string): bigint {
  const [, hard] = new RegExp(`^Max ${LIMIT_NAMES[type] ?? ''} +\\S+ +(\\S+)`, 'm').exec(machine.read('/proc/self/limits') ?? '') ?? [];
  return hard === undefined || hard === 'unlimited' ? RLIM_INFINITY : BigInt(hard);
}

/**
 * In a user namespace nobody may raise a hard limit: the stage does it, and init then lowers its own. A session has init's (joinContainer).
 * Errors: ERR_INVALID_VALUE: unknown name, the same twice, soft above hard.
 */
function planRlimits(plan: PlanWriter, { user }: NamespacePlan, process: Process, part: Part, machine: Machine, isBundle: boolean): void {
  const seen = new Set<string>();
  (process.rlimits ?? []).forEach(({ type, soft, hard }, index) => {
    const resource = RLIMIT[type];
    if (resource === undefined) throw fail('ERR_INVALID_VALUE', `unknown rlimit ${type}`, { hint: `known are ${Object.keys(RLIMIT).join(', ')}` });
    if (seen.has(type)) throw fail('ERR_INVALID_VALUE', `rlimit ${type} is given twice`);
    seen.add(type);
    const low = limit(soft, type);
    const high = limit(hard, type);
    if (low > high) throw fail('ERR_INVALID_VALUE', `rlimit ${type}: the soft limit is above the hard one`);
    // raising a hard limit needs CAP_SYS_RESOURCE; where the engine itself lacks it the user learns so and the container still runs. Not so whose caller relies on it
    const optional = !isBundle && !machine.capabilities.includes('CAP_SYS_RESOURCE');
    const writer = plan.at(`/process/rlimits/${index}`);
    if (user && part === 'init' && !optional && high > ownHardLimit(machine, type)) writer.add('stage.mounts', op.rlimit({ resource, soft: high, hard: high }));
    writer.add(`${part}.limits`, op.rlimit({ resource, soft: low, hard: high }, optional ? { optional: true } : undefined));
  });
}

export function known(table: Readonly<Record<string, number>>, name: string, field: string): number {
  const value = table[name];
  if (value === undefined) throw fail('ERR_INVALID_VALUE', `${field}: unknown value ${name}`, { hint: `known are ${Object.keys(table).join(', ')}` });
  return value;
}

/** umask, oom_score_adj, scheduler, nice, I/O priority, personality. */
function planAttributes(plan: PlanWriter, { user }: NamespacePlan, spec: Spec, process: Process, part: Part): void {
  const args: Arguments<'processAttributes'> = { what: BITS.PROCESS.umask, umask: process.user.umask ?? 0o022 };
  if (process.oomScoreAdj !== undefined) {
    if (!Number.isInteger(process.oomScoreAdj) || Math.abs(process.oomScoreAdj) > 1000) throw fail('ERR_INVALID_VALUE', `oom_score_adj ${process.oomScoreAdj} is not in -1000..1000`);
    args.what |= BITS.PROCESS.oomScoreAdj;
    args.oomScoreAdj = process.oomScoreAdj;
    args.proc = REGISTER.proc;
    // only the host's root may make it less, and init has it from the stage then
    if (user && part === 'init') plan.at('/process/oomScoreAdj').add('stage.mounts', op.processAttributes({ what: BITS.PROCESS.oomScoreAdj, oomScoreAdj: process.oomScoreAdj }));
  }
  // init has one from its mounts
  if (part === 'exec' && (process.oomScoreAdj !== undefined || process.apparmorProfile || process.selinuxLabel)) plan.at('/process').add('exec.limits', op.procHandle({ out: REGISTER.proc }));
  const { scheduler, ioPriority } = process;
  if (scheduler) planScheduler(plan, scheduler, part);
  if (ioPriority) {
    if (!Number.isInteger(ioPriority.priority) || ioPriority.priority < 0 || ioPriority.priority > 7) throw fail('ERR_INVALID_VALUE', 'process.ioPriority.priority is not in 0..7');
    args.what |= BITS.PROCESS.ioPriority;
    args.ioPriority = (known(IOPRIO_CLASS, ioPriority.class, 'process.ioPriority.class') << IOPRIO_CLASS_SHIFT) | ioPriority.priority;
  }
  const domain = spec.linux?.personality?.domain;
  if (domain) {
    args.what |= BITS.PROCESS.personality;
    args.personality = known(PERSONALITY, domain, 'linux.personality.domain');
  }
  plan.at('/process').add(`${part}.limits`, op.processAttributes(args));
}

/** Of a variable that is there twice the last one counts: getenv(3) would find the first. */
const lastOfEach = (env: readonly string[]): readonly string[] => [...new Map(env.map((item) => [item.slice(0, item.indexOf('=') < 0 ? item.length : item.indexOf('=')), item])).values()];

/** Working directory, program, exec: the end of both parts. */
function planProgram(plan: PlanWriter, spec: Spec, process: Process, part: Part, run: ProcessRun): void {
  const { args = [] } = process;
  const env = lastOfEach(process.env ?? []);
  const name = args[0];
  if (name === undefined) throw fail('ERR_INVALID_VALUE', 'no command to run', { hint: 'give one after the image, or use an image that has one' });
  if (!posix.isAbsolute(process.cwd)) throw fail('ERR_INVALID_VALUE', `the working directory ${JSON.stringify(process.cwd)} is not absolute`, { path: process.cwd });
  const wrong = env.find((item) => !/^[^=]+=/.test(item));
  if (wrong !== undefined) throw fail('ERR_INVALID_VALUE', `environment ${JSON.stringify(wrong)} is not NAME=VALUE`);
  if (part === 'init' && process.cwd !== '/') plan.at('/process/cwd').add('init.devices', op.ensureWorkdir({ root: REGISTER.rootfs, path: process.cwd }));
  plan.at('/process').add(`${part}.bounds`, op.closeFds({ from: 3 }));
  plan.at('/process/cwd').add(`${part}.workdir`, op.chdir({ path: process.cwd }));
  plan.at('/process/args').add(`${part}.workdir`, op.resolveExec({ name, env, out: 'linux-base.program' }));
  if (part === 'init') planStartHooks(plan, spec, run);
  plan.at('/process/args').add(`${part}.exec`, op.exec({ program: 'linux-base.program', argv: args, env }));
}

/** Where a session's process may run, before it is in the container's group and after. */
function planAffinity(plan: PlanWriter, { execCPUAffinity: affinity }: Process, run: ProcessRun): void {
  const [initial, final] = (['initial', 'final'] as const).map((name) => affinityMask(affinity?.[name], `process.execCPUAffinity.${name}`));
  const writer = plan.at('/process/execCPUAffinity');
  if (initial && run.bundle) writer.add('shim.limits', op.setAffinity({ mask: initial }));
  const last = final ?? (run.bundle ? undefined : initial);
  if (last) writer.add('exec.limits', op.setAffinity({ mask: last }));
}

/** Slots `terminal keyring limits reaper identity workdir exec` of `init` or `exec`. */
export function planProcess(plan: PlanWriter, spec: Spec, part: Part, run: ProcessRun, machine: Machine): void {
  const process = spec.process;
  if (!process) throw fail('ERR_INVALID_VALUE', 'the spec has no process');
  planStreams(plan, spec, process, part, run);
  if (!run.bundle?.noNewKeyring) plan.at('/process').add(`${part}.keyring`, op.sessionKeyring({ name: `_ses.${run.container}` }, { optional: true }));
  if (part === 'exec') planAffinity(plan, process, run);
  const namespaces = readNamespaces(spec);
  planRlimits(plan, namespaces, process, part, machine, run.bundle !== undefined);
  planAttributes(plan, namespaces, spec, process, part);
  if (part === 'init' && spec.annotations?.[ANNOTATION.init] === '1') {
    const { apparmorProfile: label } = process;
    // a program may signal only who has its own profile
    if (label && label !== 'unconfined') plan.at('/process/apparmorProfile').add('init.reaper', op.reaperArmor({ proc: REGISTER.proc, label }));
    plan.at(`/annotations/${ANNOTATION.init.replace('/', '~1')}`).add('init.reaper', op.reaper({}));
  }
  planProgram(plan, spec, process, part, run);
  if (process.selinuxLabel) plan.at('/process/selinuxLabel').add(`${part}.label`, op.execLabel({ proc: REGISTER.proc, label: process.selinuxLabel }));
  // with process.capabilities in the spec its owner writes the identity
  if (process.capabilities) return;
  // whose bundle names none has none (config.md, capabilities)
  if (run.bundle) plan.at('/process/capabilities').add(`${part}.bounds`, op.capabilityBounds({ bounding: 0n }));
  const all = run.bundle ? 0n : ownCapabilities(machine);
  plan.at('/process/user').add(`${part}.identity`, op.identity({ uid: REGISTER.uid, gid: REGISTER.gid, groups: REGISTER.groups, effective: all, permitted: all, rootOnly: 1 }));
}

/** SELinux contexts are of no use without it: as every runtime does, refused. Errors: ERR_NOT_SUPPORTED names the field. */
export function checkLabels({ process, linux }: Spec, machine: Pick<Machine, 'read'>): void {
  const asked = [['process.selinuxLabel', process?.selinuxLabel], ['linux.mountLabel', linux?.mountLabel]].find(([, label]) => label);
  if (asked && machine.read('/sys/fs/selinux/enforce') === undefined) throw fail('ERR_NOT_SUPPORTED', `${asked[0]}: SELinux is not enabled on this machine`, { path: String(asked[0]) });
}

/** What an exec plan has after the core's joinContainer: root and terminals of the container, found again from inside. */
export function planJoin(plan: PlanWriter, spec: Spec): void {
  if (readNamespaces(spec).user) plan.add('exec.join', op.becomeRoot({}));
  plan.add('exec.join', op.open({ path: '/', flags: O.path | O.directory | O.cloexec, out: REGISTER.rootfs }));
  if (spec.process?.terminal) plan.add('exec.terminal', op.open({ root: REGISTER.rootfs, path: '/dev/pts', flags: O.path | O.directory | O.cloexec, magic: MAGIC.devpts, out: REGISTER.devpts }));
}
