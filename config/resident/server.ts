import { realpathSync } from 'node:fs';
import { type Socket } from 'node:net';
import { dirname } from 'node:path';
import { type Logger } from 'pino';
import { describeError, exitCodeOf, isEngineError } from '@engine/core/errors';
import { type Frontend } from '@engine/core/contracts/frontend';
import { type Engine } from '@engine/core/api';
import { type Syscalls } from '@engine/native';
import { LAUNCH } from '@engine/native/launch';
import { decodeRequest, type LaunchRequest } from '@engine/native/launch-request';
import { launcherPath } from '../launch.ts';
import { takeFlags } from '../global-flags.ts';
import { type Config } from '../schema.ts';
import { hostCommands } from '../host-commands.ts';
import { version } from '../version.ts';
import { createChannel, refuse, type Channel, type SocketCalls } from './channel.ts';
import { requestContext } from './context.ts';
import { createInvocation, type RemoteInvocation } from './invocation.ts';
import { type Instances, type Lease } from './instances.ts';
import { ownWorld, whyLocal } from './local.ts';
import { type Resolved } from './resolve.ts';

export interface ServerOptions {
  readonly instances: Instances;
  readonly calls: SocketCalls & Pick<Syscalls, 'peer'>;
  readonly frontend: () => Promise<Frontend>;
  readonly log: Logger;
  /** Why nothing new is taken at the moment; undefined: all is well. Asked for every request. */
  busyWith(): string | undefined;
  wake(root: string, runRoot: string): Promise<void>;
  /** The configuration of the last request. */
  onConfig?(config: Config): void;
}
export interface Server {
  /** Serve one connection to its end; never rejects. */
  accept(socket: Socket): Promise<void>;
  /** Requests whose caller waits for something that only we can give. */
  readonly active: number;
  readonly lastRequest: number;
  /** Tell those who still wait that it is over, with this reason. */
  cancel(reason: string): Promise<void>;
}

interface Active {
  readonly channel: Channel;
  readonly remote: () => RemoteInvocation | undefined;
}

