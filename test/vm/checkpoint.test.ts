/** Containers of engine-oci that are written to files and brought back, by the real CRIU. Debian's (3.17) cannot start on kernels from 6.13 on, so a guest is where it can be tried. */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createNative } from '@engine/native';
import { hasBusybox, hasScript, OciRuntime } from '../helpers/oci.ts';
import { until } from '../helpers/wait.ts';

const native = createNative();
const binary = join(import.meta.dirname, '../../bin/engine-oci');
const top = '/sys/fs/cgroup';
/** Why not, in criu's own words. */
function missing(): string {
  if (process.getuid?.() !== 0 || !hasBusybox || !existsSync(`${top}/cgroup.controllers`)) return 'needs root, busybox and cgroup v2';
  const { error, status, stderr } = spawnSync('criu', ['check'], { encoding: 'utf8' });
  return error ? 'criu is not installed' : status === 0 ? '' : `criu check: ${stderr}`;
}
const why = missing();
if (why) console.warn(`skipped: ${why}`);

const counts = 'i=0; while read line; do i=$((i+1)); echo $i $line; done; exit $i';

describe.skipIf(why !== '')('checkpoint and restore', () => {
  let oci: OciRuntime;
  beforeAll(() => {
    oci = new OciRuntime({ resident: 'auto' });
  });
  afterAll(async () => expect(await oci?.close()).toEqual([]));

  const image = (name: string): string => join(oci.folder, name);
  const logOf = (folder: string, name: string): string => (existsSync(join(folder, name)) ? readFileSync(join(folder, name), 'utf8').split('\n').filter((line) => line.includes('Error')).join('\n') : 'no log');
  async function ok(...args: string[]): Promise<void> {
    const { code, stderr } = await oci.call(args);
    const at = args.indexOf('--image-path');
    if (code !== 0) throw new Error(`${args.join(' ')}: ${code}: ${stderr}\n${at < 0 ? '' : ['dump.log', 'restore.log'].map((name) => logOf(args[at + 1] ?? '', name)).join('\n')}`);
  }
  /** With pipes for its streams, as its callers have it (Node's own are sockets), which stay open when the runtime has ended. */
  interface Piped { readonly code: Promise<number | null>; said(): string; tell(line: string): void; end(): void }
  const open: Piped[] = [];
  afterEach(() => {
    for (const one of open.splice(0)) one.end();
  });
  const onTerminal = (...args: string[]): Piped => {
    const child = spawn('script', ['-qec', [binary, '--root', oci.root, ...args].map((word) => `'${word}'`).join(' '), '/dev/null'], { env: { ...oci.engine.env, TERM: 'xterm' }, stdio: 'pipe' });
    let said = '';
    child.stdout.on('data', (data: Buffer) => (said += data.toString()));
    return { code: new Promise((resolve) => child.once('close', resolve)), said: () => said, tell: (line) => void child.stdin.write(line === '\x04' ? line : `${line}\n`), end: () => child.stdin.end() };
  };
  function piped(...args: string[]): Piped {
    const [input, output] = [native.pipe(), native.pipe()];
    const child = spawn(binary, ['--root', oci.root, ...args], { env: oci.engine.env, stdio: [input.read, output.write, output.write] });
    closeSync(input.read);
    closeSync(output.write);
    let said = '';
    const reader = new Socket({ fd: output.read, readable: true, writable: false }).on('data', (data) => (said += String(data)));
    let isOpen = true;
    const one: Piped = {
      code: new Promise((resolve) => child.once('exit', resolve)), said: () => said, tell: (line) => void writeSync(input.write, `${line}\n`),
      end() {
        if (isOpen) closeSync(input.write);
        isOpen = false;
        reader.unref();
      },
    };
    open.push(one);
    return one;
  }
  const says = (one: Piped, words: string): Promise<unknown> => until(() => `${JSON.stringify(words)} in ${JSON.stringify(one.said())}`, () => one.said().includes(words));

  it('keep memory, files, limits and streams, and end with their exit code', async () => {
    writeFileSync(image('outside'), 'from outside\n');
    const bundle = oci.bundle((spec) => {
      spec.mounts?.push({ destination: '/etc/outside', type: 'bind', source: image('outside'), options: ['bind', 'ro'] });
      spec.root = { path: 'rootfs', readonly: false };
      spec.linux = { ...spec.linux, cgroupsPath: '/engine-test-checkpoint', resources: { memory: { limit: 96 << 20 }, pids: { limit: 40 } } } as NonNullable<typeof spec.linux>;
    }, ['sh', '-c', `echo kept >/dev/shm/file; ${counts}`]);
    const first = piped('run', '-d', '-b', bundle, 'a');
    expect([await first.code, first.said()]).toEqual([0, '']);
    first.tell('one');
    await says(first, '1 one\n');
    await ok('checkpoint', '--image-path', image('a'), '--work-path', image('a-work'), 'a');
    expect([(await oci.state('a')).status, existsSync(image('a-work/dump.log'))]).toEqual(['stopped', true]);
    await oci.ok('delete', 'a');
    expect(existsSync(join(top, 'engine-test-checkpoint'))).toBe(false);

    const second = piped('restore', '-b', bundle, '--image-path', image('a'), '--work-path', image('a-work'), '--pid-file', image('pid'), 'a');
    second.tell('two');
    await says(second, '2 two\n');
    await until('the pid file', () => existsSync(image('pid')));
    const { status, pid } = await oci.state('a');
    expect([status, readFileSync(image('pid'), 'utf8'), readFileSync(`/proc/${pid}/cgroup`, 'utf8')]).toEqual(['running', String(pid), '0::/engine-test-checkpoint\n']);
    expect(readFileSync(join(top, 'engine-test-checkpoint/memory.max'), 'utf8').trim()).toBe(String(96 << 20));
    expect(await oci.ok('exec', 'a', 'cat', '/etc/outside', '/dev/shm/file')).toBe('from outside\nkept\n');
    expect(existsSync(join(oci.root, 'a/restore-root'))).toBe(true);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain('restore-root');
    const taken = await oci.call(['restore', '-d', '-b', bundle, '--image-path', image('a'), 'a']);
    expect([taken.code, taken.stderr]).toEqual([1, expect.stringContaining('container with id exists: a')]);
    second.end();
    expect([await second.code, second.said()]).toEqual([2, '2 two\n']);
    expect(await oci.ids()).toEqual([]);
  });

  it('go on while they are written, step by step, and as they were when that fails', async () => {
    const bundle = oci.bundle(() => {}, ['sh', '-c', counts]);
    const one = piped('run', '-d', '-b', bundle, 'b');
    expect(await one.code).toBe(0);
    await ok('checkpoint', '--pre-dump', '--image-path', image('before'), 'b');
    await ok('pause', 'b');
    await ok('checkpoint', '--leave-running', '--parent-path', '../before', '--image-path', image('after'), 'b');
    expect([existsSync(join(image('after'), 'parent')), (await oci.state('b')).status]).toEqual([true, 'paused']);
    await ok('resume', 'b');
    one.tell('one');
    await says(one, '1 one\n');
    // a file of the host that no mount of the container has
    await ok('run', '-d', '-b', oci.bundle(() => {}, ['sleep', '1000']), 'c');
    const refused = await oci.call(['checkpoint', '--image-path', image('c'), 'c']);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/checkpoint failed: .*lookup mount/)]);
    expect((await oci.state('c')).status).toBe('running');
    const failed = await oci.call(['restore', '-d', '-b', bundle, '--image-path', image('c'), 'd']);
    expect([failed.code, failed.stderr]).toEqual([1, expect.stringMatching(/restore failed: /)]);
    expect(await oci.ids()).toEqual(['b', 'c']);
    await ok('delete', '--force', 'b');
    await ok('delete', '--force', 'c');
  });

  it.skipIf(!hasScript)('have a terminal again, that of who brings them back', async () => {
    const bundle = oci.bundle((spec) => void (spec.process.terminal = true), ['sh', '-c', counts]);
    const first = onTerminal('run', '-b', bundle, 't');
    first.tell('one');
    await says(first, '1 one\r\n');
    await ok('checkpoint', '--image-path', image('t'), 't');
    expect(await first.code).toBe(137);
    expect(await oci.ids()).toEqual([]);
    const second = onTerminal('restore', '-b', bundle, '--image-path', image('t'), 't');
    second.tell('two');
    await says(second, '2 two\r\n');
    second.tell('\x04');
    expect(await second.code).toBe(2);
    expect(await oci.ids()).toEqual([]);
  });
});
