import { errnoName } from '@engine/native';
import { LAUNCH } from '@engine/native/launch';
import { decodeAnswer, encodeSpawn, encodeWait } from '@engine/native/launch-spawn';
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
        const answer = decodeAnswer(frame);
        if (typeof answer === 'number') return answer;
        const { console: terminal } = request.callerFds;
        const operation = answer.what;
        throw failed(operation, answer.errno, typeof terminal === 'object' && operation.includes('console') ? terminal.socket : undefined);
      },
      async wait(awaited, lost) {
        waiting++;
        try {
          const frame = await ask(LAUNCH.exited, () => channel.send(LAUNCH.wait, { argument: awaited, payload: encodeWait(lost) }));
          const answer = decodeAnswer(frame);
          if (typeof answer === 'number') return answer;
          throw failed(`wait for process ${awaited}`, answer.errno);
        } finally {
          waiting--;
        }
      },
      begun: () => void channel.send(LAUNCH.begun),
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
