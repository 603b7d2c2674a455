import { type ContainerRecord, type ContainerRequest, type ContainerView } from '@engine/core/api';
import { type Endpoint, type EndpointWish, type NetworkRecord } from '@engine/core/contracts/network';
import { type Attachment, type Inspected, type RunHookContext } from '@engine/core/hooks';
import { type Operation, type Slot } from '@engine/core/plan';
import { describe, expect, it } from 'vitest';
import { changeFiles, planFiles } from './attach.ts';
import { type HostView } from './host-view.ts';
import { networkHosts, networkResolvConf } from './hosts-files.ts';
import { dockerJson } from './inspect.ts';
import { checkNetworkOptions } from './network.ts';

const request = (over: Partial<ContainerRequest> = {}): ContainerRequest => ({
  image: 'test', env: [], labels: {}, addHosts: [], terminal: false, openStdin: false, stdinOnce: false, attach: { stdin: false, stdout: true, stderr: true }, detached: false, autoRemove: false,
  network: 'n1', ports: [], mounts: [], tmpfs: [], readonlyRootfs: false, init: false, privileged: false, capAdd: [], capDrop: [], securityOptions: [], devices: [], deviceCgroupRules: [], rlimits: [],
  sysctls: {}, groupAdd: [], log: { options: {} }, storageOptions: {}, limits: {}, ...over,
});
const id = '76d1ff491450'.padEnd(64, '0');
const choice = (driver: string) => ({ driver, plugin: driver, version: '1', options: '' });
const network = (name: string, over: Partial<NetworkRecord> = {}): NetworkRecord => ({
  id: name.repeat(64).slice(0, 64), name, created: '2026-01-01T00:00:00.000Z', labels: {}, internal: false, ipv6: false, predefined: false, options: {}, settings: {}, pools: [{ family: 4, subnet: '172.30.0.0/16', gateway: '172.30.0.1' }],
  drivers: { network: choice('bridge'), ipam: choice('local'), firewall: choice('nftables') }, ...over,
});
const endpoint = (on: NetworkRecord, address: string, over: Partial<Endpoint> = {}): Endpoint => ({
  container: id, run: 'abcd'.repeat(4), network: on.id, interface: 'eth0', link: 'v0-abcdabcdabcd', mac: '02:42:ac:1e:05:09', addresses: [{ family: 4, address, prefix: 16, gateway: '172.30.0.1' }], isDefault: true, aliases: [], ports: [], options: {}, ...over,
});
const record = (over: Partial<ContainerRecord> = {}): ContainerRecord => ({
  id, name: 'c1', created: '2026-01-01T00:00:00.000Z', request: request(), image: { id: 'sha256:a', name: 'test', source: 'oci' }, imageConfig: {}, rootfs: {}, spec: { ociVersion: '1', hostname: 'web', process: { cwd: '/', user: {}, args: ['x'] } }, drivers: { security: [] }, volumes: [], networks: [], starts: 0, ...over,
});
const host = (resolv = 'nameserver 10.255.255.53\n'): HostView => ({ cpus: 1, read: (path) => (path === '/etc/resolv.conf' ? resolv : undefined), kind: () => undefined, device: () => undefined, list: () => [] });
const n1 = network('a1');
const LOCAL = /^127\.0\.0\.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n[^]*ff02::2\tip6-allrouters\n/;
const rest = (text: string): string => text.replace(LOCAL, '');

