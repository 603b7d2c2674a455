import { type Driver } from '../common/index.ts';
import { type Engine } from '../../api/index.ts';

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
  /** Commands that the host program brings (`config`, `trust`, `plugin`): listed in the help, dispatched by the frontend. */
  readonly commands: readonly HostCommand[];
}
export interface HostCommand {
  readonly name: string;
  /** E.g. `config [--host NAME]`. */
  readonly usage: string;
  readonly summary: string;
  /** Resolves to the exit code; throws EngineErrors. `argv`: what follows the name. */
  run(argv: readonly string[]): Promise<number>;
}
