import { PassThrough } from 'node:stream';
import { type Engine, type NetworkInfo, type NetworkRequest } from '@engine/core/api';
import { type BoundPort, type Endpoint, type EndpointWish, type NetworkRecord, type PortMapping } from '@engine/core/contracts/network';
import { type Invocation } from '@engine/core/contracts/frontend';
import { fail } from '@engine/core/errors';
import { describe, expect, it } from 'vitest';
import { createCli } from './driver.ts';
import { networkRequest, parseMac, parseNetwork } from './network-flag.ts';
import { parsePools } from './network-pools.ts';
import { parse } from './parse.ts';
import { displayPorts, parseExpose, parsePublish } from './ports.ts';
import { buildRequest } from './request.ts';
import { runFlags } from './run-flags.ts';

const request = (...argv: string[]): ReturnType<typeof buildRequest> => {
  const { flags, args } = parse('run', runFlags, [...argv, 'image'], { passThrough: true });
  return buildRequest(flags, args, { cwd: '/', env: {}, cpus: 2 });
};

describe('-p', () => {
  const tcp = (containerPort: number, over: Partial<PortMapping> = {}): PortMapping => ({ containerPort, protocol: 'tcp', ...over });
  it.each<[string, PortMapping[]]>([
    ['80', [tcp(80)]], [':80', [tcp(80)]], ['0:80', [tcp(80)]], ['8080:80', [tcp(80, { hostPort: 8080 })]], ['8080:80/', [tcp(80, { hostPort: 8080 })]], ['8080:80/UDP', [{ containerPort: 80, hostPort: 8080, protocol: 'udp' }]],
    ['127.0.0.1:8080:80', [tcp(80, { hostAddress: '127.0.0.1', hostPort: 8080 })]], ['127.0.0.1::80/sctp', [{ containerPort: 80, hostAddress: '127.0.0.1', protocol: 'sctp' }]], ['0.0.0.0:80:80', [tcp(80, { hostAddress: '0.0.0.0', hostPort: 80 })]],
    ['[::1]:8080:80', [tcp(80, { hostAddress: '::1', hostPort: 8080 })]], ['::1:8080:80', [tcp(80, { hostAddress: '::1', hostPort: 8080 })]], ['[::1]::80', [tcp(80, { hostAddress: '::1' })]], ['[::]:80:80', [tcp(80, { hostAddress: '::', hostPort: 80 })]],
    ['8080-8081:80-81', [tcp(80, { hostPort: 8080 }), tcp(81, { hostPort: 8081 })]], ['7000-7001', [tcp(7000), tcp(7001)]], ['127.0.0.1::80-81', [tcp(80, { hostAddress: '127.0.0.1' }), tcp(81, { hostAddress: '127.0.0.1' })]],
    ['8080-8090:80', [tcp(80, { hostPort: 8080, hostPortEnd: 8090 })]], ['8080-8080:80-80', [tcp(80, { hostPort: 8080 })]], ['published=8080,target=80,protocol=udp', [{ containerPort: 80, hostPort: 8080, protocol: 'udp' }]], ['target=80', [tcp(80)]],
  ])('%s', (text, mappings) => expect(parsePublish(text)).toEqual(mappings));
  it.each([
    ['', 'no port specified: <empty>'], ['80:', 'no port specified: 80:<empty>'], ['/tcp', 'no port specified: /tcp<empty>'], ['x', 'invalid containerPort: x'], ['80:x', 'invalid containerPort: x'], ['80:0', 'invalid containerPort: 0'], ['65536', 'invalid containerPort: 65536'], ['90-80', 'invalid containerPort: 90-80'],
    ['99999:80', 'invalid hostPort: 99999'], ['90-80:80', 'invalid hostPort: 90-80'], ['1-2-3:80', 'invalid hostPort: 1-2-3'], ['0-5:80', 'invalid hostPort: 0-5'], ['127.0.0.1:80', 'invalid hostPort: 127.0.0.1'], ['-1:80', 'invalid hostPort: -1'], ['+1:80', 'invalid hostPort: +1'],
    ['80:80/foo', 'invalid proto: foo'], ['1.2.3:80:80', 'invalid IP address: 1.2.3'], ['localhost:80:80', 'invalid IP address: localhost'], ['[::1]:80', 'invalid IP address: [:'], ['[::1:80:80', 'invalid IP address: [::1'], ['fe80::1%eth0:80:80', 'invalid IP address: fe80::1%eth0'],
    ['80-90:80-81', 'invalid ranges specified for container and host Ports: 80-81 and 80-90'], ['80:80-81', 'invalid ranges specified for container and host Ports: 80-81 and 80'], ['published=1,x', "invalid publish opts format (should be name=value but got 'x')"], ['port=1', "unknown name 'port'"],
  ])('refuses %j', (text, message) => expect(() => parsePublish(text)).toThrow(message));

  /** A small generator of its own, so that a failure can be repeated. */
  const random = (seed: number) => () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  it('reads back whatever it can be written as', () => {
    const next = random(1);
    const number = (least: number, most: number): number => least + Math.floor(next() * (most - least + 1));
    const pick = <T>(...of: readonly T[]): T => of[number(0, of.length - 1)] as T;
    for (let i = 0; i < 2000; i++) {
      const count = number(1, 5);
      const [from, host] = [number(1, 65530), pick(undefined, number(1, 65530))];
      const [address, protocol] = [pick(undefined, '127.0.0.1', '10.1.2.3', '::1', 'fd00::1:2'), pick('tcp', 'udp', 'sctp') as PortMapping['protocol']];
      const range = (first: number): string => (count === 1 ? `${first}` : `${first}-${first + count - 1}`);
      const shown = address?.includes(':') && next() < 0.5 ? `[${address}]` : address;
      const text = [...(shown === undefined ? [] : [shown]), ...(host !== undefined ? [range(host)] : shown === undefined ? [] : ['']), `${range(from)}${protocol === 'tcp' && next() < 0.5 ? '' : `/${protocol}`}`].join(':');
      expect(parsePublish(text), text).toEqual(Array.from({ length: count }, (_, n) => ({ protocol, containerPort: from + n, ...(address === undefined ? {} : { hostAddress: address }), ...(host === undefined ? {} : { hostPort: host + n }) })));
    }
  });
  it('says in one line what is wrong, or gives ports that can be, whatever is typed', () => {
    const next = random(7);
    const alphabet = '0123456789:.-/[]udptcs=, x';
    for (let i = 0; i < 5000; i++) {
      const text = Array.from({ length: Math.floor(next() * 14) }, () => alphabet[Math.floor(next() * alphabet.length)]).join('');
      try {
        for (const { containerPort, hostPort = 1, hostPortEnd = hostPort } of parsePublish(text)) expect(Math.min(containerPort, hostPort) >= 1 && Math.max(containerPort, hostPortEnd) <= 65535 && hostPortEnd >= hostPort, text).toBe(true);
      } catch (error) {
        expect(error, text).toMatchObject({ code: 'ERR_INVALID_VALUE' });
      }
    }
  });
  it('goes into the request with -P and --expose', () => {
    expect(request('-p', '80', '-p', '81-82:81-82', '--publish', '53:53/udp').ports.map((p) => p.containerPort)).toEqual([80, 81, 82, 53]);
    expect(request('-P', '--expose', '90-91', '--expose', '90', '--expose=53/udp')).toMatchObject({ publishAll: true, expose: ['90/tcp', '91/tcp', '53/udp'], ports: [] });
    expect(request()).not.toHaveProperty('expose');
    expect(request()).not.toHaveProperty('publishAll');
    expect(() => parseExpose('80:80')).toThrow('invalid port format for --expose: 80:80');
    for (const bad of ['90-80', 'x', '70000', '0', '']) expect(() => parseExpose(bad)).toThrow(`invalid range format for --expose: ${bad}`);
    expect(() => parseExpose('80/foo')).toThrow('invalid proto: foo');
  });
});

