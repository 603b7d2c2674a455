/** What people do first: a web server that everybody reaches, and two containers that find each other by name. docs/guide/networks.md shows the same. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { webTar } from '../helpers/debian.ts';
import { type TestEngine } from '../helpers/engine.ts';
import { addressOf } from '../helpers/networks.ts';
import { until } from '../helpers/wait.ts';
import { makeWorld, type Namespace, type World } from '../helpers/world.ts';

const tar = webTar();
let world: World;
let engine: TestEngine;
beforeAll(async () => {
  if (tar === undefined) return;
  world = await makeWorld({ hosts: ['laptop', 'phone'] });
  engine = world.engine();
  await engine.ok('import', tar, 'web');
}, 300_000);
afterAll(async () => {
  if (tar === undefined) return;
  expect(await world.close()).toEqual([]);
});
const web = it.skipIf(tar === undefined);

const curl = ['curl', '-sS', '--max-time', '5'];
const fetch = async (from: Namespace, url: string): Promise<string | undefined> => {
  const { code, stdout } = await from.exec([...curl, url]);
  return code === 0 ? stdout : undefined;
};

web('nginx on -p 8080:80 is fetched from the host, from other hosts, and from another container by name', { timeout: 300_000 }, async () => {
  await engine.ok('network', 'create', 'site');
  await engine.ok('run', '-d', '--name', 'web', '--network', 'site', '-p', '8080:80', 'web', 'nginx', '-g', 'daemon off;');
  const [laptop, phone] = [world.host('laptop'), world.host('phone')];
  expect(await until('nginx', () => fetch(world.machine, 'http://127.0.0.1:8080/'))).toContain('Welcome to nginx');
  for (const url of ['http://localhost:8080/', 'http://[::1]:8080/', `http://${laptop.machine}:8080/`]) expect(await fetch(world.machine, url), url).toContain('Welcome to nginx');
  for (const host of [laptop, phone]) for (const url of [`http://${host.machine}:8080/`, `http://[${host.machine6}]:8080/`]) expect(await fetch(host, url), `${url} from ${host.name}`).toContain('Welcome to nginx');
  expect(await engine.ok('run', '--rm', '--network', 'site', 'web', ...curl, 'http://web/')).toContain('Welcome to nginx');
  expect(await engine.ok('run', '--rm', '--network', 'site', 'web', ...curl, `http://${laptop.machine}:8080/`)).toContain('Welcome to nginx');
  // the default network's containers reach it through the host, not by name
  expect(await engine.ok('run', '--rm', 'web', ...curl, `http://${laptop.machine}:8080/`)).toContain('Welcome to nginx');
  expect((await engine.run(['run', '--rm', 'web', ...curl, 'http://web/'])).code).not.toBe(0);
  // its log knows them apart
  const log = await engine.ok('exec', 'web', 'cat', '/var/log/nginx/access.log');
  for (const host of [laptop, phone]) expect(log).toMatch(new RegExp(`^${host.address} - - .* 200 `, 'm'));
  expect(await engine.ok('port', 'web')).toContain('80/tcp -> 0.0.0.0:8080');
  await engine.ok('restart', '-t', '5', 'web');
  expect(await until('nginx again', () => fetch(laptop, `http://${laptop.machine}:8080/`))).toContain('Welcome to nginx');
  await engine.ok('rm', '-f', 'web');
  expect(await fetch(laptop, `http://${laptop.machine}:8080/`)).toBeUndefined();
  await engine.ok('network', 'rm', 'site');
});

web('a counter in Flask finds its redis by name, and its count outlives a restart of redis', { timeout: 300_000 }, async () => {
  const laptop = world.host('laptop');
  const app = join(engine.folder, 'cwd', 'app.py');
  writeFileSync(app, "from flask import Flask\nimport redis\n\napp = Flask(__name__)\nstore = redis.Redis(host='redis')\n\n@app.get('/')\ndef count():\n    return f\"seen {store.incr('hits')} times\\n\"\n");
  const redis = ['-d', '--name', 'redis', '--network', 'counter', '-v', 'counts:/var/lib/redis', '-u', 'redis', '-w', '/var/lib/redis', 'web', 'redis-server', '--bind', '0.0.0.0', '--protected-mode', 'no', '--appendonly', 'yes'];
  await engine.ok('network', 'create', 'counter');
  await engine.ok('run', ...redis);
  await engine.ok('run', '-d', '--name', 'app', '--network', 'counter', '-p', '5000:5000', '-v', `${app}:/app.py:ro`, 'web', 'flask', '--app', '/app.py', 'run', '--host', '0.0.0.0');
  const url = `http://${laptop.machine}:5000/`;
  const seen = (): Promise<string> => until('the counter', async () => /^seen (\d+) times$/m.exec((await fetch(laptop, url)) ?? '')?.[1], 30_000);
  const first = Number(await seen());
  expect(Number(await seen())).toBe(first + 1);
  expect(Number(await seen())).toBe(first + 2);
  await engine.ok('restart', '-t', '10', 'redis');
  const after = Number(await seen());
  expect(after).toBeGreaterThan(first + 2);
  // another container, with another address maybe, and the same volume
  const old = await addressOf(engine, 'redis', 'counter');
  await engine.ok('stop', 'redis');
  await engine.ok('rm', 'redis');
  await engine.ok('run', '-d', '--name', 'between', '--network', 'counter', '--ip', old, 'web', 'sleep', '1000').catch(() => {});
  await engine.ok('run', ...redis);
  expect(Number(await seen())).toBeGreaterThan(after);
  const last = await seen();
  expect(await engine.ok('exec', 'redis', 'redis-cli', 'get', 'hits')).toBe(last);
  await engine.ok('rm', '-f', 'app', 'redis');
  await engine.run(['rm', '-f', 'between']);
  await engine.ok('network', 'rm', 'counter');
});