describe('hosts', () => {
  it('has the own names at every address, after what was added', () => {
    const two = [endpoint(n1, '172.30.5.9'), endpoint(network('b2'), '172.18.0.2', { isDefault: false, addresses: [{ family: 4, address: '172.18.0.2', prefix: 16 }, { family: 6, address: 'fd00:1::9', prefix: 64 }] })];
    const text = networkHosts({ addHosts: ['db:10.0.0.5', 'me:host-gateway'] }, two, 'hh');
    expect(text).toMatch(LOCAL);
    expect(rest(text)).toBe('10.0.0.5\tdb\n172.30.0.1\tme\n172.30.5.9\thh\n172.18.0.2\thh\nfd00:1::9\thh\n');
  });
  it('knows the domain', () => {
    expect(rest(networkHosts({ addHosts: [], domainname: 'example.org' }, [endpoint(n1, '10.0.0.2')], 'web'))).toBe('10.0.0.2\tweb.example.org web\n');
    expect(rest(networkHosts({ addHosts: [] }, [endpoint(n1, '10.0.0.2')], 'web.example.org'))).toBe('10.0.0.2\tweb.example.org web\n');
  });
  it('has no gateway on an internal network', () => {
    const internal = [endpoint(n1, '10.0.0.2', { addresses: [{ family: 4, address: '10.0.0.2', prefix: 16 }] })];
    expect(() => networkHosts({ addHosts: ['me:host-gateway'] }, internal, 'web')).toThrow('host-gateway needs a network with a gateway');
    expect(rest(networkHosts({ addHosts: [] }, internal, 'web'))).toBe('10.0.0.2\tweb\n');
  });
  it('can be made for another container by exchanging `\\nADDRESS\\t`, whatever else is in it', () => {
    const addHosts = ['a:172.30.0.2', 'b:172.30.0.3', 'c:172.30.0.22', 'd:host-gateway', 'e=[fd00::2]'];
    const of = (n: number) => [endpoint(n1, `172.30.0.${n}`, { addresses: [{ family: 4, address: `172.30.0.${n}`, prefix: 16, gateway: '172.30.0.1' }, { family: 6, address: `fd00::${n}`, prefix: 64, gateway: 'fd00::1' }] })];
    const made = (n: number): string => networkHosts({ addHosts }, of(n), 'web');
    for (const from of [2, 3, 4, 22]) {
      for (const to of [2, 3, 5, 22]) {
        const exchanged = made(from).replaceAll(`\n172.30.0.${from}\t`, `\n172.30.0.${to}\t`).replaceAll(`\nfd00::${from}\t`, `\nfd00::${to}\t`);
        expect(exchanged.replaceAll(' ', '\t'), `${from} ${to}`).toBe(made(to).replaceAll(' ', '\t'));
      }
    }
  });
});

describe('resolv.conf', () => {
  it('names the resolvers of the networks, and looks up a single word as it stands', () => {
    expect(networkResolvConf({}, ['172.30.0.1'], host())).toBe('nameserver 172.30.0.1\noptions ndots:0\n');
    expect(networkResolvConf({}, ['172.30.0.1'], host('nameserver 1.1.1.1\nsearch lan\noptions edns0 ndots:2\n'))).toBe('nameserver 172.30.0.1\nsearch lan\noptions edns0 ndots:0\n');
    expect(networkResolvConf({ dns: ['9.9.9.9'], dnsSearch: ['x.y'], dnsOptions: ['ndots:3'] }, ['172.30.0.1'], host('search lan\n'))).toBe('nameserver 172.30.0.1\nsearch x.y\noptions ndots:3\n');
    expect(networkResolvConf({}, ['a', 'b', 'c', 'd'], host()).match(/nameserver/g)).toHaveLength(3);
  });
});

describe('the files of a run', () => {
  const planned = (attachment: Partial<Attachment>, over: Partial<ContainerRecord> = {}): Record<string, string> => {
    const files: Record<string, string> = {};
    const container = record(over);
    const add = (slot: Slot, operation: Operation): void => {
      expect(slot).toBe('shim.links');
      const args = operation.args as { path: string; data: Buffer };
      files[args.path] = args.data.toString();
    };
    const context = { container, spec: container.spec, plan: { add, at: () => context.plan } } as unknown as RunHookContext;
    planFiles(context, { endpoints: [endpoint(n1, '172.30.5.9')], networks: [n1], resolvers: [], folder: '/c', ...attachment }, { machine: { hostname: 'host1' }, host: host() });
    return files;
  };
  it('are those that its networks call for', () => {
    expect(Object.keys(planned({ resolvers: ['172.30.0.1'] }))).toEqual(['/c/hosts', '/c/resolv.conf']);
    expect(planned({ resolvers: ['172.30.0.1'] })['/c/resolv.conf']).toBe('nameserver 172.30.0.1\noptions ndots:0\n');
    expect(rest(planned({})['/c/hosts'] ?? '')).toBe('172.30.5.9\tweb\n');
    expect(rest(planned({}, { spec: { ociVersion: '1' } })['/c/hosts'] ?? '')).toBe('172.30.5.9\thost1\n');
  });
  it('follow the host again without names, once it has run', () => {
    expect(Object.keys(planned({}))).toEqual(['/c/hosts']);
    expect(planned({}, { starts: 1 })['/c/resolv.conf']).toBe('nameserver 10.255.255.53\n');
  });
});

