import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { type KernelReport } from '@engine/core/api';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { kernelFeatures } from '../../config/kernel/features.ts';
import { isSince } from '../../config/kernel/versions.ts';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { oldKernel } from '../helpers/old-kernel.ts';
import { until } from '../helpers/wait.ts';

/** The oldest kernel that is promised: what came later fails as it would there (see helpers/programs/old-kernel.c). */
describe.each(['off', 'auto'] as const)('on Linux 5.14, resident engine %s', (resident) => {
  let engine: TestEngine;
  const run = (...args: string[]): Promise<string> => engine.ok('run', '--rm', ...args);
  beforeAll(async () => {
    engine = new TestEngine({ enter: oldKernel(), resident, env: { ENGINE_DRIVERS_NETWORK: 'none' } });
    await importBusybox(engine);
  });
  afterAll(async () => expect(await engine.close()).toEqual([]));

  it('the kernel says so, to the engine and in a container', async () => {
    expect(await run('--hostname', 'inside', 'busybox', 'uname', '-nr')).toBe('inside 5.14.0-old');
    expect(await engine.ok('info', '-f', '{{.KernelVersion}}')).toBe('5.14.0-old');
  });
  it('streams, statuses and signals are what they are elsewhere', async () => {
    expect(await engine.run(['run', '--rm', 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 7'])).toMatchObject({ code: 7, stdout: 'out\n', stderr: 'err\n' });
    expect((await engine.run(['run', '--rm', '-i', 'busybox', 'sh', '-c', 'cat; echo after'], { input: 'some\0bytes\n' })).stdout).toBe('some\0bytes\nafter\n');
    // more than a pipe holds, both ways
    const large = 'x'.repeat(1 << 20);
    expect((await engine.run(['run', '--rm', '-i', 'busybox', 'cat'], { input: large })).stdout.length).toBe(large.length);
    const typed = engine.terminal(['run', '--rm', '-it', 'busybox', 'sh', '-c', 'stty size; read -r word; echo got $word']);
    await typed.output(/24 80/);
    typed.child.stdin.write('it\n');
    await typed.output(/got it/);
    expect((await typed.result).code).toBe(0);
  });
  it('a root of several layers is mounted by mount(2), and what is written stays', async () => {
    expect(await engine.ok('doctor')).toMatch(/storage overlay +chosen +mounts by mount\(2\)/);
    await engine.ok('run', '--name', 'kept', 'busybox', 'sh', '-c', 'echo text > /new; chmod 640 /new; rm /etc/passwd; mkdir -p /a/b');
    const changed = (await engine.ok('diff', 'kept')).split('\n');
    for (const line of ['A /new', 'D /etc/passwd', 'A /a/b']) expect(changed).toContain(line);
    await engine.ok('start', 'kept');
    await until('its second end', async () => (await engine.ok('inspect', '-f', '{{.State.Status}}', 'kept')) === 'exited');
    await engine.ok('rm', 'kept');
    expect((await engine.run(['run', '--rm', '--read-only', 'busybox', 'touch', '/x'])).stderr).toMatch(/Read-only file system/);
  });
  it('volumes, tmpfs, binds, masks, limits, capabilities, seccomp and a user', async () => {
    await run('-v', 'data:/data', 'busybox', 'sh', '-c', 'echo kept > /data/f');
    expect(await run('-v', 'data:/data:ro', '--tmpfs', '/t:size=1m,mode=700', 'busybox', 'sh', '-c', 'cat /data/f; stat -c %a /t; touch /data/g 2>/dev/null || echo ro')).toBe('kept\n700\nro');
    expect(await run('-v', `${join(engine.folder, 'cwd')}:/here:ro`, 'busybox', 'sh', '-c', 'touch /here/x 2>&1')
      .catch((error: unknown) => String(error))).toMatch(/Read-only file system/);
    expect(await run('busybox', 'sh', '-c', 'cat /proc/kcore | wc -c; grep -c . /proc/keys; grep Seccomp: /proc/self/status')).toMatch(/^0\n0\nSeccomp:\s2$/);
    expect(await run('--memory', '64m', '--pids-limit', '50', '--user', '1000:1000', '--cap-drop', 'ALL', 'busybox', 'sh', '-c', 'id -u; grep CapEff /proc/self/status')).toMatch(/^1000\nCapEff:\s0+$/);
  });
  it('doctor misses what came later, and nothing else that the kernel can be asked for', async () => {
    const { kernel } = JSON.parse(await engine.ok('doctor', '--format', 'json')) as { kernel: KernelReport };
    expect(kernel).toMatchObject({ release: '5.14.0-old', oldest: '5.14' });
    for (const { name, asked, since } of kernelFeatures) {
      const found = kernel.features.find((feature) => feature.name === name);
      // files are those of the real kernel
      if (asked !== 'file') expect(found, name).toMatchObject({ there: isSince([5, 14], since), byVersion: asked === 'version' });
    }
    const shown = await engine.ok('doctor');
    expect(shown).toMatch(/^kernel +5\.14\.0-old \(5\.14 or later is needed\): \d+ of the \d+ features that are used here are there$/m);
    expect(shown).toMatch(/^overlay: layers one by one \(lowerdir\+\) +6\.8 +missing +mount\(2\)/m);
    expect(shown).not.toContain('openat2');
    expect(await engine.ok('doctor', '--verbose')).toMatch(/^openat2\S* +5\.6 +there +paths/m);
  });
  it('a user namespace: overlay takes no layers with other owners, so that the container\'s files get theirs on disk, with a word', async () => {
    const { code, stdout, stderr } = await engine.run(['run', '--rm', '--userns', 'auto', '-v', 'data:/data', 'busybox', 'sh', '-c', 'id -u; stat -c %u:%g / /etc/passwd; cat /proc/self/uid_map; touch /data/inside; stat -c %u /data/inside']);
    expect([code, stderr]).toEqual([0, expect.stringMatching(/^engine: warning: the files of container \S+ get its owners on disk, which takes longer: overlay takes layers with other owners since Linux 5\.19, this is 5\.14\.0-old\n$/)]);
    // the volume lies on a filesystem that can show it otherwise
    expect(stdout).toMatch(/^0\n0:0\n0:0\n +0 +[1-9]\d{5,} +65536\n0\n$/);
    expect(await run('-v', 'data:/data', 'busybox', 'stat', '-c', '%u', '/data/inside')).toBe('0');
    // layers stay as they are
    expect(await run('busybox', 'stat', '-c', '%u', '/etc/passwd')).toBe('0');
  });
  it('pause, limits of a running container, and numbers', async () => {
    await engine.ok('run', '-d', '--name', 'measured', 'busybox', 'sleep', '1000');
    await engine.ok('pause', 'measured');
    expect(await engine.ok('inspect', '-f', '{{.State.Status}}', 'measured')).toBe('paused');
    await engine.ok('unpause', 'measured');
    await engine.ok('update', '--memory', '64m', '--memory-swap', '64m', 'measured');
    expect(await engine.ok('stats', '--no-stream', 'measured')).toMatch(/ 64MiB /);
    await engine.ok('rm', '-f', 'measured');
  });
  it('exec, logs, kill and stop of one in the background', async () => {
    await engine.ok('run', '-d', '--name', 'behind', 'busybox', 'sh', '-c', 'echo begun; exec sleep 1000');
    expect(await engine.ok('exec', 'behind', 'sh', '-c', 'echo in; uname -r')).toBe('in\n5.14.0-old');
    await until('its log', async () => (await engine.ok('logs', 'behind')) === 'begun');
    await engine.ok('kill', 'behind');
    await until('its end', async () => (await engine.ok('inspect', '-f', '{{.State.ExitCode}}', 'behind')) === '137');
    await engine.ok('rm', 'behind');
  });
});

it('Linux 6.6 has the new mount API for overlays, but takes no layers one by one: they are mounted by mount(2), idmapped too', async () => {
  const engine = new TestEngine({ enter: oldKernel('6.6.100'), env: { ENGINE_DRIVERS_NETWORK: 'none' } });
  try {
    await importBusybox(engine);
    expect(await engine.ok('run', '--rm', 'busybox', 'uname', '-r')).toBe('6.6.100');
    expect(await engine.run(['run', '--rm', '--userns', 'auto', 'busybox', 'sh', '-c', 'stat -c %u /etc/passwd; touch /new && stat -c %u /new'])).toMatchObject({ code: 0, stdout: '0\n0\n', stderr: '' });
  } finally {
    expect(await engine.close()).toEqual([]);
  }
});

it('an older kernel is refused in one line', async () => {
  const engine = new TestEngine();
  try {
    const old = (release: string, ...args: string[]): string => {
      try {
        return execFileSync(oldKernel(release)[0] as string, ['-r', release, join(import.meta.dirname, '../../bin/engine'), ...args], { env: engine.env, encoding: 'utf8', stdio: 'pipe' });
      } catch (error) {
        return `${(error as { status: number }).status}: ${(error as { stderr: string }).stderr}`;
      }
    };
    for (const [release, args] of [['5.13.19-generic', ['run', '--rm', 'busybox', 'true']], ['4.18.0-553.el8.x86_64', ['ps']], ['5.10.0-32-amd64', ['doctor']]] as const) {
      expect(old(release, ...args)).toBe(`125: engine: linux ${release} is too old: the engine needs 5.14 or later; upgrade the kernel\n`);
    }
    for (const args of [['--help'], ['version'], ['config']]) expect(old('5.13.19', ...args)).not.toMatch(/^\d+: /);
    expect(old('5.14.0-362.el9.x86_64', 'ps')).toMatch(/^CONTAINER ID/);
  } finally {
    expect(await engine.close()).toEqual([]);
  }
});
