import assert from 'node:assert/strict';
import { operations } from '../../plan/table.ts';
import { type SuiteCase } from '../common/suite.ts';
import { type FirewallContext } from './suite.ts';
import { type BoundPort } from '../network/records.ts';

const port = (hostPort: number, more: Partial<BoundPort> = {}): BoundPort => ({ protocol: 'tcp', hostAddress: '0.0.0.0', hostPort, containerPort: 80, ...more });
const some = [port(8080), port(8080, { hostAddress: '::' }), port(5353, { protocol: 'udp', containerPort: 53 }), port(9000, { hostAddress: '127.0.0.1' }), port(9000, { protocol: 'sctp' })];

/** What a driver says it would do. */
export const planCases: readonly SuiteCase<FirewallContext>[] = [
  {
    name: 'probe answers in words',
    needs: [],
    async run({ driver, bench }) {
      assert.ok((await driver.probe(bench.deps.machine)).reasons.length > 0);
    },
  },
  {
    name: 'steps lie in slots of the host, and what changes it has an undo',
    needs: [],
    run(c) {
      const network = c.network(1);
      for (const { slot, operation, undo, noUndo } of c.plan(c.endpoint(network, some), network)) {
        assert.ok(['shim.links', 'shim.attach'].includes(slot), slot);
        if (operations[operation.name].changes) assert.ok(undo.length > 0 || noUndo, operation.name);
      }
    },
  },
  {
    name: 'planning twice gives the same plan, and two runs never the same file',
    needs: [],
    run(c) {
      const network = c.network(1);
      const [one, two] = [c.endpoint(network, some), c.endpoint(network, some)];
      assert.deepEqual(c.plan(one, network), c.plan(one, network));
      const paths = (endpoint: typeof one): string[] => c.plan(endpoint, network).filter(({ operation }) => operation.name === 'writeFile').map(({ operation }) => String(operation.args['path']));
      assert.deepEqual(paths(one).filter((path) => paths(two).includes(path)), []);
    },
  },
  {
    name: 'without ports nothing is planned for them, however many there are',
    needs: ['!ports'],
    run(c) {
      const network = c.network(1);
      assert.deepEqual(c.plan(c.endpoint(network, some), network), []);
    },
  },
  {
    name: 'five hundred ports are as many operations as one',
    needs: ['ports', 'restore'],
    run(c) {
      const network = c.network(1);
      const many = Array.from({ length: 500 }, (_, i) => port(10_000 + i));
      assert.equal(c.plan(c.endpoint(network, many), network).length, c.plan(c.endpoint(network, [port(80)]), network).length);
    },
  },
];
