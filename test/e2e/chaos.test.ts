/** engined ends, at any moment, in any way, while everything is under way: containers and who is attached to them don't notice, the others are told. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { seeded } from '../crash/random.ts';
import { importBusybox } from '../helpers/busybox.ts';
import { entries, TestEngine, type Result, type Running } from '../helpers/engine.ts';
import { makeBusyboxImage } from '../helpers/images.ts';
import { chaosRound } from '../helpers/chaos.ts';
import { until } from '../helpers/wait.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine({ resident: 'auto' });
  await engine.startEngined();
  await importBusybox(engine);
});
afterEach(async () => {
  const ids = await engine.containers();
  if (ids.length) await engine.run(['rm', '-fv', ...ids]);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

/** The ways it can end. Resolves when that is so: it has gone, or another one serves. */
const ways = {
  async 'is killed'() {
    await engine.stopEngined('SIGKILL');
  },
  async 'is stopped'() {
    await engine.stopEngined('SIGTERM');
  },
  async 'is stopped and started'() {
    await engine.stopEngined('SIGTERM');
    await engine.startEngined();
  },
  async 'is killed and started'() {
    await engine.stopEngined('SIGKILL');
    await engine.startEngined();
  },
  async 'hands over'() {
    await handOver();
  },
} as const satisfies Readonly<Record<string, () => Promise<void>>>;
async function handOver(): Promise<void> {
  const before = engine.engined ?? (await engine.startEngined());
  // it hands over at most once in 5 s, and comes back to it by itself
  process.kill(before, 'SIGHUP');
  await until('the successor', () => engine.engined !== undefined && engine.engined !== before && serving(), 30_000);
}
const serving = (): boolean => existsSync(join(engine.runRoot, 'engined.sock'));

const state = (name: string): Promise<string> => engine.ok('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', name);
const inside = (name: string, path: string): Promise<Result> => engine.run(['exec', name, 'touch', path]);
const toldClearly = ({ code, stderr }: Result): void => {
  expect([125, 1], stderr).toContain(code);
  expect(stderr).toMatch(/^engine: .*(the resident engine|no such|is being|is not running)[^\n]*\n$/m);
  expect(stderr).not.toMatch(/ERR_INTERNAL|TypeError|at .*\.js:\d+/);
};
/** It has said what it wants and waits for an answer: poll(2), or ppoll(2). */
const waits = async ({ child: { pid = 0 } }: Running): Promise<void> => {
  await until('the launcher to wait', () => /^(7|73|271) /.test(readFileSync(`/proc/${pid}/syscall`, 'latin1')));
};
const gone = async (): Promise<void> => {
  await until('nothing to run any more', () => entries(join(engine.runRoot, 'runs')).length === 0, 30_000);
};
const LOOP = 'until test -e /go; do sleep 0.05; done';

