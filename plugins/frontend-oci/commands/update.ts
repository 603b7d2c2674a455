import { readFile } from 'node:fs/promises';
import { fail } from '@engine/core/errors';
import { type LinuxResources } from '@engine/core/spec';
import { command, type CommandContext } from '../command.ts';
import { reachable } from '../files.ts';
import { type Values } from '../parse.ts';

const number = (help: string) => ({ type: 'string', value: 'N', help }) as const;
const size = (help: string) => ({ type: 'string', value: 'BYTES', help: `${help}: bytes, or with K, M, G; -1 is without limit` }) as const;
const updateFlags = {
  resources: { type: 'string', short: 'r', value: 'FILE', help: "JSON of limits, as in config.json's linux.resources; - is standard input. All other flags are ignored then" },
  'blkio-weight': number('weight of block IO, 10 to 1000'),
  'cpu-period': number('period of the CPU quota in microseconds'),
  'cpu-quota': number('CPU time within a period in microseconds'),
  'cpu-burst': number('CPU time that may be saved up for later periods, in microseconds'),
  'cpu-share': number('weight of CPU time'),
  'cpu-rt-period': number('period of realtime CPU time in microseconds'),
  'cpu-rt-runtime': number('realtime CPU time within a period in microseconds'),
  'cpu-idle': number('1: only CPU time that nobody else wants'),
  'cpuset-cpus': { type: 'string', value: 'LIST', help: 'CPUs, such as 0-2,5' },
  'cpuset-mems': { type: 'string', value: 'LIST', help: 'memory nodes' },
  memory: size('limit of memory'),
  'memory-reservation': size('memory that is given back last'),
  'memory-swap': size('limit of memory and swap together'),
  'kernel-memory': size('limit of kernel memory; obsolete in the kernel'),
  'kernel-memory-tcp': size('limit of memory of TCP buffers'),
  'pids-limit': number('most processes; -1 is without limit'),
  'l3-cache-schema': { type: 'string', value: 'SCHEMA', help: 'Intel RDT: refused, there is no driver for it' },
  'mem-bw-schema': { type: 'string', value: 'SCHEMA', help: 'Intel RDT: refused, there is no driver for it' },
} as const;
type UpdateFlags = Values<typeof updateFlags>;

const refuse = (flag: string, why: string): Error => fail('ERR_INVALID_VALUE', `invalid value for ${flag}: ${why}`, { operation: 'update', hint: '', exitCode: 1 });

function readNumber(flag: string, text: string, least: number): number {
  const value = /^[+-]?\d+$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value) || value < least) throw refuse(flag, `"${text}" is not an integer${least === 0 ? ' from 0 on' : ''}`);
  return value;
}
const UNITS: Readonly<Record<string, number>> = { '': 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40, p: 2 ** 50 };
/** As Docker's units: binary whatever the letters say, with fractions. */
export function readSize(flag: string, text: string): number {
  if (text === '-1') return -1;
  const [, digits, unit = ''] = /^(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text) ?? [];
  const value = digits === undefined ? NaN : Math.floor(Number(digits) * (UNITS[unit.toLowerCase()] ?? NaN));
  if (!Number.isSafeInteger(value)) throw refuse(flag, `invalid size: '${text}'`);
  return value;
}

