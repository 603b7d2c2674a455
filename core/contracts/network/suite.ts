import assert from 'node:assert/strict';
import { readlinkSync } from 'node:fs';
import { failsWith } from '../common/checks.ts';
import { type ContainerRunner, type RunningContainer } from '../common/containers.ts';
import { type DriverDeps } from '../common/index.ts';
import { type Bench, type Suite, type SuiteCase, type SuiteContext } from '../common/suite.ts';
import { operations } from '../../plan/table.ts';
import { type Step } from '../../plan/types.ts';
import { type EndpointRequest, type NetworkDriver, type NetworkRecord } from './index.ts';
import { managedCases } from './suite-managed.ts';

export interface NetworkFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps): NetworkDriver;
  /** A value of `--network` that the driver serves; default its name. */
  readonly mode?: string;
  /** Gives ability `containers`. */
  readonly containers?: ContainerRunner;
  /** For drivers with feature `networks` at level 1: the kernel that the driver reads has this network from now on, as its effects would have made it. */
  present?(driver: NetworkDriver, network: NetworkRecord): void;
}
const CLONE_NEWNET = 0x40000000;

export class NetworkContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: NetworkDriver;
  readonly mode: string;
  readonly containers: ContainerRunner | undefined;
  readonly factory: NetworkFactory;

  constructor(bench: Bench, driver: NetworkDriver, factory: NetworkFactory) {
    this.bench = bench;
    this.driver = driver;
    this.mode = factory.mode ?? driver.name;
    this.containers = factory.containers;
    this.factory = factory;
  }
  has(need: string): boolean {
    return need === 'containers' ? this.containers !== undefined : this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  get runner(): ContainerRunner {
    assert.ok(this.containers);
    return this.containers;
  }
  request(more: Partial<EndpointRequest> = {}): EndpointRequest {
    const target = this.has('shares') ? { target: { container: 'other', pid: 4242, startTime: 77n } } : {};
    return { mode: this.mode, hostname: 'box', ports: [], options: {}, ...target, ...more };
  }
  async plan(more: Partial<EndpointRequest> = {}): Promise<readonly Step[]> {
    return this.driver.planEndpoint(this.request(more), this.bench.run);
  }
  /** Namespaces that the core would make for this driver's containers. */
  get namespaces(): number {
    return this.driver.namespace(this.request()).kind === 'new' ? CLONE_NEWNET : 0;
  }
  close(): Promise<void> {
    return this.bench.close();
  }
}

const ports: EndpointRequest['ports'] = [{ containerPort: 80, hostPort: 8080, protocol: 'tcp' }];
const networkOf = (pid: number | 'self'): string => readlinkSync(`/proc/${pid}/ns/net`);