describe('--network', () => {
  it.each<[string, Partial<EndpointWish>]>([
    ['n1', { network: 'n1' }], ['container:a=b'.slice(0, 11), { network: 'container:a' }], ['name=n1', { network: 'n1' }], ['name=n1,alias=a,alias=b,ip=10.0.0.1,ip6=fd00::1,mac-address=02:42:AA:00:00:01,driver-opt=a=b,"driver-opt=c=d,e"', { network: 'n1', aliases: ['a', 'b'], ip: '10.0.0.1', ip6: 'fd00::1', mac: '02:42:aa:00:00:01', options: { a: 'b', c: 'd,e' } }],
    ['n1:alias=web,ip=10.0.0.2,mac=02:00:00:00:00:01', { network: 'n1', aliases: ['web'], ip: '10.0.0.2', mac: '02:00:00:00:00:01' }],
  ])('%s', (text, wish) => expect(parseNetwork(text)).toEqual({ aliases: [], ...wish }));
  it.each([
    ['', 'no name set for network'], ['alias=x', 'network name/id is not specified'], ['name=n1,foo=bar', 'invalid field key foo'], ['name=n1,foo', 'invalid field foo'], ['name=n1,ip=x', 'invalid IPv4 address: x'], ['name=n1,ip=::1', 'invalid IPv4 address: ::1'], ['name=n1,ip6=10.0.0.1', 'invalid IPv6 address: 10.0.0.1'],
    ['name=n1,mac-address=x', 'x is not a valid mac address'], ['name=n1,alias=a b', 'invalid alias'], ['name=n1,driver-opt=x', 'invalid key value pair'],
  ])('refuses %j', (text, message) => expect(() => parseNetwork(text)).toThrow(message));
  it('reads MAC addresses as Go does, but no multicast', () => {
    for (const text of ['02-42-AC-11-00-02', '0242.ac11.0002', '02:42:ac:11:00:02']) expect(parseMac('x', text)).toBe('02:42:ac:11:00:02');
    for (const bad of ['02:42-ac:11:00:02', '02:42:ac:11:00', '1:2:3:4:5:6', '']) expect(() => parseMac('x', bad)).toThrow('is not a valid mac address');
    expect(() => parseMac('x', '01:42:ac:11:00:02')).toThrow('multicast');
  });
  const networks = (...argv: string[]): unknown => {
    const { network, endpoints } = request(...argv);
    return endpoints ? [network, endpoints] : network;
  };
  it('says endpoints only where there is more than a name', () => {
    expect(networks()).toBe('default');
    expect(networks('--net', 'host')).toBe('host');
    expect(networks('--network=container:x')).toBe('container:x');
    expect(networks('--network', 'a', '--network', 'b')).toEqual(['a', [{ network: 'a', aliases: [] }, { network: 'b', aliases: [] }]]);
    expect(networks('--network', 'a', '--net', 'name=b,alias=q', '--ip', '10.0.0.1', '--ip6', 'fd00::1', '--mac-address', '02:42:00:00:00:01', '--net-alias', 'x', '--network-alias', 'y')).toEqual(['a', [
      { network: 'a', aliases: ['x', 'y'], ip: '10.0.0.1', ip6: 'fd00::1', mac: '02:42:00:00:00:01' }, { network: 'b', aliases: ['q'] },
    ]]);
    expect(networks('--mac-address', '02:42:00:00:00:01')).toEqual(['default', [{ network: 'default', aliases: [], mac: '02:42:00:00:00:01' }]]);
  });
  it.each([
    [['--network', 'n1', '--network', 'n1'], 'network "n1" is specified multiple times'], [['--network', 'host', '--network', 'n1'], 'conflicting options: cannot attach both user-defined and non-user-defined network-modes'], [['--network', 'n1', '--net', 'none'], 'non-user-defined network-modes'],
    [['--network', 'bridge', '--network-alias', 'a'], 'network-scoped aliases are only supported for user-defined networks'], [['--network', 'name=n1,ip=10.0.0.1', '--ip', '10.0.0.2'], 'conflicting options: cannot specify both --ip and per-network IPv4 address'], [['--network', 'name=n1,alias=a', '--network-alias', 'b'], 'cannot specify both --network-alias and per-network alias'],
    [['--network', 'name=n1,ip6=::1', '--ip6', '::2'], 'cannot specify both --ip6 and per-network IPv6 address'], [['--network', 'name=n1,mac=02:00:00:00:00:01', '--mac-address', '02:00:00:00:00:02'], 'cannot specify both --mac-address and per-network MAC address'],
    [['--ip', 'x'], 'invalid IPv4 address: x'], [['--mac-address', 'x'], 'x is not a valid mac address'],
  ])('refuses %j', (argv, message) => expect(() => request(...argv)).toThrow(message));
  it('takes host-gateway for an address', () => expect(request('--add-host', 'me:host-gateway').addHosts).toEqual(['me:host-gateway']));
  it('is one function of the flags', () => expect(networkRequest({})).toEqual({ network: 'default' }));
});

