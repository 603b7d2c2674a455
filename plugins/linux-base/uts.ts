import { statSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { op } from '@engine/core/plan';
import { REGISTER } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Spec } from '@engine/core/spec';
import { NAMESPACE_FILE, type NamespaceType } from './kernel.ts';
import { type NamespacePlan } from './namespaces.ts';

const ipcSysctls = new Set(['kernel.msgmax', 'kernel.msgmnb', 'kernel.msgmni', 'kernel.sem', 'kernel.shmall', 'kernel.shmmax', 'kernel.shmmni', 'kernel.shm_rmid_forced']);

/** Is what a path leads to the namespace that this engine itself is in? What is not there is said by whoever joins it. */
function isOurs(type: NamespaceType, path: string): boolean {
  try {
    const [there, here] = [statSync(path), statSync(`/proc/self/ns/${NAMESPACE_FILE[type]}`)];
    return there.dev === here.dev && there.ino === here.ino;
  } catch {
    return false;
  }
}

/**
 * A sysctl that belongs to one of the container's own namespaces, with slashes. Anything else would change the host
 * (CVE-2022-0811: `+` and `=` in a value reached kernel.core_pattern through another tool's grammar). Errors: ERR_INVALID_VALUE, ERR_DENIED.
 */
export function checkSysctl(key: string, value: string, namespaces: NamespacePlan): string {
  if (!/^[a-z0-9_-]+([./][A-Za-z0-9_@:-]+)+$/.test(key)) throw fail('ERR_INVALID_VALUE', `sysctl ${JSON.stringify(key)}: not a name`);
  if (!/^[A-Za-z0-9_.,:/ \t-]*$/.test(value)) throw fail('ERR_INVALID_VALUE', `sysctl ${key}: characters in ${JSON.stringify(value)} that no setting needs`);
  // with a slash first, as sysctl(8) has it, dots belong to names (net/ipv4/conf/eth0.1/…)
  const firstSlash = key.indexOf('/');
  const firstDot = key.indexOf('.');
  const path = firstSlash !== -1 && (firstDot === -1 || firstSlash < firstDot) ? key : key.replace(/[./]/g, (c) => (c === '.' ? '/' : '.'));
  if (path.split('/').some((part) => part === '.' || part === '..')) throw fail('ERR_INVALID_VALUE', `sysctl ${key}: not a name`);
  const dotted = path.replaceAll('/', '.');
  const has = (type: 'ipc' | 'network' | 'uts'): boolean => namespaces.own.has(type) || namespaces.joined.some((joined) => joined.type === type && !isOurs(type, joined.path));
  const namespace = ipcSysctls.has(dotted) || dotted.startsWith('fs.mqueue.') ? 'ipc' : dotted.startsWith('net.') ? 'network' : dotted === 'kernel.domainname' ? 'uts' : undefined;
  if (!namespace) throw fail('ERR_DENIED', `sysctl ${key} is not separate per container`, { hint: 'set it on the host' });
  if (!has(namespace)) throw fail('ERR_DENIED', `sysctl ${key}: the container shares the host's ${namespace} namespace`, { hint: `give it a ${namespace} namespace of its own` });
  return path;
}

/** Slot `init.hostname`: hostname, domainname, sysctls. Errors: as of checkSysctl; ERR_INVALID_VALUE for a name without a uts namespace. */
export function planHostname(plan: PlanWriter, spec: Spec, namespaces: NamespacePlan): void {
  const uts = namespaces.own.has('uts') || namespaces.joined.some(({ type }) => type === 'uts');
  const check = (name: string, field: string): void => {
    if (!uts) throw fail('ERR_INVALID_VALUE', `${field} ${name}: the container shares the host's uts namespace`);
    if (Buffer.byteLength(name) > 64) throw fail('ERR_INVALID_VALUE', `${field} ${name}: longer than 64 bytes`);
  };
  if (spec.hostname) {
    check(spec.hostname, 'hostname');
    plan.at('/hostname').add('init.hostname', op.setHostname({ name: spec.hostname }));
  }
  if (spec.domainname) {
    check(spec.domainname, 'domainname');
    plan.at('/domainname').add('init.hostname', op.setDomainname({ name: spec.domainname }));
  }
  for (const [key, value] of Object.entries(spec.linux?.sysctl ?? {})) {
    const path = checkSysctl(key, value, namespaces);
    plan.at(`/linux/sysctl/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`).add('init.hostname', op.sysctl({ proc: REGISTER.proc, key: path, value }));
  }
}
