import { existsSync, openSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { parts, type Part } from '@engine/core/plan';
import { decodeFailure } from './frames.ts';
import { HandOver, statusOf } from './handover-testing.ts';
import { createNative } from './index.ts';
import { bytesOf, unable } from './testing.ts';

const native = createNative();
const partNumber = (part: Part): number => parts.indexOf(part);

describe.skipIf(unable !== undefined)(`a run that is handed over${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: HandOver[] = [];
  const bench = (): HandOver => {
    const made = new HandOver(native);
    benches.push(made);
    return made;
  };
  afterEach(async () => {
    for (const one of benches.splice(0)) await one.close();
  });
  const file = (b: HandOver, name: string, flags = 'w+'): number => b.keep(openSync(join(b.folder, name), flags));
  const text = (b: HandOver, name: string): string => readFileSync(join(b.folder, name), 'utf8');

  it('waits to be started, without its shim', async () => {
    const b = bench();
    const out = file(b, 'out');
    const pid = await b.create({ argv: ['sh', '-c', 'echo $$ >&2; exec sleep 100'] }, { stdio: ['ignore', out, out] });
    expect(b.shims()).toEqual([]);
    expect(native.tryLock(join(b.run, 'lock'), { create: false })).toBeDefined();
    expect(JSON.parse(b.file('started'))).toMatchObject({ pid });
    expect(existsSync(join(b.run, 'shim.sock'))).toBe(false);
    expect(readdirSync(b.run).sort()).toEqual(['go', 'lock', 'plan', 'rootfs', 'started', 'status']);
    expect(text(b, 'out')).toBe('');
    expect(await b.begin()).toBe('');
    await expect.poll(() => text(b, 'out')).toMatch(/^1\n/);
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('sleep');
    expect(readdirSync(`/proc/${pid}/fd`).sort()).toEqual(['0', '1', '2']);
    expect(statusOf(pid, 'PPid')).not.toBe('0');
  });

  it('says why the program cannot be run, after the start', async () => {
    const b = bench();
    writeFileSync(join(b.root, 'bin/odd'), 'no program', { mode: 0o755 });
    const pid = await b.create({ argv: ['/bin/odd'] });
    expect(JSON.parse(await b.begin())).toMatchObject({ part: 'init', errno: 8, detail: expect.stringContaining('/bin/odd') as string });
    await expect.poll(() => statusOf(pid, 'Name'), { timeout: 10_000 }).toBe(undefined);
  });

  it('says at once that there is no such program, and undoes all', async () => {
    const b = bench();
    const talk = b.spawn('run', bytesOf(b.handedSteps({ argv: ['missing'] })));
    expect(decodeFailure((await talk.frame('failed')).payload)).toMatchObject({ part: partNumber('init'), errno: 2 });
    await talk.frame('gone');
    await talk.connection.closed;
    expect(existsSync(b.marker)).toBe(false);
    expect(b.processes()).toEqual([]);
    expect(readdirSync(b.run)).toEqual(expect.arrayContaining(['failed', 'undone']));
  });

  it('passes on preserved fds, and no others', async () => {
    const b = bench();
    const out = file(b, 'out');
    const preserved = Array.from({ length: 9 }, (_, i) => file(b, `kept${i}`));
    const script = 'for i in 3 4 5 6 7 8 9; do eval "echo fd $i >&$i"; done; echo ten >&10 && echo eleven >&11; exec sleep 100';
    const pid = await b.create({ argv: ['sh', '-c', script] }, { stdio: ['ignore', out, out], preserved });
    expect(await b.begin()).toBe('');
    await expect.poll(() => text(b, 'kept8')).toBe('eleven\n');
    expect(Array.from({ length: 7 }, (_, i) => text(b, `kept${i}`))).toEqual(Array.from({ length: 7 }, (_, i) => `fd ${i + 3}\n`));
    expect(readdirSync(`/proc/${pid}/fd`).map(Number).sort((x, y) => x - y)).toEqual(Array.from({ length: 12 }, (_, i) => i));
  });

  it('runs further programs by processes of their own', async () => {
    const b = bench();
    const out = file(b, 'out');
    const pid = await b.create({ argv: ['sleep', '100'] });
    const exec = async (argv: readonly string[]): Promise<number> => {
      const talk = b.spawn('exec', b.session(argv), { stdio: ['ignore', out, out] });
      const { argument } = await talk.frame('started');
      await talk.connection.closed;
      return argument;
    };
    // runc's exec works before the start as well
    await exec(['sh', '-c', 'echo created']);
    await expect.poll(() => text(b, 'out')).toBe('created\n');
    expect(await b.begin()).toBe('');
    const session = await exec(['sh', '-c', 'echo again; exec sleep 99']);
    await expect.poll(() => text(b, 'out')).toBe('created\nagain\n');
    expect(readFileSync(`/proc/${session}/cgroup`, 'utf8')).toBe(readFileSync(`/proc/${pid}/cgroup`, 'utf8'));
    expect(readdirSync(`/proc/${session}/fd`).sort()).toEqual(['0', '1', '2']);
    process.kill(session, 'SIGKILL');
    const missing = b.spawn('exec', b.session(['missing']));
    expect(decodeFailure((await missing.frame('failed')).payload)).toMatchObject({ part: partNumber('exec'), errno: 2 });
    process.kill(pid, 'SIGKILL');
    await expect.poll(() => statusOf(pid, 'Name'), { timeout: 10_000 }).toBe(undefined);
    const late = b.spawn('exec', b.session(['true']));
    expect(decodeFailure((await late.frame('failed')).payload)).toMatchObject({ part: partNumber('exec'), errno: 3, detail: 'the container is not running' });
  });
});
