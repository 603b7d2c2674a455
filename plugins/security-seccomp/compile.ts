import { fail } from '@engine/core/errors';
import { type Seccomp, type SeccompRule } from '@engine/core/spec';
import { prependEnosys, type NewCall } from './bpf.ts';
import { type Comparison, type Libseccomp } from './libseccomp.ts';

/** Tokens of <seccomp.h> (AUDIT_ARCH_*). */
export const ARCHITECTURE: Readonly<Record<string, number>> = {
  SCMP_ARCH_X86: 0x40000003, SCMP_ARCH_X86_64: 0xc000003e, SCMP_ARCH_X32: 0x4000003e, SCMP_ARCH_ARM: 0x40000028, SCMP_ARCH_AARCH64: 0xc00000b7,
  SCMP_ARCH_MIPS: 0x8, SCMP_ARCH_MIPS64: 0x80000008, SCMP_ARCH_MIPS64N32: 0xa0000008, SCMP_ARCH_MIPSEL: 0x40000008, SCMP_ARCH_MIPSEL64: 0xc0000008,
  SCMP_ARCH_MIPSEL64N32: 0xe0000008, SCMP_ARCH_PPC: 0x14, SCMP_ARCH_PPC64: 0x80000015, SCMP_ARCH_PPC64LE: 0xc0000015, SCMP_ARCH_S390: 0x16,
  SCMP_ARCH_S390X: 0x80000016, SCMP_ARCH_RISCV64: 0xc00000f3,
};
export const OPERATOR: Readonly<Record<string, number>> = {
  SCMP_CMP_NE: 1, SCMP_CMP_LT: 2, SCMP_CMP_LE: 3, SCMP_CMP_EQ: 4, SCMP_CMP_GE: 5, SCMP_CMP_GT: 6, SCMP_CMP_MASKED_EQ: 7,
};
const ATTRIBUTE = { badArchitecture: 2, optimize: 8 } as const;
const BINARY_TREE = 2;
const ENOSYS = 38;
const EPERM = 1;

/** A return value of the filter. Errors: ERR_INVALID_VALUE. */
export function actionValue(action: string, errno: number | undefined): number {
  const data = (errno ?? EPERM) & 0xffff;
  switch (action) {
    case 'SCMP_ACT_KILL': case 'SCMP_ACT_KILL_THREAD': return 0;
    case 'SCMP_ACT_KILL_PROCESS': return 0x80000000;
    case 'SCMP_ACT_TRAP': return 0x00030000;
    case 'SCMP_ACT_ERRNO': return 0x00050000 + data;
    case 'SCMP_ACT_TRACE': return 0x7ff00000 + data;
    case 'SCMP_ACT_LOG': return 0x7ffc0000;
    case 'SCMP_ACT_ALLOW': return 0x7fff0000;
    case 'SCMP_ACT_NOTIFY': return 0x7fc00000;
    default: throw fail('ERR_INVALID_VALUE', `seccomp: unknown action ${action}`);
  }
}

export const FLAGS: Readonly<Record<string, number>> = { SECCOMP_FILTER_FLAG_TSYNC: 1, SECCOMP_FILTER_FLAG_LOG: 2, SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: 32 };
/** SECCOMP_FILTER_FLAG_* of the section's `flags`. */
export function filterFlags(flags: readonly string[] = []): number {
  return flags.reduce((sum, flag) => {
    const bit = FLAGS[flag];
    if (bit === undefined) throw fail('ERR_INVALID_VALUE', `seccomp: unknown flag ${flag}`);
    return sum | bit;
  }, 0);
}

/**
 * System calls newer than libseccomp 2.5.4, which Debian 12 has. From 424 on a call has one number on every architecture. A newer
 * libseccomp knows them by itself.
 */
export const newCalls: Readonly<Record<string, number>> = {
  cachestat: 451, fchmodat2: 452, map_shadow_stack: 453, futex_wake: 454, futex_wait: 455, futex_requeue: 456, statmount: 457, listmount: 458,
  lsm_get_self_attr: 459, lsm_set_self_attr: 460, lsm_list_modules: 461, mseal: 462, setxattrat: 463, getxattrat: 464, listxattrat: 465, removexattrat: 466,
};

