import { fail } from '@engine/core/errors';

/** Every capability by its bit, <linux/capability.h>. Append only. */
export const capabilities: readonly string[] = [
  'CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP', 'LINUX_IMMUTABLE', 'NET_BIND_SERVICE',
  'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW', 'IPC_LOCK', 'IPC_OWNER', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT', 'SYS_ADMIN',
  'SYS_BOOT', 'SYS_NICE', 'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD', 'LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP', 'MAC_OVERRIDE',
  'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF', 'CHECKPOINT_RESTORE',
].map((name) => `CAP_${name}`);

/** Docker's. */
export const defaultCapabilities: readonly string[] = [
  'CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP', 'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE',
].map((name) => `CAP_${name}`);

const bits = new Map(capabilities.map((name, bit) => [name, bit]));

/** `net_admin`, `CAP_NET_ADMIN` → `CAP_NET_ADMIN`. Errors: ERR_INVALID_VALUE for an unknown one. */
export function canonicalName(text: string): string {
  const upper = text.trim().toUpperCase();
  const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!bits.has(name)) throw fail('ERR_INVALID_VALUE', `unknown capability ${JSON.stringify(text)}`, { operation: 'capabilities', hint: 'see capabilities(7); ALL stands for every one' });
  return name;
}

/** Of a name as {@link canonicalName} takes it. */
export function isKnown(text: string): boolean {
  const upper = text.trim().toUpperCase();
  return bits.has(upper.startsWith('CAP_') ? upper : `CAP_${upper}`);
}

/** A set as the kernel's bit mask. Errors: as of canonicalName. */
export function maskOf(names: readonly string[] | undefined): bigint {
  let mask = 0n;
  for (const name of names ?? []) mask |= 1n << BigInt(bits.get(canonicalName(name)) ?? 0);
  return mask;
}
/** In the order of their bits. */
export const inOrder = (names: Iterable<string>): string[] => {
  const set = new Set(names);
  return capabilities.filter((name) => set.has(name));
};

/**
 * Docker's rules for `--cap-add` and `--cap-drop`: dropping ALL starts from nothing, adding ALL from everything but what is dropped; then
 * what was added is added. Errors: ERR_INVALID_VALUE.
 */
export function chooseCapabilities(base: readonly string[], add: readonly string[], drop: readonly string[]): string[] {
  const isAll = (text: string): boolean => ['ALL', 'CAP_ALL'].includes(text.trim().toUpperCase());
  const added = add.filter((text) => !isAll(text)).map(canonicalName);
  const dropped = new Set(drop.filter((text) => !isAll(text)).map(canonicalName));
  if (add.some(isAll)) return capabilities.filter((name) => !dropped.has(name));
  const start = drop.some(isAll) ? [] : base.map(canonicalName).filter((name) => !dropped.has(name));
  return inOrder([...start, ...added]);
}
