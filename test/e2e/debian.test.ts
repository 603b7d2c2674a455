import { execFileSync } from 'node:child_process';
import { createServer, connect } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';
import { afterAll, expect, it } from 'vitest';
import { debianTar, servicesTar } from '../helpers/debian.ts';
import { TestEngine } from '../helpers/engine.ts';
import { withFolder } from '../helpers/images.ts';
import { until } from '../helpers/wait.ts';

const engine = new TestEngine();
afterAll(async () => expect(await engine.close()).toEqual([]));

/** Every path with type, mode, owner, time, link target, and size where it is a file. */
const format = '%P %y %m %U %G %T@ %l';
const own = /^(\.dockerenv|dev|proc|sys|run|tmp|etc|etc\/(hosts|hostname|resolv\.conf|mtab)|dev\/.*) /;
const comparable = (listing: string): string[] => listing.split('\n').filter((line) => line !== '' && !own.test(line) && !line.startsWith(' ')).sort();

it('a Debian made by debootstrap is the same inside, to the nanosecond', { timeout: 400_000 }, (context) => withFolder(async (folder) => {
  const tar = debianTar();
  if (tar === undefined) return context.skip('no Debian to test with: needs debootstrap and a mirror');
  const rootfs = join(folder, 'rootfs');
  execFileSync('mkdir', [rootfs]);
  execFileSync('tar', ['--numeric-owner', '-C', rootfs, '-xpf', tar]);
  const outside = comparable(execFileSync('find', [rootfs, '-xdev', '-printf', `${format}\\n`, '-type', 'f', '-printf', '%P size %s\\n'], { encoding: 'utf8', maxBuffer: 1 << 28 }));
  await engine.ok('import', tar, 'debian:test');
  const inside = comparable(await engine.ok('run', '--rm', '--network', 'none', 'debian:test', 'find', '/', '-xdev', '-printf', `${format}\\n`, '-type', 'f', '-printf', '%P size %s\\n'));
  expect(inside.length).toBeGreaterThan(5000);
  expect(inside).toEqual(outside);
  expect(await engine.ok('run', '--rm', '--network', 'none', 'debian:test', 'sh', '-c', 'dpkg --verify && dpkg-query -W -f "\\${Status}\\n" bash')).toBe('install ok installed');
  expect(await engine.ok('run', '--rm', '--network', 'none', 'debian:test', 'perl', '-e', 'print "perl $^O\n"')).toBe('perl linux');
  await engine.ok('rmi', 'debian:test');
}));

/** A port that nobody on this machine listens on. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** What a service answers to `request`; undefined while nobody listens. */
async function ask(port: number, request: string, complete: RegExp): Promise<string | undefined> {
  const socket = connect({ port, host: '127.0.0.1' });
  try {
    await once(socket, 'connect');
    socket.write(request);
    let answer = '';
    for await (const data of socket as AsyncIterable<Buffer>) {
      answer += data.toString();
      if (complete.test(answer)) break;
    }
    return answer;
  } catch {
    return undefined;
  } finally {
    socket.destroy();
  }
}

it('nginx and redis of Debian serve this host on its own network', { timeout: 600_000 }, async (context) => {
  const tar = servicesTar();
  if (tar === undefined) return context.skip('no Debian with services to test with: needs debootstrap and a mirror');
  await engine.ok('import', tar, 'services');
  const [web, store] = [await freePort(), await freePort()];
  const site = `server { listen 127.0.0.1:${web}; root /var/www/html; index index.nginx-debian.html; }`;
  await engine.ok('run', '-d', '--name', 'web', '--network', 'host', '-m', '128m', '--pids-limit', '50', '-e', `SITE=${site}`, 'services', 'sh', '-c', 'echo "$SITE" > /etc/nginx/sites-enabled/default; exec nginx -g "daemon off;"');
  await engine.ok('run', '-d', '--name', 'store', '--network', 'host', '-u', 'redis', '-v', 'redis-data:/var/lib/redis', '-w', '/var/lib/redis', 'services', 'redis-server', '--bind', '127.0.0.1', '--port', String(store), '--save', '');

  expect(await until('nginx to answer', () => ask(web, 'GET / HTTP/1.0\r\n\r\n', /<\/html>/))).toMatch(/^HTTP\/1.1 200 OK[^]*Welcome to nginx/);
  // workers dropped their privileges inside, too
  expect(await engine.ok('exec', 'web', 'sh', '-c', 'for p in /proc/[0-9]*; do grep -q "^Name:.nginx" $p/status && grep ^Uid: $p/status | cut -f 2; done | sort -u | tr "\\n" " "')).toBe(`0 ${await engine.ok('exec', 'web', 'id', '-u', 'www-data')} `);
  expect(await until('redis to answer', () => ask(store, 'PING\r\n', /\r\n/))).toBe('+PONG\r\n');
  expect(await ask(store, 'SET key value\r\nGET key\r\n', /value\r\n/)).toBe('+OK\r\n$5\r\nvalue\r\n');
  expect(await engine.ok('exec', 'store', 'redis-cli', '-p', String(store), 'get', 'key')).toBe('value');

  // saved by one container, read by the next
  expect(await ask(store, 'SAVE\r\n', /\r\n/)).toBe('+OK\r\n');
  expect(await engine.ok('stop', 'store')).toBe('store');
  expect(await engine.ok('inspect', '-f', '{{.State.ExitCode}}', 'store')).toBe('0');
  expect(await engine.ok('run', '--rm', '-u', 'redis', '-v', 'redis-data:/data', '--network', 'none', 'services', 'ls', '/data')).toBe('dump.rdb');
  await engine.ok('stop', 'web');
  expect(await ask(web, 'GET / HTTP/1.0\r\n\r\n', /<\/html>/)).toBeUndefined();
  await engine.ok('rm', 'web', 'store');
  await engine.ok('rmi', 'services');
});
