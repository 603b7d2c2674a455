import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { op, step, type Operation, type Step } from '@engine/core/plan';
import { type DriverDeps, type Machine, type Probe, type RunContext } from '@engine/core/contracts/common';
import { type SecurityDriver, type SecurityRequest } from '@engine/core/contracts/security';
import { splitState, type Seccomp, type Spec } from '@engine/core/spec';
import { actionValue, compileSeccomp, filterFlags } from './compile.ts';
import { defaultProfile } from './default-profile.ts';
import { type Libseccomp } from './libseccomp.ts';
import { architectureOf, parseProfile, resolveProfile, type Profile } from './profile.ts';
import { ociFeatures } from './features.ts';

export interface SeccompOptions {
  /** `default`, `unconfined` or a path. */
  readonly profile?: string;
}
export interface SeccompDeps extends Pick<DriverDeps, 'machine' | 'state' | 'log'> {
  readonly library: Libseccomp;
}

/** Changes whenever the compiler does: filters made by an older one are not used. */
const COMPILER = 2;
/** Filters kept; a filter is 4 KB, and a machine has a handful of profiles. */
const KEPT = 32;

/** What init still calls after its filter is loaded, up to the program's start: early, last of all, and what it can do without unless that kills. */
const needed = {
  early: ['setgroups', 'setresgid', 'setresuid', 'prctl', 'capset', 'chdir', 'getcwd'],
  last: ['write', 'execve'],
  survivable: ['prctl', 'rt_sigaction', 'rt_sigprocmask', 'exit_group'],
} as const;

/** The value of the last `seccomp=…` among `--security-opt`. */
export function profileOption(options: readonly string[]): string | undefined {
  const found = options.findLast((option) => option.startsWith('seccomp=') || option.startsWith('seccomp:'));
  if (found === undefined) return undefined;
  const value = found.slice('seccomp='.length);
  if (value === '') throw fail('ERR_INVALID_VALUE', '--security-opt seccomp=: no profile is named', { operation: 'security-opt', hint: 'write seccomp=unconfined or seccomp=PATH' });
  return value;
}

/** The profile of that name; undefined for `unconfined`. Errors: ERR_INVALID_VALUE: unreadable, malformed. */
export function loadProfile(value: string): Profile | undefined {
  if (value === 'unconfined') return undefined;
  if (value === 'default' || value === 'builtin') return defaultProfile;
  if (value.trimStart().startsWith('{')) return parseProfile(value, 'given as text');
  try {
    return parseProfile(readFileSync(value, 'utf8'), value);
  } catch (error) {
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_')) throw error;
    throw fail('ERR_INVALID_VALUE', `seccomp profile ${value} cannot be read`, { operation: 'security-opt', path: value, cause: error });
  }
}

/** Is the call allowed whatever its arguments? */
function permits(seccomp: Seccomp, name: string): boolean {
  const rules = (seccomp.syscalls ?? []).filter(({ names }) => names.includes(name));
  const passes = (action: string): boolean => action === 'SCMP_ACT_ALLOW' || action === 'SCMP_ACT_LOG';
  if (rules.some(({ action, args }) => passes(action) && !args?.length)) return true;
  return passes(seccomp.defaultAction) && !rules.some(({ action }) => !passes(action));
}

const NOTIFY = 'SCMP_ACT_NOTIFY';
/** Does it ask an agent? */
const asksAgent = ({ defaultAction, syscalls = [] }: Seccomp): boolean => defaultAction === NOTIFY || syscalls.some(({ action }) => action === NOTIFY);
/** `flags` that a filter without a listener must not have. */
const WAIT_KILLABLE = 32;

/**
 * The filter's operation. With a listener its agent gets the container's process state (config-linux.md, Containerprocess State) with the fd. As runc: a listener that
 * nothing asks is not made. Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED.
 */
function loadOperation(seccomp: Seccomp, filter: Uint8Array, spec: Spec, part: 'init' | 'exec', run: Pick<RunContext, 'container' | 'bundle'>): Operation {
  const flags = filterFlags(seccomp.flags);
  if (!asksAgent(seccomp)) {
    if (flags & WAIT_KILLABLE) throw fail('ERR_INVALID_VALUE', 'linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for filters with SCMP_ACT_NOTIFY', { path: 'linux.seccomp.flags' });
    return op.seccomp({ filter, flags });
  }
  const { listenerPath, listenerMetadata, defaultAction } = seccomp;
  if (!run.bundle) throw fail('ERR_NOT_SUPPORTED', 'seccomp: a profile with a listener (SCMP_ACT_NOTIFY) is for OCI bundles');
  if (!listenerPath) throw fail('ERR_INVALID_VALUE', 'linux.seccomp.listenerPath: a filter with SCMP_ACT_NOTIFY needs the socket of an agent', { path: 'linux.seccomp.listenerPath' });
  if (!listenerPath.startsWith('/') || Buffer.byteLength(listenerPath) > 107) throw fail('ERR_INVALID_VALUE', 'linux.seccomp.listenerPath: not the absolute path of a socket', { path: 'linux.seccomp.listenerPath' });
  // until the agent has the listener, nobody answers: what sends it there would wait for itself
  if (defaultAction === NOTIFY) throw fail('ERR_INVALID_VALUE', 'linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default', { path: 'linux.seccomp.defaultAction' });
  if ((seccomp.syscalls ?? []).some(({ names, action }) => action === NOTIFY && names.includes('write'))) throw fail('ERR_INVALID_VALUE', 'linux.seccomp.syscalls: SCMP_ACT_NOTIFY cannot be used for write', { path: 'linux.seccomp.syscalls' });
  const status = part === 'init' ? 'creating' : 'running';
  const { stateHead, stateTail } = splitState({ ociVersion: spec.ociVersion, id: run.container, status, bundle: run.bundle.path, ...(spec.annotations && { annotations: spec.annotations }) });
  const metadata = listenerMetadata === undefined ? '' : `"metadata":${JSON.stringify(listenerMetadata)},`;
  return op.seccompNotify({
    filter, flags, socket: listenerPath,
    stateHead: `{"ociVersion":${JSON.stringify(spec.ociVersion)},"fds":["seccompFd"],"pid":`, stateMiddle: `,${metadata}"state":${stateHead}`, stateTail: `${stateTail}}`,
  });
}