describe.each(Object.entries(ways))('while engined %s,', (way, end) => {
  const survives = way === 'hands over';
  it('run -it goes on', async () => {
    const run = engine.terminal(['run', '-it', '--name', 'tt', 'busybox', 'sh', '-c', 'echo ready; read x; stty size; echo "got $x"; exit 5']);
    await run.output(/ready/);
    await end();
    run.child.stdin.write('hello\r');
    const { code, stdout } = await run.result;
    expect([code, stdout]).toEqual([5, expect.stringMatching(/24 80\r\ngot hello/)]);
    expect(await state('tt')).toBe('exited 5');
    expect(await engine.ok('logs', 'tt')).toContain('got hello');
  });
  it('run -i with 10 MB of output before and after loses no byte, and --rm removes', async () => {
    const run = engine.start(['run', '--rm', '-i', '--name', 'big', 'busybox', 'sh', '-c', 'yes 0123456789abcde | head -c 5000000; echo; echo mid >&2; cat; yes fedcba9876543210 | head -c 5000000; exit 6']);
    await run.output(/0123/);
    await end();
    run.child.stdin.end('typed\n');
    const { code, stdout, stderr } = await run.result;
    expect([code, stdout.length, stderr]).toEqual([6, 10_000_007, 'mid\n']);
    expect(stdout.slice(4_999_990, 5_000_020)).toContain('typed');
    await until('its removal', async () => (await engine.ok('ps', '-aq')) === '');
    await gone();
  });
  it('run -d, exec in both ways, attach and logs go on', async () => {
    await engine.ok('run', '-d', '-i', '--name', 'dd', 'busybox', 'sh', '-c', `echo up; read x; echo got $x; ${LOOP}; echo last; exit 4`);
    await until('it', async () => (await engine.ok('logs', 'dd')).includes('up'));
    await engine.ok('exec', '-d', 'dd', 'sh', '-c', 'echo begun > /begun; until test -e /more; do sleep 0.05; done; echo done > /done');
    const exec = engine.start(['exec', '-i', 'dd', 'sh', '-c', 'echo in; cat; echo err >&2; exit 9']);
    await exec.output(/in/);
    const attached = engine.start(['attach', 'dd']);
    await waits(attached);
    attached.child.stdin.write('word\n');
    await attached.output(/got word/);
    const follow = engine.start(['logs', '-f', 'dd'], { input: '' });
    await follow.output(/got word/);
    await end();
    exec.child.stdin.end('typed\n');
    expect(await exec.result).toMatchObject({ code: 9, stdout: 'in\ntyped\n', stderr: 'err\n' });
    expect((await inside('dd', '/more')).code).toBe(0);
    await until('the session', async () => (await engine.run(['exec', 'dd', 'cat', '/done'])).stdout === 'done\n');
    expect((await inside('dd', '/go')).code).toBe(0);
    expect(await attached.result).toMatchObject({ code: 4, stdout: 'got word\nlast\n' });
    const followed = await follow.result;
    if (survives) expect(followed).toMatchObject({ code: 0, stdout: 'up\ngot word\nlast\n', stderr: '' });
    else if (followed.code !== 0) toldClearly(followed);
    expect(await engine.ok('logs', 'dd')).toBe('up\ngot word\nlast');
    expect(await state('dd')).toBe('exited 4');
  });
  it('wait answers or says why not', async () => {
    await engine.ok('run', '-d', '--name', 'ww', 'busybox', 'sh', '-c', `${LOOP}; exit 3`);
    const wait = engine.start(['wait', 'ww'], { input: '' });
    await waits(wait);
    await end();
    expect((await inside('ww', '/go')).code).toBe(0);
    const result = await wait.result;
    // who only looks is carried over when it was killed; who was told that it stops, knows
    if (result.code === 0) expect(result).toMatchObject({ stdout: '3\n', stderr: '' });
    else toldClearly(result);
    if (way.includes('killed') || survives) expect(result.code).toBe(0);
    expect(await engine.ok('wait', 'ww')).toBe('3');
  });
  it('a load in the middle leaves nothing, or finishes', async () => {
    const before = await engine.ok('images', '-q', '--no-trunc');
    const bytes = readFileSync(makeBusyboxImage());
    const load = engine.start(['load']);
    load.child.stdin.write(bytes.subarray(0, 300_000));
    await until('it to be under way', () => entries(join(engine.root, 'inflight')).length > 0 || load.child.exitCode !== null);
    const ended = end();
    load.child.stdin.end(bytes.subarray(300_000));
    const result = await load.result;
    await ended;
    if (result.code === 0) {
      expect(result.stdout).toBe('Loaded image: busybox:latest\n');
    } else {
      toldClearly(result);
      expect(await engine.ok('images', '-q', '--no-trunc')).toBe(before);
    }
    await until('nothing in flight', async () => (await engine.ok('ps', '-q'), entries(join(engine.root, 'inflight')).length === 0));
    expect(await engine.ok('load', '-q', '-i', makeBusyboxImage())).toBe('Loaded image: busybox:latest');
    expect(await engine.ok('run', '--rm', 'busybox', 'cat', '/etc/layer')).toBe('two');
  });
  it('stop and rm -f are done or can be done again', async () => {
    const names = ['s1', 's2', 's3', 's4'];
    await Promise.all(names.map((name) => engine.ok('run', '-d', '--name', name, 'busybox', 'sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 0.1; done')));
    for (const name of names) await until('it', async () => (await engine.ok('logs', name)) === 'ready');
    const stop = engine.start(['stop', '-t', '2', 's1'], { input: '' });
    await waits(stop);
    const rm = engine.start(['rm', '-f', 's2', 's3', 's4'], { input: '' });
    await rm.output(/s2/);
    await end();
    for (const result of await Promise.all([stop.result, rm.result])) if (result.code !== 0) toldClearly(result);
    for (const result of await Promise.all(names.slice(1).map((name) => engine.run(['rm', '-f', name])))) expect(result.code).toBe(0);
    expect(await engine.ok('stop', '-t', '0', 's1')).toBe('s1');
    expect(await engine.ok('ps', '-a', '--format', '{{.Names}}')).toBe('s1');
    await engine.ok('rm', 's1');
    await gone();
  });
  it('many runs at once end as they should or are told', async () => {
    const runs = Array.from({ length: 10 }, (_, i) => engine.start(['run', '--rm', 'busybox', 'sh', '-c', `echo ${i}; exit ${i}`], { input: '' }));
    await until('one of them to begin', () => runs.some(({ stdout }) => stdout !== ''));
    await end();
    const results = await Promise.all(runs.map(({ result }) => result));
    for (const [i, result] of results.entries()) {
      if (result.code === i && result.stdout === `${i}\n`) continue;
      // its program may have run, and its output have come: the code is then its own
      toldClearly(result);
      expect(['', `${i}\n`]).toContain(result.stdout);
    }
    if (survives) expect(results.map(({ code }) => code)).toEqual(results.map((_, i) => i));
    await until('all of them to be gone', async () => (await engine.ok('ps', '-aq')) === '', 30_000);
    await gone();
  });
});

const seed = Number(process.env['CHAOS_SEED'] ?? Date.now() % 1_000_000);
const seconds = Number(process.env['CHAOS_SECONDS'] ?? 40);
it(`commands at once while engined and shims are killed at random (CHAOS_SEED=${seed})`, { timeout: (seconds + 120) * 1000 }, async () => {
  const random = seeded(seed);
  for (const end = Date.now() + seconds * 1000; Date.now() < end; ) {
    const wrong = await chaosRound(engine, random);
    expect(wrong, wrong.join('\n')).toEqual([]);
  }
});
