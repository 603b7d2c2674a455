/** Networks of containers in user namespaces, and who has which ids. */
import { DatabaseSync } from 'node:sqlite';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { TestEngine } from '../helpers/engine.ts';
import { importBusybox } from '../helpers/busybox.ts';
import { importNet } from '../helpers/net.ts';
import { addressOf, call, serve } from '../helpers/networks.ts';
import { client, makeWorld, type Host, type World } from '../helpers/world.ts';

let world: World;
let engine: TestEngine;
let peer: Host;
beforeAll(async () => {
  world = await makeWorld({ hosts: ['peer'] });
  engine = world.engine();
  peer = world.host('peer');
  await importNet(engine);
  await engine.ok('run', '--rm', 'net', 'true');
});
afterEach(async () => {
  await engine.removeContainers();
  expect(leases()).toEqual([]);
  expect(await engine.orphans()).toEqual([]);
});
afterAll(async () => expect(await world.close()).toEqual([]));

interface Lease { readonly container: string; readonly kind: string; readonly first: number; readonly size: number; readonly leased: number }
/** As the database has them. */
function leases(of: TestEngine = engine): Lease[] {
  const db = new DatabaseSync(join(of.root, 'state.db'), { readOnly: true });
  try {
    return db.prepare('SELECT * FROM id_ranges ORDER BY first').all() as unknown as Lease[];
  } finally {
    db.close();
  }
}

it('bridges, published ports and names work, and the network is root\'s inside', async () => {
  await engine.ok('network', 'create', 'names');
  await serve(engine, 'server', ['--network', 'names', '-p', '8080:80', '--userns', 'auto', '--cap-add', 'NET_ADMIN'], 'tcp/80');
  expect(client(await peer.call('tcp', peer.machine, 8080))).toBe(peer.address);
  expect(await engine.ok('run', '--rm', '--network', 'names', '--userns', 'auto', 'net', 'sh', '-c', 'ping -c 1 -W 5 server > /dev/null && cat /etc/resolv.conf | head -1')).toMatch(/^nameserver /);
  expect(client(await call(engine, 'server', 'tcp', await addressOf(engine, 'server', 'names'), 80))).toBe(await addressOf(engine, 'server', 'names'));
  expect(await engine.ok('exec', 'server', 'sh', '-c', 'ip link set eth0 mtu 1400 && cat /sys/class/net/eth0/mtu; ls /sys/class/net; grep -c server /etc/hosts || true')).toMatch(/^1400\neth0\nlo/);
  await engine.ok('network', 'create', 'second');
  await engine.ok('network', 'connect', 'second', 'server');
  expect(await engine.ok('exec', 'server', 'ls', '/sys/class/net')).toBe('eth0\neth1\nlo');
  await engine.ok('network', 'disconnect', 'second', 'server');
  await engine.ok('rm', '-f', 'server');
  await engine.ok('network', 'rm', 'names', 'second');
});

it('the network of another container is shared, whatever ids either has', async () => {
  for (const [one, other] of [['auto', 'auto'], ['host', 'auto'], ['auto', 'host']] as const) {
    await engine.ok('run', '-d', '--name', 'owner', '--userns', one, 'net', 'sleep', '1000');
    const address = (userns: string, ...more: string[]): Promise<string> => engine.ok('run', '--rm', '--userns', userns, ...more, 'net', 'sh', '-c', 'ip -4 -o addr show eth0 | cut -d" " -f7; ls /sys/class/net');
    const own = await engine.ok('exec', 'owner', 'sh', '-c', 'ip -4 -o addr show eth0 | cut -d" " -f7; ls /sys/class/net');
    expect(await address(other, '--network', 'container:owner')).toBe(own);
    await engine.ok('rm', '-f', 'owner');
  }
});

