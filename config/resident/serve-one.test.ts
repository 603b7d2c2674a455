import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Frame } from '@engine/core/native';
import { encodeFrame, FrameReader } from '@engine/native/frames';
import { FRONTEND, LAUNCH, LAUNCH_VERSION, SERVE_FD } from '@engine/native/launch';
import { encodeRequest } from '@engine/native/launch-request';

const root = join(import.meta.dirname, '../..');
/** As the launcher runs it. */
const program = join(root, 'dist/start.cjs');

let folder: string;
const alive = new Set<ChildProcess>();
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'engine-one-'));
});
afterEach(() => {
  for (const child of alive) child.kill('SIGKILL');
  alive.clear();
  rmSync(folder, { recursive: true, force: true });
});

interface One {
  readonly socket: Socket;
  readonly frames: Frame[];
  /** Its exit code, when all that it says has come. */
  readonly ended: Promise<number | null>;
  text(type: number): string;
}
function serveOne(): One {
  const env = { PATH: process.env['PATH'] ?? '', HOME: folder, ENGINE_ROOT: join(folder, 'root'), ENGINE_RUN_ROOT: join(folder, 'run'), ENGINE_RESIDENT: 'off' };
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--', program, '--serve-one'], { cwd: folder, env, stdio: ['ignore', 'ignore', 'inherit', 'pipe'] });
  alive.add(child);
  const socket = child.stdio[SERVE_FD] as Socket;
  const reader = new FrameReader();
  const frames: Frame[] = [];
  socket.on('data', (data: Buffer) => frames.push(...reader.push(data)));
  socket.on('error', () => {});
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  const text = (type: number): string => frames.filter((frame) => frame.type === type).map(({ payload }) => Buffer.from(payload).toString()).join('');
  return { socket, frames, ended, text };
}
const request = (argv: readonly string[]): Buffer =>
  encodeFrame(LAUNCH.request, {
    argument: LAUNCH_VERSION,
    // the world is another one, as it is where the launcher makes such a process
    payload: encodeRequest({ argv, cwd: '/', env: { ENGINE_ROOT: join(folder, 'root'), ENGINE_RUN_ROOT: join(folder, 'run'), ENGINE_RESIDENT: 'off' }, terminals: 0, rows: 0, cols: 0, world: 'elsewhere', umask: 0o22, home: '/elsewhere', frontend: FRONTEND.oci }),
  });

describe.skipIf(!existsSync(program))('a process of its own, made by the launcher', () => {
  it('answers one launcher of any world as the resident engine does, and ends', async () => {
    const version = serveOne();
    version.socket.write(request(['--version']));
    expect(await version.ended).toBe(0);
    expect(version.text(LAUNCH.output)).toMatch(/^engine-oci version /);
    expect(version.frames.at(-1)).toMatchObject({ type: LAUNCH.done, argument: 0 });

    const list = serveOne();
    list.socket.write(request(['--root', join(folder, 'oci'), 'list', '-q']));
    expect(await list.ended).toBe(0);
    expect(list.text(LAUNCH.error)).toBe('');
    expect(list.frames.at(-1)).toMatchObject({ type: LAUNCH.done, argument: 0 });

    const state = serveOne();
    state.socket.write(request(['--root', join(folder, 'oci'), 'state', 'nobody']));
    expect(await state.ended).toBe(0);
    expect(state.text(LAUNCH.error)).toContain('container does not exist');
    expect(state.frames.at(-1)).toMatchObject({ type: LAUNCH.done, argument: 1 });
  });
  it('refuses what is no request, and ends when nobody asks', async () => {
    const noise = serveOne();
    noise.socket.write(encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload: Buffer.from('noise') }));
    expect(await noise.ended).toBe(0);
    expect(noise.text(LAUNCH.error)).toContain('the request cannot be read');
    expect(noise.frames.at(-1)).toMatchObject({ type: LAUNCH.done });

    const silent = serveOne();
    silent.socket.destroy();
    expect(await silent.ended).toBe(0);
  });
});
