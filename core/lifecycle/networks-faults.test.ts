import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createFixture, type Fixture } from '../state/state.fixture.ts';
import { type Endpoint } from '../contracts/network/index.ts';
import { request, testEngine, type TestEngine, type TestOptions } from './engine.fixture.ts';
import { fakeNetworks, networkPlugin } from './networks.fixture.ts';

let fixture: Fixture;
afterEach(() => fixture.remove());

type Test = TestEngine & { readonly fakes: ReturnType<typeof fakeNetworks> };
const wires = (): string => path.join(fixture.folder, 'net');
async function engineWith(options: TestOptions & { readonly hosts?: number } = {}): Promise<Test> {
  fixture = options.fixture ?? createFixture({ program: async (program) => (program.signalled ? 128 + (await program.signalled()) : 0) });
  const fakes = fakeNetworks(wires(), options.hosts);
  const test = await testEngine({ fixture, ...options, extra: () => [networkPlugin(fakes)], map: (entry) => ({ ...entry, manifest: { ...entry.manifest, repeatable: true } }) });
  return { ...test, fakes };
}
const files = (name: string): string[] => (existsSync(path.join(wires(), name)) ? readdirSync(path.join(wires(), name)) : []);
const left = ({ state }: Pick<TestEngine, 'state'>): string[] => [...['links', 'rules', 'names'].flatMap((name) => files(name).map((file) => `${name} ${file}`)), ...state.endpoints.list().map((e) => `endpoint ${e.addresses[0]?.address}`), ...fixture.leftOver()];
const network = (name: string) => ({ name, driver: 'wire', pools: [], internal: false, ipv6: false, labels: {}, options: {} });
const rm = (over: Parameters<typeof request>[0] = {}): ReturnType<typeof request> => request({ autoRemove: true, command: ['/bin/wait'], network: 'wire', ...over });
const box = (over: Parameters<typeof request>[0] = {}): ReturnType<typeof request> => request({ name: 'box', command: ['/bin/wait'], network: 'wire', ...over });
async function end(test: TestEngine, ...ids: string[]): Promise<void> {
  for (const id of ids) await test.engine.containers.kill(id, 'KILL');
}
const idOf = ({ state }: TestEngine, name: string): string => state.containers.resolve(name).id;
/** What an engine has written down that was killed before its run's folder was there. */
const abandoned = (net: string, address: string, container = 'd'.repeat(64)): Endpoint => ({
  container, run: 'dddddddddddddddd', network: net, interface: 'eth0', link: 'v0-dddddddddddd', mac: '02:42:0a:01:00:02', addresses: [{ family: 4, address, prefix: 24 }], isDefault: true, aliases: [], ports: [], options: {},
});

describe('names', () => {
  it('of a network that was joined later go with the run', async () => {
    for (const autoRemove of [true, false]) {
      const test = await engineWith();
      await test.engine.networks.create(network('net'));
      const session = await test.engine.containers.run(box({ autoRemove }));
      expect(files('names')).toEqual([]);
      await test.engine.networks.connect('net', 'box', { aliases: [] });
      expect(files('names')).toHaveLength(1);
      for (const link of files('links').filter((name) => name.startsWith('v1-'))) rmSync(path.join(wires(), 'links', link));
      await end(test, 'box');
      await session.gone;
      expect(left(test)).toEqual([]);
      await test.engine.close();
      fixture.remove();
    }
  });
});

