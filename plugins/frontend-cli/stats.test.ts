import { type ContainerStats } from '@engine/core/api';
import { describe, expect, it } from 'vitest';
import { select } from './commands/top.ts';
import { statsRow } from './commands/stats.ts';
import { discarded, parseLimits } from './limit-flags.ts';
import { parse } from './parse.ts';
import { cpuTime, processTable, startTime, userName } from './ps-table.ts';
import { createFlags, runFlags } from './run-flags.ts';
import { binarySize } from './text.ts';

const GiB = 2 ** 30;
const stats = (over: Partial<ContainerStats> = {}): ContainerStats => ({ id: 'ab'.repeat(32), name: 'one', state: 'running', time: '', at: 2e9, group: {}, interfaces: [], more: {}, ...over });

describe('a row of stats', () => {
  it('says rates between two looks, and what is in use, as Docker does', () => {
    const link = { name: 'eth0', rxBytes: 1500, rxPackets: 1, rxErrors: 0, rxDropped: 0, txBytes: 0, txPackets: 0, txErrors: 0, txDropped: 0 };
    const now = stats({ group: { cpuNanoseconds: 3e9, memoryBytes: 5 * 2 ** 20, memoryInactiveFileBytes: 2 ** 20, memoryLimitBytes: 64 * 2 ** 20, pids: 3, blockReadBytes: 2e6, blockWriteBytes: 12, pressure: { cpu: { some: { avg10: 1.5, avg60: 0, avg300: 0, total: 0 } } } }, interfaces: [link, { ...link, rxBytes: 500, txBytes: 7 }] });
    expect(statsRow(now, stats({ at: 1e9, group: { cpuNanoseconds: 1e9 } }), { memory: GiB })).toEqual({
      BlockIO: '2MB / 12B', CPUPerc: '200.00%', Container: 'ab'.repeat(32), ID: 'abababababab', MemPerc: '6.25%', MemUsage: '4MiB / 64MiB', Name: 'one', NetIO: '2kB / 7B', PIDs: '3', CPUPressure: '1.50%', MemPressure: '--', IOPressure: '--', More: {},
    });
  });
  it('has the memory of the machine as the limit of what has none, and zeros for what does not run', () => {
    expect(statsRow(stats({ group: { memoryBytes: 4096 } }), undefined, { memory: GiB })).toMatchObject({ MemUsage: '4KiB / 1GiB', CPUPerc: '0.00%' });
    expect(statsRow(stats({ state: 'stopped' }), undefined, { memory: GiB })).toMatchObject({ CPUPerc: '0.00%', MemUsage: '0B / 0B', MemPerc: '0.00%', NetIO: '0B / 0B', BlockIO: '0B / 0B', PIDs: '0' });
  });
  it('bears a counter that went back, and two looks at once', () => {
    expect(statsRow(stats({ group: { cpuNanoseconds: 1 } }), stats({ at: 1, group: { cpuNanoseconds: 9 } }))).toMatchObject({ CPUPerc: '0.00%' });
    expect(statsRow(stats({ group: { cpuNanoseconds: 9 } }), stats({ group: { cpuNanoseconds: 1 } }))).toMatchObject({ CPUPerc: '0.00%' });
  });
  it.each([[0, '0B'], [1023, '1023B'], [1536, '1.5KiB'], [4_469_000, '4.262MiB'], [25 * GiB, '25GiB']])('%d bytes are %s', (bytes, text) => expect(binarySize(bytes)).toBe(text));
});

describe('limit flags', () => {
  const limits = (...argv: string[]) => parseLimits(parse('run', runFlags, [...argv, 'image'], { passThrough: true }).flags, 2);
  it('of all kinds', () => {
    expect(limits('--device-read-bps', '/dev/sda:1mb', '--device-write-bps=/dev/sda:512', '--device-read-iops', '/dev/sda:10', '--device-write-iops', '/dev//sda:20', '--blkio-weight-device', '/dev/sda:200', '--cpu-rt-period', '1000', '--cpu-rt-runtime', '900', '--cgroup-conf', 'memory.high=64M', '--cgroup-conf', 'io.max=8:0 rbps=1')).toEqual({
      deviceReadBps: [{ path: '/dev/sda', rate: 2 ** 20 }], deviceWriteBps: [{ path: '/dev/sda', rate: 512 }], deviceReadIops: [{ path: '/dev/sda', rate: 10 }], deviceWriteIops: [{ path: '/dev/sda', rate: 20 }],
      blkioWeightDevice: [{ path: '/dev/sda', weight: 200 }], cpuRealtimePeriod: 1000, cpuRealtimeRuntime: 900, unified: { 'memory.high': '64M', 'io.max': '8:0 rbps=1' },
    });
    expect(limits()).toEqual({});
  });
  it.each([
    ['--device-read-bps', '/dev/sda'], ['--device-read-bps', 'sda:1'], ['--device-read-bps', '/etc/passwd:1'], ['--device-read-bps', '/dev/../etc/passwd:1'], ['--device-read-bps', '/dev/sda:-1'], ['--device-read-bps', '/dev/sda:1:2'], ['--device-read-iops', '/dev/sda:1mb'],
    ['--blkio-weight-device', '/dev/sda:5'], ['--blkio-weight-device', '/dev/sda:1001'], ['--cgroup-conf', 'memory.high'], ['--cgroup-conf', '=1'], ['--kernel-memory', 'x'], ['--cpu-rt-period', '-1'],
  ])('refuses %s %s', (...argv) => expect(() => limits(...argv)).toThrow(/invalid value/));
  it('says what it discards, and lists flags in order', () => {
    expect(discarded(parse('run', runFlags, ['--kernel-memory', '64m', 'x']).flags).join()).toMatch(/deprecated/);
    expect(discarded({})).toEqual([]);
    expect(Object.keys(createFlags)).toEqual(Object.keys(createFlags).sort());
  });
});

describe('top', () => {
  it('keeps the lines of the container, the rest of a line in its last column', () => {
    expect(select('  PID CMD\n    1 init  -x\n   22 sh -c   a b\n', new Set([22]))).toEqual([['PID', 'CMD'], ['22', 'sh -c a b']]);
    expect(() => select('CMD\nx\n', new Set([1]))).toThrow(/PID field/);
  });
  it('has a table of its own where there is no ps', () => {
    const [[uid, pid, parent, , , , , line] = []] = processTable([process.pid, 2 ** 22 + 1]);
    expect([uid, pid, parent]).toEqual([expect.stringMatching(/^[a-z0-9_+-]+$/), String(process.pid), String(process.ppid)]);
    expect(line).toMatch(/node|vitest/);
  });
  it.each([[0, '00:00:00'], [3725, '01:02:05'], [90_061, '1-01:01:01']])('%d seconds are %s', (seconds, text) => expect(cpuTime(seconds)).toBe(text));
  it('writes starts and names as ps', () => {
    const now = new Date(2026, 5, 15, 12, 0);
    expect([new Date(2026, 5, 15, 9, 5), new Date(2026, 0, 2, 9, 5), new Date(2024, 0, 2)].map((start) => startTime(start, now))).toEqual(['09:05', 'Jan02', '2024']);
    expect([userName('root'), userName('systemd-network')]).toEqual(['root', 'systemd+']);
  });
});
