import assert from 'node:assert/strict';
import { it } from 'vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { type Machine } from '@engine/core/contracts/common';
import { type NetworkDesign, type NetworkDriver, type NetworkRecord } from '@engine/core/contracts/network';
import { networkSuite } from '@engine/core/contracts/network/suite';
import { createFakeRtnetlink, type InterfaceAddress, type Link, type Route, type Rtnetlink } from '@engine/native/rtnetlink';
import { createNetworkBridge } from './driver.ts';

interface World { links: Link[]; addresses: InterfaceAddress[]; routes: Route[]; sysctls: Record<string, string> }
const emptyWorld = (): World => ({ links: [{ index: 1, name: 'lo', up: true, mtu: 65_536 }], addresses: [], routes: [], sysctls: {} });
const kernelOf = (world: World): Rtnetlink => createFakeRtnetlink(world);
/** What the effects of `ensure` leave behind. */
function makePresent(world: World, instance: string, driver: NetworkDriver, network: NetworkRecord): void {
  const index = world.links.length + 1;
  const name = `br-${network.id.slice(0, 12)}`;
  world.links.push({ index, name, kind: 'bridge', alias: `${instance} ${network.id}`, up: true, mtu: 1500 });
  for (const { family, gateway, subnet } of network.pools) world.addresses.push({ index, family, address: gateway, prefix: Number(subnet.split('/')[1]) });
  assert.ok(driver.managed);
}

const worlds = new WeakMap<NetworkDriver, { world: World; instance: string }>();
describeSuite('bridge on a fake machine', networkSuite, {
  bench: () => fakeBench({ machine: { read: (path) => (path.endsWith('forwarding') ? '1\n' : undefined) } }),
  create(deps) {
    const world = emptyWorld();
    const driver = createNetworkBridge({ machine: deps.machine, instance: deps.instance, rtnetlink: kernelOf(world) });
    worlds.set(driver, { world, instance: deps.instance });
    return driver;
  },
  present(driver, network) {
    const found = worlds.get(driver);
    assert.ok(found);
    makePresent(found.world, found.instance, driver, network);
  },
});

const instance = 'engine-0a1b2c3d';
function make(change: (world: World) => void = () => {}, options: { readonly mtu?: number; readonly root?: string } = {}) {
  const world = emptyWorld();
  change(world);
  const machine = { root: options.root ?? '/tmp/x', read: (path: string) => world.sysctls[path] } as unknown as Machine;
  const driver = createNetworkBridge({ machine, instance, rtnetlink: kernelOf(world) }, options.mtu === undefined ? {} : { mtu: options.mtu });
  assert.ok(driver.managed);
  return { world, driver, managed: driver.managed };
}
const design = (more: Partial<NetworkDesign> = {}): NetworkDesign => ({ id: 'abcdef0123456789'.repeat(4), name: 'n', predefined: false, internal: false, ipv6: false, options: {}, ...more });
const choice = { driver: 'x', plugin: 'x', version: '0', options: '' };
const recordOf = (settings: Readonly<Record<string, unknown>>, more: Partial<NetworkRecord> = {}): NetworkRecord => ({
  id: design().id, name: 'n', created: '', labels: {}, internal: false, ipv6: false, predefined: false, options: {}, settings, pools: [{ family: 4, subnet: '10.9.0.0/24', gateway: '10.9.0.1' }],
  drivers: { network: choice, ipam: choice, firewall: choice }, ...more,
});
const sysctl = (name: string): string => `/proc/sys/net/${name}`;
const written = (effects: readonly { readonly operation: { readonly name: string; readonly args: Readonly<Record<string, unknown>> } }[]): string[] =>
  effects.filter(({ operation }) => operation.name === 'writeFile').map(({ operation }) => `${String(operation.args['path']).replace('/proc/sys/net/', '')}=${Buffer.from(operation.args['data'] as Uint8Array).toString()}`);

