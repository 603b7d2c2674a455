import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createFixture, type Fixture } from '../state/state.fixture.ts';
import { request, testEngine, type TestEngine, type TestOptions } from './engine.fixture.ts';
import { fakeNetworks, networkPlugin } from './networks.fixture.ts';

let fixture: Fixture;
afterEach(() => fixture.remove());

const wires = (): string => path.join(fixture.folder, 'net');
interface Options extends TestOptions { readonly hosts?: number }
async function engineWith(options: Options = {}): Promise<TestEngine & { readonly fakes: ReturnType<typeof fakeNetworks> }> {
  fixture = options.fixture ?? createFixture({ program: async (program) => (program.signalled ? 128 + (await program.signalled()) : 0) });
  const fakes = fakeNetworks(wires(), options.hosts);
  const test = await testEngine({ fixture, ...options, extra: () => [networkPlugin(fakes)], map: (entry) => ({ ...entry, manifest: { ...entry.manifest, repeatable: true } }) });
  return { ...test, fakes };
}
const files = (name: string): string[] => (existsSync(path.join(wires(), name)) ? readdirSync(path.join(wires(), name)) : []);
/** What must be gone with the last run. */
const left = ({ state }: Pick<TestEngine, 'state'>): string[] => [...['links', 'rules'].flatMap(files), ...state.endpoints.list().map((e) => `endpoint ${e.addresses[0]?.address}`), ...fixture.leftOver()];
const network = (name: string) => ({ name, driver: 'wire', pools: [], internal: false, ipv6: false, labels: {}, options: {} });
const rm = (over: Parameters<typeof request>[0] = {}): ReturnType<typeof request> => request({ autoRemove: true, command: ['/bin/wait'], network: 'wire', ...over });
async function end(test: TestEngine, ...ids: string[]): Promise<void> {
  for (const id of ids) await test.engine.containers.kill(id, 'KILL');
}

