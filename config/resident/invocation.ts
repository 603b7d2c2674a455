import { FRONTEND, LAUNCH, TERMINALS } from '@engine/native/launch';
import { type LaunchRequest } from '@engine/native/launch-request';
import { type HostCommand, type Invocation, type LogEntry } from '@engine/core/contracts/frontend';
import { createCaller } from './caller.ts';
import { type Channel, type SocketCalls } from './channel.ts';
import { openRelay, type OpenRelay } from './relay.ts';
import { brokenPipe, RemoteInput, RemoteOutput, type WindowSize } from './streams.ts';

/** `argument` of LAUNCH.relayed: nobody reads the caller's output any more. */
const OUTPUT_GONE = 3;
/** Every command ends in these, most of them unseen: a stack trace each would cost more than all else of its end. */
const CALLER_GONE = Object.assign(new Error('the caller has gone'), { code: 'ECONNRESET' });
const PIPE_GONE = brokenPipe();

export interface RemoteOptions {
  readonly channel: Channel;
  readonly request: LaunchRequest;
  /** The launcher's. */
  readonly pid: number;
  /** Without the global flags. */
  readonly argv: readonly string[];
  readonly calls: SocketCalls;
  readonly version: string;
  readonly commands: readonly HostCommand[];
}
export interface RemoteInvocation {
  readonly invocation: Invocation;
  /** Is the caller connected with a shim directly? Then it can do without us. */
  readonly relayed: boolean;
  /** The caller waits for a process by itself, and goes on when we end. */
  readonly waiting: boolean;
  /** The caller asked us to end, by this signal, and nothing passes it on. */
  readonly interrupted: Promise<number>;
  /** Who takes what the engine's log says of this command; undefined: nobody but standard error. */
  readonly log: ((entry: LogEntry) => void) | undefined;
  /** Everything written is with the kernel. */
  flushed(): Promise<void>;
}

/** One launcher's command, as a frontend wants it. */
export function createInvocation({ channel, request, pid, argv, calls, version, commands }: RemoteOptions): RemoteInvocation {
  const { terminals } = request;
  let size: WindowSize | undefined = request.rows > 0 || request.cols > 0 ? { rows: request.rows, cols: request.cols } : undefined;
  // many commands need none of them
  const streams: { stdin?: RemoteInput; stdout?: RemoteOutput; stderr?: RemoteOutput } = {};
  const stdin = (): RemoteInput => (streams.stdin ??= new RemoteInput(channel, (terminals & TERMINALS.stdin) !== 0));
  const stdout = (): RemoteOutput => (streams.stdout ??= new RemoteOutput(channel, 'output', (terminals & TERMINALS.stdout) !== 0, () => size));
  const stderr = (): RemoteOutput => (streams.stderr ??= new RemoteOutput(channel, 'error', (terminals & TERMINALS.stderr) !== 0, () => size));
  const gone = new AbortController();
  const interrupted = Promise.withResolvers<number>();
  const signals: number[] = [];
  let log: RemoteInvocation['log'];
  let relay: OpenRelay | undefined;
  let connected = false;
  const caller = request.frontend === FRONTEND.oci ? createCaller(channel, pid) : undefined;

  channel.onFrame((frame) => {
    switch (frame.type) {
      case LAUNCH.input:
        if (!stdin().receive(frame.payload)) channel.destroy();
        break;
      case LAUNCH.inputEnd:
        stdin().receive(undefined);
        break;
      case LAUNCH.resize:
        if (frame.payload.length < 4) break;
        size = { rows: frame.payload.readUInt16LE(0), cols: frame.payload.readUInt16LE(2) };
        for (const stream of [streams.stdout, streams.stderr]) stream?.emit('resize');
        break;
      case LAUNCH.relayed:
        connected = false;
        relay?.ended(frame.argument);
        // the launcher met a closed pipe, without a relay: so does who writes here
        if (!relay && frame.argument === OUTPUT_GONE) stdout().destroy(brokenPipe());
        break;
      case LAUNCH.signal:
        // for a session that is on its way it is kept; else the command is to end
        if (relay && !connected) signals.push(frame.argument);
        else interrupted.resolve(frame.argument);
        break;
      default:
        caller?.frame(frame);
    }
  });
  void channel.closed.then(() => {
    gone.abort(CALLER_GONE);
    // readers and writers see what they would see of a terminal that was closed
    if (streams.stdin?.readableEnded === false) streams.stdin.destroy(CALLER_GONE);
    for (const stream of [streams.stdout, streams.stderr]) if (stream?.writableFinished === false) stream.destroy(PIPE_GONE);
  });

  const invocation: Invocation = {
    argv,
    cwd: request.cwd,
    env: request.env,
    get stdin() {
      return stdin() as unknown as NodeJS.ReadStream;
    },
    get stdout() {
      return stdout() as unknown as NodeJS.WriteStream;
    },
    get stderr() {
      return stderr() as unknown as NodeJS.WriteStream;
    },
    version,
    commands,
    umask: request.umask,
    signal: gone.signal,
    ...(caller && { caller: caller.process }),
    onLog: (take) => void (log = take),
    relay: (options) =>
      (relay = openRelay(options, {
        channel,
        calls,
        stdinIsTerminal: (terminals & TERMINALS.stdin) !== 0,
        takeSignals: () => signals.splice(0),
        onConnected: () => (connected = true),
        warn: (text) => void stderr().write(`engine: warning: ${text}\n`),
      })),
    get windowSize() {
      return (terminals & TERMINALS.stdout) !== 0 ? size : undefined;
    },
  };
  return {
    invocation,
    get relayed() {
      return connected;
    },
    get waiting() {
      return caller?.waiting ?? false;
    },
    interrupted: interrupted.promise,
    get log() {
      return log;
    },
    flushed: async () => void (await Promise.all([streams.stdout?.flushed(), streams.stderr?.flushed()])),
  };
}
