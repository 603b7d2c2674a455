import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BundleCheckpoint, type Bundles } from '@engine/core/api';
import { type Invocation } from '@engine/core/contracts/frontend';
import { createOci } from './driver.ts';

let folder: string;
beforeEach(() => (folder = mkdtempSync('/tmp/frontend-oci-')));
afterEach(() => rmSync(folder, { recursive: true }));

const none = { tcpEstablished: false, externalSockets: false, shellJob: false, fileLocks: false, lazyPages: false, autoDedup: false, groupsMode: 'soft', emptyNetwork: false };

/** `engine-oci` in this process; what it asks of the engine and of the caller. */
async function call(argv: readonly string[], { restore, ...more }: Partial<Pick<Bundles, 'checkpoint' | 'restore'>> & { readonly code?: number } = {}) {
  const asked: unknown[][] = [];
  const note = <T>(name: string, answer: (...args: never[]) => T) => (...args: unknown[]): T => (asked.push([name, ...args]), answer(...(args as never[])));
  const bundles = {
    checkpoint: note('checkpoint', more.checkpoint ?? (() => Promise.resolve())), restore: note('restore', restore ?? (() => Promise.resolve({ pid: 42 }))), delete: note('delete', () => Promise.resolve()),
  };
  const caller = { adopt: note('adopt', () => {}), spawn: () => Promise.resolve(1), wait: note('wait', () => Promise.resolve(more.code ?? 0)), begun: () => {}, path: (path: string) => path.replace('/dev/fd/', '/proc/self/fd/'), sendPidfd: () => Promise.resolve() };
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const invocation = { argv: ['--root', '/r', ...argv], cwd: folder, env: {}, stdin, stdout, stderr, version: '1', commands: [], umask: 0o22, caller } as unknown as Invocation;
  const code = await createOci().run(() => Promise.resolve({ bundles } as never), invocation);
  return { code, stderr: String(stderr.read() ?? ''), asked };
}

describe('checkpoint', () => {
  it('has folders of its caller, and else nothing', async () => {
    const { code, asked } = await call(['checkpoint', 'c1']);
    expect([code, asked]).toEqual([0, [['checkpoint', { root: '/r', id: 'c1' }, { ...none, images: join(folder, 'checkpoint'), spawner: expect.anything(), leaveRunning: false, preDump: false }]]]);
  });
  it("has all of runc's flags", async () => {
    const { asked } = await call(['checkpoint', '--image-path', '/i', '--work-path', 'w', '--leave-running', '--tcp-established', '--ext-unix-sk', '--shell-job', '--file-locks', '--lazy-pages', '--auto-dedup', '--manage-cgroups-mode', 'strict', '--empty-ns', 'network', '--pre-dump', '--parent-path', '../p', '--page-server', '[::1]:27', 'c1']);
    expect(asked[0]?.[2]).toMatchObject({
      images: '/i', work: join(folder, 'w'), leaveRunning: true, preDump: true, parent: '../p', pageServer: { address: '::1', port: 27 }, groupsMode: 'strict', tcpEstablished: true, externalSockets: true, shellJob: true, fileLocks: true, lazyPages: true, autoDedup: true, emptyNetwork: true,
    });
    expect((await call(['checkpoint', '--page-server', 'host:1', 'c1'])).asked[0]?.[2]).toMatchObject({ pageServer: { address: 'host', port: 1 } });
  });
  it.each([
    [['--manage-cgroups-mode', 'x'], 'invalid manage-cgroups-mode'], [['--empty-ns', 'mount'], 'is not supported by --empty-ns'], [['--page-server', '1'], 'invalid page server'], [['--page-server', 'a:70000'], 'invalid page server'],
    [['--page-server', '::1:4'], 'invalid page server'], [['--parent-path', '/p'], 'relative to --image-path'], [['--status-fd', 'x'], '--status-fd'],
  ] as const)('refuses %j', async (flags, words) => {
    const { code, stderr, asked } = await call(['checkpoint', ...flags, 'c1']);
    expect([code, asked, stderr]).toEqual([1, [], expect.stringContaining(words)]);
  });
  it('writes a byte to --status-fd when pages can be asked for', async () => {
    const file = join(folder, 'status');
    const fd = openSync(file, 'w');
    try {
      await call(['checkpoint', '--lazy-pages', '--status-fd', String(fd), 'c1'], { checkpoint: async (_ref, { onReady }: BundleCheckpoint) => onReady?.() });
    } finally {
      closeSync(fd);
    }
    expect(readFileSync(file)).toEqual(Buffer.from([0]));
  });
});

describe('restore', () => {
  it('detached, tells the pid and ends', async () => {
    const { code, asked } = await call(['restore', '-d', '--image-path', 'i', '--bundle', 'b', '--pid-file', 'p', '--no-pivot', '--no-subreaper', '--lsm-profile', 'apparmor:x', '--lsm-mount-context', 'm', '--console-socket', 's', 'c1']);
    expect([code, readFileSync(join(folder, 'p'), 'utf8')]).toEqual([0, '42']);
    expect(asked).toEqual([['restore', expect.objectContaining({
      ...none, root: '/r', id: 'c1', bundle: join(folder, 'b'), images: join(folder, 'i'), detached: true, consoleSocket: join(folder, 's'), noPivot: true, preserveFds: 0, securityProfile: 'apparmor:x', mountContext: 'm',
    })]]);
  });
  it('attached, waits for the program, has its code and deletes', async () => {
    const { code, asked } = await call(['restore', 'c1'], { code: 7 });
    expect([code, asked.map(([name]) => name)]).toEqual([7, ['adopt', 'restore', 'wait', 'delete']]);
  });
  it('leaves nothing but words when it fails', async () => {
    const { code, stderr, asked } = await call(['restore', '-d', '--pid-file', 'p', 'c1'], { restore: () => Promise.reject(new Error('no image')) });
    expect([code, stderr, asked.map(([name]) => name)]).toEqual([1, expect.stringContaining('engine-oci restore failed: no image'), ['restore']]);
    expect(() => readFileSync(join(folder, 'p'))).toThrow('ENOENT');
  });
});