it('reads options by our names, Docker\'s and podman\'s', () => {
  const { managed } = make();
  const docker = {
    'com.docker.network.bridge.name': 'mine.0', 'com.docker.network.driver.mtu': '9000', 'com.docker.network.bridge.enable_icc': 'false', 'com.docker.network.bridge.enable_ip_masquerade': 'False',
    'com.docker.network.container_iface_prefix': 'net', isolate: 'false',
  };
  const ours = { bridge: 'mine.0', mtu: '9000', icc: '0', masquerade: 'no', 'interface-prefix': 'net', isolated: 'off' };
  assert.deepEqual(managed.design(design({ options: docker })), managed.design(design({ options: ours })));
  assert.deepEqual(managed.design(design({ options: ours })), { bridge: 'mine.0', mtu: 9000, icc: false, isolated: false, masquerade: false, interfacePrefix: 'net' });
  assert.deepEqual(managed.design(design()), { bridge: 'br-abcdef012345', mtu: 1500, icc: true, isolated: true, masquerade: true });
  assert.equal(managed.interfacePrefix?.(recordOf(managed.design(design({ options: ours })))), 'net');
  assert.equal(managed.interfacePrefix?.(recordOf(managed.design(design()))), undefined);
  assert.equal(managed.design(design({ options: { isolate: 'strict' } }))['isolated'], true);
  assert.equal(managed.design(design({ internal: true }))['masquerade'], false);
});

it('refuses what is wrong with an option, and says what was meant', () => {
  const { managed } = make();
  const refused = (options: Record<string, string>, more: Partial<NetworkDesign> = {}): string => {
    try {
      managed.design(design({ options, ...more }));
    } catch (error) {
      assert.ok(['ERR_INVALID_VALUE', 'ERR_NOT_SUPPORTED'].includes((error as { code: string }).code), String(error));
      return String((error as Error).message);
    }
    return assert.fail(`accepted ${JSON.stringify(options)}`);
  };
  assert.match(refused({ mtuu: '1500' }), /did you mean mtu\?/);
  assert.match(refused({ 'com.docker.network.bridge.enable_ic': 'true' }), /did you mean com\.docker\.network\.bridge\.enable_icc\?/);
  assert.doesNotMatch(refused({ 'completely-different': '1' }), /did you mean/);
  assert.match(refused({ 'com.docker.network.bridge.host_binding_ipv4': '127.0.0.1' }), /has no option/);
  assert.match(refused({ mtu: '1500', 'com.docker.network.driver.mtu': '1400' }), /differ/);
  for (const mtu of ['', '67', '65536', '1500.5', '1e3', '-1', ' 1500', '1500\n', '0x5dc', '99999999999999']) refused({ mtu });
  refused({ mtu: '1279' }, { ipv6: true });
  for (const icc of ['', 'maybe', 'true\n', '2', 'strict']) refused({ icc });
  const names = ['', 'a/b', '../x', '.', '..', 'a\0b', 'a\nb', 'a b', 'br%d', 'br:0', 'br+', 'br*', '-x', 'sixteen-letters-', 'é', 'all', 'default', 'lo', 'br-000000000000', 'bt-abcdef012345', 'br-engine', 'v0-abc', 'v12-abc'];
  for (const bridge of names) refused({ bridge });
  for (const prefix of ['', 'a/b', 'eth 0', 'thirteenchars', 'lo']) refused({ 'interface-prefix': prefix });
});

it('takes the MTU of the way out', () => {
  const route = { family: 4, destination: '0.0.0.0/0', gateway: '192.0.2.1', table: 254, type: 'unicast', protocol: 'static' } as const;
  const links = (world: World): void => {
    world.links.push({ index: 2, name: 'eth0', up: true, mtu: 1450 }, { index: 3, name: 'wg0', up: true, mtu: 576 });
    world.routes.push({ ...route, index: 3, metric: 600 }, { ...route, index: 2, metric: 100 });
  };
  assert.equal(make(links).managed.design(design())['mtu'], 1450);
  assert.equal(make((world) => {
    links(world);
    world.routes.pop();
  }).managed.design(design({ ipv6: true }))['mtu'], 1500, 'too short for IPv6');
  assert.equal(make(links, { mtu: 1400 }).managed.design(design())['mtu'], 1400);
  assert.equal(make(links, { mtu: 1400 }).managed.design(design({ options: { mtu: '1300' } }))['mtu'], 1300);
});

it('gives the default network of the usual root a name that one can remember', () => {
  assert.equal(make(() => {}, { root: '/var/lib/engine' }).managed.design(design({ predefined: true }))['bridge'], 'br-engine');
  assert.equal(make(() => {}, { root: '/var/lib/engine2' }).managed.design(design({ predefined: true }))['bridge'], 'br-abcdef012345');
  assert.equal(make(() => {}, { root: '/var/lib/engine' }).managed.design(design())['bridge'], 'br-abcdef012345');
});

