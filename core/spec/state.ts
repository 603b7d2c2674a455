/** The state that hooks and seccomp agents get, as the OCI spec has it (https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state). */
export interface OciState {
  readonly ociVersion: string;
  readonly id: string;
  readonly status: 'creating' | 'created' | 'running' | 'stopped';
  readonly pid?: number;
  readonly bundle: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Its JSON in two pieces, between which the pid stands that nobody knows yet (operations `hook` and `seccompNotify`). */
export function splitState({ pid: _, ...state }: OciState): { readonly stateHead: string; readonly stateTail: string } {
  return { stateHead: `${JSON.stringify(state).slice(0, -1)},"pid":`, stateTail: '}' };
}
