import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { until } from '../../test/helpers/wait.ts';
import { watchMemoryKills } from './cgroup1-kills.ts';
import { watchUnifiedKills } from './cgroup2/kills.ts';
import { createNative } from './index.ts';

const left: (() => void)[] = [];
afterEach(() => {
  for (const remove of left.splice(0)) remove();
});
const descriptors = (): number => readdirSync('/proc/self/fd').length;

describe('kills for want of memory', () => {
  it('v2: told by the change of the file, until closed or its group goes', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'engine-kills-'));
    left.push(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, 'memory.events');
    writeFileSync(file, 'oom_kill 0\n');
    let told = 0;
    const [watch, other] = [watchUnifiedKills(folder, () => told++), watchUnifiedKills(folder, () => {})];
    other.close();
    writeFileSync(file, 'oom_kill 1\n');
    await until('the first', () => told > 0);
    rmSync(folder, { recursive: true });
    watch.close();
    watch.close();
    watchUnifiedKills(folder, () => told++).close();
  });

  const memory = '/sys/fs/cgroup/memory';
  const group = join(memory, `engine-kills-${process.pid}`);
  const hasV1 = (() => {
    try {
      mkdirSync(group);
      rmdirSync(group);
      return readdirSync(memory).includes('cgroup.event_control');
    } catch {
      return false;
    }
  })();
  it.skipIf(!hasV1)('v1: told by an eventfd, at the end of the group too, and nothing is left of it', async () => {
    watchMemoryKills('/sys/fs/cgroup/memory/engine-none', () => {}).close();
    await turn();
    const before = descriptors();
    mkdirSync(group);
    left.push(() => rmSync(group, { recursive: true, force: true }));
    let [told, never] = [0, 0];
    const [watch, closed] = [watchMemoryKills(group, () => told++), watchMemoryKills(group, () => never++)];
    closed.close();
    closed.close();
    await turn();
    rmdirSync(group);
    left.pop();
    await until('the end', () => told > 0);
    watch.close();
    const so = told;
    await turn();
    expect([told, never, descriptors()]).toEqual([so, 0, before]);
  });
});

describe('a group', () => {
  const native = createNative();
  const pids = `/sys/fs/cgroup/pids/engine-group-${process.pid}`;
  const canMake = (() => {
    try {
      mkdirSync(pids);
      rmdirSync(pids);
      return true;
    } catch {
      return false;
    }
  })();
  it.skipIf(!canMake)('is removed when nobody is in it, nor has one of his own there', async () => {
    expect(native.removeGroup(pids)).toBe(true);
    mkdirSync(join(pids, 'below'), { recursive: true });
    left.push(() => rmdirSync(pids));
    expect(native.removeGroup(pids)).toBe(false);
    expect(native.removeGroup(join(pids, 'below'))).toBe(true);
    const child = spawn('sleep', ['1000']);
    const ended = once(child, 'exit');
    writeFileSync(join(pids, 'cgroup.procs'), String(child.pid));
    expect(native.removeGroup(pids)).toBe(false);
    child.kill('SIGKILL');
    await ended;
    await until('its end', () => native.removeGroup(pids));
    left.pop();
    expect(native.removeGroup(pids)).toBe(true);
  });
});

describe('the end of a process', () => {
  const native = createNative();
  it('is told once, as it comes, unless nobody asks any more', async () => {
    const child = spawn('sleep', ['1000']);
    await once(child, 'spawn');
    const { pid = 0 } = child;
    const start = native.processStartTime(pid) ?? 0n;
    const told: string[] = [];
    native.watchEnd(pid, start, () => told.push('end'));
    native.watchEnd(pid, start, () => told.push('closed')).close();
    native.watchEnd(pid, start + 1n, () => told.push('another'));
    expect(told).toEqual([]);
    await until('the other', () => told.length > 0);
    child.kill('SIGKILL');
    await until('its end', () => told.length > 1);
    const late = native.watchEnd(pid, start, () => told.push('late'));
    await until('what is past', () => told.length > 2);
    late.close();
    expect(told).toEqual(['another', 'end', 'late']);
  });
});
