import assert from 'node:assert/strict';
import { failsWith } from '../common/checks.ts';
import { type Suite, type SuiteCase } from '../common/suite.ts';
import { operations } from '../../plan/table.ts';
import { type Step } from '../../plan/types.ts';
import { type GroupRequest } from './index.ts';
import { CgroupContext, MiB, type CgroupFactory } from './suite-context.ts';
import { deviceCases } from './suite-devices.ts';
import { exactCases } from './suite-exact.ts';
import { runningCases } from './suite-running.ts';

export { CgroupContext, type CgroupFactory } from './suite-context.ts';

const inSlot = (steps: readonly Step[], ...slots: string[]): readonly Step[] => steps.filter(({ slot }) => slots.includes(slot));
/** Paths below which the driver makes folders. */
const foldersOf = (steps: readonly Step[]): string[] => inSlot(steps, 'shim.cgroup').filter(({ operation }) => operation.name === 'mkdir').map(({ operation }) => String(operation.args['path']));

const cases: readonly SuiteCase<CgroupContext>[] = [
  {
    name: 'probe answers in words, and an unprivileged engine is told no',
    needs: [],
    async run({ driver, bench }) {
      assert.ok((await driver.probe(bench.deps.machine)).reasons.length > 0);
      assert.equal((await driver.probe({ ...bench.deps.machine, uid: 1000 })).available, false);
    },
  },
  {
    name: 'a group carries instance and run in its name, and every change on the host has an undo or a reason',
    needs: ['available'],
    async run(c) {
      const steps = await c.plan();
      const name = `${c.bench.run.instance}-${c.bench.run.run}`;
      const folders = foldersOf(steps);
      assert.ok(folders.length > 0);
      for (const folder of folders) assert.ok(folder.endsWith(`/${name}`), folder);
      for (const { slot, operation, undo, noUndo } of steps) {
        if (!slot.startsWith('shim.') || !operations[operation.name].changes) continue;
        assert.ok(undo.length > 0 || noUndo, `${operation.name} in ${slot}`);
      }
    },
  },
  {
    name: 'the undo of every group folder removes it, and one of them kills first',
    needs: ['available'],
    async run(c) {
      const made = inSlot(await c.plan(), 'shim.cgroup').filter(({ operation }) => operation.name === 'mkdir');
      for (const { operation, undo } of made) assert.ok(undo.some((u) => u.name === 'cgroupRemove' && u.args['path'] === operation.args['path']), String(operation.args['path']));
      // the undo runs backwards: what was made last is undone first
      const first = made.at(-1)?.undo[0];
      assert.equal(first?.name, 'cgroupKill');
    },
  },
  {
    name: 'folders are made, then limited, then joined; nothing of a group is joined outside init and stage',
    needs: ['available'],
    async run(c) {
      const steps = await c.plan({ devices: [{ allow: false, access: 'rwm' }] });
      const allowed = new Set(['shim.cgroup', 'shim.limits', 'init.cgroup', 'init.namespaces', 'stage.cgroup']);
      for (const { slot } of steps) assert.ok(allowed.has(slot), slot);
      // v2: born inside; v1: init writes itself
      assert.equal(inSlot(steps, 'init.cgroup').length > 0, !steps.some(({ operation }) => operation.name === 'cloneInto'));
      const opened = new Set(inSlot(steps, 'shim.limits').filter(({ operation }) => operation.name === 'open').map(({ operation }) => operation.args['out']));
      for (const { operation } of inSlot(steps, 'init.cgroup')) if (operation.name === 'writeFd') assert.ok(opened.has(operation.args['fd']), String(operation.args['fd']));
    },
  },
  {
    name: 'the cgroup namespace is unshared after joining, and only when it is the container\'s own',
    needs: ['available'],
    async run(c) {
      const unshares = (steps: readonly Step[]) => steps.filter(({ operation }) => operation.name === 'unshare').map(({ slot }) => slot);
      assert.deepEqual(unshares(await c.plan()), ['init.namespaces']);
      assert.deepEqual(unshares(await c.plan({}, { ownNamespace: false })), []);
    },
  },
  {
    name: 'with a stage, the stage joins or is born inside, and init does not join',
    needs: ['available'],
    async run(c) {
      const steps = await c.plan({}, { join: 'stage' });
      assert.ok(inSlot(steps, 'stage.cgroup').length > 0 || steps.some(({ operation }) => operation.name === 'cloneInto'));
      assert.equal(inSlot(steps, 'init.cgroup').length, 0);
    },
  },
  {
    name: 'planning twice gives the same plan',
    needs: ['available'],
    async run(c) {
      assert.deepEqual(await c.plan({ pids: { limit: 10 } }).catch(String), await c.plan({ pids: { limit: 10 } }).catch(String));
    },
  },
  {
    name: 'values out of range are refused by field',
    needs: ['resource:memory.limit'],
    async run(c) {
      await failsWith('ERR_INVALID_VALUE', () => c.plan({ memory: { limit: 1024 } }));
      await failsWith('ERR_INVALID_VALUE', () => c.plan({ memory: { limit: 1.5 * MiB + 0.5 } }));
      if (c.driver.resources.has('cpu.period')) await failsWith('ERR_INVALID_VALUE', () => c.plan({ cpu: { period: 10 } }));
      if (c.driver.resources.has('cpu.cpus')) await failsWith('ERR_INVALID_VALUE', () => c.plan({ cpu: { cpus: '0-;rm' } }));
      if (c.driver.resources.has('memory.swap')) await failsWith('ERR_INVALID_VALUE', () => c.plan({ memory: { limit: 64 * MiB, swap: 32 * MiB } }));
    },
  },
  {
    name: 'what cannot be honoured is refused by name, never ignored',
    needs: ['available', '!resource:rdma'],
    run: (c) => failsWith('ERR_FEATURE_MISSING', () => c.plan({ rdma: { mlx5_0: { hcaHandles: 1 } } })),
  },
  {
    name: 'a parent that leads elsewhere is refused',
    needs: ['available'],
    async run(c) {
      for (const path of ['../x', '/a/../../b']) await failsWith('ERR_INVALID_VALUE', () => c.plan({}, { path }));
    },
  },
  {
    name: 'a parent is a slice, by its name or its path, and nothing else',
    needs: ['available', 'slices'],
    async run(c) {
      const [deep] = foldersOf(await c.plan({}, { path: 'mine-deep.slice' })).slice(-1);
      assert.ok(deep?.includes('/mine.slice/mine-deep.slice/'), deep);
      assert.deepEqual(foldersOf(await c.plan({}, { path: '/mine.slice/mine-deep.slice' })).slice(-1), [deep]);
      for (const path of ['mine', '/mine/deep', '/mine-deep.slice', 'mine-.slice', 'mine--deep.slice', 'mi ne.slice', 'a:b']) await failsWith('ERR_INVALID_VALUE', () => c.plan({}, { path }));
    },
  },
  {
    name: 'a parent is made when it is missing, accepted when it is there, and never removed',
    needs: ['available', '!slices'],
    async run(c) {
      const steps = await c.plan({}, { path: '/mine/deep' });
      const folders = foldersOf(steps);
      assert.ok(folders.some((path) => path.endsWith('/mine')) && folders.some((path) => path.endsWith('/mine/deep')));
      for (const { operation, undo } of inSlot(steps, 'shim.cgroup')) {
        if (!/\/mine(\/deep)?$/.test(String(operation.args['path']))) continue;
        assert.ok(operation.flags?.okExists);
        assert.equal(undo.length, 0);
      }
    },
  },
  {
    name: 'mounts lie at /sys/fs/cgroup and are read-only',
    needs: [],
    run({ driver }) {
      for (const ownNamespace of [true, false]) {
        for (const { destination, options } of driver.mounts({ resources: {}, ownNamespace })) {
          assert.ok(destination === '/sys/fs/cgroup' || destination.startsWith('/sys/fs/cgroup/'), destination);
          assert.ok(options.includes('ro'), destination);
        }
      }
    },
  },
  {
    name: 'a group that is not there has no numbers and is removed without complaint',
    needs: [],
    run({ driver }) {
      assert.deepEqual(driver.stats({ run: 'no-such-run' }), {});
      assert.ok(driver.removeGroup('no-such-run').every(({ operation }) => operation.name === 'cgroupKill' || operation.name === 'cgroupRemove'));
      assert.deepEqual(driver.list(), []);
    },
  },
  {
    name: 'stopping is undone by letting go, and a group that is not there stands not still',
    needs: ['available', 'freeze'],
    run({ driver, bench }) {
      const group = { run: bench.run.run };
      const [stop, ...more] = driver.freeze?.(group, true) ?? [];
      assert.ok(stop && more.length === 0);
      assert.deepEqual([stop.operation.name, stop.operation.args['frozen']], ['cgroupFreeze', 1]);
      assert.deepEqual(stop.undo.map(({ name, args }) => [name, args['frozen'], args['path']]), [['cgroupFreeze', 0, stop.operation.args['path']]]);
      assert.deepEqual(driver.freeze?.(group, false).map(({ operation: { name, args } }) => [name, args['frozen']]), [['cgroupFreeze', 0]]);
      assert.equal(driver.isFrozen?.(group), false);
    },
  },
  {
    name: 'limits of a group that is not there cannot be changed, nor those that it could not have',
    needs: ['available', 'update'],
    async run({ driver }) {
      const update = async (resources: GroupRequest['resources']) => driver.update?.({ run: 'no-such-run' }, resources);
      await failsWith('ERR_NOT_RUNNING', () => update({}));
      if (!driver.resources.has('network.classID')) await failsWith('ERR_FEATURE_MISSING', async () => driver.update?.({ run: 'no-such-run' }, { network: { classID: 1 } }));
    },
  },
  {
    name: 'a container runs in its group, counted, and nothing is left of it',
    needs: ['containers'],
    async run(c) {
      const running = await c.runner.start(await c.plan(), 'while :; do sleep 1; done');
      assert.deepEqual(c.driver.list(), [c.bench.run.run]);
      const stats = c.driver.stats({ run: c.bench.run.run });
      assert.ok((stats.pids ?? 1) >= 1);
      const { undoFailures } = await running.stop();
      assert.deepEqual(undoFailures, []);
      assert.deepEqual(c.driver.list(), []);
    },
  },
  {
    name: 'it sees itself at the root of its cgroup namespace',
    needs: ['containers'],
    async run(c) {
      const { output, failure } = await c.runner.run(await c.plan(), 'cat /proc/self/cgroup');
      assert.equal(failure, undefined);
      assert.ok(!output.includes(c.bench.run.instance), output);
      const shared = await c.runner.run(await c.plan({}, { ownNamespace: false }), 'cat /proc/self/cgroup');
      assert.ok(shared.output.includes(`${c.bench.run.instance}-${c.bench.run.run}`), shared.output);
    },
  },
  {
    name: 'pids.limit stops a fork bomb, and what it left is killed with the group',
    needs: ['containers', 'resource:pids.limit'],
    async run(c) {
      const { output, errors, undoFailures } = await c.runner.run(await c.plan({ pids: { limit: 10 } }), 'i=0; while [ $i -lt 30 ]; do sleep 300 & i=$((i+1)); done; echo never');
      assert.ok(!output.includes('never') || /fork/.test(errors), output + errors);
      assert.match(errors, /fork/);
      assert.deepEqual(undoFailures, []);
      assert.deepEqual(c.driver.list(), []);
    },
  },
  {
    name: 'memory.limit holds, and the exit says that it was that',
    needs: ['containers', 'resource:memory.limit', 'oom-events'],
    async run(c) {
      const limit = 16 * MiB;
      const swap = c.driver.resources.has('memory.swap') ? { swap: limit } : {};
      const result = await c.runner.run(await c.plan({ memory: { limit, ...swap } }), 'x=$(yes | head -c 67108864); echo survived');
      assert.ok(!result.output.includes('survived'), 'the limit did not hold');
      assert.equal(result.code, 137);
      assert.equal(result.exit?.oom?.killed, true);
      assert.deepEqual(result.undoFailures, []);
    },
  },
  {
    name: 'a session joins the group of its container',
    needs: ['containers'],
    async run(c) {
      const running = await c.runner.start(await c.plan(), 'while :; do sleep 1; done');
      const { output } = await running.exec([], 'cat /proc/self/cgroup; cat /proc/1/cgroup');
      const lines = output.trim().split('\n');
      assert.deepEqual(lines.slice(0, lines.length / 2), lines.slice(lines.length / 2));
      await running.stop();
    },
  },
  ...runningCases,
  ...exactCases,
  ...deviceCases,
];

/** The conformance suite of contract `cgroup`: plans on a fake machine, and real containers where the factory has a runner. */
export const cgroupSuite: Suite<CgroupFactory, CgroupContext> = {
  contract: 'cgroup',
  cases,
  async open(factory) {
    const bench = await factory.bench();
    const driver = factory.create(bench.deps);
    const { available } = await driver.probe(bench.deps.machine);
    return new CgroupContext(bench, driver, factory.containers, available);
  },
};