describe('networks', () => {
  it('are made when they are first used, and brought up again when something is missing', async () => {
    const test = await engineWith();
    const session = await test.engine.containers.run(rm({ name: 'aa' }));
    const [info] = await test.engine.networks.list();
    expect(info).toMatchObject({ record: { name: 'wire', predefined: true, pools: [{ subnet: '10.1.0.0/24' }] }, containers: [{ name: 'aa', endpoint: { interface: 'eth0', mac: '02:42:0a:01:00:02', isDefault: true } }] });
    expect((await test.engine.containers.resolve('aa')).endpoints).toMatchObject([{ addresses: [{ address: '10.1.0.2', gateway: '10.1.0.1', prefix: 24 }] }]);
    expect(files('links')).toEqual([`v0-${session.container && (await test.engine.containers.resolve('aa')).run?.id.slice(0, 12)}`]);
    expect(files('names')).toEqual([]);
    await end(test, 'aa');
    await session.gone;
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('give each container another address, however many start at once, and give them back', async () => {
    const test = await engineWith();
    const sessions = await Promise.all(Array.from({ length: 8 }, (_, i) => test.engine.containers.run(rm({ name: `c${i}0` }))));
    const addresses = test.state.endpoints.list().flatMap((e) => e.addresses.map((a) => a.address));
    expect(new Set(addresses).size).toBe(8);
    await end(test, ...sessions.map((s) => s.container));
    await Promise.all(sessions.map((s) => s.gone));
    expect(left(test)).toEqual([]);
    expect(test.state.endpoints.ended(test.state.networks.list().map((n) => n.id))).toEqual([]);
    await test.engine.close();
  });

  it('say when no address is free, and which is taken by whom', async () => {
    const test = await engineWith({ hosts: 2 });
    await test.engine.networks.create(network('small'));
    for (const name of ['one', 'two']) await test.engine.containers.run(rm({ name, network: 'small' }));
    await expect(test.engine.containers.run(rm({ network: 'small' }))).rejects.toMatchObject({ code: 'ERR_NO_ADDRESS', message: expect.stringContaining('small (10.1.0.0/24)') as string });
    const wish = { network: 'small', aliases: [], ip: '10.1.0.3' };
    await expect(test.engine.containers.run(rm({ network: 'small', endpoints: [wish] }))).rejects.toMatchObject({ code: 'ERR_ADDRESS_TAKEN', message: expect.stringContaining('container two') as string });
    await expect(test.engine.containers.run(rm({ network: 'small', endpoints: [{ ...wish, ip: '10.9.0.3' }] }))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
    await end(test, 'two');
    const again = await test.engine.containers.run(rm({ name: 'three', network: 'small', endpoints: [wish] }));
    expect(test.state.endpoints.of(again.container)[0]?.addresses[0]?.address).toBe('10.1.0.3');
    await end(test, 'one', 'three');
    await test.engine.close();
  });

  it('keep names, connect and disconnect what runs and what does not', async () => {
    const test = await engineWith();
    const { id: first } = (await test.engine.networks.create(network('first'))).record;
    await test.engine.networks.create({ ...network('second'), internal: true });
    await test.engine.containers.create(request({ name: 'box', network: 'first', command: ['/bin/wait'], endpoints: [{ network: 'first', aliases: ['alias'] }] }));
    await test.engine.networks.connect('second', 'box', { aliases: [] });
    await expect(test.engine.networks.connect('second', 'box', { aliases: [] })).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN' });
    await test.engine.containers.start('box');
    const names = (): { endpoints: { names: string[]; addresses: string[] }[] } => JSON.parse(readFileSync(path.join(wires(), 'names', files('names')[0] ?? ''), 'utf8')) as never;
    expect(names().endpoints.map((e) => [e.names.filter((n) => !/^[0-9a-f]{12}$/.test(n)), e.addresses])).toEqual([[['box', 'alias'], ['10.1.0.2']], [['box'], ['10.1.1.2']]]);
    expect(test.state.endpoints.of(test.state.containers.resolve('box').id).map((e) => [e.interface, e.isDefault, e.addresses[0]?.gateway])).toEqual([['eth0', true, '10.1.0.1'], ['eth1', false, undefined]]);
    await test.engine.networks.disconnect('second', 'box', { force: false });
    expect(names().endpoints).toHaveLength(1);
    expect(files('links')).toHaveLength(1);
    await test.engine.networks.connect('second', 'box', { aliases: ['late'], ip: '10.1.1.9' });
    expect(names().endpoints[1]).toMatchObject({ addresses: ['10.1.1.9'] });
    expect(files('links')).toHaveLength(2);
    await expect(test.engine.networks.remove(first.slice(0, 8))).rejects.toMatchObject({ code: 'ERR_IN_USE', message: expect.stringContaining('box') as string });
    await end(test, 'box');
    // connected while it ran: its link is no part of the run's plan, it goes with the namespace (here: by hand)
    await test.engine.containers.remove('box', { force: true, volumes: false });
    await test.engine.networks.remove('first');
    await expect(test.engine.networks.resolve('first')).rejects.toMatchObject({ code: 'ERR_NO_SUCH_NETWORK' });
    await test.engine.close();
  });

  it('refuse what makes no sense, and leave nothing of it', async () => {
    const test = await engineWith();
    const { engine } = test;
    for (const name of ['none', 'host', 'default', 'container', 'wire', 'a b', '../x', '']) await expect(engine.networks.create(network(name))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
    await expect(engine.networks.create({ ...network('x1'), options: { wrong: '1' } })).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
    await expect(engine.networks.create({ ...network('x1'), driver: 'none' })).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
    await engine.networks.create(network('there'));
    await expect(engine.networks.create(network('there'))).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN' });
    const refused = [
      { network: 'nowhere' }, { network: 'none', endpoints: [{ network: 'none', aliases: ['a'] }] }, { endpoints: [{ network: 'wire', aliases: ['x'] }] }, { endpoints: [{ network: 'wire', aliases: [], ip: '10.1.0.9' }] },
      { network: 'there', endpoints: [{ network: 'there', aliases: [] }, { network: 'there', aliases: [] }] }, { network: 'there', endpoints: [{ network: 'there', aliases: [] }, { network: 'host', aliases: [] }] },
      { network: 'there', endpoints: [{ network: 'there', aliases: ['a\nb'] }] }, { network: 'there', endpoints: [{ network: 'there', aliases: [], mac: '01:00:00:00:00:00' }] }, { network: 'there', endpoints: [{ network: 'there', aliases: [], ip6: 'fd00::1' }] },
    ];
    for (const over of refused) await expect(engine.containers.run(rm(over)), JSON.stringify(over)).rejects.toMatchObject({ code: expect.stringMatching(/ERR_INVALID_VALUE|ERR_NO_SUCH_NETWORK/) as string });
    expect(test.state.networks.list().map((n) => n.name).sort()).toEqual(['there', 'wire']);
    expect(await engine.networks.prune({ predefined: true })).toHaveLength(2);
    expect([...files('wires'), ...left(test)]).toEqual([]);
    await engine.close();
  });

  it('choose another subnet when somebody else has taken it meanwhile', async () => {
    const test = await engineWith();
    test.fakes.conflicts.push('docker0 has it');
    expect((await test.engine.networks.create(network('net1'))).record.pools[0]?.subnet).toBe('10.1.0.0/24');
    test.fakes.conflicts.push('docker0 has it');
    await expect(test.engine.networks.create({ ...network('net2'), pools: [{ subnet: '10.1.7.0/24' }] })).rejects.toMatchObject({ code: 'ERR_SUBNET_TAKEN', message: expect.stringContaining('docker0') as string });
    expect(files('wires')).toHaveLength(1);
    await test.engine.close();
  });

  it('publish ports: random ones are free, a taken one says whose it is, and nothing is made', async () => {
    const test = await engineWith();
    const { engine } = test;
    await engine.containers.run(rm({ name: 'web', ports: [{ containerPort: 80, hostPort: 8080, protocol: 'tcp' }, { containerPort: 81, protocol: 'udp' }], publishAll: true, expose: ['90'] }));
    const [endpoint] = test.state.endpoints.list();
    expect(endpoint?.ports.map((p) => `${p.hostAddress}:${p.hostPort > 49152 ? 'random' : p.hostPort}->${p.containerPort}/${p.protocol}`)).toEqual(['0.0.0.0:8080->80/tcp', '0.0.0.0:random->81/udp', '0.0.0.0:random->90/tcp']);
    expect(await engine.networks.why(8080)).toEqual(['0.0.0.0:8080/tcp is port 80 of container web on network wire', 'rule for 8080']);
    await expect(engine.networks.why(8081)).rejects.toMatchObject({ code: 'ERR_NO_SUCH_PORT' });
    const before = test.state.containers.list().length;
    for (const autoRemove of [true, false]) await expect(engine.containers.run(rm({ autoRemove, ports: [{ containerPort: 80, hostPort: 8080, protocol: 'tcp' }] }))).rejects.toMatchObject({ code: 'ERR_PORT_TAKEN', message: expect.stringContaining('container web has it') as string });
    fixture.native.takePort('tcp', 9000, 'nginx (pid 12)');
    await expect(engine.containers.run(rm({ ports: [{ containerPort: 80, hostPort: 9000, protocol: 'tcp' }] }))).rejects.toMatchObject({ code: 'ERR_PORT_TAKEN', message: expect.stringContaining('nginx (pid 12) has it') as string });
    expect(test.state.containers.list()).toHaveLength(before);
    await end(test, 'web');
    expect(left(test)).toEqual([]);
    await engine.close();
  });

  it('plans from memory, and sandboxes, have addresses of their own', async () => {
    const test = await engineWith();
    const seen = new Set<string>();
    for (let i = 0; i < 5; i++) {
      const session = await test.engine.containers.run(rm());
      const [endpoint] = test.state.endpoints.of(session.container);
      const address = endpoint?.addresses[0]?.address ?? '';
      expect(readFileSync(path.join(wires(), 'links', endpoint?.link ?? ''), 'utf8')).toBe(`${endpoint?.mac}\n${address}\t${session.container.slice(0, 12)}`);
      seen.add(address);
      await end(test, session.container);
    }
    expect(seen.size).toBe(5);
    expect(test.calls.list.filter((call) => call === 'plain.planRootfs')).toHaveLength(2);
    expect(await test.engine.containers.prepare(rm())).toBe(true);
    const [prepared] = test.state.endpoints.list();
    const session = await test.engine.containers.run(rm({ name: 'mine', command: ['/bin/other'] }));
    expect(test.state.endpoints.of(session.container)).toEqual([prepared]);
    await end(test, 'mine');
    await test.engine.containers.prepare(rm());
    await test.engine.containers.release();
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('explain makes nothing', async () => {
    const test = await engineWith();
    const { steps } = await test.engine.containers.explain(rm({ ports: [{ containerPort: 80, hostPort: 8080, protocol: 'tcp' }] }));
    expect(steps.filter((s) => s.slot === 'shim.links' || s.slot === 'shim.attach').map((s) => `${s.origin.plugin} ${s.operation.name}`)).toEqual(['core holdPort', 'wires writeFile', 'wires writeFile', 'core awaitPoint', 'core release'].sort((a, b) => (a.includes('Point') ? 0 : b.includes('Point') ? 0 : 0)));
    expect([...test.state.networks.list(), ...left(test)]).toEqual([]);
    await test.engine.close();
  });

  it('leave no link, address or name wherever engine, shim or both are killed', async () => {
    for (const victim of ['engine', 'shim', 'both'] as const) {
      for (let k = 0, done = false; !done; k++) {
        const first = await engineWith({ fixture: createFixture({ program: async () => 0 }) });
        await first.engine.networks.create(network('net'));
        fixture.native.crashAt(k, { victim });
        const over = { network: 'net', ports: [{ containerPort: 80, hostPort: 8080, protocol: 'tcp' as const }] };
        const verb = first.engine.containers.run(rm(over)).then((session) => session.gone).then(() => 'done', () => 'failed');
        const how = await Promise.race([verb, fixture.native.crashed.then(() => 'crashed')]);
        done = fixture.native.count <= k;
        fixture.native.reset();
        const next = how === 'crashed' ? await engineWith({ fixture, native: fixture.native.restart() }) : first;
        await next.engine.containers.list({ all: true });
        for (const record of next.state.containers.list()) await next.engine.containers.wait(record.id, 'removed').catch(() => undefined);
        expect([...left(next), ...files('names')], `${victim} at ${k} (${how})`).toEqual([]);
        await next.engine.networks.remove('net');
        await next.engine.close();
        fixture.remove();
      }
    }
  }, 120_000);
});
