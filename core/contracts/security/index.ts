import { type Driver, type RunContext, type Steps } from '../common/index.ts';
import { type Effect } from '../../plan/types.ts';
import { type Spec } from '../../spec/index.ts';

/**
 * What a container's processes may do. Stacked: every chosen security driver takes part, in the order of its name in the config.
 *
 * `configure` turns the user's wishes (`--cap-add`, `--security-opt`, `--privileged`) into the OCI spec; `planProcess` compiles its
 * sections into the identity slots of init and of every exec, so that both get the same treatment.
 * Features: `profile` (takes `--security-opt <name>=PROFILE`).
 */
export interface SecurityDriver extends Driver {
  /** Key of `--security-opt KEY=VALUE` that it handles (`seccomp`, `apparmor`), and whether `--privileged` turns it off. */
  readonly option?: string;
  /** **read** The spec with this driver's sections filled in. Errors: ERR_INVALID_VALUE names the bad value. */
  configure(spec: Spec, request: SecurityRequest): Spec | Promise<Spec>;
  /**
   * **read** as data: what must be there on the host before a run with this (configured) spec, and is not yet: a profile to be loaded. Asked before every start:
   * microseconds when nothing is missing. Run as a journalled transaction; what is shared by all containers stays. Before every session too.
   */
  ensure?(spec: Spec): readonly Effect[] | Promise<readonly Effect[]>;
  /** **read** What `ensure` asked for has been done, and nobody else of this root has done anything since: what is there now may be remembered. */
  ensured?(spec: Spec): void | Promise<void>;
  /** **read** Refuses what `configure` or `ensure` would refuse, before anything of a container is made. Without it they are the first to say so. */
  check?(request: SecurityRequest): void | Promise<void>;
  /** **plan** Steps for `part` (`init` or `exec`), in slots `bounds`, `label`, `seccomp-early`, `identity`, `seccomp`. */
  planProcess(spec: Spec, request: { readonly part: 'init' | 'exec'; readonly noNewPrivileges: boolean; readonly privilegedExec: boolean }, run: RunContext): Steps | Promise<Steps>;
}
export interface SecurityRequest {
  readonly privileged: boolean;
  readonly capAdd: readonly string[];
  readonly capDrop: readonly string[];
  /** `--security-opt` values, whole. */
  readonly options: readonly string[];
}
