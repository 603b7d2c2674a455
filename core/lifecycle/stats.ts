import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type ContainerStats, type InterfaceStats } from '../api/index.ts';
import { breathe } from '../hooks/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { ifLoaded } from './drivers.ts';
import { settled } from './finish.ts';
import { groupOf } from './freezer.ts';
import { requireRun, viewNow } from './running.ts';

/** Undefined when it cannot be read: its process has just ended. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** What went through a container's own network namespace, without `lo` unless it is asked for; nothing in that of the host. */
export function interfacesOf(pid: number, loopback = false): InterfaceStats[] | undefined {
  const [own, host] = [pid, 'self'].map((process) => attempt(() => readlinkSync(`/proc/${process}/ns/net`)));
  if (own === undefined || own === host) return undefined;
  const lines = attempt(() => readFileSync(`/proc/${pid}/net/dev`, 'latin1'))?.split('\n').slice(2).filter((line) => line.includes(':'));
  return lines?.map((line): InterfaceStats => {
    const [, name = '', rest = ''] = /^\s*(.*):\s*(.*)$/.exec(line) ?? [];
    const [rxBytes = 0, rxPackets = 0, rxErrors = 0, rxDropped = 0, , , , , txBytes = 0, txPackets = 0, txErrors = 0, txDropped = 0] = rest.split(/\s+/).map(Number);
    return { name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped };
  }).filter(({ name }) => loopback || name !== 'lo');
}

/** One look, without any process: of one that does not run, all is missing. */
export async function readStats(core: Core, ref: string): Promise<ContainerStats> {
  const { state, native, hooks } = core.parts;
  const found = await settled(core, ref);
  await core.request('stats', { container: found.id });
  const { record, state: is, run } = await viewNow(core, found);
  const view = run && state.runs.find(record.id);
  const group = view && (await ifLoaded(async () => {
    const { cgroup: { driver }, ref: own } = await groupOf(core, record, view);
    return driver.stats(own);
  }, (error) => core.parts.log.warn(`container ${record.name}: ${error.message}`)));
  const interfaces = run && interfacesOf(run.pid);
  const same = run && interfaces && native.processStartTime(run.pid) === run.startTime;
  const stats: ContainerStats = { id: record.id, name: record.name, state: is, time: core.now().toISOString(), at: Number(process.hrtime.bigint()), group: group ?? {}, interfaces: same ? interfaces : [], more: {} };
  return (await hooks.callWaterfall('stats', { container: record, stats })).value.stats;
}

/** Every process in the group of a container carries its run in the path of its cgroup; where somebody has named the group himself, it is where init is. */
export async function processesOf(core: Core, ref: string): Promise<readonly number[]> {
  const record = await settled(core, ref);
  await core.request('top', { container: record.id });
  const { record: { run }, started } = await requireRun(core, record, 'top');
  const mark = `${core.parts.state.folders.instance}-${run}`;
  const cgroupOf = (pid: number | string): string | undefined => attempt(() => readFileSync(`/proc/${pid}/cgroup`, 'latin1'));
  const own = cgroupOf(started.pid);
  const named = own?.includes(mark) === false;
  const found = new Set([started.pid]);
  for (const [i, name] of readdirSync('/proc').entries()) {
    if (i % 64 === 63) await breathe();
    const path = /^\d+$/.test(name) ? cgroupOf(name) : undefined;
    if (path !== undefined && (named ? path === own : path.includes(mark))) found.add(Number(name));
  }
  core.emit('container', 'top', record.id, eventAttributes(record));
  return [...found].sort((a, b) => a - b);
}
