import { type Driver } from '../common/index.ts';
import { type Engine } from '../../api/index.ts';

/** How requests reach the engine: a command line, later a socket API, an OCI runtime's. Features: none yet. */
export interface Frontend extends Driver {
  /** Serve one invocation; resolves to the exit code. Errors are printed by the frontend itself, in its own form. */
  run(engine: Engine, invocation: Invocation): Promise<number>;
}
export interface Invocation {
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}