/** What the flags say; fields that none names are not there. An empty text is as if the flag was not given, as runc has it. Errors: ERR_INVALID_VALUE. */
export function resourcesOf(flags: UpdateFlags): LinuxResources {
  for (const flag of ['l3-cache-schema', 'mem-bw-schema'] as const) if (flags[flag]) throw fail('ERR_NOT_SUPPORTED', `--${flag}: there is no driver for Intel RDT`, { operation: 'update', exitCode: 1 });
  const pick = <T>(name: string, flag: keyof UpdateFlags, read: (flag: string, text: string) => T): Record<string, T> => {
    const text = flags[flag];
    return text ? { [name]: read(flag, text) } : {};
  };
  const whole = (flag: string, text: string): number => readNumber(flag, text, 0);
  const signed = (flag: string, text: string): number => readNumber(flag, text, -Infinity);
  const asIs = (_flag: string, text: string): string => text;
  const cpu = {
    ...pick('shares', 'cpu-share', whole), ...pick('quota', 'cpu-quota', signed), ...pick('burst', 'cpu-burst', whole), ...pick('period', 'cpu-period', whole), ...pick('realtimeRuntime', 'cpu-rt-runtime', signed), ...pick('realtimePeriod', 'cpu-rt-period', whole), ...pick('idle', 'cpu-idle', signed),
    ...pick('cpus', 'cpuset-cpus', asIs), ...pick('mems', 'cpuset-mems', asIs),
  };
  const memory = { ...pick('limit', 'memory', readSize), ...pick('reservation', 'memory-reservation', readSize), ...pick('swap', 'memory-swap', readSize), ...pick('kernel', 'kernel-memory', readSize), ...pick('kernelTCP', 'kernel-memory-tcp', readSize) };
  const weight = flags['blkio-weight'] ? whole('blkio-weight', flags['blkio-weight']) : 0;
  const pids = flags['pids-limit'] ? signed('pids-limit', flags['pids-limit']) : 0;
  // 0 is "not given" to runc, and callers write all flags at once
  return { ...(Object.keys(cpu).length > 0 && { cpu }), ...(Object.keys(memory).length > 0 && { memory }), ...(weight !== 0 && { blockIO: { weight } }), ...(pids !== 0 && { pids: { limit: pids } }) };
}

/** Longest JSON of limits, bytes. */
const MAX_SIZE = 1 << 20;

/** Errors: ERR_INVALID_VALUE. */
async function readResources({ invocation }: CommandContext, file: string): Promise<LinuxResources> {
  const wrong = (why: string, errno?: string): Error => fail('ERR_INVALID_VALUE', `--resources ${file}: ${why}`, { operation: 'update', path: file, hint: '', exitCode: 1, ...(errno !== undefined && { errno }) });
  let text = '';
  if (file === '-') {
    for await (const chunk of invocation.stdin) if ((text += String(chunk)).length > MAX_SIZE) throw wrong('more than 1 MiB');
  } else {
    try {
      text = await readFile(reachable(invocation, file), 'utf8');
    } catch (error) {
      throw wrong('cannot be read', (error as NodeJS.ErrnoException).code ?? 'EIO');
    }
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrong(`not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong('not a JSON object');
  return value as LinuxResources;
}

/** Numbers of which 0, and texts of which '', mean "as it is": Docker writes every field of an update, `memory.kernel` too, whether it was asked for or not. A section that says nothing then is left out. */
const UNSET: Readonly<Record<string, readonly string[]>> = {
  memory: ['limit', 'reservation', 'swap', 'kernel', 'kernelTCP'], cpu: ['shares', 'quota', 'period', 'realtimeRuntime', 'realtimePeriod', 'cpus', 'mems'], blockIO: ['weight'], pids: ['limit'],
};
function withoutUnset(resources: LinuxResources): LinuxResources {
  const kept = Object.entries(resources).flatMap(([section, fields]: [string, unknown]) => {
    const names = UNSET[section];
    if (!names || typeof fields !== 'object' || fields === null) return [[section, fields] as const];
    const asked = Object.entries(fields).filter(([name, value]) => !(names.includes(name) && (value === 0 || value === '')));
    return asked.length > 0 ? [[section, Object.fromEntries(asked)] as const] : [];
  });
  return Object.fromEntries(kept) as LinuxResources;
}

export const updateCommand = command({
  name: 'update', usage: '<container-id>', summary: 'change the limits of a container', description: 'What is not named stays as it is.', flags: updateFlags, args: [1, 1],
  async run(context, flags, [id = '']) {
    const resources = flags.resources ? withoutUnset(await readResources(context, flags.resources)) : resourcesOf(flags);
    await (await context.bundles()).update(context.ref(id), resources);
    return 0;
  },
});
