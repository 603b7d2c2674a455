import { readdirSync } from 'node:fs';
import { posix } from 'node:path';
import { type BlockCount, type GroupDetails, type ResourceCounter } from '@engine/core/contracts/cgroup';
import { parseFlat, parseList, readFile, type ReadFile } from './stats.ts';

const BLOCK: Readonly<Record<string, readonly [kind: string, operation: string]>> = {
  rbytes: ['io_service_bytes', 'Read'], wbytes: ['io_service_bytes', 'Write'], dbytes: ['io_service_bytes', 'Discard'],
  rios: ['io_serviced', 'Read'], wios: ['io_serviced', 'Write'], dios: ['io_serviced', 'Discard'],
};

/** io.stat, device by device: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`. */
export function parseBlockStat(text: string | undefined): Readonly<Record<string, readonly BlockCount[]>> | undefined {
  const found: Record<string, BlockCount[]> = {};
  for (const [, major, minor, fields = ''] of (text ?? '').matchAll(/^(\d+):(\d+) (.*)$/gm)) {
    for (const [, key = '', value] of fields.matchAll(/(\w+)=(\d+)/g)) {
      const [kind, operation] = BLOCK[key] ?? [];
      if (kind !== undefined && operation !== undefined) (found[kind] ??= []).push({ major: Number(major), minor: Number(minor), operation, value: Number(value) });
    }
  }
  return Object.keys(found).length > 0 ? found : undefined;
}

const listFolder = (folder: string): string[] => {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it has just gone
  }
};

/** What {@link GroupDetails} says of the group in `folder`. */
export function readUnifiedDetails(folder: string, read: ReadFile = readFile, list: (folder: string) => readonly string[] = listFolder): GroupDetails {
  const text = (file: string): string | undefined => read(posix.join(folder, file));
  const number = (file: string): number | undefined => {
    const value = Number(text(file)?.trim() || NaN); // "max" is no limit
    return Number.isNaN(value) ? undefined : value;
  };
  const counter = (values: { [K in keyof ResourceCounter]: number | undefined }): ResourceCounter | undefined => {
    const there = Object.entries(values).filter(([, value]) => value !== undefined);
    return there.length > 0 ? Object.fromEntries(there) : undefined;
  };
  const sum = (a: number | undefined, b: number | undefined): number | undefined => (a === undefined || b === undefined ? undefined : a + b);
  const events = parseFlat(text('memory.events'));
  const stat = text('memory.stat');
  const counters = {
    memory: counter({ limit: number('memory.max'), usage: number('memory.current'), peak: number('memory.peak'), failures: events['max'] }),
    swap: counter({ limit: sum(number('memory.swap.max'), number('memory.max')), usage: sum(number('memory.swap.current'), number('memory.current')), failures: parseFlat(text('memory.swap.events'))['fail'] }),
  };
  const sizes = list(folder).flatMap((name) => /^hugetlb\.(\w+)\.current$/.exec(name)?.[1] ?? []);
  const hugetlb = sizes.map((size) => [size, counter({ limit: number(`hugetlb.${size}.max`), usage: number(`hugetlb.${size}.current`), failures: parseFlat(text(`hugetlb.${size}.events`))['max'] })] as const);
  const block = parseBlockStat(text('io.stat'));
  const cpus = text('cpuset.cpus.effective');
  const known = Object.entries(counters).filter(([, value]) => value !== undefined);
  return {
    ...(cpus !== undefined && { cpuset: { cpus: parseList(cpus), mems: parseList(text('cpuset.mems.effective')), flags: {} } }),
    ...(stat !== undefined && { memory: parseFlat(stat) }),
    ...(known.length > 0 && { counters: Object.fromEntries(known) }),
    ...(hugetlb.length > 0 && { hugetlb: Object.fromEntries(hugetlb) as NonNullable<GroupDetails['hugetlb']> }),
    ...(block && { block }),
  };
}