export function createServer(options: ServerOptions): Server {
  const { instances, calls, log } = options;
  const world = ownWorld();
  const launcher = launcherPath();
  const ownHome = launcher === undefined ? undefined : realpathSync(dirname(dirname(launcher)));
  const uid = process.geteuid?.() ?? 0;
  const active = new Set<Active>();
  let lastRequest = Date.now();

  async function open(channel: Channel, peer: ReturnType<Syscalls['peer']>): Promise<{ request: LaunchRequest; words: readonly string[] | undefined } | undefined> {
    if (peer.uid !== uid && peer.uid !== 0) {
      log.warn({ uid: peer.uid, pid: peer.pid }, 'refused: another user');
      await refuse(channel, `this engined serves uid ${uid} only`);
      return undefined;
    }
    let request: LaunchRequest;
    let argument: number;
    try {
      const frame = await channel.first;
      if (frame.type !== LAUNCH.request) throw new Error(`a frame of type ${frame.type} instead of a request`);
      argument = frame.argument;
      request = decodeRequest(frame.payload);
    } catch (error) {
      log.debug({ err: error, pid: peer.pid }, 'no request');
      if (!channel.gone) await refuse(channel, `the request cannot be read: ${describeError(error)}`);
      return undefined;
    }
    let words: readonly string[] | undefined;
    try {
      words = takeFlags(request.argv).rest;
    } catch {
      // the frontend's process says what is wrong with it
    }
    const why = whyLocal({ request, version: argument, uid: peer.uid, ownUid: uid, ownWorld: world, ownHome, words }) ?? options.busyWith();
    if (why !== undefined) {
      await channel.send(LAUNCH.local, { payload: Buffer.from(why) });
      channel.end();
      return undefined;
    }
    return { request, words };
  }

  /** Is there code from outside, or a configuration that can't be read? */
  async function mayBeBroken({ cwd, env, argv }: LaunchRequest): Promise<boolean> {
    try {
      return (await instances.resolve({ cwd, env, flags: takeFlags(argv).flags })).config.value.plugins.length > 0;
    } catch {
      return true;
    }
  }

  async function serve(channel: Channel, peer: ReturnType<Syscalls['peer']>, request: LaunchRequest, resolving: Promise<Resolved>, take: (remote: RemoteInvocation) => void): Promise<void> {
    const { flags, rest } = takeFlags(request.argv);
    const remote = createInvocation({ channel, request, argv: rest, calls, version, commands: hostCommands({ flags }) });
    take(remote);
    const { stderr } = remote.invocation;
    const failed = Promise.withResolvers<number>();
    const fail = (error: unknown): void => {
      stderr.write(`engine: ${describeError(error)}\n`);
      failed.resolve(exitCodeOf(error));
    };
    const context = {
      uid: peer.uid,
      pid: peer.pid,
      write: (line: string): boolean => !channel.gone && (stderr.write(line), true),
      fail,
    };
    let lease: Promise<Lease> | undefined;
    let opened = false;
    const code = await requestContext.run(context, async () => {
      const openAll = async (): Promise<Engine> => {
        lease ??= resolving.then((resolved) => {
          options.onConfig?.(resolved.config.value);
          return instances.acquire(resolved);
        });
        const { engine } = await lease;
        opened = true;
        return engine;
      };
      const frontend = await options.frontend();
      const done = frontend.run(openAll, remote.invocation).catch((error: unknown) => {
        fail(error);
        return failed.promise;
      });
      // it may go on after its caller has left; what it holds is given back then
      void done
        .then(() => lease)
        .then(
          (held) => held?.release(),
          () => {},
        );
      return Promise.race([done, failed.promise, remote.interrupted.then((signal) => 128 + signal)]);
    });
    log.debug({ verb: rest[0], code, opened, pid: peer.pid }, 'served');
    await remote.flushed();
    await channel.send(LAUNCH.done, { argument: code });
  }

  return {
    get active() {
      return [...active].filter(({ channel, remote }) => !channel.gone && !remote()?.relayed).length;
    },
    get lastRequest() {
      return lastRequest;
    },
    async accept(socket) {
      const channel = createChannel(socket, calls);
      let remote: RemoteInvocation | undefined;
      const entry: Active = { channel, remote: () => remote };
      active.add(entry);
      try {
        const handle = (socket as unknown as { readonly _handle?: { readonly fd: number } })._handle;
        const peer = handle && calls.peer(handle.fd);
        if (!peer) return;
        const opened = await open(channel, peer);
        if (!opened) return;
        lastRequest = Date.now();
        const { words = [], request } = opened;
        if (words[0] === 'doctor' && (await mayBeBroken(request))) {
          await channel.send(LAUNCH.local, { payload: Buffer.from('doctor leaves out plugins that are broken: they are not to be broken here') });
          return;
        }
        if (words[0] === 'engined') {
          await options.wake(words[2] ?? '', words[3] ?? '');
          await channel.send(LAUNCH.done, { argument: 0 });
          return;
        }
        const { flags } = takeFlags(request.argv);
        const resolving = instances.resolve({ cwd: request.cwd, env: request.env, flags });
        // what is wrong with it is told when it is needed: help must work
        const resolved = await resolving.catch(() => undefined);
        if (resolved?.config.value.resident === 'off') {
          await channel.send(LAUNCH.local, { payload: Buffer.from('its configuration says resident: off') });
          return;
        }
        await serve(channel, peer, request, resolving, (made) => (remote = made));
      } catch (error) {
        if (!isEngineError(error)) log.error({ err: error }, 'a request failed');
        if (!channel.gone) await refuse(channel, describeError(error), exitCodeOf(error));
      } finally {
        channel.end();
        active.delete(entry);
        lastRequest = Date.now();
      }
    },
    async cancel(reason) {
      await Promise.all([...active].filter(({ remote, channel }) => !remote()?.relayed && !channel.gone).map(({ channel }) => refuse(channel, reason)));
      // those whose session is relayed need nothing of us
      for (const { channel } of active) channel.end();
    },
  };
}
