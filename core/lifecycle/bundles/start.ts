import * as fs from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { type BundleRef, type BundleState } from '../../api/index.ts';
import { fail } from '../../errors/index.ts';
import { RUN_FILES } from '../../plan/index.ts';
import { type Core } from '../core.ts';
import { type Failure } from '../../state/index.ts';
import { blame } from '../frames.ts';
import { killInit } from './end.ts';
import { mayHaveHooks, runHooks } from './hooks.ts';
import { notRunning, openGo, stateOf, statusOf } from './status.ts';
import { readSpec, withLock, type Found } from './store.ts';

/** Most of what is read of a failure's words. */
const MAX_STATUS = 64 << 10;

/** What init says in its fifo until it has exec'd: nothing, or JSON as in the file `failed`. */
function readStatus(fd: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const socket = new Socket({ fd, readable: true, writable: false });
  const chunks: Buffer[] = [];
  let size = 0;
  socket.on('data', (chunk: Buffer) => {
    if ((size += chunk.length) <= MAX_STATUS) chunks.push(chunk);
  });
  socket.once('error', reject);
  socket.once('close', () => resolve(Buffer.concat(chunks)));
  return promise;
}

/** Cut short (init was killed as it wrote) it still says that something failed. */
function failureOf(said: string): Failure {
  try {
    const { index, errno, detail } = JSON.parse(said) as Partial<Failure>;
    return { index: Number(index ?? -1), errno: Math.abs(Number(errno ?? 0)), detail: String(detail ?? '') };
  } catch {
    return { index: -1, errno: 0, detail: said };
  }
}

/** One byte, and its answer. Errors: what the last steps say. */
async function letBegin({ folder, stored }: Found): Promise<void> {
  const status = fs.openSync(join(folder, RUN_FILES.status), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  let answer: Promise<Buffer> | undefined;
  try {
    const go = openGo(folder);
    if (go === undefined) throw notRunning(stored.id, 'start');
    try {
      fs.writeSync(go, 'x');
    } finally {
      fs.closeSync(go);
    }
    answer = readStatus(status);
  } finally {
    if (!answer) fs.closeSync(status);
  }
  const said = (await answer).toString('utf8');
  if (said !== '') throw blame(fs.readFileSync(join(folder, RUN_FILES.plan)), failureOf(said));
}

export async function startBundle(core: Core, ref: BundleRef, onWarning: (text: string) => void = (text) => core.parts.log.warn({ container: ref.id }, text)): Promise<BundleState> {
  const { root, id } = ref;
  await core.request('bundle start', { root, id });
  return withLock(core, ref, async (found) => {
    const { status, init } = await statusOf(core, found);
    // whoever was making it would have the lock
    if (status === 'stopped' || status === 'creating') throw fail('ERR_NOT_RUNNING', 'cannot start a container that has stopped', { operation: 'start', path: id, hint: 'delete it, and create it again' });
    if (status === 'paused') throw fail('ERR_PAUSED', `cannot start container ${id}: it is paused`, { operation: 'start', path: id, hint: 'resume it first' });
    if (status !== 'created' || !init) throw fail('ERR_ALREADY_RUNNING', 'cannot start an already running container', { operation: 'start', path: id, hint: '' });
    await letBegin(found);
    if (mayHaveHooks(found, 'poststart')) {
      await runHooks(core, found, readSpec(found), 'poststart', init.pid, onWarning).catch(async (error: unknown) => {
        // runtime.md of 1.3, Lifecycle, and every runc: an error, and the container ends
        await killInit(core, found, init, 'start');
        throw error;
      });
    }
    return stateOf(root, found.stored, 'running', init.pid);
  });
}
