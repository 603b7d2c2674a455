import { type Driver } from '../common/index.ts';
import { type Spawner } from '../../native/index.ts';
import { type AttachStreams, type Engine, type Session, type Span } from '../../api/index.ts';

/** How requests reach the engine: a command line, later a socket API, an OCI runtime's. Features: none yet. */
export interface Frontend extends Driver {
  /**
   * Serve one invocation; resolves to the exit code. Errors are printed by the frontend itself, in its own form.
   * `open` starts the engine (once, however often it is called): help, version and the host's own commands must work without it, so
   * that a broken plugin can be repaired.
   */
  run(open: () => Promise<Engine>, invocation: Invocation): Promise<number>;
}
export interface Invocation {
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  readonly version: string;
  /**
   * The caller can be connected with a session's streams directly, without this process in between. Absent: the frontend passes everything on itself.
   * Called before the session exists; `client` is to be handed to `run`, `start`, `attach` or `exec`.
   */
  readonly relay?: (options: RelayOptions) => Relay;
  /** The caller's own process, which starts children for us and waits for what they leave: for a runtime whose containers are its caller's. */
  readonly caller?: CallerProcess;
  /** Window of the caller's terminal, undefined without one. */
  readonly windowSize?: { readonly rows: number; readonly cols: number } | undefined;
  /** Bits that files made for the caller don't get, where the process that serves it has another mask. */
  readonly umask?: number;
  /** The caller has gone: what is done only to tell it something may end. */
  readonly signal?: AbortSignal;
  /** From now on what the engine itself has to say of this request is handed to `take`; undefined: it goes to standard error again. */
  readonly onLog?: (take: ((entry: LogEntry) => void) | undefined) => void;
  /** What this process did for the command before it was served, for `--trace`. */
  readonly startup?: () => readonly Span[];
  /** Commands that the host program brings (`config`, `trust`, `plugin`): listed in the help, dispatched by the frontend. */
  readonly commands: readonly HostCommand[];
}
/** One line of the engine's log. */
export interface LogEntry {
  readonly level: 'trace' | 'debug' | 'info' | 'warning' | 'error' | 'fatal';
  /** Begins with `[plugin NAME]` where one has said it. */
  readonly text: string;
}
export interface CallerProcess extends Spawner {
  /** From now on what its children leave behind is its own, not its parent's: before `spawn`, by who means to `wait`. */
  adopt(): void;
  /**
   * Wait for a process that became its child; its terminal is relayed and signals are passed on meanwhile. Resolves with the exit code, 128 + n for signals.
   * `lost`: what it does when the engine ends meanwhile: kill a process of which `begun` was not said, and after its end have another process of the engine serve these words (none: nothing).
   */
  wait(pid: number, lost?: readonly string[]): Promise<number>;
  /** What it waits for goes on from now on, whatever becomes of the engine. */
  begun(): void;
  /** What a path of its own (`/proc/self/…`, `/dev/fd/…`, `/dev/stdin`) has to be called by any other process; other paths stay as they are. */
  path(path: string): string;
  /** Send a pidfd to a unix socket (`--pidfd-socket`). Errors: ERR_NATIVE with errno. */
  sendPidfd(pid: number, socket: string): Promise<void>;
}
export interface RelayOptions {
  /** Of init; exec sessions are told by `Relay.connect`. */
  readonly attach: AttachStreams;
  readonly terminal: boolean;
  /** The end of the caller's input is the end of the program's. */
  readonly endInput: boolean;
  /** Bytes that detach, none when empty. Only with a terminal. */
  readonly detachKeys: readonly number[];
  readonly proxySignals: boolean;
  /** The session's exit code is the answer of the whole invocation. */
  readonly final: boolean;
  /** Known before it has begun (0 is init): the caller is then connected at once. */
  readonly session?: number;
}
export interface Relay {
  /** One end of a connected socket, for the shim. */
  readonly client: number;
  /**
   * The session has begun. Resolves when the caller has all of its output and its exit record is known, or the caller has detached (`detached`) or left.
   */
  connect(session: Session): Promise<{ readonly detached: boolean }>;
  /** There will be no session: close what is open. Idempotent. */
  abandon(): void;
}
export interface HostCommand {
  readonly name: string;
  /** E.g. `config [--host NAME]`. */
  readonly usage: string;
  readonly summary: string;
  /** Resolves to the exit code; throws EngineErrors. `argv`: what follows the name. */
  run(argv: readonly string[]): Promise<number>;
}
