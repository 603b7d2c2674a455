import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine({ resident: 'auto' });
  await importBusybox(engine);
});
afterAll(async () => expect(await engine.close()).toEqual([]));
const state = (name: string): Promise<string> => engine.ok('inspect', '-f', '{{.State.Status}}', name);

describe('a container', () => {
  it('goes through its states', async () => {
    const id = await engine.ok('create', '--name', 'life', 'busybox', 'sh', '-c', 'echo run >> /count; cat /count; sleep 1000');
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    expect(await state('life')).toBe('created');
    expect(await engine.ok('start', 'life')).toBe('life');
    await until('output', async () => (await engine.ok('logs', 'life')) === 'run');
    expect(await engine.ok('ps', '-q')).toBe(id.slice(0, 12));
    expect(await engine.run(['start', 'life'])).toMatchObject({ code: 0 }); // as Docker: running already is fine
    expect(await engine.ok('stop', '-t', '0', 'life')).toBe('life');
    expect(await state(id.slice(0, 5))).toBe('exited');
    await engine.ok('start', 'life');
    await until('the second run', async () => (await engine.ok('logs', 'life')) === 'run\nrun\nrun');
    expect((await engine.run(['rm', 'life'])).code).toBe(1);
    await engine.ok('rm', '-f', 'life');
    expect((await engine.run(['inspect', 'life'])).code).toBe(1);
  });
  it('stops by its signal within its time, and is killed after', async () => {
    await engine.ok('run', '-d', '--name', 'polite', '--stop-signal', 'USR1', 'busybox', 'sh', '-c', 'trap "echo bye; exit 5" USR1; echo up; while :; do sleep 0.1; done');
    await until('its trap', async () => (await engine.ok('logs', 'polite')) === 'up');
    await engine.ok('stop', 'polite');
    expect(await engine.ok('inspect', '-f', '{{.State.ExitCode}}', 'polite')).toBe('5');
    await engine.ok('rm', 'polite');
  });
  it('gets signals by kill and through the attached client', async () => {
    const attached = engine.start(['run', '--rm', 'busybox', 'sh', '-c', 'trap "echo got; exit 9" TERM; echo up; while :; do sleep 0.1; done'], { input: '' });
    await attached.output(/up/);
    attached.child.kill('SIGTERM');
    expect(await attached.result).toMatchObject({ code: 9, stdout: 'up\ngot\n' });
    await engine.ok('run', '-d', '--name', 'victim', 'busybox', 'sleep', '1000');
    await engine.ok('kill', 'victim');
    expect(await engine.ok('wait', 'victim')).toBe('137');
    expect((await engine.run(['kill', 'victim'])).code).toBe(1);
    expect((await engine.run(['kill', '-s', 'NOPE', 'victim'])).stderr).toMatch(/NOPE/);
    await engine.ok('rm', 'victim');
  });
  it('outlives the command that started it, and its exit is learned', async () => {
    const client = engine.start(['run', '--name', 'orphan', 'busybox', 'sh', '-c', 'echo up; while ! test -e /go; do sleep 0.05; done; exit 6'], { input: '' });
    await client.output(/up/);
    client.child.kill('SIGKILL');
    await client.result;
    expect(await state('orphan')).toBe('running');
    await engine.ok('exec', 'orphan', 'touch', '/go');
    expect(await engine.ok('wait', 'orphan')).toBe('6');
    await engine.ok('rm', 'orphan');
  });
  it('dies with its shim', async () => {
    await engine.ok('run', '-d', '--name', 'headless', 'busybox', 'sleep', '1000');
    const pid = Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', 'headless'));
    const shim = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
    expect(readFileSync(`/proc/${shim}/comm`, 'utf8')).toMatch(/^engine/);
    process.kill(shim, 'SIGKILL');
    await until('its end', async () => (await state('headless')) === 'exited');
    expect(await engine.ok('inspect', '-f', '{{.State.ExitCode}}', 'headless')).toBe('137');
    await engine.ok('rm', 'headless');
  });
  it('keeps its name to itself', async () => {
    await engine.ok('create', '--name', 'taken', 'busybox');
    const { code, stderr } = await engine.run(['create', '--name', 'taken', 'busybox']);
    expect({ code, stderr }).toEqual({ code: 125, stderr: expect.stringMatching(/taken/) });
    await engine.ok('rm', 'taken');
  });
});

it('loses nothing for a reader that pauses, as a pager does', async () => {
  const run = engine.start(['run', '--rm', 'busybox', 'sh', '-c', 'seq 1 500000; exit 3'], { input: '' });
  run.child.stdout.pause();
  // longer than the shim waits for a client that reads nothing
  await new Promise((resolve) => setTimeout(resolve, 4000));
  run.child.stdout.resume();
  const { stdout, code, stderr } = await run.result;
  expect({ lines: stdout.split('\n').length, last: stdout.slice(-7), code, stderr }).toEqual({ lines: 500001, last: '500000\n', code: 3, stderr: '' });
});

