import { closeSync, fstatSync } from 'node:fs';
import { LAUNCH, RELAY } from '@engine/native/launch';
import { type Relay, type RelayOptions } from '@engine/core/contracts/frontend';
import { type Channel, type SocketCalls } from './channel.ts';

/** `argument` of LAUNCH.relayed. */
const ENDED = { exited: 0, detached: 1, lost: 2, outputGone: 3, cutOff: 4 } as const;

export interface RelayParts {
  readonly channel: Channel;
  readonly calls: SocketCalls;
  /** Of the caller: raw mode is for a terminal that is typed at. */
  readonly stdinIsTerminal: boolean;
  /** Signals that came before there was a session. */
  takeSignals(): readonly number[];
  /** Called when the launcher has the socket: from now on it passes signals on by itself. */
  onConnected(): void;
  warn(text: string): void;
}
export interface OpenRelay extends Relay {
  /** A frame `relayed`. */
  ended(how: number): void;
}

function relayBits(options: RelayOptions, stdinIsTerminal: boolean): number {
  const raw = options.terminal && options.attach.stdin && stdinIsTerminal;
  return (
    (options.terminal ? RELAY.terminal : 0) |
    (options.attach.stdin ? RELAY.stdin : 0) |
    (options.endInput ? RELAY.endInput : 0) |
    // a raw terminal makes no signals of keys, and those that others send are for the client, as without a daemon
    (options.proxySignals && !raw ? RELAY.signals : 0) |
    (options.final ? RELAY.final : 0) |
    (options.session === undefined ? 0 : RELAY.early)
  );
}

/** A socket between the caller and a shim. */
export function openRelay(options: RelayOptions, parts: RelayParts): OpenRelay {
  const { channel, calls } = parts;
  const [ours, theirs] = calls.socketPair();
  // whoever took it closes it, unless it failed before: the numbers of fds are used again, so what one leads to tells whether it is still ours
  const inode = fstatSync(ours).ino;
  let kept = true;
  let finished = false;
  const over = Promise.withResolvers<number>();
  const abandon = (): void => {
    if (leadsTo(ours, inode)) closeSync(ours);
    if (kept) closeSync(theirs);
    kept = false;
  };
  const send = (session: number): Promise<boolean> => {
    kept = false;
    const payload = Buffer.alloc(8 + options.detachKeys.length);
    payload.writeUInt32LE(session, 0);
    payload.writeUInt32LE(options.detachKeys.length, 4);
    payload.set(options.detachKeys, 8);
    return channel.sendFd(LAUNCH.relay, { argument: relayBits(options, parts.stdinIsTerminal), payload }, theirs);
  };
  // what the session says from its first moment on is then not held up by this process
  const early = options.session === undefined ? undefined : send(options.session);
  return {
    client: ours,
    ended(how) {
      finished = true;
      over.resolve(how);
    },
    abandon,
    async connect(session) {
      if (!early && !kept) return { detached: false };
      const sent = await (early ?? send(session.number ?? 0));
      // one that ran before says nothing of it
      if (early && sent && !finished) void channel.send(LAUNCH.begun);
      if (options.proxySignals) for (const signal of parts.takeSignals()) session.signal(signal);
      if (sent && !finished) parts.onConnected();
      const how = sent ? await Promise.race([over.promise, channel.closed.then(() => ENDED.exited)]) : ENDED.exited;
      if (how === ENDED.cutOff) parts.warn('the output was not read for too long and has been cut off (the rest is in its log: engine logs)');
      return { detached: how === ENDED.detached };
    },
  };
}

function leadsTo(fd: number, inode: number): boolean {
  try {
    return fstatSync(fd).ino === inode;
  } catch {
    return false;
  }
}
