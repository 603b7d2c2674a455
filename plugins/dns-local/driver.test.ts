import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'vitest';
import { apply } from '@engine/core/contracts/common/suite';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { dnsSuite, DnsContext } from '@engine/core/contracts/dns/suite';
import { createLocalDns } from './driver.ts';

describeSuite('local on a fake machine', dnsSuite, { bench: () => fakeBench(), create: createLocalDns });

it('to ask for a network that is known is to be told that nothing is to be done, at once', async () => {
  const bench = await fakeBench();
  const c = new DnsContext(bench, createLocalDns(bench.deps));
  await apply(bench, c.driver.ensure(c.network()));
  assert.deepEqual(c.driver.ensure(c.network()), []);
  await bench.close();
});

it('doctor is told of a network on whose gateway nobody answers while containers run', async () => {
  const bench = await fakeBench();
  const c = new DnsContext(bench, createLocalDns(bench.deps));
  await apply(bench, c.driver.ensure(c.network()));
  const udp = (...lines: string[]) => ({ ...bench.deps.machine, read: (path: string) => (path === '/proc/net/udp' ? ['  sl  local_address rem_address', ...lines, ''].join('\n') : undefined) });
  const reasons = async (...lines: string[]) => (await c.driver.probe(udp(...lines))).reasons;
  assert.equal((await reasons()).length, 1);
  mkdirSync(join(bench.deps.machine.runRoot, 'runs/r1'), { recursive: true });
  assert.match((await reasons())[1] ?? '', /network mynet: nobody answers on 10\.9\.0\.1 port 53/);
  assert.equal((await reasons('  12: 0100090A:0035 00000000:0000 07')).length, 1);
  assert.equal((await reasons('  12: 0100090A:0036 00000000:0000 07')).length, 2);
  await bench.close();
});