/** Conditions on one argument twice are alternatives, as in runc; libseccomp takes each argument once per rule. */
function alternatives(rule: SeccompRule): readonly (readonly Comparison[])[] {
  const all = (rule.args ?? []).map(({ index, value, valueTwo, op }): Comparison => {
    const operator = OPERATOR[op];
    if (operator === undefined) throw fail('ERR_INVALID_VALUE', `seccomp: unknown operator ${op}`);
    return { index, operator, a: BigInt(value), b: BigInt(valueTwo ?? 0) };
  });
  const twice = new Set(all.map(({ index }) => index)).size < all.length;
  return twice ? all.map((one) => [one]) : [all];
}

/**
 * The BPF program of an OCI seccomp section. Names that libseccomp doesn't know are left out, as every runtime does, except that calls newer
 * than it are matched by number. With a default of ERRNO, numbers beyond all known ones give ENOSYS, so that a C library falls back.
 * Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED, ERR_DRIVER_UNAVAILABLE (no libseccomp), ERR_NATIVE.
 */
export function compileSeccomp(seccomp: Seccomp, native: string, library: Libseccomp): Uint8Array {
  const nativeToken = tokenOf(native);
  const tokens = seccomp.architectures?.length ? seccomp.architectures.map(tokenOf) : [nativeToken];
  const fallback = actionValue(seccomp.defaultAction, seccomp.defaultErrnoRet);
  const filter = library.filter(fallback);
  const fresh: NewCall[] = [];
  const highest = new Map(tokens.map((token) => [token, 0]));
  try {
    for (const token of tokens) if (token !== nativeToken) filter.addArchitecture(token);
    if (!tokens.includes(nativeToken)) filter.removeArchitecture(nativeToken);
    // calls of an architecture that isn't listed do not exist, rather than kill
    if (seccomp.defaultAction === 'SCMP_ACT_ERRNO') filter.setAttribute(ATTRIBUTE.badArchitecture, actionValue('SCMP_ACT_ERRNO', ENOSYS));
    filter.setAttribute(ATTRIBUTE.optimize, BINARY_TREE);
    for (const rule of seccomp.syscalls ?? []) {
      const action = actionValue(rule.action, rule.errnoRet ?? seccomp.defaultErrnoRet);
      for (const name of rule.names) {
        const number = library.number(name);
        for (const token of tokens) highest.set(token, Math.max(highest.get(token) ?? 0, library.resolve(token, name) ?? 0));
        if (number === undefined) {
          const newer = newCalls[name];
          if (newer !== undefined && !rule.args?.length) fresh.push({ number: newer, action });
          continue;
        }
        // libseccomp refuses a rule that says what the default says
        if (action !== fallback) for (const args of alternatives(rule)) filter.addRule(action, number, args);
      }
    }
    const newest = Math.max(0, ...fresh.map(({ number }) => number));
    if (seccomp.defaultAction !== 'SCMP_ACT_ERRNO') return prependEnosys(filter.export(), { architectures: tokens.map((token) => ({ token, highest: undefined })), fresh });
    // libseccomp lets socketcall through for every allowed socket call, families unseen: AF_ALG from a 32-bit program (CVE-2026-31431)
    const named = (seccomp.syscalls ?? []).some(({ names }) => names.includes('socketcall'));
    const architectures = tokens.map((token) => {
      const multiplexed = named ? undefined : library.resolve(token, 'socketcall');
      return { token, highest: Math.max(highest.get(token) ?? 0, newest), hidden: multiplexed === undefined ? [] : [multiplexed] };
    });
    return prependEnosys(filter.export(), { architectures, fresh });
  } finally {
    filter.release();
  }
}

function tokenOf(name: string): number {
  const token = ARCHITECTURE[name];
  if (token === undefined) throw fail('ERR_INVALID_VALUE', `seccomp: unknown architecture ${name}`);
  return token;
}
