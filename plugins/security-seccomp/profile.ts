import { fail } from '@engine/core/errors';
import { type Machine } from '@engine/core/contracts/common';
import { type Seccomp, type SeccompRule } from '@engine/core/spec';

/** A seccomp profile in Docker's JSON format, of which the OCI spec's section is a subset. */
export interface Profile extends Omit<Seccomp, 'syscalls'> {
  readonly archMap?: readonly { readonly architecture: string; readonly subArchitectures?: readonly string[] | null }[] | null;
  readonly syscalls?: ProfileRule[] | null;
}
export interface ProfileRule extends Omit<SeccompRule, 'names' | 'args'> {
  readonly names?: string[];
  /** The old form of `names`. */
  readonly name?: string;
  readonly args?: SeccompRule['args'] | null;
  readonly comment?: string;
  readonly includes?: Condition | null;
  readonly excludes?: Condition | null;
}
/** All that is given must hold for `includes`, and any one of it keeps a rule out for `excludes`. */
export interface Condition {
  readonly caps?: readonly string[] | null;
  readonly arches?: readonly string[] | null;
  readonly minKernel?: string | null;
}

/** Names of one architecture: as Node and uname say it, as Docker's profiles do, as libseccomp does. */
const architectures = [
  { names: ['x64', 'x86_64', 'amd64'], docker: 'amd64', seccomp: 'SCMP_ARCH_X86_64' },
  { names: ['arm64', 'aarch64'], docker: 'arm64', seccomp: 'SCMP_ARCH_AARCH64' },
  { names: ['riscv64'], docker: 'riscv64', seccomp: 'SCMP_ARCH_RISCV64' },
  { names: ['ia32', 'i686', 'x86'], docker: 'x86', seccomp: 'SCMP_ARCH_X86' },
  { names: ['arm', 'armv7l'], docker: 'arm', seccomp: 'SCMP_ARCH_ARM' },
] as const;
export function architectureOf(machine: Pick<Machine, 'architecture'>): { readonly docker: string; readonly seccomp: string } {
  const found = architectures.find(({ names }) => (names as readonly string[]).includes(machine.architecture));
  if (!found) throw fail('ERR_NOT_SUPPORTED', `seccomp: unknown architecture ${machine.architecture}`);
  return found;
}

export const actions: ReadonlySet<string> = new Set([
  'SCMP_ACT_KILL', 'SCMP_ACT_KILL_PROCESS', 'SCMP_ACT_KILL_THREAD', 'SCMP_ACT_TRAP', 'SCMP_ACT_ERRNO', 'SCMP_ACT_TRACE', 'SCMP_ACT_ALLOW', 'SCMP_ACT_LOG', 'SCMP_ACT_NOTIFY',
]);
const operators = new Set(['SCMP_CMP_NE', 'SCMP_CMP_LT', 'SCMP_CMP_LE', 'SCMP_CMP_EQ', 'SCMP_CMP_GE', 'SCMP_CMP_GT', 'SCMP_CMP_MASKED_EQ']);
/** `defaultErrno` is what containers-common adds: the name of defaultErrnoRet. */
const knownKeys = new Set(['defaultAction', 'defaultErrnoRet', 'defaultErrno', 'architectures', 'archMap', 'syscalls', 'flags', 'listenerPath', 'listenerMetadata']);

const bad = (source: string, why: string): Error => fail('ERR_INVALID_VALUE', `seccomp profile ${source}: ${why}`, { operation: 'security-opt', path: source });

