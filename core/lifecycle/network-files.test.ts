import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { createFixture, type Fixture } from '../state/state.fixture.ts';
import { request, testEngine, type TestEngine } from './engine.fixture.ts';
import { fakeNetworks, networkPlugin } from './networks.fixture.ts';

let fixture: Fixture;
afterEach(() => fixture.remove());

/** An engine whose plugin keeps the addresses of a container in its hosts file; `broken`: the tap throws. */
async function engineWith(broken = false): Promise<TestEngine & { hosts(): string }> {
  fixture = createFixture({ program: async (program) => (program.signalled ? 128 + (await program.signalled()) : 0) });
  const test = await testEngine({
    fixture,
    extra: (hooks) => [{
      ...networkPlugin(fakeNetworks(path.join(fixture.folder, 'net'))), eager: true,
      load: async () => {
        hooks.tapFor('wires')('networksChanged', (_, value) => {
          if (broken) throw new Error('not today');
          return { ...value, files: { ...value.files, hosts: `${value.files['hosts'] ?? ''}${value.before.endpoints.length} to ${value.after.endpoints.map((e) => e.addresses[0]?.address).join(' ')}\n`, other: 'is nobody\'s' } };
        });
        return networkPlugin(fakeNetworks(path.join(fixture.folder, 'net'))).load();
      },
    }],
  });
  const folder = (): string => path.join(test.state.folders.root, 'containers', test.state.containers.resolve('box').id);
  await test.engine.networks.create({ name: 'first', driver: 'wire', pools: [], internal: false, ipv6: false, labels: {}, options: {} });
  await test.engine.networks.create({ name: 'second', driver: 'wire', pools: [], internal: false, ipv6: false, labels: {}, options: {} });
  await test.engine.containers.create(request({ name: 'box', network: 'first', command: ['/bin/wait'] }));
  return {
    ...test,
    hosts: () => {
      expect(existsSync(path.join(folder(), 'other'))).toBe(false);
      return readFileSync(path.join(folder(), 'hosts'), 'utf8');
    },
  };
}

it('the files of a running container follow it to a network and back; those of others are left alone', async () => {
  const test = await engineWith();
  await test.engine.networks.connect('second', 'box', { aliases: [] });
  await test.engine.networks.disconnect('second', 'box', { force: false });
  expect(test.hosts()).toBe('127.0.0.1 localhost\n');
  await test.engine.containers.start('box');
  await test.engine.networks.connect('second', 'box', { aliases: [] });
  expect(test.hosts()).toBe('127.0.0.1 localhost\n1 to 10.1.0.2 10.1.1.2\n');
  await test.engine.networks.disconnect('second', 'box', { force: false });
  expect(test.hosts()).toBe('127.0.0.1 localhost\n1 to 10.1.0.2 10.1.1.2\n2 to 10.1.0.2\n');
  await test.engine.containers.remove('box', { force: true, volumes: false });
  await test.engine.close();
});

it('when a plugin cannot say what becomes of them, the container is not connected', async () => {
  const test = await engineWith(true);
  await test.engine.containers.start('box');
  await expect(test.engine.networks.connect('second', 'box', { aliases: [] })).rejects.toMatchObject({ plugin: 'wires', message: expect.stringContaining('not today') as string });
  expect(test.hosts()).toBe('127.0.0.1 localhost\n');
  expect(test.state.containers.resolve('box').networks).toHaveLength(1);
  expect(test.state.endpoints.list()).toHaveLength(1);
  await test.engine.containers.remove('box', { force: true, volumes: false });
  await test.engine.close();
});