describe('leases', () => {
  it('of an engine that was killed are for the next start, also of the same container', async () => {
    const test = await engineWith({ hosts: 1 });
    const { id } = (await test.engine.networks.create(network('net'))).record;
    await test.engine.containers.create(box({ network: 'net', endpoints: [{ network: 'net', aliases: [], ip: '10.1.0.2' }] }));
    await test.state.endpoints.claim([abandoned(id, '10.1.0.2', idOf(test, 'box'))], []);
    await test.engine.containers.start('box');
    await end(test, 'box');
    await test.state.endpoints.claim([abandoned(id, '10.1.0.2')], []);
    const session = await test.engine.containers.run(rm({ network: 'net' }));
    await end(test, session.container);
    await test.state.endpoints.claim([abandoned(id, '10.1.0.2')], []);
    await test.engine.containers.remove('box', { force: true, volumes: false });
    await test.engine.networks.remove('net');
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('stay with one that is connected again, whoever has just seen it gone', async () => {
    const test = await engineWith();
    const { id } = (await test.engine.networks.create(network('net'))).record;
    const { endpoints } = test.state;
    const first = abandoned(id, '10.1.0.2');
    const again = abandoned(id, '10.1.0.3');
    await endpoints.claim([first], []);
    await endpoints.end([first], () => false);
    await endpoints.claim([again], []);
    expect(endpoints.of(first.container)).toEqual([again]);
    await endpoints.claim([abandoned(id, '10.1.0.4', 'e'.repeat(64))], [first]);
    expect(endpoints.of(first.container)).toEqual([again]);
    expect(endpoints.holder(id, '10.1.0.3')).toMatchObject({ ended: false });
    await endpoints.end([again], () => true);
    expect([endpoints.holder(id, '10.1.0.2'), endpoints.holder(id, '10.1.0.3')]).toEqual([undefined, undefined]);
    await test.engine.close();
  });

  it('are not given for a network that is removed meanwhile, and it is not made again', async () => {
    const test = await engineWith();
    await test.engine.networks.create(network('net'));
    const { managed } = test.fakes.network;
    if (!managed) throw new Error('no networks');
    const { ensure } = managed;
    Object.assign(managed, { ensure: async (record: Parameters<typeof ensure>[0]) => {
      Object.assign(managed, { ensure });
      await test.engine.networks.remove('net');
      return ensure(record);
    } });
    await expect(test.engine.containers.run(rm({ network: 'net' }))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_NETWORK' });
    expect([...files('wires'), ...left(test)]).toEqual([]);
    await test.engine.networks.create(network('net'));
    const { candidates } = test.fakes.ipam;
    Object.assign(test.fakes.ipam, { candidates: (...args: Parameters<typeof candidates>) => {
      Object.assign(test.fakes.ipam, { candidates });
      const db = new DatabaseSync(path.join(fixture.folder, 'root/state.db'));
      db.exec('DELETE FROM networks');
      db.close();
      return candidates(...args);
    } });
    await expect(test.engine.containers.run(rm({ network: 'net' }))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_NETWORK' });
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('of a network that goes while a container is made for it: there is no such container', async () => {
    const test = await engineWith();
    await test.engine.networks.create(network('net'));
    const begin = test.state.begin.bind(test.state);
    const spy = vi.spyOn(test.state, 'begin').mockImplementation((what, trace) => {
      const transaction = begin(what, trace);
      if (!what.startsWith('create container')) return transaction;
      return { ...transaction, commit: async (change) => {
        await test.engine.networks.remove('net');
        return transaction.commit(change);
      } };
    });
    await expect(test.engine.containers.create(box({ network: 'net' }))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_NETWORK' });
    spy.mockRestore();
    expect([...test.state.containers.list(), ...left(test)]).toEqual([]);
    await test.engine.close();
  });
});

describe('plans from memory', () => {
  it('leave an address alone that the user wrote', async () => {
    const test = await engineWith();
    const wanted = rm({ labels: { address: '10.1.0.3' }, env: ['HOSTS=x\n10.1.0.3\tpeer'] });
    for (let i = 0; i < 4; i++) {
      const session = await test.engine.containers.run(wanted);
      const record = test.state.containers.resolve(session.container);
      expect([record.request.labels, record.request.env, test.state.endpoints.of(session.container)[0]?.addresses[0]?.address]).toEqual([wanted.labels, wanted.env, `10.1.0.${2 + i}`]);
      const [exec] = fixture.native.operations.filter(({ name }) => name === 'exec').slice(-1);
      expect(exec?.args['env']).toEqual(wanted.env);
      await end(test, session.container);
    }
    await test.engine.close();
  });

  it('are not taken for a network that was made anew', async () => {
    const test = await engineWith();
    for (let i = 0; i < 3; i++) await end(test, (await test.engine.containers.run(rm())).container);
    expect(await test.engine.networks.prune({ predefined: true })).toEqual(['wire']);
    await end(test, (await test.engine.containers.run(rm())).container);
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });
});

describe('sandboxes', () => {
  it('are given up when the run that took one fails', async () => {
    const test = await engineWith();
    expect(await test.engine.containers.prepare(rm())).toBe(true);
    const { managed } = test.fakes.network;
    if (!managed) throw new Error("no networks");
    const { ensure } = managed;
    Object.assign(managed, { ensure: () => { Object.assign(managed, { ensure }); throw new Error("no netlink"); } });
    await expect(test.engine.containers.run(rm())).resolves.toBeDefined();
    await test.engine.close();
  });
  it('that cannot be made leave no address', async () => {
    const test = await engineWith();
    await end(test, (await test.engine.containers.run(rm())).container);
    const spy = vi.spyOn(test.state.runs, 'create').mockRejectedValueOnce(new Error('no space'));
    await expect(test.engine.containers.prepare(rm())).rejects.toThrow('no space');
    spy.mockRestore();
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });
  it('whose plan cannot be made again are dropped', async () => {
    const test = await engineWith();
    expect(await test.engine.containers.prepare(rm())).toBe(true);
    const { planAttach } = test.fakes.network.managed ?? {};
    Object.assign(test.fakes.network.managed ?? {}, { planAttach: () => { throw new Error('broken'); } });
    await expect(test.engine.containers.run(rm({ command: ['/bin/other'] }))).rejects.toThrow('broken');
    Object.assign(test.fakes.network.managed ?? {}, { planAttach });
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });
});

describe('networks', () => {
  it('go once, whoever removes them at the same time', async () => {
    const test = await engineWith();
    await test.engine.networks.create(network('net'));
    const [one, two] = await Promise.allSettled([test.engine.networks.remove('net'), test.engine.networks.remove('net')]);
    expect([one?.status, two?.status].sort()).toEqual(['fulfilled', 'rejected']);
    expect([one, two].find((r) => r?.status === 'rejected')).toMatchObject({ reason: { code: 'ERR_NO_SUCH_NETWORK' } });
    await test.engine.networks.create(network('a1'));
    await test.engine.networks.create(network('b1'));
    const spy = vi.spyOn(test.state.networks, 'users').mockReturnValueOnce([]).mockReturnValueOnce(['x'.repeat(64)]);
    expect(await test.engine.networks.prune({})).toEqual(['b1']);
    spy.mockRestore();
    await test.engine.close();
  });

  it('are found by their id before a name that looks like one', async () => {
    const test = await engineWith();
    const { id } = (await test.engine.networks.create(network('first'))).record;
    await test.engine.networks.create(network(id));
    const session = await test.engine.containers.run(rm({ network: id }));
    expect(test.state.endpoints.of(session.container)[0]?.network).toBe(id);
    await end(test, session.container);
    await test.engine.close();
  });

  it('go although sandboxes wait on them', async () => {
    const test = await engineWith();
    expect(await test.engine.containers.prepare(rm())).toBe(true);
    expect(await test.engine.networks.prune({ predefined: true })).toEqual(['wire']);
    expect([...files('wires'), ...left(test)]).toEqual([]);
    await test.engine.close();
  });

  it('of the engine are made when something is first connected with them', async () => {
    const test = await engineWith();
    await test.engine.networks.create(network('net'));
    await test.engine.containers.create(box({ network: 'net' }));
    await test.engine.networks.connect('wire', 'box', { aliases: [] });
    expect(test.state.containers.resolve('box').networks).toHaveLength(2);
    await test.engine.close();
  });
});

describe('connect and disconnect', () => {
  const both = async (first: Test): Promise<void> => {
    await first.engine.networks.create(network('one'));
    await first.engine.networks.create(network('two'));
    const ports = [{ containerPort: 80, hostPort: 8080, protocol: 'tcp' as const }];
    await first.engine.containers.create(box({ network: 'one', ports, endpoints: [{ network: 'one', aliases: [] }, { network: 'two', aliases: [] }] }));
    await first.engine.containers.start('box');
  };
  /** Of a container's record, its endpoints, its links and what others hear of it. */
  const seen = ({ state }: TestEngine) => {
    const record = state.containers.resolve('box');
    const endpoints = state.endpoints.of(record.id);
    const told = files('names').includes(record.id) ? (JSON.parse(readFileSync(path.join(wires(), 'names', record.id), 'utf8')) as { endpoints: { network: string }[] }).endpoints.map((e) => e.network) : [];
    return { networks: record.networks.map((w) => w.network).sort(), endpoints: endpoints.map((e) => e.network).sort(), links: files('links').sort(), mine: endpoints.map((e) => e.link).sort(), told: [...told].sort(), rules: files('rules').length, isDefault: endpoints.filter((e) => e.isDefault).length };
  };

  it('are done or not done, wherever the engine is killed', async () => {
    const verbs = {
      disconnect: (test: Test) => test.engine.networks.disconnect('one', 'box', { force: false }),
      connect: (test: Test) => test.engine.networks.connect('three', 'box', { aliases: ['late'] }),
    };
    for (const verb of ['disconnect', 'connect'] as const) {
      for (const victim of ['engine', 'shim', 'both'] as const) for (const when of ['before', 'after'] as const) {
        for (let k = 0, done = false; !done; k++) {
          const first = await engineWith();
          await both(first);
          await first.engine.networks.create(network('three'));
          const before = seen(first);
          fixture.native.crashAt(k, { victim, when });
          const work = verbs[verb](first).then(() => 'done', () => 'failed');
          const how = await Promise.race([work, fixture.native.crashed.then(() => 'crashed')]);
          done = fixture.native.count <= k;
          fixture.native.reset();
          const next = how === 'crashed' ? await engineWith({ fixture, native: fixture.native.restart() }) : first;
          const now = seen(next);
          const where = `${verb}, ${victim} ${when} ${k} (${how}): ${JSON.stringify({ before, now })}`;
          if (next.state.runs.find(idOf(next, 'box'))?.alive) {
            expect(now.endpoints, where).toEqual(now.networks);
            expect(now.links, where).toEqual(now.mine);
            expect(now.told, where).toEqual(now.networks);
            expect(now.isDefault, where).toBe(1);
            expect(now.networks.length === before.networks.length ? now.rules : verb === 'connect' ? 1 : 0, where).toBe(now.rules);
            if (how === 'done') expect(now.networks.length, where).toBe(before.networks.length + (verb === 'connect' ? 1 : -1));
          }
          await next.state.reconcile();
          expect(await next.state.orphans(), where).toEqual([]);
          for (const link of files('links').filter((name) => name.startsWith('v2-'))) rmSync(path.join(wires(), 'links', link));
          await next.engine.containers.remove('box', { force: true, volumes: false });
          expect(left(next), where).toEqual([]);
          for (const name of ['one', 'two', 'three']) await next.engine.networks.remove(name);
          await next.engine.close();
          fixture.remove();
        }
      }
    }
  }, 120_000);
});

describe('ports', () => {
  const tcp = (hostAddress: string, hostPort: number, containerPort = 80) => ({ hostAddress, hostPort, containerPort, protocol: 'tcp' as const });
  it('are named after who has them at that address', async () => {
    const test = await engineWith();
    await test.engine.containers.run(rm({ name: 'web', ports: [tcp('127.0.0.1', 8080)] }));
    fixture.native.takePort('tcp', 8080, 'nginx (pid 12)', '127.0.0.2');
    await expect(test.engine.containers.run(rm({ ports: [tcp('127.0.0.2', 8080)] }))).rejects.toMatchObject({ code: 'ERR_PORT_TAKEN', message: expect.stringContaining('nginx') as string });
    await expect(test.engine.containers.run(rm({ ports: [tcp('0.0.0.0', 8080)] }))).rejects.toMatchObject({ code: 'ERR_PORT_TAKEN', message: expect.stringContaining('container web') as string });
    await expect(test.engine.containers.run(rm({ ports: [tcp('0.0.0.0', 8081), tcp('127.0.0.1', 8081, 81)] }))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', message: expect.stringContaining('published twice') as string });
    await end(test, 'web');
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('of a range are each given once, however many start at once', async () => {
    const test = await engineWith();
    const range = { hostPort: 8080, hostPortEnd: 8087, containerPort: 80, protocol: 'tcp' as const };
    const sessions = await Promise.all(Array.from({ length: 8 }, () => test.engine.containers.run(rm({ ports: [range] }))));
    expect(test.state.endpoints.list().flatMap((e) => e.ports.map((p) => p.hostPort)).sort()).toEqual(Array.from({ length: 8 }, (_, i) => 8080 + i));
    await end(test, ...sessions.map((s) => s.container));
    await test.engine.close();
  });
});

it('doctor does not take for left behind what is just being undone', async () => {
  const test = await engineWith();
  const found = { kind: 'run', path: '/run/x', owner: 'container x' } as const;
  const spy = vi.spyOn(test.state, 'orphans').mockResolvedValueOnce([found]).mockResolvedValueOnce([found]);
  expect((await test.engine.system.doctor({ fix: false })).orphans).toEqual([]);
  spy.mockResolvedValue([found]);
  expect((await test.engine.system.doctor({ fix: false })).orphans).toEqual([{ ...found, fixed: false }]);
  await test.engine.close();
});

it('a database of the schema before is brought up to date: containers without networks start, and may not be connected', async () => {
  const first = await engineWith();
  await first.engine.containers.create(request({ name: 'old', command: ['/bin/wait'], restart: { policy: 'no' } } as never));
  await first.engine.close();
  const file = path.join(fixture.folder, 'root/state.db');
  const db = new DatabaseSync(file);
  for (const table of ['networks', 'container_networks', 'endpoints', 'leases', 'last_addresses', 'id_ranges']) db.exec(`DROP TABLE ${table}`);
  db.exec("UPDATE containers SET record = json_remove(record, '$.networks'); PRAGMA user_version=3");
  db.close();
  const test = await engineWith({ fixture });
  expect((await test.engine.containers.list({ all: true })).map((view) => [view.record.name, view.record.networks])).toEqual([['old', []]]);
  expect(await test.engine.system.info()).toMatchObject({ Networks: 0, Containers: 1 });
  expect((await test.engine.system.doctor({ fix: false })).orphans).toEqual([]);
  await test.engine.containers.start('old');
  await test.engine.networks.create(network('net'));
  await expect(test.engine.networks.connect('net', 'old', { aliases: [] })).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
  await test.engine.containers.inspect('old');
  await end(test, 'old');
  await test.engine.containers.remove('old', { force: true, volumes: false });
  expect(left(test)).toEqual([]);
  await test.engine.close();
});
