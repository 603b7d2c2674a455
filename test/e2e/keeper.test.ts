/** The keeper as the launcher starts it: clean, held by its parent, and never gone for who asks. */
import { execFileSync, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { holderOf } from '../helpers/engine.ts';
import { openFiles } from '../helpers/leaks.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';

const bin = join(import.meta.dirname, '../../bin/engine');
let folder: string;
let runRoot: string;
let holder: ChildProcessWithoutNullStreams;
const inside = (...argv: string[]): string => execFileSync('nsenter', [`--net=/proc/${holder.pid}/ns/net`, '--', ...argv], { encoding: 'utf8', cwd: '/tmp', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
const keeper = (): number | undefined => holderOf(join(runRoot, 'keeper.lock'));
const parentOf = (pid: number): number => Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
const start = (...more: string[]): string => inside('env', 'SECRET=x', bin, 'engined', '--keeper', runRoot, ...more);
const ready = (): Promise<number> => until(() => `a keeper: ${readFileSync(join(runRoot, 'keeper.log'), 'utf8')}`, () => {
  const pid = keeper();
  return pid !== undefined && /"ready":true,"ending":false/.test(readFileSync(join(runRoot, 'keeper.lock'), 'utf8')) ? pid : undefined;
});
const socketsOf = (pid: number): number => openFiles(pid).filter((file) => file.startsWith('socket:')).length;
const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}`) && !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

beforeEach(async () => {
  folder = realpathSync(mkdtempSync('/var/tmp/engine-keeper-'));
  runRoot = join(folder, 'run');
  for (const name of ['runs/r1', 'dns-local/networks', 'dns-local/containers']) mkdirSync(join(runRoot, name), { recursive: true, mode: 0o700 });
  writeFileSync(join(runRoot, 'keeper.json'), JSON.stringify({ instance: 'engine-test', level: 'info', idle: 60, services: [{ plugin: 'dns-local', version: '1', options: {} }] }));
  writeFileSync(join(runRoot, 'dns-local/networks/n.json'), JSON.stringify({ id: 'n', name: 'net', gateways: ['127.0.0.9'], subnets: ['127.0.0.0/8'], internal: true }));
  writeFileSync(join(runRoot, 'dns-local/containers/c.json'), JSON.stringify({ container: 'c', servers: [], endpoints: [{ network: 'n', name: 'web', names: ['web'], addresses: ['127.0.0.1'] }] }));
  holder = spawn('unshare', ['-n', 'sh', '-c', 'ip link set lo up; echo ready; exec cat'], { stdio: 'pipe' });
  await new Promise((resolve) => holder.stdout.once('data', resolve));
});
afterEach(async () => {
  const pid = keeper();
  if (pid !== undefined) process.kill(pid);
  await until('the end of the keeper', () => keeper() === undefined);
  holder.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

it('takes nothing of its caller along, and is one', async () => {
  start();
  const pid = await ready();
  const guardian = parentOf(pid);
  for (const each of [pid, guardian]) {
    expect(readFileSync(`/proc/${each}/environ`, 'utf8')).not.toContain('SECRET');
    expect(readlinkSync(`/proc/${each}/cwd`)).toBe('/');
    expect(readlinkSync(`/proc/${each}/fd/0`)).toBe('/dev/null');
    expect(readlinkSync(`/proc/${each}/fd/2`)).toBe(join(runRoot, 'keeper.log'));
    expect(readlinkSync(`/proc/${each}/fd/4`)).toBe(join(runRoot, 'keeper.lock'));
  }
  expect(readdirSync(`/proc/${guardian}/fd`).filter((fd) => !readlinkSync(`/proc/${guardian}/fd/${fd}`).startsWith('socket:')).sort()).toEqual(['0', '1', '2', '4']);
  for (let i = 0; i < 3; i++) start();
  start('--replace');
  expect(await ready()).toBe(pid);
});

it('told to end, it does, and its parent with it', async () => {
  start();
  const pid = await ready();
  const guardian = parentOf(pid);
  process.kill(pid);
  await until('the end of both', () => !isAlive(pid) && !isAlive(guardian));
  start();
  process.kill(parentOf(await ready()));
  await until('the end of the second', () => keeper() === undefined);
});

it.skipIf(missingPeers('dig').length > 0)('killed again and again, it is there again, and nobody who asks meanwhile is refused', async () => {
  start();
  for (let round = 0; round < 4; round++) {
    const pid = await ready();
    const guardian = parentOf(pid);
    await until('its sockets to be held', () => socketsOf(guardian) === 2);
    process.kill(pid, 'SIGKILL');
    // asked while there is none: not refused, and answered when asked again
    const said = inside('dig', '@127.0.0.9', '+short', '+time=1', '+tries=5', 'web');
    expect(said).toMatch(/^127\.0\.0\.1$/m);
    expect(said).not.toContain('refused');
    expect(await ready()).not.toBe(pid);
    expect(parentOf(keeper() ?? 0)).toBe(guardian);
    expect(inside('dig', '@127.0.0.9', '+short', '+time=1', '+tries=1', '+tcp', 'web')).toBe('127.0.0.1');
  }
});

it.skipIf(missingPeers('dig').length > 0)('without its parent it goes on, and what it no longer listens on is not held', async () => {
  start();
  const pid = await ready();
  const guardian = parentOf(pid);
  await until('its sockets to be held', () => socketsOf(guardian) === 2);
  rmSync(join(runRoot, 'dns-local/networks/n.json'));
  await until('them to be let go', () => socketsOf(guardian) === 0);
  writeFileSync(join(runRoot, 'dns-local/networks/n.json'), JSON.stringify({ id: 'n', name: 'net', gateways: ['127.0.0.9'], subnets: ['127.0.0.0/8'], internal: true }));
  await until('the new ones to be held', () => socketsOf(guardian) === 2);
  process.kill(guardian, 'SIGKILL');
  await until('its end', () => !isAlive(guardian));
  expect(inside('dig', '@127.0.0.9', '+short', '+time=1', '+tries=1', 'web')).toBe('127.0.0.1');
  expect(keeper()).toBe(pid);
});

it('runs the service of a plugin by path, in TypeScript, with the core that runs; not one that others could write', async () => {
  const module = join(folder, 'service.ts');
  writeFileSync(module, `import { defineService, type ServiceContext } from '@engine/core/plugin';
import { fail } from '@engine/core/errors';
import { writeFileSync } from 'node:fs';
export default defineService<{ word: string }>({
  async start({ serviceFolder, options }: ServiceContext<{ word: string }>) {
    writeFileSync(serviceFolder + '/said', options.word + ' ' + fail('ERR_INTERNAL', 'x').code);
    return { async stop() {} };
  },
});
`);
  const work = (): void => writeFileSync(join(runRoot, 'keeper.json'), JSON.stringify({ instance: 'engine-test', level: 'info', idle: 60, services: [{ plugin: 'mine', version: '1', module, options: { word: 'yes' } }] }));
  work();
  chmodSync(module, 0o666);
  start();
  await ready();
  expect(existsSync(join(runRoot, 'mine/said'))).toBe(false);
  expect(readFileSync(join(runRoot, 'keeper.log'), 'utf8')).toMatch(/can be written by others/);
  chmodSync(module, 0o644);
  await until('the service', () => existsSync(join(runRoot, 'mine/said')));
  expect(readFileSync(join(runRoot, 'mine/said'), 'utf8')).toBe('yes ERR_INTERNAL');
});
