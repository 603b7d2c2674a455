import assert from 'node:assert/strict';
import { type ContainerRunner } from '../common/containers.ts';
import { type DriverDeps } from '../common/index.ts';
import { type Bench, type Suite, type SuiteCase, type SuiteContext } from '../common/suite.ts';
import { operations } from '../../plan/table.ts';
import { type Step } from '../../plan/types.ts';
import { type Spec } from '../../spec/index.ts';
import { isEngineError } from '../../errors/index.ts';
import { type SecurityDriver, type SecurityRequest } from './index.ts';

export interface SecurityFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps): SecurityDriver;
  /** Gives ability `containers`. */
  readonly containers?: ContainerRunner;
}

export class SecurityContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: SecurityDriver;
  readonly containers: ContainerRunner | undefined;
  /** Does the driver work on the bench's machine? */
  readonly available: boolean;

  constructor(bench: Bench, driver: SecurityDriver, containers: ContainerRunner | undefined, available: boolean) {
    this.bench = bench;
    this.driver = driver;
    this.containers = containers;
    this.available = available;
  }
  has(need: string): boolean {
    if (need === 'available') return this.available;
    if (need === 'containers') return this.containers !== undefined && this.available;
    if (need === 'option') return this.driver.option !== undefined;
    return this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  get runner(): ContainerRunner {
    assert.ok(this.containers);
    return this.containers;
  }
  async configure(request: Partial<SecurityRequest> = {}, spec: Spec = plainSpec()): Promise<Spec> {
    return this.driver.configure(deepFreeze(structuredClone(spec)), { privileged: false, capAdd: [], capDrop: [], options: [], ...request });
  }
  async plan(spec: Spec, part: 'init' | 'exec' = 'init', more: { readonly noNewPrivileges?: boolean; readonly privilegedExec?: boolean } = {}): Promise<readonly Step[]> {
    return this.driver.planProcess(deepFreeze(structuredClone(spec)), { part, noNewPrivileges: false, privilegedExec: false, ...more }, this.bench.run);
  }
  close(): Promise<void> {
    return this.bench.close();
  }
}

/** What security drivers meet when they come first. */
export function plainSpec(): Spec {
  return { ociVersion: '1.2.0', process: { cwd: '/', args: ['true'], env: [], user: { username: '0' } }, linux: { namespaces: [{ type: 'mount' }] } };
}

/** Specs are frozen between taps: a driver that changes its argument is found out. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}

const slotNames = ['bounds', 'label', 'seccomp-early', 'identity', 'seccomp'];
/** The same step in the other part. */
const bare = ({ slot, operation }: Step): unknown => [slot.slice(slot.indexOf('.') + 1), operation];

const cases: readonly SuiteCase<SecurityContext>[] = [
  {
    name: 'probe answers in words',
    needs: [],
    async run({ driver, bench }) {
      assert.ok((await driver.probe(bench.deps.machine)).reasons.length > 0);
    },
  },
  {
    name: 'configure leaves its argument alone, and what is not its own too',
    needs: [],
    async run(c) {
      const spec = { ...plainSpec(), hostname: 'box', annotations: { a: 'b' }, mounts: [{ destination: '/x', type: 'tmpfs' }] };
      const configured = await c.configure({}, spec);
      for (const key of ['hostname', 'annotations', 'mounts', 'ociVersion'] as const) assert.deepEqual(configured[key], spec[key]);
      assert.deepEqual(configured.process?.args, ['true']);
    },
  },
  {
    name: 'configuring twice is configuring once',
    needs: [],
    async run(c) {
      const once = await c.configure();
      assert.deepEqual(await c.configure({}, once), once);
      const open = await c.configure({ privileged: true });
      assert.deepEqual(await c.configure({ privileged: true }, open), open);
    },
  },
  {
    name: 'what it adds is plain data',
    needs: [],
    async run(c) {
      const configured = await c.configure();
      assert.deepEqual(JSON.parse(JSON.stringify(configured)), configured);
    },
  },
  {
    name: 'steps lie in the slots for security, of the part that was asked for, and change nothing on the host',
    needs: ['available'],
    async run(c) {
      const spec = await c.configure();
      for (const part of ['init', 'exec'] as const) {
        for (const noNewPrivileges of [false, true]) {
          for (const { slot, operation } of await c.plan(spec, part, { noNewPrivileges })) {
            assert.ok(slotNames.some((name) => slot === `${part}.${name}`), slot);
            assert.equal(operations[operation.name].changes, false, operation.name);
          }
        }
      }
    },
  },
  {
    name: 'a session is treated as the container\'s first process is',
    needs: ['available'],
    async run(c) {
      const spec = await c.configure();
      for (const noNewPrivileges of [false, true]) assert.deepEqual((await c.plan(spec, 'exec', { noNewPrivileges })).map(bare), (await c.plan(spec, 'init', { noNewPrivileges })).map(bare));
    },
  },
  {
    name: 'a spec without its sections is planned without complaint',
    needs: [],
    async run(c) {
      assert.ok(Array.isArray(await c.plan(plainSpec())));
    },
  },
  {
    name: 'an option with a value that means nothing is refused by name',
    needs: ['option'],
    async run(c) {
      await assert.rejects(async () => c.configure({ options: [`${c.driver.option}=/no/such/thing at all`] }), (error: unknown) => isEngineError(error) && error.message.includes('/no/such/thing at all'));
    },
  },
  {
    name: 'options of others are none of its business',
    needs: [],
    async run(c) {
      assert.deepEqual(await c.configure({ options: ['someone-elses=value', 'label'] }), await c.configure());
    },
  },
  {
    name: 'a program starts under it, as root and as somebody, and so does a session',
    needs: ['containers'],
    async run(c) {
      for (const noNewPrivileges of [false, true]) {
        for (const user of ['0', 'bob']) {
          const spec = await c.configure();
          const named: Spec = { ...spec, process: { ...(spec.process ?? { cwd: '/', user: {} }), user: { username: user } } };
          const running = await c.runner.start(await c.plan(named, 'init', { noNewPrivileges }), 'while :; do sleep 1; done', { user });
          const session = await running.exec(await c.plan(spec, 'exec', { noNewPrivileges }), 'echo hello');
          const { undoFailures } = await running.stop();
          assert.deepEqual([session.output, session.code, undoFailures], ['hello\n', 0, []], `no-new-privs ${noNewPrivileges}, user ${user}`);
        }
      }
    },
  },
];

/** The conformance suite of contract `security`. */
export const securitySuite: Suite<SecurityFactory, SecurityContext> = {
  contract: 'security',
  cases,
  async open(factory) {
    const bench = await factory.bench();
    const driver = factory.create(bench.deps);
    const { available } = await driver.probe(bench.deps.machine);
    return new SecurityContext(bench, driver, factory.containers, available);
  },
};
