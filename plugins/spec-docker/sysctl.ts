import { fail } from '@engine/core/errors';
import { type Spec } from '@engine/core/spec';

/** Sysctls that belong to an IPC namespace. */
const ipcKeys = new Set(['kernel.msgmax', 'kernel.msgmnb', 'kernel.msgmni', 'kernel.sem', 'kernel.shmall', 'kernel.shmmax', 'kernel.shmmni', 'kernel.shm_rmid_forced']);

/**
 * Refuse every sysctl that isn't namespaced, or whose namespace the container shares (CVE-2022-0811: a `+` or `=` in a value set
 * kernel.core_pattern). Errors: ERR_INVALID_VALUE names the key.
 */
export function checkSysctls(spec: Spec): void {
  const own = new Set((spec.linux?.namespaces ?? []).filter((n) => !n.path).map((n) => n.type));
  for (const [key, value] of Object.entries(spec.linux?.sysctl ?? {})) {
    const refuse = (why: string): Error => fail('ERR_INVALID_VALUE', `sysctl ${JSON.stringify(key)}: ${why}`, { operation: 'sysctl', path: key });
    if (!/^[a-z][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)+$/.test(key) || key.length > 256) throw refuse('not a valid name');
    if (typeof value !== 'string' || !/^[A-Za-z0-9 \t,.:_/-]{1,1024}$/.test(value)) throw refuse('not a valid value');
    const dotted = key.replaceAll('/', '.');
    if (ipcKeys.has(dotted) || dotted.startsWith('fs.mqueue.')) {
      if (!own.has('ipc')) throw refuse('not allowed without an ipc namespace of its own');
    } else if (dotted.startsWith('net.')) {
      if (!own.has('network')) throw refuse('not allowed in a network namespace that is shared');
    } else if (dotted === 'kernel.domainname') {
      if (!own.has('uts')) throw refuse('not allowed without a uts namespace of its own');
    } else throw refuse('not in a namespace of its own, so it would change the host');
  }
}
