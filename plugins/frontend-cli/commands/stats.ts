import { totalmem } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ContainerStats, type Engine } from '@engine/core/api';
import { isEngineError } from '@engine/core/errors';
import { command } from '../command.ts';
import { formatRows, formatTable } from '../output.ts';
import { binarySize, humanSize, shortId } from '../text.ts';
import { parseInteger } from '../units.ts';

const COLUMNS = { ID: 'CONTAINER ID', Name: 'NAME', CPUPerc: 'CPU %', MemUsage: 'MEM USAGE / LIMIT', MemPerc: 'MEM %', NetIO: 'NET I/O', BlockIO: 'BLOCK I/O', PIDs: 'PIDS' };
const PRESSURE = { CPUPressure: 'CPU PSI', MemPressure: 'MEM PSI', IOPressure: 'IO PSI' };
const HEADINGS = { ...COLUMNS, ...PRESSURE, Container: 'CONTAINER', More: 'MORE' };
/** Between the two looks of which the first numbers are made, ms. */
const FIRST_LOOK = 250;

type Look = ReadonlyMap<string, ContainerStats>;
const percent = (value: number): string => `${value.toFixed(2)}%`;
const pair = (one: number, other: number): string => `${humanSize(one)} / ${humanSize(other)}`;

/** Of one CPU, as Docker counts it. */
function cpuPercent({ at, group: { cpuNanoseconds: now } }: ContainerStats, before: ContainerStats | undefined): number {
  const then = before?.group.cpuNanoseconds;
  if (now === undefined || then === undefined || !before || at <= before.at) return 0;
  return Math.max(0, ((now - then) / (at - before.at)) * 100);
}

/** In Docker's form. What the kernel does not count is 0 there; pressure that it does not tell is `--`. */
export function statsRow(stats: ContainerStats, before: ContainerStats | undefined, { ref = stats.id, noTrunc = false, memory = totalmem() } = {}): Record<string, unknown> {
  const { group, interfaces, id, name } = stats;
  const runs = group.memoryBytes !== undefined || group.cpuNanoseconds !== undefined;
  // as Docker: file pages that are given up first are not in use
  const used = Math.max(0, (group.memoryBytes ?? 0) - (group.memoryInactiveFileBytes ?? 0));
  const limit = runs ? Math.min(group.memoryLimitBytes ?? memory, memory) : 0;
  const sum = (field: 'rxBytes' | 'txBytes'): number => interfaces.reduce((total, one) => total + one[field], 0);
  const pressure = (kind: 'cpu' | 'memory' | 'io'): string => {
    const some = group.pressure?.[kind]?.some;
    return some ? percent(some.avg10) : '--';
  };
  return {
    BlockIO: pair(group.blockReadBytes ?? 0, group.blockWriteBytes ?? 0), CPUPerc: percent(cpuPercent(stats, before)), Container: ref, ID: noTrunc ? id : shortId(id), MemPerc: percent(limit > 0 ? (used / limit) * 100 : 0),
    MemUsage: `${binarySize(used)} / ${binarySize(limit)}`, Name: name, NetIO: pair(sum('rxBytes'), sum('txBytes')), PIDs: String(group.pids ?? 0),
    CPUPressure: pressure('cpu'), MemPressure: pressure('memory'), IOPressure: pressure('io'), More: stats.more,
  };
}

/** Of one that is not there any more: undefined, or its error when somebody has named it. */
async function lookAt(engine: Engine, ref: string, named: boolean): Promise<ContainerStats | undefined> {
  try {
    return await engine.containers.stats(ref);
  } catch (error) {
    if (!named && isEngineError(error, 'ERR_NO_SUCH_CONTAINER')) return undefined;
    throw error;
  }
}

export const statsCommand = command({
  name: 'stats', usage: '[FLAGS] [CONTAINER...]', summary: 'show what containers use, all that run or these', args: [0, Infinity],
  flags: {
    all: { type: 'boolean', short: 'a', help: 'those that do not run too' }, format: { type: 'string', value: 'FORMAT', help: `json, a Go template, or "table TEMPLATE"; fields: ${Object.keys(HEADINGS).join(' ')}` },
    interval: { type: 'string', short: 'i', value: 'SECONDS', help: 'time between two looks (1)' }, 'no-stream': { type: 'boolean', help: 'only once' }, 'no-trunc': { type: 'boolean', help: 'whole ids' },
    pressure: { type: 'boolean', help: 'with the share of the last 10 s in which something waited for CPU, memory or IO (cgroup v2)' },
  },
  async run(context, flags, refs) {
    const { stdout, signal } = context.invocation;
    const interval = flags.interval === undefined ? 1000 : parseInteger('--interval', flags.interval, 1) * 1000;
    const columns = flags.pressure ? { ...COLUMNS, ...PRESSURE } : COLUMNS;
    const show = (rows: readonly Record<string, unknown>[]): string => (flags.format ? formatRows(rows, flags.format, HEADINGS) : formatTable(rows, columns));
    show([]); // a template that cannot be read is told before anything is begun
    const engine = await context.open();
    const look = async (named: boolean): Promise<Look> => {
      const ids = refs.length > 0 ? refs : (await engine.containers.list({ all: flags.all })).filter((view) => flags.all || view.run).sort((a, b) => (a.record.created < b.record.created ? 1 : -1)).map(({ record }) => record.id);
      const found = await Promise.all(ids.map(async (ref) => [ref, await lookAt(engine, ref, named && refs.length > 0)] as const));
      return new Map(found.filter((one): one is [string, ContainerStats] => one[1] !== undefined));
    };
    const stop = new AbortController();
    stdout.once('error', () => stop.abort());
    signal?.addEventListener('abort', () => stop.abort());
    const pause = (ms: number): Promise<boolean> => sleep(ms, true, { signal: stop.signal }).catch(() => false);
    // {{json .}} and json say what Docker says, and more only to who asks for more
    const more = flags.pressure || /Pressure|\.More/.test(flags.format ?? '');
    const dockerOnly = ({ CPUPressure: _c, MemPressure: _m, IOPressure: _i, More: _more, ...row }: Record<string, unknown>): Record<string, unknown> => row;
    let before = await look(true);
    for (let wait = FIRST_LOOK; ; wait = interval) {
      if ((before.size > 0 || wait !== FIRST_LOOK) && !(await pause(wait))) return 0;
      const now = await look(false);
      const rows = [...now].map(([ref, stats]) => statsRow(stats, before.get(ref), { ref: refs.length > 0 ? ref : shortId(ref), noTrunc: flags['no-trunc'] })).map(more ? (row) => row : dockerOnly);
      const text = show(rows);
      // over the last one, line by line, so that it does not flicker
      await context.print(stdout.isTTY && !flags['no-stream'] ? `\x1b[H${text.replaceAll('\n', '\x1b[K\n')}\x1b[J` : text);
      if (flags['no-stream'] || stop.signal.aborted) return 0;
      before = now;
    }
  },
});