it('ids are one container\'s until it is removed, and inspect says them', async () => {
  await engine.ok('create', '--name', 'one', '--userns', 'auto', 'net', 'true');
  await engine.ok('create', '--name', 'two', '--userns', 'auto:size=1000', 'net', 'true');
  const kept = leases();
  expect(kept.map(({ size, leased }) => [size, leased]).sort()).toEqual([[1000, 1], [1000, 1], [65536, 1], [65536, 1]]);
  const [{ HostConfig, Engine }] = JSON.parse(await engine.ok('inspect', 'one')) as [{ HostConfig: { UsernsMode: string }; Engine: { spec: { linux: { uidMappings: unknown } }; ids: unknown } }];
  expect(HostConfig.UsernsMode).toBe('auto');
  expect(Engine.spec.linux.uidMappings).toEqual([{ containerID: 0, hostID: kept.find(({ size }) => size === 65536)?.first, size: 65536 }]);
  await engine.ok('start', '-a', 'one');
  await engine.ok('start', '-a', 'one');
  expect(leases()).toEqual(kept);
  await engine.ok('rm', 'one');
  expect(leases().map(({ size }) => size)).toEqual([1000, 1000]);
  // the table names /etc/subuid where that says something of engine or containers
  expect((await engine.run(['doctor'])).stdout).toMatch(/[\d,]+ uids +(built in|\/etc\/subuid.*?) +1,000 by a container/);
  // what never came to be has none
  expect((await engine.run(['run', '--rm', '--userns', 'auto', 'net', '/none'])).code).toBe(127);
  expect((await engine.run(['run', '--userns', 'auto', '--name', 'two', 'net', 'true'])).code).toBe(125);
  expect((await engine.run(['create', '--userns', 'auto', '--sysctl', 'x=y', 'net', 'true'])).code).toBe(125);
  expect(leases()).toHaveLength(2);
});

it('many that start at once have different ones', async () => {
  const all = await Promise.all(Array.from({ length: 6 }, () => engine.ok('run', '--rm', '--userns', 'auto', 'net', 'cat', '/proc/self/uid_map')));
  const firsts = all.map((text) => Number(/^\s*0\s+(\d+)\s+65536$/.exec(text)?.[1]));
  expect(new Set(firsts).size).toBe(6);
  expect(firsts).not.toContain(Number.NaN);
});

it('the configuration gives them to all that say nothing else; --privileged says which it wants', async () => {
  const strict = new TestEngine({ config: 'security: { userns: auto }\n', resident: 'auto' });
  try {
    await importBusybox(strict);
    const map = (...flags: string[]): Promise<string> => strict.ok('run', '--rm', ...flags, 'busybox', 'cat', '/proc/self/uid_map').then((text) => text.trim().replaceAll(/\s+/g, ' '));
    // never from a sandbox or a remembered plan: each has ids of its own
    const maps = [await map(), await map(), await map()];
    expect(new Set(maps).size).toBe(3);
    for (const text of maps) expect(text).toMatch(/^0 20\d{8} 65536$|^0 21\d{8} 65536$/);
    expect(await map('--userns', 'host')).toBe('0 0 4294967295');
    expect(await map('--uidmap', '0:5000:10')).toBe('0 5000 10');
    const refused = await strict.run(['run', '--rm', '--privileged', 'busybox', 'true']);
    expect(refused).toMatchObject({ code: 125, stderr: 'engine: privileged mode is incompatible with the user namespaces of the configuration; say which it is to be: --userns=host, or --userns=auto for privileges inside alone\n' });
    expect(await strict.ok('run', '--rm', '--privileged', '--userns', 'auto', 'busybox', 'sh', '-c', 'mount -t tmpfs t /mnt 2>/dev/null || mount -t tmpfs t /tmp; mount | grep -c "^t on"; test -e /dev/kmsg && ! dmesg -c >/dev/null 2>&1; echo $?')).toBe('1\n0');
    expect(await map('--network', 'host', '--pid', 'host')).toMatch(/^0 2\d{9} 65536$/);
    expect(leases(strict)).toEqual([]);
    expect((await strict.run(['run', '--rm', '--explain', 'busybox', 'true'])).stdout).toContain('becomeRoot');
    expect(leases(strict)).toEqual([]);
  } finally {
    expect(await strict.close()).toEqual([]);
  }
});
