import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { isEngineError } from '../../errors/index.ts';
import { type RunningContainer } from '../common/containers.ts';
import { failsWith } from '../common/checks.ts';
import { type SuiteCase } from '../common/suite.ts';
import { op } from '../../plan/build.ts';
import { type Step } from '../../plan/types.ts';
import { type GroupRef } from './index.ts';
import { MiB, type CgroupContext } from './suite-context.ts';

const FOREVER = 'while :; do sleep 1; done';

/** A group `name` of a bundle, below a parent that only this test has. */
const pathOf = (c: CgroupContext, name: string): string => (c.has('slices') ? `system.slice:suite-${c.bench.run.instance}:${name}` : `/suite-${c.bench.run.instance}/pod/${name}`);
const groupOf = (c: CgroupContext, name: string): GroupRef => ({ run: c.bench.run.run, path: pathOf(c, name), exact: true });
const planOf = async (c: CgroupContext, name: string, resources = {}): Promise<readonly Step[]> => c.plan(resources, { path: pathOf(c, name), exact: true });
/** Folders of the group that a plan makes: what its undo removes. */
const removedBy = (steps: readonly Step[]): string[] => steps.flatMap(({ undo }) => undo.filter(({ name }) => name === 'cgroupRemove').map(({ args }) => String(args['path'])));
/** Parents that a plan makes, the outermost first; a slice is systemd's. */
const parentsOf = (steps: readonly Step[]): string[] => steps.filter(({ operation, undo }) => operation.name === 'mkdir' && undo.length === 0).map(({ operation }) => String(operation.args['path']));
const removeParents = async (c: CgroupContext, steps: readonly Step[]): Promise<void> => c.bench.operations(parentsOf(steps).toReversed().map((path) => op.cgroupRemove({ path, deadline: 5000 })));

/** Of `a`, with a limit of 64 MiB and 20 processes. */
async function whileRunning(c: CgroupContext, running: RunningContainer, group: GroupRef): Promise<void> {
  const { driver } = c;
  const { memoryLimitBytes, pidsLimit, pids } = driver.stats(group);
  assert.deepEqual([memoryLimitBytes, pidsLimit], [64 * MiB, 20]);
  assert.ok((pids ?? 0) >= 1, String(pids));
  assert.deepEqual(driver.list(), []);
  const { output } = await running.exec([], 'busybox cat /proc/self/cgroup; echo; busybox cat /proc/1/cgroup');
  const [mine, init] = output.split('\n\n');
  assert.equal(mine?.trim(), init?.trim());
  if (driver.update) {
    await c.act(await driver.update(group, { pids: { limit: 30 } }));
    assert.equal(driver.stats(group).pidsLimit, 30);
  }
  if (driver.freeze) {
    await c.act(driver.freeze(group, true));
    assert.equal(driver.isFrozen?.(group), true);
    await c.act(driver.freeze(group, false));
  }
  // whose it is does not matter
  await failsWith('ERR_IN_USE', () => planOf(c, 'a'));
}

export const exactCases: readonly SuiteCase<CgroupContext>[] = [
  {
    name: 'exact: the path is the group itself, whoever runs in it; its undo kills there and removes it, and never a parent',
    needs: ['available'],
    async run(c) {
      const steps = await planOf(c, 'web');
      const folders = removedBy(steps);
      assert.ok(folders.length > 0);
      for (const folder of folders) assert.ok(folder.endsWith(c.has('slices') ? `/system.slice/suite-${c.bench.run.instance}-web.scope` : `/suite-${c.bench.run.instance}/pod/web`), folder);
      const kills = steps.flatMap(({ undo }) => undo).filter(({ name }) => name === 'cgroupKill').map(({ args }) => String(args['path']));
      assert.ok(kills.length > 0 && kills.every((path) => folders.includes(path)), kills.join());
      assert.ok(!JSON.stringify(steps.map(({ operation }) => operation.args['path'])).includes(c.bench.run.run));
      for (const { operation } of steps) if (operation.name === 'mkdir') assert.ok(operation.flags?.okExists, String(operation.args['path']));
    },
  },
  {
    name: 'exact: a path that leads elsewhere, to a whole hierarchy, or to nothing that can be is refused',
    needs: ['available'],
    async run(c) {
      const paths = c.has('slices')
        ? ['/a/b', 'a.slice', 'system.slice', 'a:b', 'a:b:c:d', '../a.slice:b:c', '/a.slice:b:c', 'a.slice:b:', 'a--b.slice:c:d', 'a.slice:b:c.slice', 'a/b.slice:c:d', 'a\0.slice:b:c']
        : ['/', '//', '../x', '/a/../../b', '/..', '.', '/a/./b', 'a.slice:b:c', '/a\0b'];
      for (const path of paths) await assert.rejects(async () => c.plan({}, { path, exact: true }), (error) => isEngineError(error, 'ERR_INVALID_VALUE') || isEngineError(error, 'ERR_NOT_SUPPORTED'), JSON.stringify(path));
    },
  },
  {
    name: 'exact: it runs there, counted, changed and stopped there; what is made inside goes with it, and what is above stays',
    needs: ['containers', 'resource:memory.limit', 'resource:pids.limit'],
    async run(c) {
      const steps = await planOf(c, 'a', { memory: { limit: 64 * MiB }, pids: { limit: 20 } });
      const group = groupOf(c, 'a');
      const running = await c.runner.start(steps, FOREVER);
      try {
        await whileRunning(c, running, group);
        await c.bench.operations(removedBy(steps).flatMap((path) => [op.mkdir({ path: `${path}/in`, mode: 0o755 }), op.mkdir({ path: `${path}/in/deeper`, mode: 0o755 })]));
      } finally {
        const { undoFailures } = await running.stop();
        const left = removedBy(steps).filter((path) => existsSync(path));
        const gone = parentsOf(steps).filter((path) => !existsSync(path));
        await removeParents(c, steps);
        assert.deepEqual([undoFailures, left, gone], [[], [], []]);
      }
      assert.deepEqual(c.driver.stats(group), {});
    },
  },
  {
    name: 'exact: one that is there and empty is taken; of two below one parent, the end of one leaves the other',
    needs: ['containers', '!slices'],
    async run(c) {
      const one = await planOf(c, 'one');
      const two = await planOf(c, 'two');
      try {
        await c.bench.operations(one.filter(({ operation }) => operation.name === 'mkdir').map(({ operation }) => operation));
        const first = await c.runner.start(await planOf(c, 'one'), FOREVER);
        const second = await c.runner.start(two, FOREVER);
        assert.deepEqual((await first.stop()).undoFailures, []);
        assert.ok(removedBy(one).every((path) => !existsSync(path)) && removedBy(two).every((path) => existsSync(path)));
        assert.equal((await second.exec([], 'echo lives')).output, 'lives\n');
        assert.deepEqual((await second.stop()).undoFailures, []);
      } finally {
        await removeParents(c, two);
      }
    },
  },
];