describe('exec', () => {
  it('runs beside the main process with its surroundings', async () => {
    await engine.ok('run', '-d', '--name', 'host1', '-e', 'X=1', '-w', '/tmp', '-m', '32m', 'busybox', 'sleep', '1000');
    expect(await engine.ok('exec', 'host1', 'sh', '-c', 'echo $X; pwd; hostname | wc -c; grep -E "memory|^0::" /proc/self/cgroup | head -n 1 | cut -d: -f3; grep -c . /proc/1/comm')).toMatch(/^1\n\/tmp\n13\n\/\n1$/);
    expect(await engine.ok('exec', '-u', 'app', '-w', '/', '-e', 'X=2', 'host1', 'sh', '-c', 'id -un; pwd; echo $X $HOME')).toBe('app\n/\n2 /home/app');
    expect((await engine.run(['exec', '-i', 'host1', 'cat'], { input: 'piped' })).stdout).toBe('piped');
    expect((await engine.run(['exec', 'host1', 'sh', '-c', 'exit 5'])).code).toBe(5);
    expect((await engine.run(['exec', 'host1', 'nope'])).code).toBe(127);
    expect((await engine.run(['exec', 'host1', '/etc/passwd'])).code).toBe(126);
    expect(await engine.ok('exec', 'host1', 'sh', '-c', 'grep -E "^(CapEff|Seccomp:)" /proc/self/status')).toMatch(/a80425fb[^]*2/);
    await engine.ok('exec', '-d', 'host1', 'sh', '-c', 'echo later > /tmp/later');
    await until('the detached one', async () => (await engine.run(['exec', 'host1', 'cat', '/tmp/later'])).stdout === 'later\n');
    const terminal = engine.terminal(['exec', '-it', 'host1', 'sh']);
    terminal.child.stdin.write('tty; exit 3\n');
    await terminal.output(/\/dev\/pts\/\d/);
    expect((await terminal.result).code).toBe(3);
    await engine.ok('rm', '-f', 'host1');
    expect((await engine.run(['exec', 'host1', 'true'])).code).toBe(1);
  });
});

describe('logs', () => {
  it('are kept, rotated, filtered and followed', async () => {
    await engine.ok('run', '--name', 'talker', 'busybox', 'sh', '-c', 'for i in 1 2 3 4 5; do echo line $i; done; echo err >&2; printf partial');
    expect(await engine.run(['logs', 'talker'])).toMatchObject({ stdout: 'line 1\nline 2\nline 3\nline 4\nline 5\npartial', stderr: 'err\n' });
    expect(await engine.ok('logs', '--tail', '2', 'talker')).toMatch(/partial$/);
    expect(await engine.ok('logs', '-t', 'talker')).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z line 1/);
    await engine.ok('rm', 'talker');
    await engine.ok('run', '--name', 'rotator', '--log-opt', 'max-size=32k', '--log-opt', 'max-file=2', 'busybox', 'sh', '-c', 'seq 1 20000');
    const lines = (await engine.ok('logs', 'rotator')).split('\n');
    expect(lines.at(-1)).toBe('20000');
    expect(lines.length).toBeLessThan(2000);
    expect(lines.map(Number)).toEqual(Array.from({ length: lines.length }, (_, i) => 20000 - lines.length + 1 + i));
    await engine.ok('rm', 'rotator');
    const id = await engine.ok('run', '-d', '--name', 'ticker', 'busybox', 'sh', '-c', 'echo one; while ! test -e /go; do sleep 0.05; done; echo two');
    const follower = engine.start(['logs', '-f', 'ticker'], { input: '' });
    await follower.output(/one/);
    await engine.ok('exec', id, 'touch', '/go');
    expect(await follower.result).toMatchObject({ code: 0, stdout: 'one\ntwo\n' });
    await engine.ok('rm', 'ticker');
  });
});

