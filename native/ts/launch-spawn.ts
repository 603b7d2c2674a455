import { type Frame, type Spawner } from '@engine/core/native';
import { SPAWN } from './launch.ts';

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
const text = (value: string): Buffer => Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);
const texts = (values: readonly string[]): Buffer => Buffer.concat([u32(values.length), ...values.map(text)]);

/** Argument and payload of a frame `spawn` (LAUNCH.spawn says its form), and the fds that come along. `adopt`: SPAWN.adopt. */
export function encodeSpawn({ program, argv, env, fds, callerFds }: Parameters<Spawner['spawn']>[0], adopt: boolean): { readonly argument: number; readonly payload: Buffer; readonly fds: readonly number[] } {
  const { console: terminal, preserve } = callerFds;
  return {
    argument: (adopt ? SPAWN.adopt : 0) | (terminal === undefined ? 0 : SPAWN.console),
    payload: Buffer.concat([
      u32(preserve),
      text(terminal === undefined || terminal === 'relay' ? '' : terminal.socket),
      texts(argv),
      texts(env),
      u32(fds.length),
      Buffer.from(fds.map((fd) => (fd < 0 ? 0 : 1))),
    ]),
    fds: [program, ...fds.filter((fd) => fd >= 0)],
  };
}

/** Payload of a frame `wait`: words of a command for when the engine is lost meanwhile. */
export const encodeWait = (lost: readonly string[] | undefined): Buffer => (lost ? texts(lost) : Buffer.alloc(0));

/** What a frame `spawned` or `exited` says: its argument, or why not. */
export function decodeAnswer({ argument, payload }: Pick<Frame, 'argument' | 'payload'>): number | { readonly errno: number; readonly what: string } {
  if (payload.length < 4) return argument;
  const what = payload.length < 8 ? '' : payload.toString('utf8', 8, 8 + payload.readUInt32LE(4));
  return { errno: payload.readUInt32LE(0), what };
}
