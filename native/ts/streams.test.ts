import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { BITS, FRAME, op, step } from '@engine/core/plan';
import { decodeFailure } from './frames.ts';
import { createNative } from './index.ts';
import { Bench, unable, type Talk } from './testing.ts';

const { stdin, attachStdin, attachStdout, attachStderr } = BITS.STDIO;
const outputs = attachStdout | attachStderr;
const native = createNative();
const lines = (log: string): string[] => log.split('\n').slice(0, -1);
const HEAD = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z std(out|err) [FP] /;
/** What the container wrote, put together from a log. */
const content = (log: string, stream = 'stdout'): string =>
  lines(log).filter((line) => line.slice(31, 37) === stream).map((line) => line.slice(40) + (line[38] === 'F' ? '\n' : '')).join('');

describe.skipIf(unable !== undefined)(`streams of the shim${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: Bench[] = [];
  const mounts: string[] = [];
  const bench = (): Bench => {
    const made = new Bench(native);
    benches.push(made);
    return made;
  };
  const state = async (talk: Talk): Promise<{ dropped: number; paused: boolean }> => {
    const from = talk.frames.length;
    await talk.send('state');
    const frame = await talk.until((f) => f.type === FRAME.state_ && talk.frames.indexOf(f) >= from, 'state');
    return JSON.parse(frame.payload.toString()) as { dropped: number; paused: boolean };
  };
  afterEach(async () => {
    for (const path of mounts.splice(0)) execFileSync('umount', ['-l', path]);
    for (const one of benches.splice(0)) await one.close();
  });

  it('logs long lines in parts and an unfinished last line without an end', async () => {
    const b = bench();
    const talk = b.start({ argv: ['sh', '-c', 'head -c 40000 /dev/zero | busybox tr "\\0" x; echo; echo; echo -n end'], extra: [step('init.mounts', op.mknod({ root: 'root', path: '/dev/zero', mode: 0o20666, major: 1, minor: 5 }))] });
    await talk.frame('gone');
    const log = lines(b.logText());
    for (const line of log) expect(line).toMatch(HEAD);
    expect(log.map((line) => `${line[38]}${line.length - 40}`)).toEqual(['P16384', 'P16384', 'F7232', 'F0', 'P3']);
    expect(content(b.logText())).toBe(`${'x'.repeat(40000)}\n\nend`);
  });

  it('rotates at the end of lines and keeps as many files as it should', async () => {
    const b = bench();
    const talk = b.start({ argv: ['seq', '1', '2000'], maxSize: 10_000n, maxFiles: 3 });
    await talk.frame('gone');
    expect(readdirSync(b.log).sort()).toEqual(['container.log', 'container.log.1', 'container.log.2']);
    const all = ['container.log.2', 'container.log.1', 'container.log'].map((name) => b.logText(name));
    for (const one of all) {
      expect(one.length).toBeLessThanOrEqual(10_000);
      expect(one.endsWith('\n')).toBe(true);
    }
    const numbers = content(all.join('')).trim().split('\n').map(Number);
    expect(numbers.at(-1)).toBe(2000);
    expect(numbers).toEqual(numbers.map((_, i) => (numbers[0] as number) + i));
  });

  it('appends to the log of an earlier run, after mending half a line', async () => {
    const b = bench();
    writeFileSync(join(b.log, 'container.log'), '2016-10-06T00:17:09.669794202Z stdout F torn');
    const talk = b.start({ argv: ['echo', 'next'] });
    await talk.frame('gone');
    expect(content(b.logText())).toBe('torn\nnext\n');
  });

  it('loses nothing while nobody is attached', async () => {
    const b = bench();
    const talk = b.start({ argv: ['seq', '1', '100000'] });
    talk.connection.close();
    while (!existsSync(join(b.run, 'undone'))) await sleep(20);
    expect(content(b.logText())).toBe(Array.from({ length: 100_000 }, (_, i) => `${i + 1}\n`).join(''));
  });

  it('holds output back for a slow client, and the log is whole', async () => {
    const b = bench();
    const talk = b.start({ argv: ['seq', '1', '200000'], stdio: outputs });
    talk.connection.pause();
    for (let i = 0; i < 8; i++) {
      await sleep(150);
      talk.connection.resume();
      await sleep(5);
      talk.connection.pause();
    }
    talk.connection.resume();
    await talk.frame('exit', 0, 20_000);
    const expected = Array.from({ length: 200_000 }, (_, i) => `${i + 1}\n`).join('');
    expect(talk.output() === expected).toBe(true);
    expect(content(b.logText()) === expected).toBe(true);
  });

  it('cuts a client off that does not read, and the container goes on', async () => {
    const b = bench();
    const talk = b.start({ argv: ['sh', '-c', 'read x; seq 1 400000; read x'], stdio: stdin });
    await talk.frame('started');
    const client = await b.connect();
    await client.send('attach', { argument: outputs });
    client.connection.pause();
    await talk.send('stdin', { payload: '\n' });
    while (!b.logText().endsWith('F 400000\n')) await sleep(100);
    client.connection.resume();
    await client.connection.closed;
    expect(client.frames.at(-1)?.type).toBe(FRAME.cutOff);
    expect(content(b.logText()).startsWith(client.output())).toBe(true);
    await talk.send('stdin', { payload: '\n' });
    expect((await talk.frame('exit')).argument).toBe(0);
    expect(lines(b.logText()).length).toBe(400_000);
  }, 20_000);

  it('drops, counts and marks when the disk is full, and goes on when it is not', async () => {
    const b = bench();
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', b.log]);
    mounts.push(b.log);
    const talk = b.start({ argv: ['sh', '-c', 'seq 1 20000; echo full; read x; echo after; read x; echo later'], stdio: stdin | attachStdin | outputs });
    await talk.untilOutput('full');
    expect((await state(talk)).dropped).toBeGreaterThan(10_000);
    execFileSync('mount', ['-o', 'remount,size=4m', b.log]);
    await talk.send('stdin', { payload: '\n' });
    await talk.untilOutput('after');
    const { dropped } = await state(talk);
    const log = b.logText();
    for (const line of lines(log)) expect(line).toMatch(HEAD);
    expect(log).toContain(` stderr F engine: ${dropped} bytes of output dropped\n`);
    expect(content(log)).toMatch(/\nafter\n$/);
    expect(content(log).length + dropped).toBe(talk.output().length);
    await talk.send('stdin', { payload: '\n' });
    expect(JSON.parse((await talk.frame('exit')).payload.toString())).toMatchObject({ dropped });
  });

  it('never waits for the log with a ring: drops whole lines, counts and marks them', async () => {
    const b = bench();
    const talk = b.start({ argv: ['sh', '-c', 'seq 1 300000'], ring: 65536, stdio: outputs });
    const exit = JSON.parse((await talk.frame('exit', 0, 15_000)).payload.toString()) as { dropped: number };
    const log = b.logText();
    for (const line of lines(log)) expect(line).toMatch(HEAD);
    expect(content(log).length + exit.dropped).toBe(talk.output().length);
    const marked = [...log.matchAll(/engine: (\d+) bytes of output dropped/g)].reduce((sum, [, n]) => sum + Number(n), 0);
    expect(marked).toBe(exit.dropped);
  });

  it('refuses to start where there is no place for the log', async () => {
    const b = bench();
    execFileSync('rmdir', [b.log]);
    const talk = b.start({ argv: ['true'] });
    expect(decodeFailure((await talk.frame('failed')).payload)).toMatchObject({ part: 0, errno: 2 });
    mkdirSync(b.log);
  });

  it('ends a run although others hold its output open', async () => {
    const b = bench();
    const talk = b.start({ argv: ['sh', '-c', 'sleep 3 & echo done'], stdio: outputs, flags: 0x0002_0000 });
    const exit = await talk.frame('exit', 0, 2000);
    expect(exit.argument).toBe(0);
    expect(talk.output()).toBe('done\n');
  });

  it('ends a session although its children hold its output open', async () => {
    const b = bench();
    const talk = b.start({ argv: ['cat'], stdio: stdin });
    await talk.frame('started');
    await talk.send('exec', { session: 1, argument: outputs, payload: b.session(['sh', '-c', 'sleep 100 & echo done']) });
    expect((await talk.frame('exit', 1, 2000)).argument).toBe(0);
    expect(talk.output(1, 1)).toBe('done\n');
  });
});
