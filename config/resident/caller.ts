import { errnoName } from '@engine/native';
import { LAUNCH, SPAWN } from '@engine/native/launch';
import { type CallerProcess } from '@engine/core/contracts/frontend';
import { fail } from '@engine/core/errors';
import { type Frame } from '@engine/core/native';
import { type Channel } from './channel.ts';

export interface Caller {
  readonly process: CallerProcess;
  /** An answer of the launcher; false: it is none. */
  frame(frame: Frame): boolean;
  /** It waits for a process: if we end, it goes on by itself. */
  readonly waiting: boolean;
}

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
const text = (value: string): Buffer => Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);
const texts = (values: readonly string[]): Buffer => Buffer.concat([u32(values.length), ...values.map(text)]);

/** Argument and payload of a frame `spawn`, and the fds that come along. */
export function encodeSpawn({ program, argv, env, fds, callerFds }: Parameters<CallerProcess['spawn']>[0], adopt: boolean): { readonly argument: number; readonly payload: Buffer; readonly fds: readonly number[] } {
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

/** A path of the caller's own process, as any other process has to name it. */
export function callerPath(pid: number, path: string): string {
  const standard = /^\/dev\/(stdin|stdout|stderr)$/.exec(path)?.[1];
  if (standard !== undefined) return `/proc/${pid}/fd/${['stdin', 'stdout', 'stderr'].indexOf(standard)}`;
  return path.replace(/^\/dev\/fd(?=\/|$)/, `/proc/${pid}/fd`).replace(/^\/proc\/(?:self|thread-self)(?=\/|$)/, `/proc/${pid}`);
}

/** The launcher as somebody who starts processes and waits for them. Answers come in the order of what they answer. */
export function createCaller(channel: Channel, pid: number): Caller {
  type Settle = (frame: Frame | undefined) => void;
  const pending = new Map<number, Settle[]>([LAUNCH.spawned, LAUNCH.exited, LAUNCH.pidfdSent].map((type) => [type, []]));
  const gone = (): Error => fail('ERR_SHIM_GONE', 'the caller has gone', { operation: 'ask the caller' });
  let adopt = false;
  let waiting = 0;
  void channel.closed.then(() => {
    for (const list of pending.values()) for (const settle of list.splice(0)) settle(undefined);
  });
  const ask = (answer: number, send: () => Promise<boolean>): Promise<Frame> =>
    new Promise((resolve, reject) => {
      const settle: Settle = (frame) => (frame ? resolve(frame) : reject(gone()));
      if (channel.gone) return settle(undefined);
      pending.get(answer)?.push(settle);
      // what could not be sent is never answered: the connection is over
      void send().then((sent) => sent || channel.destroy());
    });
  const failed = (operation: string, number: number, path?: string): Error =>
    fail('ERR_NATIVE', `cannot ${operation}${path === undefined ? '' : ` ${path}`}: ${errnoName(number)}`, { operation, errno: errnoName(number), ...(path === undefined ? {} : { path }) });
  return {
    process: {
      adopt: () => void (adopt = true),
      async spawn(request) {
        const { argument, payload, fds } = encodeSpawn(request, adopt);
        const frame = await ask(LAUNCH.spawned, () => channel.sendFds(LAUNCH.spawn, { argument, payload }, fds));
        if (frame.payload.length < 8) return frame.argument;
        const { console: terminal } = request.callerFds;
        const operation = frame.payload.toString('utf8', 8, 8 + frame.payload.readUInt32LE(4));
        throw failed(operation, frame.payload.readUInt32LE(0), typeof terminal === 'object' && operation.includes('console') ? terminal.socket : undefined);
      },
      async wait(awaited) {
        waiting++;
        try {
          const frame = await ask(LAUNCH.exited, () => channel.send(LAUNCH.wait, { argument: awaited }));
          if (frame.payload.length >= 4) throw failed(`wait for process ${awaited}`, frame.payload.readUInt32LE(0));
          return frame.argument;
        } finally {
          waiting--;
        }
      },
      async sendPidfd(of, socket) {
        const { argument } = await ask(LAUNCH.pidfdSent, () => channel.send(LAUNCH.pidfd, { argument: of, payload: Buffer.from(socket) }));
        if (argument !== 0) throw failed('send a pidfd to', argument, socket);
      },
      path: (path) => callerPath(pid, path),
    },
    frame(frame) {
      const list = pending.get(frame.type);
      list?.shift()?.(frame);
      return list !== undefined;
    },
    get waiting() {
      return waiting > 0;
    },
  };
}
