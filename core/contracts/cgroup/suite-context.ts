import assert from 'node:assert/strict';
import { type ContainerRunner } from '../common/containers.ts';
import { type DriverDeps } from '../common/index.ts';
import { type Bench, type SuiteContext } from '../common/suite.ts';
import { type Effect, type Step } from '../../plan/types.ts';
import { type CgroupDriver, type GroupRef, type GroupRequest } from './index.ts';

export interface CgroupFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps): CgroupDriver;
  /** Gives ability `containers`. */
  readonly containers?: ContainerRunner;
}
export const MiB = 1 << 20;

export class CgroupContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: CgroupDriver;
  readonly containers: ContainerRunner | undefined;
  /** Does the driver work on the bench's machine? */
  readonly available: boolean;

  constructor(bench: Bench, driver: CgroupDriver, containers: ContainerRunner | undefined, available: boolean) {
    this.available = available;
    this.bench = bench;
    this.driver = driver;
    this.containers = containers;
  }
  /** `resource:memory.limit`: the driver can honour that field here. */
  has(need: string): boolean {
    if (need === 'available') return this.available;
    if (need === 'containers') return this.containers !== undefined && this.available;
    if (need.startsWith('resource:')) return this.driver.resources.has(need.slice(9));
    return this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  get runner(): ContainerRunner {
    assert.ok(this.containers);
    return this.containers;
  }
  async plan(resources: GroupRequest['resources'] = {}, more: Partial<GroupRequest> = {}): Promise<readonly Step[]> {
    return this.driver.planGroup({ resources, ownNamespace: true, ...more }, this.bench.run);
  }
  /** The group that {@link plan} makes. */
  get group(): GroupRef {
    return { run: this.bench.run.run };
  }
  /** Effects of the driver, done now. */
  async act(effects: readonly Effect[]): Promise<void> {
    await this.bench.operations(effects.map(({ operation }) => operation));
  }
  /** What takes them back, done now. */
  async undo(effects: readonly Effect[]): Promise<void> {
    await this.bench.operations(effects.toReversed().flatMap(({ undo }) => undo));
  }
  async close(): Promise<void> {
    // what a failed case has left is not to meet the next one
    for (const run of this.has('containers') ? this.driver.list() : []) await this.bench.operations(this.driver.removeGroup(run).map(({ operation }) => operation)).catch(() => {});
    await this.bench.close();
  }
}
