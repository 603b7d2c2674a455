import { execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readlinkSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deleteAddress, deleteLink, deleteRoute, encodeBatch, encodePatched, newAddress, newBridge, newLink, newRoute, newVeth, NETLINK_ROUTE, setLink, slot, type Encoded, type PatchedBatch } from './netlink.ts';
import { openNetlink, type NetlinkSocket } from './netlink-socket.ts';
import { createFakeRtnetlink, createRtnetlink, type Link } from './rtnetlink.ts';
import { enterNetns, netnsUnable } from './testing-netns.ts';

describe.skipIf(netnsUnable !== undefined)('links, addresses and routes of the kernel', () => {
  let leave: () => void;
  let socket: NetlinkSocket;
  let read: ReturnType<typeof createRtnetlink>;
  beforeAll(() => {
    leave = enterNetns();
    socket = openNetlink(NETLINK_ROUTE);
    read = createRtnetlink();
  });
  afterAll(() => {
    socket.close();
    read.close();
    leave();
  });
  const change = (...messages: Encoded[]): void => void socket.request(encodeBatch(messages));
  const link = (name: string): Link => {
    const found = read.link({ name });
    if (!found) throw new Error(`no link ${name}`);
    return found;
  };
  const patched = ({ bytes, at }: PatchedBatch, values: Readonly<Record<string, number>>): Buffer => {
    const batch = Buffer.from(bytes);
    for (const [name, places] of Object.entries(at)) for (let i = 0; i < places.length; i += 4) batch.writeUInt32LE(values[name] ?? 0, Buffer.from(places).readUInt32LE(i));
    return batch;
  };

  it('begin with lo alone', () => {
    expect(read.links()).toEqual([{ index: 1, name: 'lo', up: false, mtu: 65_536, address: '00:00:00:00:00:00' }]);
    expect([read.addresses(), read.routes()]).toEqual([[], []]);
    change(setLink({ name: 'lo' }, { up: true }));
    expect(read.link({ index: 1 })?.up).toBe(true);
    expect(read.addresses().map(({ address, prefix }) => `${address}/${prefix}`)).toEqual(['127.0.0.1/8', '::1/128']);
  });

  it('are what was made', () => {
    change(newBridge('br', { address: '02:00:00:00:00:01', mtu: 1400, stp: false, forwardDelay: 0, multicastSnooping: false, groupForward: 8, callIptables: false }), setLink({ name: 'br' }, { alias: 'engine-0000 br', addressGeneration: 'none' }));
    const { index } = link('br');
    change(setLink({ index }, { up: true }), newVeth({ name: 'left', index: 700, master: index, mtu: 1400, queues: 1 }, { name: 'right', index: 701, mtu: 1300, address: '02:00:00:00:00:02', queues: 1 }),
      setLink({ name: 'left' }, { alias: 'engine-0000 run', addressGeneration: 'none', port: { hairpin: true, isolated: true, learning: true } }), setLink({ name: 'left' }, { up: true }));
    expect(read.link({ index })).toEqual({ index, name: 'br', kind: 'bridge', alias: 'engine-0000 br', up: true, mtu: 1400, address: '02:00:00:00:00:01' });
    expect(link('left')).toMatchObject({ index: 700, kind: 'veth', alias: 'engine-0000 run', up: true, mtu: 1400, master: index, peer: 701 });
    expect(link('right')).toEqual({ index: 701, name: 'right', kind: 'veth', up: false, mtu: 1300, peer: 700, address: '02:00:00:00:00:02' });
    expect(read.links().map(({ name }) => name).toSorted()).toEqual(['br', 'left', 'lo', 'right']);
    expect(read.link({ name: 'none' })).toBeUndefined();
    expect(read.link({ name: 'a-name-that-is-too-long' })).toBeUndefined();
    expect([read.link({ index: 4711 }), read.link({ index: 0 }), read.link({ name: '' })]).toEqual([undefined, undefined, undefined]);
    expect(() => change(newLink('br', 'dummy'))).toThrow(expect.objectContaining({ errno: 'EEXIST' }));
  });

  it.skipIf(!existsSync('/sbin/ip'))('have the port\'s settings, as ip sees them', () => {
    const [port] = JSON.parse(execFileSync('/sbin/ip', ['-d', '-j', 'link', 'show', 'left'], { encoding: 'utf8' })) as { linkinfo: { info_slave_data: Record<string, unknown> } }[];
    expect(port?.linkinfo.info_slave_data).toMatchObject({ hairpin: true, isolated: true, learning: true });
  });

  it('have addresses and routes that come and go', () => {
    const { index } = link('right');
    change(setLink({ index }, { addressGeneration: 'none' }), setLink({ index }, { up: true }), newAddress(index, '10.9.0.2', 24, { broadcast: '10.9.0.255' }), newAddress(index, 'fd00::2', 64), newAddress(index, 'fd01::2', 64, { noPrefixRoute: true }),
      newRoute({ gateway: '10.9.0.1', index }), newRoute({ gateway: 'fd00::1', index }), newRoute({ destination: '10.77.0.0', prefix: 16, type: 'blackhole', table: 1000 }),
      newRoute({ destination: '10.78.0.0', prefix: 16, gateway: '11.0.0.1', index, onlink: true, metric: 5 }));
    expect(read.addresses().filter((one) => one.index === index)).toEqual(expect.arrayContaining([{ family: 4, address: '10.9.0.2', prefix: 24, broadcast: '10.9.0.255' }, { family: 6, address: 'fd00::2', prefix: 64 }, { family: 6, address: 'fd01::2', prefix: 64 }].map((one) => ({ index, scope: 0, permanent: true, ...one }))));
    // neither a link-local address nor duplicate address detection
    expect(read.addresses().some(({ address }) => address.startsWith('fe80'))).toBe(false);
    const routes = read.routes();
    for (const route of [
      { family: 4, destination: '0.0.0.0/0', gateway: '10.9.0.1', index, table: 254, type: 'unicast', protocol: 'static' },
      { family: 4, destination: '10.9.0.0/24', index, table: 254, type: 'unicast', protocol: 'kernel', source: '10.9.0.2' },
      { family: 4, destination: '10.9.0.2/32', index, table: 255, type: 'local', protocol: 'kernel', source: '10.9.0.2' },
      { family: 4, destination: '10.9.0.255/32', index, table: 255, type: 'broadcast', protocol: 'kernel', source: '10.9.0.2' },
      { family: 4, destination: '10.77.0.0/16', table: 1000, type: 'blackhole', protocol: 'static' },
      { family: 4, destination: '10.78.0.0/16', gateway: '11.0.0.1', index, metric: 5, table: 254, type: 'unicast', protocol: 'static' },
      { family: 6, destination: '::/0', gateway: 'fd00::1', index, metric: 1024, table: 254, type: 'unicast', protocol: 'static' },
      { family: 6, destination: 'fd00::/64', index, metric: 256, table: 254, type: 'unicast', protocol: 'kernel' },
    ]) expect(routes).toContainEqual(route);
    expect(routes.some(({ destination }) => destination === 'fd01::/64')).toBe(false);
    change(deleteRoute({ gateway: '10.9.0.1', index }), deleteRoute({ gateway: 'fd00::1', index }), deleteRoute({ destination: '10.77.0.0', prefix: 16, table: 1000 }), deleteRoute({ destination: '10.78.0.0', prefix: 16 }), deleteAddress(index, 'fd00::2', 64), deleteAddress(index, '10.9.0.2', 24));
    expect(read.routes().filter(({ protocol }) => protocol === 'static')).toEqual([]);
    expect(() => change(deleteRoute({ gateway: '10.9.0.1', index }))).toThrow(expect.objectContaining({ errno: 'ESRCH', operation: 'delete a route' }));
    expect(() => change(deleteAddress(index, '10.9.0.2', 24))).toThrow(expect.objectContaining({ errno: 'EADDRNOTAVAIL' }));
    expect(() => change(newAddress(index, '10.1.0.1', 24), newRoute({ gateway: '12.0.0.1', index }))).toThrow(expect.objectContaining({ errno: 'ENETUNREACH', message: 'cannot add a route: Nexthop has invalid gateway (ENETUNREACH)', data: { message: 2 } }));
  });

  it('of several next hops the first is told', () => {
    if (!existsSync('/sbin/ip')) return;
    execFileSync('/sbin/ip', ['route', 'add', '10.79.0.0/16', 'nexthop', 'via', '10.1.0.7', 'dev', 'right', 'nexthop', 'via', '10.1.0.8', 'dev', 'right']);
    expect(read.routes()).toContainEqual(expect.objectContaining({ destination: '10.79.0.0/16', gateway: '10.1.0.7', index: link('right').index }));
  });

  it('a peer is born where the slot says, by pid and by fd', async () => {
    const sleeper = spawn('unshare', ['-n', 'sleep', '1000'], { stdio: 'ignore' });
    const pid = sleeper.pid as number;
    const own = readlinkSync('/proc/thread-self/ns/net');
    const there = (): boolean => {
      try {
        return readlinkSync(`/proc/${pid}/ns/net`) !== own;
      } catch {
        return false;
      }
    };
    while (!there()) await new Promise((resolve) => setTimeout(resolve, 5));
    const fd = openSync(`/proc/${pid}/ns/net`, 'r');
    try {
      for (const [name, peer, value] of [['one', { netnsPid: slot('where') }, pid], ['two', { netnsFd: slot('where') }, fd]] as const) {
        socket.request(patched(encodePatched([newVeth({ name }, { name: `${name}-in`, ...peer })]), { where: value }));
        expect(link(name).netnsPeer).toBeTypeOf('number');
        expect(read.link({ name: `${name}-in` })).toBeUndefined();
      }
      socket.request(patched(encodePatched([setLink({ index: slot('index') }, { rename: 'three' })]), { index: link('one').index }));
      expect([read.link({ name: 'one' }), read.link({ name: 'three' })?.kind]).toEqual([undefined, 'veth']);
    } finally {
      closeSync(fd);
      const ended = new Promise((resolve) => sleeper.once('exit', resolve));
      sleeper.kill('SIGKILL');
      await ended;
    }
    // its death takes the pair away
    while (read.link({ name: 'three' }) || read.link({ name: 'two' })) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('are complete, however many there are', () => {
    change(...Array.from({ length: 100 }, (_, i) => newBridge(`many${i}`)));
    const { index } = link('many0');
    change(...Array.from({ length: 1000 }, (_, i) => newAddress(index, `10.${100 + (i >> 8)}.${i & 255}.1`, 32)));
    expect(read.links().filter(({ name }) => name.startsWith('many')).length).toBe(100);
    expect(read.addresses().filter((one) => one.index === index).length).toBe(1000);
  });

  it('go', () => {
    change(deleteLink({ name: 'left' }), deleteLink({ index: link('br').index }));
    expect([read.link({ name: 'left' }), read.link({ name: 'right' }), read.link({ name: 'br' })]).toEqual([undefined, undefined, undefined]);
    expect(() => change(deleteLink({ name: 'br' }))).toThrow(expect.objectContaining({ errno: 'ENODEV', operation: 'delete a link' }));
  });
});

it('a fake says what it was given', () => {
  const links: Link[] = [{ index: 2, name: 'x', up: true, mtu: 1500 }];
  const fake = createFakeRtnetlink({ links });
  expect([fake.link({ name: 'x' })?.index, fake.link({ index: 2 })?.name, fake.link({ name: 'y' })]).toEqual([2, 'x', undefined]);
  links.push({ index: 3, name: 'y', up: false, mtu: 1500 });
  expect(fake.link({ name: 'y' })?.index).toBe(3);
  expect([fake.links().length, fake.routes(), fake.addresses()]).toEqual([2, [], []]);
});
