import { type CgroupDriver } from '../contracts/cgroup/index.ts';
import { type Core } from './core.ts';
import { type ResolvedDriver } from './parts.ts';

export interface OrphanGroup { readonly cgroup: ResolvedDriver<CgroupDriver>; readonly run: string }

/** Cgroups of this instance whose run has no folder any more: somebody deleted the run root under a container. */
export async function orphanGroups(core: Core): Promise<readonly OrphanGroup[]> {
  const { machine, state } = core.parts;
  const found: OrphanGroup[] = [];
  for (const cgroup of await core.registry.all('cgroup')) {
    if ((await cgroup.driver.probe(machine)).available) found.push(...cgroup.driver.list().map((run) => ({ cgroup, run })));
  }
  // read after the groups: a run has its folder before its group
  const runs = new Set(state.runs.list().map(({ record }) => record.run));
  return found.filter(({ run }) => !runs.has(run));
}

/** Kill what is in them, and remove them. Only when asked to: they may belong to an engine with the same root and another run root. */
export async function sweepGroups(core: Core): Promise<void> {
  const groups = await orphanGroups(core);
  if (groups.length === 0) return;
  await core.transact('remove cgroups of no run', async (transaction) => {
    for (const { cgroup, run } of groups) transaction.effects(cgroup.choice.plugin).onCommit(cgroup.driver.removeGroup(run));
    await transaction.commit(() => {});
  });
}