const cases: readonly SuiteCase<NetworkContext>[] = [
  {
    name: 'probe answers in words',
    needs: [],
    async run({ driver, bench }) {
      assert.ok((await driver.probe(bench.deps.machine)).reasons.length > 0);
    },
  },
  {
    name: 'it serves its own mode and no foreign one',
    needs: [],
    run({ driver, mode }) {
      // networks with a record are found by it
      assert.equal(driver.serves(mode), driver.managed === undefined);
      for (const other of ['', 'no such network', 'container', '../x']) assert.ok(!driver.serves(other), other);
    },
  },
  {
    name: 'its features say what its namespace is',
    needs: [],
    run(c) {
      const { kind } = c.driver.namespace(c.request());
      assert.equal(kind === 'new', c.has('own-netns'));
      assert.equal(kind === 'container', c.has('shares'));
    },
  },
  {
    name: 'steps lie in slots for networks, and what changes the host has an undo or a reason',
    needs: [],
    async run(c) {
      const allowed = new Set(['shim.links', 'shim.namespaces', 'shim.attach', 'init.namespaces', 'init.netns']);
      for (const { slot, operation, undo, noUndo } of await c.plan()) {
        assert.ok(allowed.has(slot), slot);
        if (slot.startsWith('shim.') && operations[operation.name].changes) assert.ok(undo.length > 0 || noUndo, operation.name);
      }
    },
  },
  {
    name: 'planning twice gives the same plan',
    needs: [],
    async run(c) {
      assert.deepEqual(await c.plan(), await c.plan());
    },
  },
  {
    name: 'without a namespace of its own it changes no interface',
    needs: ['!own-netns'],
    async run(c) {
      assert.ok((await c.plan()).every(({ operation }) => operation.name !== 'netlink'));
    },
  },
  {
    name: 'the namespace that is joined belongs to one process, not to a number',
    needs: ['shares'],
    async run(c) {
      const steps = await c.plan();
      const opened = steps.find(({ operation }) => operation.name === 'openNamespace');
      assert.deepEqual([opened?.slot, opened?.operation.args['pid'], opened?.operation.args['startTime']], ['shim.namespaces', 4242, 77n]);
      const joined = steps.find(({ operation }) => operation.name === 'joinNamespace');
      assert.deepEqual([joined?.slot, joined?.operation.args['fd']], ['init.namespaces', opened?.operation.args['out']]);
    },
  },
  {
    name: 'a target that does not run, and ports on somebody else\'s network, are refused',
    needs: ['shares'],
    async run(c) {
      const { target: _, ...without } = c.request();
      await failsWith('ERR_NOT_RUNNING', () => c.driver.planEndpoint(without, c.bench.run));
      await failsWith('ERR_INVALID_VALUE', () => c.plan({ ports }));
    },
  },
  {
    name: 'ports that cannot be published do not stop a container',
    needs: ['!ports', '!shares'],
    async run(c) {
      assert.deepEqual(await c.plan({ ports }), await c.plan());
    },
  },
  {
    name: 'lo is up in a namespace of its own, whatever else is there',
    needs: ['containers', 'own-netns'],
    async run(c) {
      const { output, failure } = await c.runner.run(await c.plan(), 'readlink /proc/self/ns/net; ip addr show dev lo', { namespaces: c.namespaces });
      assert.equal(failure, undefined);
      assert.ok(!output.includes(networkOf('self')), 'the host\'s own namespace');
      assert.match(output, /UP/);
      assert.match(output, /inet 127\.0\.0\.1\/8/);
    },
  },
  {
    name: 'the host\'s network is the host\'s',
    needs: ['containers', '!own-netns', '!shares'],
    async run(c) {
      const { output } = await c.runner.run(await c.plan(), 'readlink /proc/self/ns/net', { namespaces: c.namespaces });
      assert.equal(output.trim(), networkOf('self'));
    },
  },
  {
    name: 'another container\'s namespace is joined, and outlives it for those who share it',
    needs: ['containers', 'shares'],
    async run(c) {
      const target = await c.runner.start([], 'while :; do sleep 1; done', { namespaces: CLONE_NEWNET });
      const network = networkOf(target.pid);
      let sharing: RunningContainer | undefined;
      try {
        sharing = await c.runner.start(await c.plan({ target: { container: 'other', pid: target.pid, startTime: target.startTime } }), 'while :; do sleep 1; done');
        assert.equal(networkOf(sharing.pid), network);
      } finally {
        await target.stop();
      }
      assert.equal(networkOf(sharing.pid), network);
      assert.equal((await sharing.exec([], 'readlink /proc/self/ns/net')).output.trim(), network);
      assert.deepEqual((await sharing.stop()).undoFailures, []);
    },
  },
  {
    name: 'a pid that another process has got since is not joined',
    needs: ['containers', 'shares'],
    async run(c) {
      const target = await c.runner.start([], 'while :; do sleep 1; done', { namespaces: CLONE_NEWNET });
      try {
        const { failure } = await c.runner.run(await c.plan({ target: { container: 'other', pid: target.pid, startTime: target.startTime + 1n } }), 'true');
        assert.equal(failure?.errno, 3);
      } finally {
        await target.stop();
      }
    },
  },
];

/** The conformance suite of contract `network`. */
export const networkSuite: Suite<NetworkFactory, NetworkContext> = {
  contract: 'network',
  cases: [...cases, ...managedCases],
  async open(factory) {
    const bench = await factory.bench();
    return new NetworkContext(bench, factory.create(bench.deps), factory);
  },
};
