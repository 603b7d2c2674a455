import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';

/** One thing that hangs, for real, beside a resident engine; everybody else is served meanwhile. */
const bin = join(import.meta.dirname, '../../bin/engine');
let engine: TestEngine;

/** A plugin that hangs when a container is named so. */
function makePlugin(folder: string): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({
    name: 'hanging', version: '0.0.1', type: 'module', exports: './plugin.js', peerDependencies: { '@engine/core': '^0.1.0' }, engine: { name: 'hanging', main: './plugin.js', requires: [], taps: ['create'] },
  }));
  writeFileSync(join(folder, 'plugin.js'), `import { definePlugin } from '@engine/core/plugin';
export default definePlugin({
  create({ tap }) {
    tap('create', async ({}, { container }) => {
      if (container.name.startsWith('waits')) await new Promise(() => {});
      if (container.name.startsWith('spins')) for (;;);
      if (container.name.startsWith('later')) { await new Promise((resolve) => setTimeout(resolve, 10)); for (;;); }
    });
    return {};
  },
});
`);
}

/** What all others do: how long the slowest of them took, ms. */
async function others(): Promise<number> {
  const timed = async (...args: string[]): Promise<number> => {
    const began = Date.now();
    await engine.ok(...args);
    return Date.now() - began;
  };
  const times: number[] = [];
  for (let round = 0; round < 3; round++) {
    times.push(...(await Promise.all([timed('ps'), timed('ps', '-a'), timed('run', '--rm', '--network', 'none', 'busybox', 'true'), timed('exec', 'bystander', 'true'), timed('logs', 'bystander'), timed('inspect', 'bystander')])));
  }
  return Math.max(...times);
}
let usual = 0;
/** Delayed would mean by the time that something waits for what hangs: ten seconds and more. */
async function nobodyIsDelayed(): Promise<void> {
  expect(await others()).toBeLessThan(Math.max(4000, 4 * usual));
}
/** Settled to what it came to, so that a test may look at it when it wants. */
function start(...args: string[]): { readonly done: () => boolean; readonly result: Promise<{ code: number | null; stdout: string; stderr: string }> } {
  let over = false;
  const result = engine.run(args);
  result.then(() => (over = true), () => {});
  return { done: () => over, result };
}
const pidOf = async (name: string): Promise<number> => Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', name));
const shimOf = (init: number): number => Number(readFileSync(`/proc/${init}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ')[1]);

beforeAll(async () => {
  engine = new TestEngine({ resident: 'auto' });
  const plugin = join(engine.folder, 'cwd', 'hanging');
  makePlugin(plugin);
  engine.configure(`plugins: [${plugin}]\nwatchdog: 2\n`);
  await importBusybox(engine);
  await engine.ok('run', '-d', '--name', 'bystander', '--network', 'none', 'busybox', 'sh', '-c', 'echo up; exec sleep 100000');
  await engine.startEngined();
  await others();
  usual = await others();
});
afterAll(async () => expect(await engine.close()).toEqual([]));

describe.skipIf(process.getuid?.() !== 0)('delays nobody else:', () => {
  it('a container whose output nobody reads', async () => {
    const clients: ChildProcess[] = [];
    try {
      for (const name of ['flood', 'stopped']) clients.push(spawn(bin, ['run', '--name', name, '--network', 'none', 'busybox', 'sh', '-c', 'yes "a line that nobody reads"'], { env: engine.env, stdio: ['ignore', 'pipe', 'ignore'] }));
      await until('both to run', async () => /flood/.test(await engine.ok('ps')) && /stopped/.test(await engine.ok('ps')));
      // one reads nothing (its pipe is full), the other is stopped itself
      clients[1]?.kill('SIGSTOP');
      await nobodyIsDelayed();
      clients[1]?.kill('SIGCONT');
      await engine.ok('rm', '-f', 'flood', 'stopped');
    } finally {
      for (const client of clients) client.kill('SIGKILL');
    }
  });

  it('a container that is frozen, while somebody stops it', async () => {
    await engine.ok('run', '-d', '--name', 'frozen', '--network', 'none', 'busybox', 'sleep', '1000');
    const pid = await pidOf('frozen');
    const line = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n').find((entry) => entry.split(':')[1] === 'freezer');
    const own = `/sys/fs/cgroup/freezer/engine-test-${process.pid}`;
    const group = line && line.split(':')[2] !== '/' ? `/sys/fs/cgroup/freezer${line.split(':')[2]}` : own;
    if (group === own) {
      mkdirSync(own);
      writeFileSync(join(own, 'cgroup.procs'), String(pid));
    }
    writeFileSync(join(group, 'freezer.state'), 'FROZEN');
    try {
      await until('it to be frozen', () => readFileSync(join(group, 'freezer.state'), 'utf8').trim() === 'FROZEN');
      const stop = start('stop', '-t', '1', 'frozen');
      await nobodyIsDelayed();
      if (existsSync(group)) writeFileSync(join(group, 'freezer.state'), 'THAWED');
      expect(await stop.result).toMatchObject({ code: 0 });
      await engine.ok('rm', 'frozen');
    } finally {
      if (group === own) await until('an empty group', () => (rmdirSync(own), true));
    }
  });

  it('a shim that somebody has stopped: exec says so, and kill ends it', async () => {
    await engine.ok('run', '-d', '--name', 'stunned', '--network', 'none', 'busybox', 'sleep', '1000');
    const shim = shimOf(await pidOf('stunned'));
    process.kill(shim, 'SIGSTOP');
    const exec = start('exec', 'stunned', 'true');
    await nobodyIsDelayed();
    const { code, stderr } = await exec.result;
    expect(code).toBe(125);
    expect(stderr).toMatch(new RegExp(`the shim of container stunned does not answer.*kill -CONT ${shim}`, 's'));
    await engine.ok('inspect', 'stunned');
    await engine.ok('rm', '-f', 'stunned');
  });

  it('bind sources on a filesystem whose server never answers', async () => {
    const dead = join(engine.folder, 'dead');
    const server = join(engine.folder, 'fuse');
    mkdirSync(dead);
    writeFileSync(`${server}.c`, FUSE);
    execFileSync('gcc', ['-O1', '-o', server, `${server}.c`]);
    const daemon = spawn(server, [dead], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await new Promise((resolve) => { daemon.stdout.once('data', resolve); });
      const began = Date.now();
      const runs = [dead, ...Array.from({ length: 20 }, (_, i) => `${dead}/${i}`)].map((source) => start('run', '--rm', '-v', `${source}:/mnt`, '--network', 'none', 'busybox', 'true'));
      await nobodyIsDelayed();
      for (const [i, { result }] of runs.entries()) {
        const { code, stderr } = await result;
        expect([code, stderr]).toEqual([125, expect.stringContaining(i === 0 ? `stat ${dead}: no answer for 10 s` : `stat ${dead}/${i - 1}: no answer for 10 s`)]);
      }
      expect(Date.now() - began).toBeLessThan(30_000);
      const file = start('run', '--rm', '--env-file', `${dead}/env`, '--network', 'none', 'busybox', 'true');
      await nobodyIsDelayed();
      expect((await file.result).stderr).toContain(`stat ${dead}/env: no answer for 10 s`);
      // nor the folder that a command is typed in, whose configuration is looked at
      const inside = engine.run(['ps'], { env: { HOME: dead } });
      await nobodyIsDelayed();
      expect((await inside).stderr).toContain(`stat ${dead}: no answer for 10 s`);
    } finally {
      daemon.kill('SIGKILL');
      execFileSync('umount', ['-l', dead]);
    }
    // it has come back to life, and so do the threads that hung
    await engine.ok('run', '--rm', '-v', `${dead}:/mnt`, '--network', 'none', 'busybox', 'true');
  });

  it('a plugin whose tap never returns', async () => {
    const run = start('run', '--rm', '--name', 'waits', '--network', 'none', 'busybox', 'true');
    await nobodyIsDelayed();
    const { code, stderr } = await run.result;
    expect([code, stderr]).toEqual([125, expect.stringContaining('plugin hanging took longer than 10000 ms in hook create')]);
  });

  it.each(['spins', 'later'])('a plugin that spins (%s): it is named, containers go on, the next command finds everything again', async (name) => {
    const [before, bystander] = [engine.engined, await pidOf('bystander')];
    const session = engine.start(['exec', '-i', 'bystander', 'cat']);
    session.child.stdin.write('before\n');
    await session.output(/before/);
    const { code, stderr } = await start('run', '--rm', '--name', name, '--network', 'none', 'busybox', 'true').result;
    expect([code, stderr]).toEqual([125, expect.stringContaining('plugin hanging blocked the engine for 2 s in hook create')]);
    expect(await pidOf('bystander')).toBe(bystander);
    // what flows between launcher and shim never went through it
    session.child.stdin.end('after\n');
    expect(await session.result).toMatchObject({ code: 0, stdout: 'before\nafter\n' });
    expect(await until('a new engined', () => engine.engined)).not.toBe(before);
    await nobodyIsDelayed();
  });

  it('a plugin that does so three times in a row is not loaded any more, until it is mended', async () => {
    await start('run', '--rm', '--name', 'spins', '--network', 'none', 'busybox', 'true').result;
    const refused = await until('the refusal', async () => {
      const result = await engine.run(['ps']);
      return result.code === 0 ? undefined : result;
    });
    expect(refused.stderr).toMatch(/plugin hanging is not loaded: it has blocked the engine 3 times in a row/);
    const file = join(engine.folder, 'cwd', 'hanging', 'plugin.js');
    writeFileSync(file, readFileSync(file, 'utf8').replace("if (container.name.startsWith('spins')) for (;;);", ''));
    await until('the mended one to be taken', async () => (await engine.run(['ps'])).code === 0);
    await engine.ok('run', '--rm', '--name', 'spins', '--network', 'none', 'busybox', 'true');
  });
});

/** Mounts a FUSE filesystem on its argument, says hello to the kernel, and answers nothing ever after. */
const FUSE = `
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/mount.h>
#include <linux/fuse.h>
int main(int argc, char **argv) {
  static char buffer[1 << 20];
  char options[100];
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd < 0) return perror("/dev/fuse"), 1;
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
  if (mount("dead", argv[1], "fuse.dead", MS_NOSUID | MS_NODEV, options) < 0) return perror("mount"), 1;
  if (read(fd, buffer, sizeof buffer) < (ssize_t)sizeof(struct fuse_in_header)) return perror("read"), 1;
  struct fuse_in_header *in = (void *)buffer;
  struct { struct fuse_out_header head; struct fuse_init_out init; } out;
  memset(&out, 0, sizeof out);
  out.head.len = sizeof out;
  out.head.unique = in->unique;
  out.init.major = FUSE_KERNEL_VERSION;
  out.init.minor = 31;
  out.init.max_write = 4096;
  if (write(fd, &out, sizeof out) < 0) return perror("write"), 1;
  alarm(60); // whatever happens to the test, the machine is not left with it
  puts("mounted");
  fflush(stdout);
  for (;;) pause();
}
`;
