import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { failsWith } from '../common/checks.ts';
import { suitePatience, type SuiteCase } from '../common/suite.ts';
import { MiB, type CgroupContext } from './suite-context.ts';

const FOREVER = 'while :; do busybox sleep 1; done';
const WAIT = 20_000 * suitePatience;

/** Until `condition` is true: what the kernel does a little later. */
async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const end = Date.now() + WAIT; !(await condition());) {
    assert.ok(Date.now() < end, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A script's own view of its groups at /cg, writable: v2 as a whole, of v1 the memory controller. */
function mountGroups(c: CgroupContext): { readonly script: string; readonly v2: boolean } {
  const v2 = c.driver.mounts({ resources: {}, ownNamespace: true }).some(({ destination, type }) => type === 'cgroup2' && destination === '/sys/fs/cgroup');
  return { v2, script: `busybox mkdir -p /cg; busybox mount -t ${v2 ? 'cgroup2' : 'cgroup -o memory'} cgroup /cg || exit 90` };
}
/** Moves the shell into a group below its own; on v2 what is above gives controllers to its children then, and takes no process any more. */
function nest(c: CgroupContext): string {
  const { script, v2 } = mountGroups(c);
  const join = v2 ? 'cgroup.procs' : 'tasks';
  return [script, 'busybox mkdir /cg/leaf /cg/sub || exit 91', `echo 0 > /cg/leaf/${join} || exit 92`, ...(v2 ? ['echo +memory > /cg/cgroup.subtree_control || exit 93'] : [])].join('\n');
}

export const runningCases: readonly SuiteCase<CgroupContext>[] = [
  {
    name: 'it stands still and goes on; a session is refused meanwhile',
    needs: ['containers', 'freeze'],
    async run(c) {
      const { driver, group } = c;
      const running = await c.runner.start(await c.plan(), 'i=0; while :; do i=$((i+1)); done');
      const used = (): number => driver.stats(group).cpuNanoseconds ?? 0;
      await until(() => used() > 0, 'it runs');
      const stop = driver.freeze?.(group, true) ?? [];
      await c.act(stop);
      assert.equal(driver.isFrozen?.(group), true);
      const before = used();
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.equal(used(), before, 'it still runs');
      await c.act(stop); // once more is success
      await assert.rejects(running.exec([], 'echo never'));
      await c.act(driver.freeze?.(group, false) ?? []);
      await c.act(driver.freeze?.(group, false) ?? []);
      assert.equal(driver.isFrozen?.(group), false);
      await until(() => used() > before, 'it goes on');
      assert.equal((await running.exec([], 'echo again')).output, 'again\n');
      assert.deepEqual((await running.stop()).undoFailures, []);
      assert.deepEqual(driver.list(), []);
    },
  },
  {
    name: 'what stands still can be killed, with all that is in it',
    needs: ['containers', 'freeze'],
    async run(c) {
      const running = await c.runner.start(await c.plan(), `busybox sleep 1000 & busybox setsid busybox sleep 1000 & ${FOREVER}`);
      await c.act(c.driver.freeze?.(c.group, true) ?? []);
      assert.deepEqual((await running.stop()).undoFailures, []);
      assert.deepEqual(c.driver.list(), []);
    },
  },
  {
    name: 'limits of what runs are changed, only those, and changed back by the undo',
    needs: ['containers', 'update', 'resource:memory.limit', 'resource:pids.limit'],
    async run(c) {
      const { driver, group } = c;
      const running = await c.runner.start(await c.plan({ memory: { limit: 64 * MiB }, pids: { limit: 50 } }), FOREVER);
      const limits = () => { const { memoryLimitBytes, pidsLimit } = driver.stats(group); return [memoryLimitBytes, pidsLimit]; };
      assert.deepEqual(limits(), [64 * MiB, 50]);
      const more = (await driver.update?.(group, { memory: { limit: 256 * MiB } })) ?? [];
      await c.act(more);
      assert.deepEqual(limits(), [256 * MiB, 50]);
      await c.act((await driver.update?.(group, { memory: { limit: 32 * MiB }, pids: { limit: 20 } })) ?? []);
      assert.deepEqual(limits(), [32 * MiB, 20]);
      await c.undo(more);
      assert.deepEqual(limits(), [64 * MiB, 20]);
      await failsWith('ERR_INVALID_VALUE', async () => driver.update?.(group, { memory: { limit: 1024 } }));
      await running.stop();
    },
  },
  {
    name: 'processor limits of what runs are changed, together and alone',
    needs: ['containers', 'update', 'resource:cpu.quota', 'resource:cpu.burst', 'resource:cpu.shares'],
    async run(c) {
      const { driver, group } = c;
      const running = await c.runner.start(await c.plan({ cpu: { quota: 50_000, period: 100_000, burst: 40_000 } }), FOREVER);
      for (const cpu of [{ quota: 20_000, burst: 10_000 }, { quota: 80_000, burst: 60_000 }, { period: 50_000 }, { burst: 1000 }, { shares: 512 }, { quota: 30_000 }]) {
        const effects = (await driver.update?.(group, { cpu })) ?? [];
        await c.act(effects);
        await c.undo(effects);
        await c.act(effects);
      }
      await running.stop();
    },
  },
  {
    name: 'a memory limit below what is in use kills nobody',
    needs: ['containers', 'update', 'resource:memory.limit', 'resource:memory.swap'],
    async run(c) {
      const { driver, group } = c;
      const running = await c.runner.start(await c.plan({ memory: { limit: 128 * MiB, swap: 128 * MiB } }), `x=$(busybox yes | busybox head -c 12582912); ${FOREVER}`);
      await until(() => (driver.stats(group).memoryBytes ?? 0) > 11 * MiB, 'it takes memory');
      await assert.rejects(async () => c.act((await driver.update?.(group, { memory: { limit: 7 * MiB } })) ?? []));
      assert.equal((await running.exec([], 'echo lives')).output, 'lives\n');
      assert.notEqual((await running.stop()).exit?.oom?.killed, true);
    },
  },
  {
    name: 'pressure is told',
    needs: ['containers', 'pressure'],
    async run(c) {
      const running = await c.runner.start(await c.plan(), FOREVER);
      const { pressure } = c.driver.stats(c.group);
      for (const kind of ['cpu', 'memory', 'io'] as const) assert.ok((pressure?.[kind]?.some?.total ?? -1) >= 0, kind);
      await running.stop();
    },
  },
  {
    name: 'a process that is killed for memory in a group below says so at the exit',
    needs: ['containers', 'resource:memory.limit', 'oom-events'],
    async run(c) {
      const { v2 } = mountGroups(c);
      const [file, join] = v2 ? ['memory.max', 'cgroup.procs'] : ['memory.limit_in_bytes', 'tasks'];
      const script = `${nest(c)}\necho 16777216 > /cg/sub/${file} || exit 94\n${v2 ? 'echo 0 > /cg/sub/memory.swap.max' : 'echo 16777216 > /cg/sub/memory.memsw.limit_in_bytes'}
        busybox sh -c 'echo 0 > /cg/sub/${join}; x=$(busybox yes | busybox head -c 67108864); echo survived' ; echo code $?; exit 7`;
      const result = await c.runner.run(await c.plan({ memory: { limit: 256 * MiB } }), script);
      assert.ok(result.output.includes('code 137'), result.output + result.errors);
      assert.equal(result.code, 7);
      assert.equal(result.exit?.oom?.killed, true);
      assert.deepEqual(result.undoFailures, []);
      assert.deepEqual(c.driver.list(), []);
    },
  },
  {
    name: 'who ends by itself was not killed for memory',
    needs: ['containers', 'resource:memory.limit', 'oom-events'],
    async run(c) {
      const result = await c.runner.run(await c.plan({ memory: { limit: 64 * MiB } }), 'busybox kill -9 $$');
      assert.notEqual(result.exit?.oom?.killed, true);
    },
  },
  {
    name: 'a session joins init where init is now, and what is nested goes with the group',
    needs: ['containers', 'resource:memory.limit'],
    async run(c) {
      const running = await c.runner.start(await c.plan({ memory: { limit: 256 * MiB } }), `${nest(c)}\n(echo 0 > /cg/sub/${mountGroups(c).v2 ? 'cgroup.procs' : 'tasks'}; exec busybox sleep 1000) &\nbusybox touch /nested; ${FOREVER}`);
      // from outside: a session would be in the way of the groups that are made
      await until(() => existsSync(`/proc/${running.pid}/root/nested`), 'the groups below are made');
      const { output } = await running.exec([], 'busybox cat /proc/self/cgroup; echo; busybox cat /proc/1/cgroup');
      const [mine, init] = output.split('\n\n');
      assert.ok(mine?.includes('/leaf'), output);
      assert.equal(mine?.trim(), init?.trim());
      const { undoFailures } = await running.stop();
      assert.deepEqual(undoFailures, []);
      assert.deepEqual(c.driver.list(), []);
    },
  },
  {
    name: 'a file of the unified hierarchy is written as it is',
    needs: ['containers', 'resource:unified', 'resource:memory.limit'],
    async run(c) {
      const { output } = await c.runner.run(await c.plan({ memory: { limit: 64 * MiB }, unified: { 'memory.high': String(32 * MiB), 'memory.oom.group': '1' } }), `${mountGroups(c).script}; busybox cat /cg/memory.max /cg/memory.high /cg/memory.oom.group`);
      assert.deepEqual(output.trim().split('\n'), [String(64 * MiB), String(32 * MiB), '1']);
      await failsWith('ERR_INVALID_VALUE', () => c.plan({ unified: { 'cgroup.procs': '1' } }));
      await failsWith('ERR_INVALID_VALUE', () => c.plan({ unified: { '../memory.max': '1' } }));
    },
  },
];
