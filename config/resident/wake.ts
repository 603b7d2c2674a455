import { createConnection } from 'node:net';
import { LAUNCH, LAUNCH_VERSION } from '@engine/native/launch';
import { encodeRequest } from '@engine/native/launch-request';
import { encodeFrame, FrameReader } from '@engine/native/frames';
import { type Flags } from '../ambient.ts';
import { startEngined } from '../launch.ts';
import { loadConfig } from '../sources.ts';
import { ownWorld } from './local.ts';
import { socketPlace } from './place.ts';

/** Longest time until a resident engine answers that is just being started, ms. */
const DEADLINE = 10_000;

/**
 * `engined --wake ROOT RUNROOT`, started by a shim that ended without an engine: see to it that the run is collected (and started again, where its policy
 * says so) by the resident engine, or, where there is to be none, by this process.
 */
export async function wake(root: string, runRoot: string, flags: Flags): Promise<number> {
  const settings = { ...flags, root, runRoot };
  const config = await loadConfig({ cwd: '/', flags: settings });
  const env = { ...process.env, ...(process.env.ENGINE_SOCKET ? {} : { ENGINE_RUN_ROOT: runRoot }) };
  if (config.value.resident === 'auto' && (await tell(env, root, runRoot))) return 0;
  const { openEngine } = await import('../open.ts');
  const { engine } = await openEngine({ config });
  while (engine.system.needed().length > 0) await new Promise((resolve) => setTimeout(resolve, 500));
  await engine.close();
  return 0;
}

async function tell(env: Readonly<Record<string, string | undefined>>, root: string, runRoot: string): Promise<boolean> {
  const place = socketPlace(env);
  if (!place) return false;
  if (await ask(place.socket, root, runRoot)) return true;
  startEngined(env);
  for (const end = Date.now() + DEADLINE; Date.now() < end; ) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (await ask(place.socket, root, runRoot)) return true;
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