describe('the pools of a network', () => {
  const pools = (over: Partial<Record<'subnet' | 'gateway' | 'ip-range' | 'aux-address', string[]>>) => parsePools({ subnet: [], gateway: [], 'ip-range': [], 'aux-address': [], ...over });
  it('are put together by subnet', () => {
    expect(pools({})).toEqual([]);
    expect(pools({ subnet: ['fd00:1::/64', '172.30.0.0/16'], gateway: ['172.30.0.1,fd00:1::1'], 'ip-range': ['172.30.5.0/24'], 'aux-address': ['a=172.30.5.5', 'b=172.30.5.6'] })).toEqual([
      { subnet: 'fd00:1::/64', gateway: 'fd00:1::1' }, { subnet: '172.30.0.0/16', gateway: '172.30.0.1', range: '172.30.5.0/24', auxiliary: { a: '172.30.5.5', b: '172.30.5.6' } },
    ]);
  });
  it.each([
    [{ subnet: ['x'] }, 'invalid CIDR address: x'], [{ subnet: ['10.0.0.0/33'] }, 'invalid CIDR'], [{ gateway: ['10.1.1.1'] }, 'every ip-range or gateway must have a corresponding subnet'], [{ subnet: ['10.1.0.0/24'], gateway: ['10.2.0.1'] }, 'no matching subnet for gateway 10.2.0.1'],
    [{ subnet: ['10.1.0.0/24'], 'ip-range': ['10.2.0.1/24'] }, 'no matching subnet for range 10.2.0.1/24'], [{ subnet: ['10.1.0.0/24'], 'aux-address': ['a=10.2.2.2'] }, 'no matching subnet for aux-address 10.2.2.2'], [{ subnet: ['10.1.0.0/24'], 'aux-address': ['10.1.0.2'] }, 'invalid aux-address'],
    [{ subnet: ['10.1.0.0/24', '10.1.0.0/25'] }, 'multiple overlapping subnet configuration is not supported'], [{ subnet: ['10.1.0.0/24', '10.3.0.0/24'] }, "bridge driver doesn't support multiple subnets"], [{ subnet: ['10.1.0.0/24'], gateway: ['10.1.0.1', '10.1.0.2'] }, 'cannot configure multiple gateways (10.1.0.2, 10.1.0.1)'],
    [{ subnet: ['10.1.0.0/24'], 'ip-range': ['10.1.0.0/25', '10.1.0.128/25'] }, 'cannot configure multiple ranges'], [{ subnet: ['10.1.0.0/24'], gateway: ['x'] }, 'invalid gateway address: x'],
  ])('refuse %j', (given, message) => expect(() => pools(given)).toThrow(message));
});

