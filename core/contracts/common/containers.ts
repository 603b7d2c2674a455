import { type Step } from '../../plan/types.ts';

/** Real containers for suites of level 2: a small root with busybox, and the steps of the driver under test. */
export interface ContainerRunner {
  /**
   * Run `sh -c script` with `steps` added to a plan that has its own mount, pid, ipc and uts namespaces, /proc, pipes and root as user,
   * and wait until its undo is done. Registers of REGISTER are set. `during` runs once the program has been started.
   */
  run(steps: readonly Step[], script: string, options?: RunOptions): Promise<RunResult>;
  /** Start it and return at once; `stop` kills it and waits for the undo. */
  start(steps: readonly Step[], script: string, options?: RunOptions): Promise<RunningContainer>;
}
export interface RunOptions {
  /** CLONE_NEW* besides those. */
  readonly namespaces?: number;
  /** `user[:group]`; default `0`. */
  readonly user?: string;
  /** Character devices that are there in its root. */
  readonly devices?: readonly { readonly path: string; readonly major: number; readonly minor: number }[];
}
export interface RunResult {
  readonly output: string;
  readonly errors: string;
  /** As Docker's; -1 when the program was not started. */
  readonly code: number;
  /** What failed before that. */
  readonly failure?: { readonly errno: number; readonly detail: string };
  /** The shim's `exit` file. */
  readonly exit?: { readonly oom?: { readonly killed: boolean; readonly limit?: string } };
  /** Operations of the undo that failed, in words. */
  readonly undoFailures: readonly string[];
}
export interface RunningContainer {
  readonly pid: number;
  readonly startTime: bigint;
  /** A session in it, by the same shim; `steps` are of part `exec`. */
  exec(steps: readonly Step[], script: string): Promise<{ readonly output: string; readonly code: number }>;
  stop(): Promise<RunResult>;
}
