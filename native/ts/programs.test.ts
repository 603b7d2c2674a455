import { spawn } from 'node:child_process';
import { closeSync, existsSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type Spawner } from '@engine/core/native';
import { until } from '../../test/helpers/wait.ts';
import { createNative, createSyscalls } from './index.ts';

const native = createNative();
const calls = createSyscalls();
/** As the launcher does; `console`: the other end of a terminal's socket, which comes after the fds. */
function byUs(terminal?: number): Spawner {
  return {
    spawn: ({ program, argv, env, fds }) => Promise.resolve(spawn(`/proc/${process.pid}/fd/${program}`, argv.slice(1), {
      argv0: argv[0] ?? '', env: Object.fromEntries(env.map((text) => text.split('=', 2) as [string, string])), stdio: ['ignore', 'ignore', 'inherit', ...fds, ...(terminal === undefined ? [] : [terminal])],
    }).pid ?? 0),
  };
}
const open = (): number => readdirSync('/proc/self/fd').length;
/** dd reads a message at once and says it again. */
const echo = (count: number, before = ''): string[] => ['sh', '-c', `${before}exec dd bs=65536 count=${count} <&3 >&3 2>/dev/null`];

it('speaks with a program in messages, until it has ended', async () => {
  const before = open();
  const file = openSync('/dev/null', 'r');
  const program = await native.startProgram({ path: '/bin/sh', argv: echo(2, 'test "$A" = b && test -e /proc/self/fd/4 || exit 1; '), env: ['A=b', 'PATH=/usr/bin:/bin'], by: byUs(), fds: [file], callerFds: { preserve: 0 } });
  try {
    const waiting = program.next();
    program.send(Buffer.from('one'));
    expect(await waiting).toEqual({ message: Buffer.from('one') });
    program.send(Buffer.alloc(60_000, 'x'));
    expect((await program.next())?.message).toHaveLength(60_000);
    expect(await program.next()).toBeUndefined();
    await until('its end', () => {
      try {
        program.send(Buffer.from('two'));
        return false;
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_NATIVE', errno: 'EPIPE' });
        return true;
      }
    });
    expect(() => program.sendTerminal(0)).toThrow(/nobody waits/);
  } finally {
    program.close();
    program.close();
    closeSync(file);
  }
  expect(open()).toBe(before);
});

it('gives a terminal to whom the program got the socket of', async () => {
  const [receiver, theirs] = calls.packetPair();
  const program = await native.startProgram({ path: '/bin/sh', argv: echo(1), env: ['PATH=/usr/bin:/bin'], by: byUs(theirs), fds: [], callerFds: { preserve: 0, console: 'relay' } });
  closeSync(theirs);
  const file = openSync('/dev/null', 'r');
  try {
    program.sendTerminal(file);
    const buffer = Buffer.alloc(64);
    const { size, fd = -1 } = calls.receive(receiver, buffer) ?? { size: 0 };
    expect([buffer.toString('utf8', 0, size), fstatSync(fd).rdev]).toEqual(['/dev/ptmx', fstatSync(file).rdev]);
    closeSync(fd);
    expect(calls.receive(receiver, buffer)).toBeUndefined();
    program.send(Buffer.from('bye'));
    await program.next();
    expect(await program.next()).toBeUndefined();
    await until('its end', () => calls.receive(receiver, buffer)?.size === 0);
  } finally {
    program.close();
    closeSync(file);
    closeSync(receiver);
  }
});

it('refuses what is longer than it is to be', () => {
  const [one, other] = calls.packetPair();
  calls.sendWithFd(one, Buffer.from('long'), one);
  const before = open();
  expect(() => calls.receive(other, Buffer.alloc(2))).toThrow(expect.objectContaining({ code: 'ERR_NATIVE', errno: 'EMSGSIZE' }));
  expect(open()).toBe(before);
  for (const fd of [one, other]) closeSync(fd);
});

it('is a script, too, with its interpreter', async () => {
  const folder = mkdtempSync('/tmp/engine-program-');
  try {
    writeFileSync(join(folder, 'script'), '#! /bin/sh -u\n[ "$0 $1" = "$A/script x" ] || exit 1\nexec dd bs=65536 count=1 <&3 >&3 2>/dev/null\n', { mode: 0o755 });
    const program = await native.startProgram({ path: join(folder, 'script'), argv: ['criu', 'x'], env: [`A=${folder}`, 'PATH=/usr/bin:/bin'], by: byUs(), fds: [], callerFds: { preserve: 0 } });
    program.send(Buffer.from('hello'));
    expect(await program.next()).toEqual({ message: Buffer.from('hello') });
    program.close();
    writeFileSync(join(folder, 'script'), '#!/none\n');
    await expect(native.startProgram({ path: join(folder, 'script'), argv: ['criu'], env: [], by: byUs(), fds: [], callerFds: { preserve: 0 } })).rejects.toMatchObject({ code: 'ERR_NATIVE', errno: 'ENOENT' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('says what cannot be started', async () => {
  const before = open();
  const request = { argv: ['x'], env: [], fds: [], callerFds: { preserve: 0 } };
  await expect(native.startProgram({ ...request, path: '/none', by: byUs() })).rejects.toMatchObject({ code: 'ERR_NATIVE', path: '/none', errno: 'ENOENT' });
  await expect(native.startProgram({ ...request, path: '/bin/sh', by: { spawn: () => Promise.reject(new Error('gone')) } })).rejects.toThrow('gone');
  expect(open()).toBe(before);
});

it.skipIf(!existsSync('/usr/sbin/criu'))('speaks with criu, whatever this kernel is', async () => {
  const program = await native.startProgram({ path: '/usr/sbin/criu', argv: ['criu', 'swrk', '3'], env: [], by: byUs(), fds: [], callerFds: { preserve: 0 } });
  try {
    program.send(Buffer.from('080a2001', 'hex'));
    expect((await program.next())?.message.subarray(0, 4).toString('hex')).toBe('080a1001');
  } finally {
    program.close();
  }
});
