import { realpathSync } from 'node:fs';
import { type Socket } from 'node:net';
import { dirname } from 'node:path';
import { type Logger } from 'pino';
import { describeError, exitCodeOf, isEngineError } from '@engine/core/errors';
import { type Frontend, type LogEntry } from '@engine/core/contracts/frontend';
import { type Engine } from '@engine/core/api';
import { type Syscalls } from '@engine/native';
import { FRONTEND, LAUNCH } from '@engine/native/launch';
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
  readonly frontend: (driver: keyof typeof FRONTEND) => Promise<Frontend>;
  /** A process that its launcher has made for this one command: nobody else can do it. */
  readonly alone?: boolean;
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
  /** Resolves when nothing is under way any more that a caller began, whether he has gone or not. */
  settled(): Promise<void>;
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
  const running = new Set<Promise<unknown>>();
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
    if (options.alone) return { request, words };
    try {
      if (request.frontend !== FRONTEND.oci) words = takeFlags(request.argv).rest;
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
    const oci = request.frontend === FRONTEND.oci;
    const { flags, rest } = oci ? { flags: {}, rest: request.argv } : takeFlags(request.argv);
    const remote = createInvocation({ channel, request, pid: peer.pid, argv: rest, calls, version, commands: oci ? [] : hostCommands({ flags }) });
    take(remote);
    const { invocation } = remote;
    const failed = Promise.withResolvers<number>();
    const fail = (error: unknown): void => {
      invocation.stderr.write(`${oci ? 'engine-oci' : 'engine'}: ${describeError(error)}\n`);
      failed.resolve(oci ? 1 : exitCodeOf(error));
    };
    const context = {
      uid: peer.uid,
      pid: peer.pid,
      write: (line: string, entry: () => LogEntry): boolean => !channel.gone && (remote.log ? remote.log(entry()) : void invocation.stderr.write(line), true),
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
      const frontend = await options.frontend(oci ? 'oci' : 'cli');
      const done = frontend.run(openAll, remote.invocation).catch((error: unknown) => {
        fail(error);
        return failed.promise;
      });
      // it may go on after its caller has left; what it holds is given back then
      const over = done
        .then(() => lease)
        .then(
          (held) => held?.release(),
          () => {},
        )
        .finally(() => running.delete(over));
      running.add(over);
      return Promise.race([done, failed.promise, remote.interrupted.then((signal) => 128 + signal)]);
    });
    log.debug({ words: rest.slice(0, 3), code, opened, pid: peer.pid }, 'served');
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
      let oci = false;
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
        oci = request.frontend === FRONTEND.oci;
        if (words[0] === 'doctor' && (await mayBeBroken(request))) {
          await channel.send(LAUNCH.local, { payload: Buffer.from('doctor leaves out plugins that are broken: they are not to be broken here') });
          return;
        }
        if (words[0] === 'engined') {
          await options.wake(words[2] ?? '', words[3] ?? '');
          await channel.send(LAUNCH.done, { argument: 0 });
          return;
        }
        // below another engine the folder is a container's: no configuration is looked for in it
        const resolving = instances.resolve(oci ? { cwd: '/', env: request.env, flags: {} } : { cwd: request.cwd, env: request.env, flags: takeFlags(request.argv).flags });
        // what is wrong with it is told when it is needed: help must work
        const resolved = await resolving.catch(() => undefined);
        if (resolved?.config.value.resident === 'off' && !options.alone) {
          await channel.send(LAUNCH.local, { payload: Buffer.from('its configuration says resident: off') });
          return;
        }
        await serve(channel, peer, request, resolving, (made) => (remote = made));
      } catch (error) {
        if (!isEngineError(error)) log.error({ err: error }, 'a request failed');
        if (!channel.gone) await refuse(channel, describeError(error), oci ? 1 : exitCodeOf(error), oci ? 'engine-oci' : 'engine');
      } finally {
        channel.end();
        active.delete(entry);
        lastRequest = Date.now();
      }
    },
    async settled() {
      while (running.size > 0) await Promise.all(running);
    },
    async cancel(reason) {
      await Promise.all([...active].filter(({ remote, channel }) => !remote()?.relayed && !remote()?.waiting && !channel.gone).map(({ channel }) => refuse(channel, reason)));
      // those whose session is relayed, or who wait for a process, need nothing of us
      for (const { channel } of active) channel.end();
    },
  };
}
