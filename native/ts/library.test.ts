import { fork, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createNative } from './index.ts';
import { defineLibrary, errnoName } from './library.ts';
import { until } from '../../test/helpers/wait.ts';
import { binaryFolder } from './binaries.ts';
import { createRecordingSyscalls } from './syscalls.ts';

const libc = 'libc.so.6';

describe('a library', () => {
  it('gives value and errno of each call', () => {
    const c = defineLibrary(libc, { getpid: { args: [], result: 'int' }, close: { args: ['int'], result: 'int' }, strlen: { args: ['str'], result: 'size' } });
    expect(c.getpid()).toEqual({ value: process.pid, errno: 0 });
    expect(c.close(-1)).toEqual({ value: -1, errno: 9 });
    expect(c.strlen('héllo').value).toBe(6);
    expect(errnoName(9)).toBe('EBADF');
    expect(errnoName(121)).toBe('EREMOTEIO');
  });

  it('writes into buffers', () => {
    const c = defineLibrary([libc], { gethostname: { args: ['bytes', 'size'], result: 'int' } });
    const name = Buffer.alloc(256);
    expect(c.gethostname(name, 256).value).toBe(0);
    expect(name.indexOf(0)).toBeGreaterThan(0);
  });

  it('takes the first of several that loads, and says what is missing', () => {
    expect(defineLibrary(['libnot-there.so.1', libc], { getpid: { args: [], result: 'int' } }).getpid().value).toBe(process.pid);
    expect(() => defineLibrary('libnot-there.so.1', {})).toThrow(expect.objectContaining({ code: 'ERR_NATIVE', path: 'libnot-there.so.1' }));
    expect(() => defineLibrary(libc, { no_such_function: { args: [], result: 'int' } })).toThrow(/no function no_such_function/);
    expect(() => defineLibrary(libc, {}, { check: () => 'too old' })).toThrow(/too old/);
  });

  it('is checked by the types', () => {
    const c = defineLibrary(libc, { close: { args: ['int'], result: 'int' } });
    // @ts-expect-error: a number is wanted
    expect(() => c.close('x')).toThrow();
    // @ts-expect-error: there is no such function
    expect(c.open).toBeUndefined();
  });
});

describe('locks', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'engine-lock-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  const native = createNative();

  it('of single bytes exclude each other alone', () => {
    const path = join(folder, 'bytes');
    const far = 2 ** 46 + 3;
    const one = native.tryLock(path, { byte: far });
    expect(native.tryLock(path, { byte: far })).toBeUndefined();
    expect(native.tryLock(path, { byte: far, shared: true })).toBeUndefined();
    const beside = native.tryLock(path, { byte: far + 1, shared: true });
    const shared = native.tryLock(path, { byte: far + 1, shared: true });
    expect([beside, shared, native.tryLock(path, { byte: far + 1 })]).toEqual([expect.anything(), expect.anything(), undefined]);
    one?.release();
    for (const lock of [native.tryLock(path, { byte: far }), beside, shared]) lock?.release();
  });
  it('exclude each other, also within one process, until released', () => {
    const path = join(folder, 'lock');
    expect(native.tryLock(path, { create: false })).toBeUndefined();
    const first = native.tryLock(path);
    expect(first).toBeDefined();
    expect(native.tryLock(path)).toBeUndefined();
    expect(native.tryLock(path, { shared: true })).toBeUndefined();
    first?.release();
    first?.release();
    const a = native.tryLock(path, { shared: true });
    const b = native.tryLock(path, { shared: true, create: false });
    expect(a && b).toBeTruthy();
    expect(native.tryLock(path)).toBeUndefined();
    a?.release();
    b?.release();
    native.tryLock(path)?.release();
  });

  it('protect the file that stands at the name, and follow no link', () => {
    const path = join(folder, 'lock');
    const old = native.tryLock(path);
    rmSync(path);
    const fresh = native.tryLock(path);
    expect(fresh).toBeDefined();
    old?.release();
    expect(native.tryLock(path)).toBeUndefined();
    fresh?.release();
    symlinkSync('/etc/passwd', join(folder, 'link'));
    expect(() => native.tryLock(join(folder, 'link'))).toThrow(expect.objectContaining({ code: 'ERR_NATIVE', errno: 'ELOOP' }));
  });

  it('end with the process that holds them', async () => {
    const path = join(folder, 'lock');
    const script = join(folder, 'holder.mjs');
    writeFileSync(script, `import { createNative } from ${JSON.stringify(join(import.meta.dirname, 'index.ts'))};\nprocess.send(createNative().tryLock(${JSON.stringify(path)}) !== undefined);\nsetInterval(() => {}, 1000);\n`);
    const child = fork(script, { execPath: process.execPath, execArgv: [] });
    expect(await new Promise((resolve) => child.once('message', resolve))).toBe(true);
    expect(native.tryLock(path)).toBeUndefined();
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    expect(native.tryLock(path)).toBeDefined();
  });
});

describe('the recording fake', () => {
  it('excludes locks, remembers calls and fds', () => {
    const fake = createRecordingSyscalls();
    const native = createNative({ syscalls: fake });
    const lock = native.tryLock('/x');
    expect(native.tryLock('/x')).toBeUndefined();
    lock?.release();
    expect(fake.open.size).toBe(0);
    expect(fake.calls.map((call) => call.name)).toEqual(['lock', 'lock', 'close']);
  });
});

describe('the machine', () => {
  const native = createNative();
  it('is read', () => {
    expect(native.processStartTime(process.pid)).toBeGreaterThan(0n);
    expect(native.processStartTime(2 ** 22 + 1)).toBeUndefined();
    expect(native.processStartTime(process.pid, true)).toBe(native.processStartTime(process.pid));
    expect(native.bootId()).toMatch(/^[0-9a-f-]{36}$/);
    expect(existsSync(join(binaryFolder(), 'engine-shim'))).toBe(true);
  });
  it('tells a process that has ended from one that lives, while nobody has asked how', async () => {
    // sleep never waits for the child that it inherits
    const { pid = 0 } = spawn('sh', ['-c', 'true & exec sleep 1000'], { stdio: 'ignore' });
    try {
      const dead = await until('a child that has ended', () => {
        const [one = ''] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ');
        return one !== '' && /^State:\s*Z/m.test(readFileSync(`/proc/${one}/status`, 'latin1')) ? Number(one) : undefined;
      });
      expect(native.processStartTime(dead)).toBeGreaterThan(0n);
      expect(native.processStartTime(dead, true)).toBeUndefined();
    } finally {
      process.kill(pid, 'SIGKILL');
    }
  });
});