/** Check the shape of a profile that came from outside. Errors: ERR_INVALID_VALUE says where it is wrong. */
export function parseProfile(text: string, source: string): Profile {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw fail('ERR_INVALID_VALUE', `seccomp profile ${source}: not JSON`, { operation: 'security-opt', path: source, cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad(source, 'not an object');
  const profile = value as Profile;
  for (const key of Object.keys(profile)) if (!knownKeys.has(key)) throw bad(source, `unknown key ${key}`);
  if (!actions.has(profile.defaultAction)) throw bad(source, `defaultAction ${String(profile.defaultAction)} is unknown`);
  if (profile.architectures?.length && profile.archMap?.length) throw bad(source, 'either architectures or archMap, not both');
  if (profile.syscalls && !Array.isArray(profile.syscalls)) throw bad(source, 'syscalls is not a list');
  (profile.syscalls ?? []).forEach((rule, index) => checkRule(rule, source, index));
  return profile;
}

function checkRule(rule: ProfileRule, source: string, index: number): void {
  const at = `syscalls[${index}]`;
  if (typeof rule !== 'object' || rule === null) throw bad(source, `${at} is not an object`);
  if (rule.name !== undefined && rule.names?.length) throw bad(source, `${at} has name and names`);
  const names = namesOf(rule);
  if (names.length === 0 || names.some((name) => typeof name !== 'string')) throw bad(source, `${at} names no system call`);
  if (!actions.has(rule.action)) throw bad(source, `${at}: action ${String(rule.action)} is unknown`);
  for (const arg of rule.args ?? []) {
    if (!Number.isInteger(arg.index) || arg.index < 0 || arg.index > 5) throw bad(source, `${at}: argument ${String(arg.index)} is not in 0..5`);
    if (!operators.has(arg.op)) throw bad(source, `${at}: operator ${String(arg.op)} is unknown`);
    if (typeof arg.value !== 'number' && typeof arg.value !== 'bigint') throw bad(source, `${at}: value is not a number`);
  }
}
const namesOf = (rule: ProfileRule): string[] => rule.names ?? (rule.name === undefined ? [] : [rule.name]);

/** `4.8` against [major, minor]. */
function kernelAtLeast(kernel: readonly [number, number], text: string): boolean {
  const match = /^(\d+)\.(\d+)/.exec(text);
  if (!match) throw fail('ERR_INVALID_VALUE', `seccomp: minKernel ${text} is not like 4.8`);
  const [major, minor] = [Number(match[1]), Number(match[2])];
  return kernel[0] > major || (kernel[0] === major && kernel[1] >= minor);
}

/** What conditions are held against. */
export interface Surroundings {
  readonly machine: Pick<Machine, 'architecture' | 'kernel'>;
  /** The container's bounding set, as `CAP_…`. */
  readonly capabilities: readonly string[];
}

function applies(rule: ProfileRule, { machine, capabilities }: Surroundings): boolean {
  const architecture = architectureOf(machine).docker;
  const { includes, excludes } = rule;
  if (excludes?.caps?.some((name) => capabilities.includes(name))) return false;
  if (excludes?.arches?.includes(architecture)) return false;
  if (excludes?.minKernel && kernelAtLeast(machine.kernel, excludes.minKernel)) return false;
  if (includes?.caps && !includes.caps.every((name) => capabilities.includes(name))) return false;
  if (includes?.arches?.length && !includes.arches.includes(architecture)) return false;
  return !includes?.minKernel || kernelAtLeast(machine.kernel, includes.minKernel);
}

/** The OCI section that a profile comes to here: conditions decided, architectures chosen. */
export function resolveProfile(profile: Profile, surroundings: Surroundings): Seccomp {
  const native = architectureOf(surroundings.machine).seccomp;
  const mapped = profile.archMap?.find(({ architecture }) => architecture === native);
  const chosen = profile.architectures?.length ? profile.architectures : [native, ...(mapped?.subArchitectures ?? [])];
  const rules = (profile.syscalls ?? []).filter((rule) => applies(rule, surroundings)).map((rule): SeccompRule => ({
    names: namesOf(rule),
    action: rule.action,
    ...(rule.errnoRet === undefined ? {} : { errnoRet: rule.errnoRet }),
    ...(rule.args?.length ? { args: rule.args } : {}),
  }));
  return {
    defaultAction: profile.defaultAction,
    ...(profile.defaultErrnoRet === undefined ? {} : { defaultErrnoRet: profile.defaultErrnoRet }),
    architectures: [...chosen],
    ...(profile.flags?.length ? { flags: profile.flags } : {}),
    syscalls: rules,
  };
}
