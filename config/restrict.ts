import { dirname } from 'node:path';
import { fail } from '@engine/core/errors';
import { isRecord } from './json-schema.ts';
import { type Config } from './schema.ts';

/** From lax to strict, for values whose strictness is known. Any other value (a profile's path) is comparable only to itself. */
const strictness: Readonly<Record<string, readonly string[]>> = {
  seccomp: ['unconfined', 'default'],
  apparmor: ['unconfined', 'engine-default'],
  capabilities: ['default', 'none'],
  userns: ['host', 'auto'],
};
/** Drivers that only say where things are kept, not how well containers are fenced in. */
const freeDrivers = new Set(['storage', 'cgroup', 'log', 'volume', 'network', 'ipam', 'dns']);

/**
 * A file in a folder that nobody trusts may choose among known drivers and raise security, and nothing else: it may have come with a
 * cloned repository. Errors: ERR_CONFIG_UNTRUSTED names the key and how to trust the folder.
 */
export function refuseUntrusted(data: Readonly<Record<string, unknown>>, current: Config, file: string): void {
  const refuse = (key: string, what: string): never => {
    throw fail('ERR_CONFIG_UNTRUSTED', `${file}: ${key} ${what}, and its folder is not trusted`, {
      operation: 'config',
      path: file,
      hint: `read the file, then trust its folder with: engine trust ${dirname(file)}`,
    });
  };
  for (const [key, value] of Object.entries(data)) {
    if (key === 'plugins') {
      if (Array.isArray(value) && value.length === 0 && current.plugins.length === 0) continue;
      refuse('plugins', 'decides which code is run');
    } else if (key === 'drivers' && isRecord(value)) {
      for (const contract of Object.keys(value))
        if (!freeDrivers.has(contract)) refuse(`drivers.${contract}`, 'decides what confines containers');
      // The host's network is a hole in the fence like any other.
      if (value.network === 'host' && current.drivers.network !== 'host')
        refuse('drivers.network', 'gives containers the network of the host');
    } else if (key === 'security' && isRecord(value)) {
      for (const [name, wish] of Object.entries(value)) {
        const now = current.security[name as keyof Config['security']];
        const order = strictness[name] ?? [];
        // how many ids `auto:size=N` gives has no part in it
        const rank = (value: unknown): number => order.indexOf(name === 'userns' ? String(value).split(':', 1).join() : String(value));
        const raises = rank(now) >= 0 && rank(wish) >= rank(now);
        if (wish !== now && !raises) refuse(`security.${name}`, 'would lower security');
      }
    } else refuse(key, 'is for trusted sources only');
  }
}