it('does not touch a link that is somebody else\'s, by whatever name', async () => {
  const foreign = { index: 5, name: 'mine', kind: 'bridge', alias: 'engine-ffffffff 77', up: true, mtu: 1500 };
  for (const [bridge, link] of [
    ['mine', foreign], ['mine', { ...foreign, kind: 'dummy', alias: `${instance} ${design().id}` }],
    // our own name, but not our mark: another engine's, or a network whose id begins alike
    ['br-abcdef012345', { ...foreign, name: 'br-abcdef012345' }], ['br-abcdef012345', { ...foreign, name: 'br-abcdef012345', alias: `${instance} ${design().id.slice(0, 60)}` }],
  ] as const) {
    const { managed } = make((world) => world.links.push(link));
    const network = recordOf(managed.design(design({ options: bridge === 'mine' ? { bridge } : {} })));
    await assert.rejects(async () => managed.ensure(network), { code: 'ERR_IN_USE', message: new RegExp(bridge) });
  }
});

it('deletes only what has the name that carries the network\'s id', async () => {
  const { managed } = make();
  const network = recordOf(managed.design(design({ options: { bridge: 'mine' } })));
  const removals = [...(await managed.remove(network)).map(({ operation }) => operation), ...(await managed.ensure(network)).flatMap(({ undo }) => undo)];
  assert.ok(removals.length >= 3);
  for (const operation of removals) {
    const text = Buffer.from(operation.args['messages'] as Uint8Array).toString('latin1');
    assert.match(text, /(br|bt)-abcdef012345\0/);
    assert.doesNotMatch(text, /mine/);
  }
});

it('sets what the kernel has otherwise, once, and nothing for an internal network', async () => {
  const { managed, world } = make((w) => {
    w.sysctls = { [sysctl('ipv4/ip_forward')]: '0\n', [sysctl('ipv6/conf/all/forwarding')]: '0\n' };
    for (const name of ['default', 'br-abcdef012345']) {
      for (const key of ['ipv6/conf/%/accept_ra', 'ipv6/conf/%/disable_ipv6', 'ipv4/conf/%/route_localnet']) w.sysctls[sysctl(key.replace('%', name))] = key.includes('accept_ra') ? '1\n' : '0\n';
    }
  });
  const network = recordOf(managed.design(design()));
  assert.deepEqual(written(await managed.ensure(network)), ['ipv6/conf/br-abcdef012345/accept_ra=0', 'ipv6/conf/br-abcdef012345/disable_ipv6=1', 'ipv4/conf/br-abcdef012345/route_localnet=1', 'ipv4/ip_forward=1']);
  assert.deepEqual(written(await managed.ensure({ ...network, internal: true })), ['ipv6/conf/br-abcdef012345/accept_ra=0', 'ipv6/conf/br-abcdef012345/disable_ipv6=1']);
  makePresent(world, instance, make().driver, network);
  world.sysctls[sysctl('ipv6/conf/br-abcdef012345/accept_ra')] = '0\n';
  world.sysctls[sysctl('ipv6/conf/br-abcdef012345/disable_ipv6')] = '1\n';
  world.sysctls[sysctl('ipv4/ip_forward')] = '1\n';
  assert.deepEqual(written(await managed.ensure(network)), ['ipv4/conf/br-abcdef012345/route_localnet=1']);
  world.sysctls[sysctl('ipv4/conf/br-abcdef012345/route_localnet')] = '1\n';
  assert.deepEqual(await managed.ensure(network), []);
  world.addresses.pop();
  assert.deepEqual((await managed.ensure(network)).map(({ operation }) => operation.name), ['linkIndex', 'netlinkWith']);
});

it('does not cost the host its announced default route', async () => {
  const { managed } = make((w) => {
    w.links.push({ index: 2, name: 'eth0', up: true, mtu: 1500 });
    w.routes.push({ family: 6, destination: '::/0', gateway: 'fe80::1', index: 2, table: 254, type: 'unicast', protocol: 'ra' });
    w.sysctls = { [sysctl('ipv6/conf/all/forwarding')]: '0\n', [sysctl('ipv6/conf/eth0/accept_ra')]: '1\n', [sysctl('ipv4/ip_forward')]: '1\n' };
  });
  const network = recordOf(managed.design(design({ ipv6: true })), { ipv6: true });
  assert.deepEqual(written(await managed.ensure(network)).slice(-2), ['ipv6/conf/eth0/accept_ra=2', 'ipv6/conf/all/forwarding=1']);
});

it('refuses IPv6 where the kernel has none', async () => {
  const { managed } = make();
  await assert.rejects(async () => managed.ensure(recordOf(managed.design(design({ ipv6: true })), { ipv6: true })), { code: 'ERR_NOT_SUPPORTED' });
});