/** Values that JSON can't hold as numbers. */
const digestOf = (value: unknown): string => createHash('sha256').update(JSON.stringify(value, (_, v: unknown) => (typeof v === 'bigint' ? `${v}n` : v))).digest('hex');

/**
 * Compiles `linux.seccomp`. Without no-new-privs the filter is loaded in slot `seccomp-early`, while CAP_SYS_ADMIN is held; with it last of
 * all. Finished filters are kept in the plugin's state by the digest of all that goes into them: a second run loads no library.
 */
export function createSeccomp(deps: SeccompDeps, options: SeccompOptions = {}): SecurityDriver {
  const { machine, state, library } = deps;
  const memory = new Map<string, Uint8Array>();

  function remember(key: string, filter: Uint8Array): void {
    memory.set(key, filter);
    try {
      const old = state.list('filter.');
      if (old.length >= KEPT) for (const { key: name } of old) state.delete(name);
      state.set(key, Buffer.from(filter).toString('base64'));
    } catch (error) {
      // shown without root, or the database is busy: it only costs the next one 10 ms
      deps.log.debug({ error: String(error) }, 'a seccomp filter could not be kept');
    }
  }

  function recall(key: string): Uint8Array | undefined {
    const known = memory.get(key);
    if (known) return known;
    try {
      const kept = state.get(key);
      const filter = typeof kept === 'string' ? Buffer.from(kept, 'base64') : undefined;
      if (!filter || filter.length === 0 || filter.length % 8 !== 0) return undefined;
      memory.set(key, filter);
      return filter;
    } catch {
      return undefined;
    }
  }

  function filterOf(seccomp: Seccomp): Uint8Array {
    const native = architectureOf(machine).seccomp;
    const key = `filter.${digestOf([COMPILER, native, library.find() ?? '', seccomp])}`;
    const known = recall(key);
    if (known) return known;
    const filter = compileSeccomp(seccomp, native, library);
    remember(key, filter);
    return filter;
  }

  return {
    name: 'seccomp',
    option: 'seccomp',
    features: new Set(['profile']),
    ociFeatures,

    probe(on: Machine): Probe {
      if (on.read('/proc/sys/kernel/seccomp/actions_avail') === undefined) return { available: false, score: 0, reasons: ['this kernel has no seccomp filters'] };
      const path = library.find();
      if (!path) return { available: false, score: 0, reasons: ['libseccomp.so.2 is not installed'] };
      try {
        return { available: true, score: 50, reasons: [`filters compiled by ${path} for ${architectureOf(on).docker}`] };
      } catch (error) {
        return { available: false, score: 0, reasons: [(error as Error).message] };
      }
    },

    configure(spec: Spec, request: SecurityRequest): Spec {
      const asked = profileOption(request.options);
      const profile = loadProfile(asked ?? (request.privileged ? 'unconfined' : (options.profile ?? 'default')));
      const linux = { ...spec.linux };
      delete linux.seccomp;
      if (profile) linux.seccomp = resolveProfile(profile, { machine, capabilities: spec.process?.capabilities?.bounding ?? [] });
      return { ...spec, linux };
    },

    planProcess(spec, { part, noNewPrivileges }, run): readonly Step[] {
      const seccomp = spec.linux?.seccomp;
      if (!seccomp) return [];
      const last = noNewPrivileges || spec.process?.noNewPrivileges === true;
      const calls = [...(last ? [] : needed.early), ...needed.last, ...(/KILL|TRAP/.test(seccomp.defaultAction) ? needed.survivable : [])];
      const missing = [...new Set(calls)].filter((name) => !permits(seccomp, name));
      if (missing.length > 0) {
        const early = last ? '' : ', or use --security-opt no-new-privileges, with which the filter is loaded later';
        throw fail('ERR_INVALID_VALUE', `the seccomp profile refuses ${missing.join(', ')}, which are needed to start the program`, { operation: 'seccomp', hint: `allow them${early}` });
      }
      actionValue(seccomp.defaultAction, seccomp.defaultErrnoRet);
      return [step(last ? `${part}.seccomp` : `${part}.seccomp-early`, loadOperation(seccomp, filterOf(seccomp), spec, part, run))];
    },
  };
}