describe('the files of a container that runs', () => {
  const [a, b] = [endpoint(n1, '172.30.5.9'), endpoint(network('b2'), '10.1.0.2', { isDefault: false })];
  const attachment = (endpoints: Endpoint[], resolvers: string[]): Attachment => ({ endpoints, networks: [], resolvers, folder: '/c' });
  const change = (before: Attachment, after: Attachment, files: Record<string, string>) => changeFiles({ container: record(), before, after, files }, { machine: { hostname: 'host1' }, host: host() }).files;
  const hosts = networkHosts({ addHosts: [] }, [a], 'web');
  const own = 'nameserver 172.30.0.1\noptions ndots:0\n';
  it('follow it to another network and back', () => {
    const [one, two] = [attachment([a], []), attachment([a, b], ['172.30.0.1'])];
    const files = { hosts, 'resolv.conf': 'nameserver 10.255.255.53\n' };
    const connected = change(one, two, files);
    expect(connected).toEqual({ hosts: `${hosts}10.1.0.2\tweb\n`, 'resolv.conf': own });
    expect(change(two, one, connected)).toEqual(files);
  });
  it('keep what somebody wrote into them', () => {
    const [one, two] = [attachment([a], ['172.30.0.1']), attachment([b], ['10.1.0.1'])];
    expect(change(one, two, { hosts: `${hosts}1.2.3.4 mine`, 'resolv.conf': 'nameserver 9.9.9.9\n' })).toEqual({ hosts: `${hosts.replace('172.30.5.9\tweb\n', '')}1.2.3.4 mine\n10.1.0.2\tweb\n`, 'resolv.conf': 'nameserver 9.9.9.9\n' });
    expect(change(one, two, {})).toEqual({});
  });
});

describe('options that a shared network excludes', () => {
  it.each<[Partial<ContainerRequest>, string]>([
    [{ dns: ['1.1.1.1'] }, 'dns and the network mode'], [{ addHosts: ['a:1.2.3.4'] }, 'custom host-to-IP mapping and the network mode'], [{ ports: [{ containerPort: 80, protocol: 'tcp' }] }, 'port publishing and the container type network mode'],
    [{ publishAll: true }, 'port publishing and the container type network mode'], [{ expose: ['80/tcp'] }, 'port exposing and the container type network mode'],
  ])('%j', (over, words) => {
    expect(() => checkNetworkOptions(request({ network: 'container:x', ...over }), 'container')).toThrow(`conflicting options: ${words}`);
    expect(() => checkNetworkOptions(request({ network: 'host', ...over }), 'host')).not.toThrow();
    expect(() => checkNetworkOptions(request(over), 'new')).not.toThrow();
  });
  it('and a MAC address', () => {
    const endpoints = [{ network: 'host', aliases: [], mac: '02:42:00:00:00:01' }];
    expect(() => checkNetworkOptions(request({ endpoints }), 'host')).toThrow('mac-address and the network mode');
    expect(() => checkNetworkOptions(request({ endpoints }), 'new')).not.toThrow();
  });
});