describe('volumes and binds', () => {
  it('are filled from the image, shared, and removed with -v', async () => {
    await importBusybox(engine, 'vol', ['VOLUME /var/data']);
    await engine.ok('run', '--name', 'anon', 'vol', 'sh', '-c', 'cat /var/data/file; echo new > /var/data/new');
    expect(await engine.ok('logs', 'anon')).toBe('from the image');
    const [volume = ''] = (await engine.ok('volume', 'ls', '-q')).split('\n');
    expect(volume).toMatch(/^[0-9a-f]{64}$/);
    expect((await engine.run(['volume', 'rm', volume])).code).toBe(1);
    await engine.ok('rm', '-v', 'anon');
    expect(await engine.ok('volume', 'ls', '-q')).toBe('');
    await engine.ok('volume', 'create', 'named');
    await engine.ok('run', '--rm', '-v', 'named:/var/data', 'busybox', 'sh', '-c', 'echo more >> /var/data/file');
    expect(await engine.ok('run', '--rm', '-v', 'named:/var/data:ro', 'busybox', 'sh', '-c', 'cat /var/data/file; touch /var/data/x 2>/dev/null || echo read-only')).toBe('from the image\nmore\nread-only');
    await engine.ok('volume', 'rm', 'named');
  });
  it('bind folders and files', async () => {
    const source = `${engine.folder}/made/by/engine`;
    await engine.ok('run', '--rm', '-v', `${source}:/b`, 'busybox', 'sh', '-c', 'echo x > /b/file');
    expect(readFileSync(`${source}/file`, 'utf8')).toBe('x\n');
    expect(await engine.ok('run', '--rm', '--mount', `type=bind,src=${source}/file,dst=/etc/one-file,ro`, 'busybox', 'sh', '-c', 'cat /etc/one-file; echo y > /etc/one-file || true')).toBe('x');
  });
  it('diff what a container changed', async () => {
    await engine.ok('run', '--name', 'differ', 'busybox', 'sh', '-c', 'rm /var/data/file; echo x >> /etc/passwd; mkdir /new; echo > /new/f');
    expect((await engine.ok('diff', 'differ')).split('\n').sort()).toEqual(['A /new', 'A /new/f', 'C /etc', 'C /etc/passwd', 'C /var', 'C /var/data', 'D /var/data/file']);
    await engine.ok('rm', 'differ');
    await engine.ok('run', '--name', 'differ', 'busybox', 'sh', '-c', 'rm -r /home/app; mkdir /home/app; rm -r /var/data; mkdir /var/data; echo > /var/data/new');
    // the new folder is opaque: what it hides is gone
    expect((await engine.ok('diff', 'differ')).split('\n').sort()).toEqual(['A /var/data/new', 'C /home', 'C /home/app', 'C /var', 'C /var/data', 'D /var/data/file']);
    await engine.ok('rm', 'differ');
  });
});

describe('sharing a network namespace', () => {
  it('with the host, with nobody, with another container', async () => {
    expect(await engine.ok('run', '--rm', '--network', 'none', 'busybox', 'sh', '-c', 'ls /sys/class/net; cat /sys/class/net/lo/flags')).toBe('lo\n0x9');
    expect(await engine.ok('run', '--rm', '--network', 'host', 'busybox', 'readlink', '/proc/self/ns/net')).toBe(await hostNamespace('net'));
    await engine.ok('run', '-d', '--name', 'target', '--network', 'none', 'busybox', 'sleep', '1000');
    const own = await engine.ok('exec', 'target', 'readlink', '/proc/1/ns/net');
    expect(await engine.ok('run', '--rm', '--network', 'container:target', 'busybox', 'readlink', '/proc/self/ns/net')).toBe(own);
    await engine.ok('run', '-d', '--name', 'guest', '--network', 'container:target', 'busybox', 'sleep', '1000');
    await engine.ok('rm', '-f', 'target');
    expect(await engine.ok('exec', 'guest', 'readlink', '/proc/1/ns/net')).toBe(own);
    await engine.ok('rm', '-f', 'guest');
    expect((await engine.run(['run', '--rm', '--network', 'container:target', 'busybox', 'true'])).code).toBe(125);
  });
});

async function hostNamespace(type: string): Promise<string> {
  const { readlinkSync } = await import('node:fs');
  return readlinkSync(`/proc/self/ns/${type}`);
}

it('runs many at once, cold, and a killed one harms no other', async () => {
  const runs = Array.from({ length: process.env['VM'] ? 5 : 15 }, (_, i) => engine.start(['run', '--rm', 'busybox', 'sh', '-c', `echo ${i}; exit ${i}`], { input: '' }));
  await until('one of them to be under way', () => runs.some((run) => run.stdout !== ''));
  const victim = runs.find((run) => run.stdout === '') ?? runs[0];
  victim?.child.kill('SIGKILL');
  const results = await Promise.all(runs.map((run) => run.result));
  results.forEach((result, i) => {
    if (runs[i] !== victim) expect(result, result.stderr).toMatchObject({ code: i, stdout: `${i}\n` });
  });
  let left = '';
  await until(() => `the rest of the killed one to be undone: ${left}`, async () => (left = await engine.ok('ps', '-a', '--format', '{{.Names}} {{.Status}} {{.Command}}')) === '');
});
