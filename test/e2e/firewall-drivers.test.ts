/** The firewall drivers beside nftables, by configuration alone: who reaches a published port, as whom, and what is left. */
import { afterEach, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet } from '../helpers/net.ts';
import { addressOf, call, endpointOf, serve } from '../helpers/networks.ts';
import { missingPeers } from '../helpers/peers.ts';
import { client, makeWorld, type Host, type World } from '../helpers/world.ts';

let world: World | undefined;
async function make(config: string): Promise<{ engine: TestEngine; world: World; outside: Host }> {
  const made = (world = await makeWorld({ hosts: ['outside'] }));
  const engine = made.engine({ config });
  await made.host('outside').serve('tcp/80');
  await importNet(engine);
  await engine.ok('network', 'create', 'front');
  await serve(engine, 'server', ['--network', 'front', '-p', '8080:80', '-p', '127.0.0.1:8081:80'], 'tcp/80');
  return { engine, world: made, outside: made.host('outside') };
}
afterEach(async () => {
  await world?.close();
  world = undefined;
});

for (const variant of ['nft', 'legacy'] as const) {
  const missing = missingPeers(`iptables-${variant}-restore`, `ip6tables-${variant}-restore`);
  describe.skipIf(missing.length > 0)(`iptables (${variant})${missing.length ? ` (missing: ${missing.join(', ')})` : ''}`, () => {
    it('keeps the client\'s address, is put back after a flush by the next start, and leaves no rule', async () => {
      const { engine, world: { machine }, outside } = await make(`drivers: { firewall: iptables }\noptions: { firewall-iptables: { variant: ${variant} } }\n`);
      const { Gateway: gateway } = await endpointOf(engine, 'server', 'front');
      const ask = async (): Promise<string> => client(await outside.call('tcp', outside.machine, 8080));
      expect(await ask()).toBe(outside.address);
      expect(client(await machine.call('tcp', '127.0.0.1', 8081))).toBe(gateway);
      expect(client(await machine.call('tcp', '::1', 8080))).toBe(gateway);
      expect(await outside.call('tcp', outside.machine, 8081)).toContain('ECONNREFUSED');
      expect(client(await call(engine, 'server', 'tcp', outside.address, 80))).toBe(outside.machine);
      expect(await engine.ok('network', 'why', '8080')).toMatch(new RegExp(`everyone[^]*by iptables-${variant} -t nat .*--dport 8080`));

      await machine.sh(['', '-t nat', '-t mangle'].flatMap((table) => [`iptables-${variant} ${table} -F`, `iptables-${variant} ${table} -X`]).join('; '));
      expect(await engine.ok('network', 'why', '8080')).toMatch(/has no .* now/);
      expect(await ask()).toBe(gateway);
      await engine.ok('run', '--rm', '--network', 'front', 'net', 'true');
      expect(await ask()).toBe(outside.address);
      expect(client(await call(engine, 'server', 'tcp', outside.address, 80))).toBe(outside.machine);

      await engine.ok('rm', '-f', 'server');
      await engine.ok('network', 'rm', 'front');
      expect((await machine.sh(`iptables-${variant}-save; ip6tables-${variant}-save`)).split('\n').filter((line) => line.includes(engine.instance.slice(-8)))).toEqual([]);
    });
  });
}

describe('none', () => {
  it('has ports by the relay, says what is lacking, and makes no rule', async () => {
    const { engine, world: { machine }, outside } = await make('drivers: { firewall: none }\n');
    const { Gateway: gateway } = await endpointOf(engine, 'server', 'front');
    for (const from of [outside, machine]) expect(client(await from.call('tcp', outside.machine, 8080))).toBe(gateway);
    expect(await outside.call('tcp', outside.machine, 8081)).toContain('ECONNREFUSED');
    // the host beside routes everything through this machine, and so knows a way back
    expect(client(await call(engine, 'server', 'tcp', outside.address, 80))).toBe(await addressOf(engine, 'server', 'front'));
    expect(await engine.ok('network', 'why', '8080')).toMatch(/by the relay[^]*firewall none makes no rules/);
    expect(await machine.sh('nft list ruleset; iptables-legacy-save 2>/dev/null | grep "^-A" || true')).toBe('');
  });
});
