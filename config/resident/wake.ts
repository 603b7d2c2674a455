import { createConnection } from 'node:net';
import { LAUNCH, LAUNCH_VERSION } from '@engine/native/launch';
import { encodeRequest } from '@engine/native/launch-request';
import { encodeFrame, FrameReader } from '@engine/native/frames';
import { startEngined } from '../launch.ts';
import { loadConfig } from '../sources.ts';
import { ownWorld } from './local.ts';

/** Longest time until a resident engine answers that is just being started, ms. */
const DEADLINE = 10_000;

/**
 * `engined --wake ROOT RUNROOT [SOCKET]`, started by a shim that ended without an engine: see to it that the run is collected (and started again, where its
 * policy says so) by the resident engine of that socket, or, where there is to be none, by this process.
 */
export async function wake(root: string, runRoot: string, socket: string | undefined): Promise<number> {
  if (socket !== undefined && (await tell(socket, root, runRoot))) return 0;
  const config = await loadConfig({ cwd: '/', flags: { root, runRoot } });
  const { openEngine } = await import('../open.ts');
  const { engine } = await openEngine({ config });
  while (engine.system.needed().length > 0) await new Promise((resolve) => setTimeout(resolve, 500));
  await engine.close();
  return 0;
}

async function tell(socket: string, root: string, runRoot: string): Promise<boolean> {
  if (await ask(socket, root, runRoot)) return true;
  startEngined({ ...process.env, ENGINE_SOCKET: socket });
  for (const end = Date.now() + DEADLINE; Date.now() < end; ) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (await ask(socket, root, runRoot)) return true;
  }
  return false;
}

/** True when the engine there has done it. */
export function ask(socket: string, root: string, runRoot: string): Promise<boolean> {
  return new Promise((resolve) => {
    const reader = new FrameReader();
    const connection = createConnection(socket);
    connection.on('error', () => resolve(false));
    connection.on('close', () => resolve(false));
    connection.on('data', (data: Buffer) => {
      for (const { type, argument } of reader.push(data)) if (type === LAUNCH.done) resolve(argument === 0);
    });
    connection.on('connect', () => {
      const payload = encodeRequest({ argv: ['engined', '--wake', root, runRoot], cwd: '/', env: {}, terminals: 0, rows: 0, cols: 0, home: '', world: ownWorld(), umask: 0o022 });
      connection.write(encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload }));
    });
  });
}