it('shows ports as docker ps does', () => {
  const bound = (containerPort: number, hostPort: number, hostAddress: string, protocol = 'tcp') => ({ containerPort, hostPort, hostAddress, protocol });
  const both = (containerPort: number, hostPort: number) => [bound(containerPort, hostPort, '0.0.0.0'), bound(containerPort, hostPort, '::')];
  expect(displayPorts([
    ...both(7000, 7000), ...[9002, 9000, 9001].map((port) => bound(port, port, '127.0.0.1', 'udp')), ...both(80, 8080), ...both(443, 32768), { containerPort: 99, protocol: 'tcp' }, { containerPort: 443, protocol: 'udp' },
  ])).toBe('99/tcp, 443/udp, 0.0.0.0:7000->7000/tcp, [::]:7000->7000/tcp, 127.0.0.1:9000-9002->9000-9002/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 0.0.0.0:32768->443/tcp, [::]:32768->443/tcp');
  expect(displayPorts([80, 81, 83].map((containerPort) => ({ containerPort, protocol: 'tcp' })))).toBe('80-81/tcp, 83/tcp');
  expect(displayPorts([])).toBe('');
});

describe('verbs', () => {
  const choice = (driver: string) => ({ driver, plugin: driver, version: '1', options: '' });
  const network = (name: string, over: Partial<NetworkRecord> = {}): NetworkRecord => ({
    id: name.repeat(64).slice(0, 64), name, created: '2026-01-01T00:00:00.000Z', labels: {}, internal: false, ipv6: false, predefined: false, options: {}, pools: [{ family: 4, subnet: '10.0.0.0/24', gateway: '10.0.0.1' }], settings: {},
    drivers: { network: choice('bridge'), ipam: choice('local'), firewall: choice('nftables') }, ...over,
  });
  const ports: BoundPort[] = [{ protocol: 'tcp', hostAddress: '::', hostPort: 8080, containerPort: 80 }, { protocol: 'tcp', hostAddress: '0.0.0.0', hostPort: 8080, containerPort: 80 }, { protocol: 'udp', hostAddress: '127.0.0.1', hostPort: 53, containerPort: 53 }];
  const endpoint = { network: 'a', ports } as unknown as Endpoint;
  const container = (name: string, over: object, endpoints?: readonly unknown[]): unknown => ({
    record: { id: name.repeat(64), name, created: `2026-01-0${name}`, request: { network: 'a', ports: [], mounts: [], labels: {}, ...over }, image: { id: 'sha256:1', name: 'test' }, imageConfig: { ExposedPorts: { '80/tcp': {}, '443/udp': {}, 'nonsense': {} } }, spec: {}, volumes: [], networks: over === none ? [] : [{ network: 'a'.repeat(64) }, { network: 'b'.repeat(64) }] },
    state: 'running', run: { startedAt: '2026-01-01' }, ...(endpoints ? { endpoints } : {}),
  });
  const none = { network: 'none' };
  const containers = [container('1', { expose: ['99/tcp'] }, [endpoint]), container('2', none), container('3', { ports: [{ containerPort: 81, hostPort: 8181, protocol: 'tcp' }] })];
  const networks = [network('b', { labels: { x: 'y' }, internal: true }), network('a', { predefined: true })];
  const info = (record: NetworkRecord): NetworkInfo => ({ record, containers: [] });
  const find = (ref: string): NetworkRecord => {
    const found = networks.find(({ name }) => name === ref);
    if (!found) throw fail('ERR_NO_SUCH_NETWORK', `network ${ref} not found`, { path: ref });
    return found;
  };
  /** Against an engine that only writes down what it is asked. */
  async function cli(argv: readonly string[], input = ''): Promise<{ code: number; out: string; err: string; asked: unknown[] }> {
    const asked: unknown[] = [];
    const engine = {
      containers: { resolve: async () => ({ endpoints: [endpoint] }), list: async () => containers },
      networks: {
        create: async (wanted: NetworkRequest) => (asked.push(wanted), info(network('c'))), list: async () => networks.map(info), inspect: async (ref: string) => ({ Name: find(ref).name }), remove: async (ref: string) => find(ref),
        prune: async ({ filter }: { filter(record: NetworkRecord): boolean }) => networks.filter((n) => filter(n)).map(({ name }) => name), connect: async (...of: unknown[]) => void asked.push(of), disconnect: async (...of: unknown[]) => void asked.push(of),
        why: async (port: number, protocol?: string) => [`${port} ${protocol ?? 'any'}`],
      },
    } as unknown as Engine;
    const streams = { stdout: new PassThrough(), stderr: new PassThrough() };
    const text = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) streams[name].on('data', (data: Buffer) => (text[name] += data.toString()));
    const stdin = new PassThrough();
    stdin.end(input);
    const code = await createCli().run(() => Promise.resolve(engine), { argv, cwd: '/', env: {}, stdin, ...streams, version: '0', commands: [] } as unknown as Invocation);
    return { code, out: text.stdout, err: text.stderr, asked };
  }
  it('make networks', async () => {
    const { out, asked, err } = await cli(['network', 'create', '--subnet', '10.0.0.0/24', '--subnet', 'fd00::/64', '-o', 'mtu=1400', '--label', 'x', '--internal', '-d', 'bridge', '--attachable', 'c']);
    expect(out).toBe(`${'c'.repeat(64)}\n`);
    expect(err).toContain('--attachable');
    expect(asked).toEqual([{ name: 'c', driver: 'bridge', pools: [{ subnet: '10.0.0.0/24' }, { subnet: 'fd00::/64' }], internal: true, ipv6: true, labels: { x: '' }, options: { mtu: '1400' } }]);
    expect((await cli(['network', 'create', 'c'])).asked).toEqual([{ name: 'c', pools: [], internal: false, ipv6: false, labels: {}, options: {} }]);
  });
  it('list them', async () => {
    expect((await cli(['network', 'ls'])).out).toBe('NETWORK ID     NAME      DRIVER    SCOPE\naaaaaaaaaaaa   a         bridge    local\nbbbbbbbbbbbb   b         bridge    local\n');
    const list = async (...argv: string[]) => (await cli(['network', 'ls', '--format', '{{.Name}} {{.Internal}} {{.Label "x"}}', ...argv])).out;
    expect(await list('-f', 'type=custom')).toBe('b true y\n');
    expect(await list('-f', 'label=x=y', '-f', 'driver=bridge')).toBe('b true y\n');
    expect(await list('-f', 'name=a', '-f', 'name=b')).toBe('a false \nb true y\n');
    expect(await list('-f', 'scope=swarm')).toBe('');
    expect((await cli(['network', 'ls', '-q', '--no-trunc', '-f', 'dangling=1'])).out).toBe(`${'b'.repeat(64)}\n`);
    expect((await cli(['network', 'ls', '-f', 'x=y'])).err).toContain("invalid filter 'x=y'");
    expect((await cli(['network', 'ls', '-f', 'type=foo'])).err).toContain("invalid filter: 'type'='foo'");
  });
  it('end with 1 when the engine refuses, and with 125 when the words are wrong', async () => {
    expect(await cli(['network', 'inspect', 'a', 'no'])).toMatchObject({ code: 1, out: '[\n    {\n        "Name": "a"\n    }\n]\n', err: expect.stringContaining('network no not found') as string });
    expect((await cli(['network', 'inspect', '-f', '{{.Name}}', 'b'])).out).toBe('b\n');
    expect(await cli(['network', 'rm', 'no', 'a'])).toMatchObject({ code: 1, out: 'a\n' });
    expect(await cli(['network', 'rm', '-f', 'no'])).toMatchObject({ code: 0, out: '', err: '' });
    expect((await cli(['network', 'create', '--subnet', 'x', 'n'])).code).toBe(1);
    expect((await cli(['network', 'create'])).code).toBe(125);
    expect((await cli(['network', 'lss'])).err).toContain('did you mean network ls?');
    expect((await cli(['network'])).out).toContain('create, ls, list, inspect, rm, remove, prune, connect, disconnect, why');
  });
  it('ask before they prune', async () => {
    expect(await cli(['network', 'prune'], 'y\n')).toMatchObject({ code: 0, out: expect.stringMatching(/\[y\/N\] Deleted Networks:\nb\na\n\n$/) as string });
    expect(await cli(['network', 'prune'], 'n\n')).toMatchObject({ code: 1, out: expect.stringMatching(/\[y\/N\] $/) as string });
    expect((await cli(['network', 'prune'])).code).toBe(1);
    expect((await cli(['network', 'prune', '-f', '--filter', 'label!=x'])).out).toBe('Deleted Networks:\na\n\n');
    expect((await cli(['network', 'prune', '-f', '--filter', 'until=2025-01-01'])).out).toBe('');
  });
  it('connect and disconnect', async () => {
    expect((await cli(['network', 'connect', '--alias', 'q', '--ip', '10.0.0.9', '--ip6', 'fd00::9', '--driver-opt', 'a=b', 'n', 'c'])).asked).toEqual([['n', 'c', { aliases: ['q'], ip: '10.0.0.9', ip6: 'fd00::9', options: { a: 'b' } }]]);
    expect((await cli(['network', 'disconnect', '-f', 'n', 'c'])).asked).toEqual([['n', 'c', { force: true }]]);
  });
  it('show who is where in ps', async () => {
    const ps = async (...argv: string[]): Promise<string[]> => (await cli(['ps', '--format', '{{.Names}}|{{.Ports}}|{{.Networks}}', ...argv])).out.trimEnd().split('\n');
    const [three, two, one] = ['3||a,b', '2||none', '1|127.0.0.1:53->53/udp, 99/tcp, 443/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp|a,b'];
    expect(await ps()).toEqual([three, two, one]);
    for (const value of ['b', 'b'.repeat(12)]) expect(await ps('-f', `network=${value}`)).toEqual([three, one]);
    expect(await ps('-f', 'network=none')).toEqual([two]);
    expect(await ps('-f', 'publish=8080')).toEqual([one]);
    expect(await ps('-f', 'publish=8100-8200/tcp')).toEqual([three]);
    expect(await ps('-f', 'publish=53')).toEqual(['']);
    expect(await ps('-f', 'publish=53/udp', '-f', 'expose=99')).toEqual([one]);
    expect(await ps('-f', 'expose=81')).toEqual([three]);
    expect((await cli(['ps', '-f', 'publish=x'])).err).toContain('invalid port range (x)');
  });
  it('say ports', async () => {
    expect((await cli(['port', 'c'])).out).toBe('53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n');
    expect((await cli(['port', 'c', '80'])).out).toBe('0.0.0.0:8080\n[::]:8080\n');
    expect(await cli(['container', 'port', 'c', '80/udp'])).toMatchObject({ code: 1, err: expect.stringContaining("no public port '80/udp' published for c") as string });
    expect((await cli(['port', 'c', 'x'])).err).toContain('invalid port (x)');
    expect((await cli(['network', 'why', '8080'])).out).toBe('8080 any\n');
    expect((await cli(['network', 'why', '53/udp'])).out).toBe('53 udp\n');
  });
});