describe('inspect', () => {
  const wish = (on: NetworkRecord, over: Partial<EndpointWish> = {}): EndpointWish => ({ network: on.id, aliases: [], ...over });
  const bridge = network('c3', { name: 'bridge', predefined: true });
  const settings = (over: Partial<ContainerRecord>, view: Partial<ContainerView>, networks: NetworkRecord[]): Record<string, any> =>
    dockerJson({ facts: { kind: 'container', view: { record: record(over), state: 'running', ...view }, networks, folder: '/c' }, json: {} }).json['NetworkSettings'] as Record<string, any>;
  const run = { id: 'abcd'.repeat(4), pid: 42, startTime: 1n, startedAt: '2026-01-03T00:00:00.000Z', folder: '/r' };
  const nothing = { Gateway: '', IPAddress: '', IPPrefixLen: 0, IPv6Gateway: '', GlobalIPv6Address: '', GlobalIPv6PrefixLen: 0 };

  it('shows ports and addresses on the default bridge, as docker inspect does', () => {
    const ports = [['tcp', '0.0.0.0', 32768, 443], ['tcp', '::', 32768, 443], ['tcp', '0.0.0.0', 8080, 80], ['tcp', '::', 8080, 80], ['udp', '127.0.0.1', 9000, 9000]].map(([protocol, hostAddress, hostPort, containerPort]) => ({ protocol, hostAddress, hostPort, containerPort }) as Endpoint['ports'][number]);
    const asked = request({ network: 'bridge', ports: [{ protocol: 'tcp', hostPort: 8080, containerPort: 80 }, { protocol: 'udp', hostAddress: '127.0.0.1', hostPort: 9000, containerPort: 9000 }, { protocol: 'tcp', containerPort: 443 }, { protocol: 'tcp', hostPort: 7000, hostPortEnd: 7003, containerPort: 7000 }], expose: ['99/tcp'] });
    const shown: Inspected = dockerJson({ facts: { kind: 'container', view: { record: record({ request: asked, imageConfig: { ExposedPorts: { '443/udp': {}, 'x': {}, '1-99999999': {} } }, networks: [wish(bridge)] }), state: 'running', run, endpoints: [endpoint(bridge, '172.17.0.2', { ports })] }, networks: [bridge], folder: '/c' }, json: {} });
    const json = shown.json as Record<string, Record<string, any>>;
    const endpointId = json['NetworkSettings']?.['EndpointID'] as string;
    expect(endpointId).toMatch(/^[0-9a-f]{64}$/);
    const place = { Gateway: '172.30.0.1', IPAddress: '172.17.0.2', IPPrefixLen: 16, IPv6Gateway: '', GlobalIPv6Address: '', GlobalIPv6PrefixLen: 0 };
    expect(json['NetworkSettings']).toEqual({
      Bridge: '', SandboxID: expect.stringMatching(/^[0-9a-f]{64}$/) as string, SandboxKey: '/proc/42/ns/net', HairpinMode: false, LinkLocalIPv6Address: '', LinkLocalIPv6PrefixLen: 0, SecondaryIPAddresses: null, SecondaryIPv6Addresses: null, EndpointID: endpointId, ...place, MacAddress: '02:42:ac:1e:05:09',
      Ports: {
        '443/tcp': [{ HostIp: '0.0.0.0', HostPort: '32768' }, { HostIp: '::', HostPort: '32768' }], '443/udp': null, '7000/tcp': null, '80/tcp': [{ HostIp: '0.0.0.0', HostPort: '8080' }, { HostIp: '::', HostPort: '8080' }], '9000/udp': [{ HostIp: '127.0.0.1', HostPort: '9000' }], '99/tcp': null,
      },
      Networks: { bridge: { IPAMConfig: null, Links: null, Aliases: null, MacAddress: '02:42:ac:1e:05:09', DriverOpts: null, GwPriority: 0, NetworkID: bridge.id, EndpointID: endpointId, ...place, DNSNames: null } },
    });
    expect(json['HostConfig']).toMatchObject({
      NetworkMode: 'bridge', PublishAllPorts: false,
      PortBindings: { '443/tcp': [{ HostIp: '', HostPort: '' }], '7000/tcp': [{ HostIp: '', HostPort: '7000-7003' }], '80/tcp': [{ HostIp: '', HostPort: '8080' }], '9000/udp': [{ HostIp: '127.0.0.1', HostPort: '9000' }] },
    });
    expect(Object.keys(json['Config']?.['ExposedPorts'] as object)).toEqual(['443/tcp', '443/udp', '7000/tcp', '80/tcp', '9000/udp', '99/tcp']);
  });
  it('shows several networks, with the addresses of those that are connected now', () => {
    const b2 = network('b2', { ipv6: true });
    const networks = [wish(n1, { ip: '172.30.5.9', aliases: ['foo'] }), wish(b2, { ip6: 'fd00:1::9', options: { a: 'b' } })];
    const shown = settings({ networks }, { run, endpoints: [endpoint(n1, '172.30.5.9', { addresses: [{ family: 4, address: '172.30.5.9', prefix: 16, gateway: '172.30.0.1' }, { family: 6, address: 'fd00:1::9', prefix: 64, gateway: 'fd00:1::1' }] })] }, [n1, b2]);
    expect(Object.keys(shown['Networks'])).toEqual(['a1', 'b2']);
    expect(shown['Networks'].a1).toMatchObject({ IPAMConfig: { IPv4Address: '172.30.5.9' }, Aliases: ['foo', id.slice(0, 12)], DNSNames: ['c1', 'foo', id.slice(0, 12)], IPAddress: '172.30.5.9', IPv6Gateway: 'fd00:1::1', GlobalIPv6Address: 'fd00:1::9', GlobalIPv6PrefixLen: 64 });
    expect(shown['Networks'].b2).toMatchObject({ IPAMConfig: { IPv6Address: 'fd00:1::9' }, DriverOpts: { a: 'b' }, NetworkID: b2.id, EndpointID: '', MacAddress: '', ...nothing });
    expect(shown).toMatchObject({ ...nothing, EndpointID: '', MacAddress: '' });
  });
  it('shows modes', () => {
    expect(settings({ request: request({ network: 'host', expose: ['80/tcp'] }) }, { run }, [])).toMatchObject({ Ports: {}, Networks: { host: { NetworkID: '', ...nothing } } });
    expect(settings({ request: request({ network: `container:${id}` }) }, { run }, [])['Networks']).toEqual({});
    expect(settings({ networks: [wish(n1)] }, { state: 'stopped' }, [n1])).toMatchObject({ Ports: {}, SandboxID: '', SandboxKey: '', Networks: { a1: nothing } });
  });
  it('shows a network, as docker network inspect does', () => {
    const n = network('d4', {
      name: 'n1', labels: { x: 'y' }, options: { 'com.docker.network.bridge.name': 'brx' }, internal: true, ipv6: true,
      pools: [{ family: 4, subnet: '172.30.0.0/16', gateway: '172.30.0.1', range: '172.30.5.0/24', auxiliary: { a: '172.30.5.5' } }, { family: 6, subnet: 'fd00:1::/64', gateway: 'fd00:1::1' }],
    });
    const { json } = dockerJson({ facts: { kind: 'network', info: { record: n, containers: [{ id, name: 'c2', endpoint: endpoint(n, '172.30.5.9') }, { id: 'b'.repeat(64), name: 'stopped' }] } }, json: { Engine: {} } });
    const containers = json['Containers'] as Record<string, Record<string, string>>;
    expect(Object.keys(containers)).toEqual([id]);
    expect(json).toEqual({
      Name: 'n1', Id: n.id, Created: n.created, Scope: 'local', Driver: 'bridge', EnableIPv4: true, EnableIPv6: true,
      IPAM: { Driver: 'default', Options: {}, Config: [{ Subnet: '172.30.0.0/16', IPRange: '172.30.5.0/24', Gateway: '172.30.0.1', AuxiliaryAddresses: { a: '172.30.5.5' } }, { Subnet: 'fd00:1::/64', Gateway: 'fd00:1::1' }] },
      Internal: true, Attachable: false, Ingress: false, ConfigFrom: { Network: '' }, ConfigOnly: false,
      Containers: { [id]: { Name: 'c2', EndpointID: expect.stringMatching(/^[0-9a-f]{64}$/) as string, MacAddress: '02:42:ac:1e:05:09', IPv4Address: '172.30.5.9/16', IPv6Address: '' } },
      Options: { 'com.docker.network.bridge.name': 'brx' }, Labels: { x: 'y' }, Engine: {},
    });
  });
});
