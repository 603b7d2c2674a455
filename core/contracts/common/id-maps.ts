import { fail } from '../../errors/index.ts';
import { type IdMapping } from '../../spec/index.ts';

/** The kernel takes no more lines of uid_map and gid_map (Linux 4.15). */
export const MAX_ID_MAPPINGS = 340;
/** One more than the highest id there is: 2^32-1 means "no change" to the kernel. */
const END = 0xffff_ffff;

/** Refuse what the kernel would refuse, with words. `name`: what they belong to. Errors: ERR_INVALID_VALUE. */
export function checkIdMap(mappings: readonly IdMapping[], name: string): void {
  const refuse = (why: string): Error => fail('ERR_INVALID_VALUE', `${name}: ${why}`, { operation: 'userns', path: name });
  if (mappings.length > MAX_ID_MAPPINGS) throw refuse(`${mappings.length} mappings, the kernel takes ${MAX_ID_MAPPINGS}`);
  for (const { containerID, hostID, size } of mappings) {
    for (const id of [containerID, hostID, size]) {
      // CVE-2024-40635: an id beyond 32 bits wraps around to root
      if (!Number.isInteger(id) || id < 0 || id >= END) throw refuse(`${id} is not an id`);
    }
    if (size === 0) throw refuse('a mapping of size 0');
    if (containerID + size > END || hostID + size > END) throw refuse(`${containerID}:${hostID}:${size} goes beyond the last id, ${END - 1}`);
  }
  for (const side of ['containerID', 'hostID'] as const) {
    const sorted = [...mappings].sort((a, b) => a[side] - b[side]);
    const twice = sorted.find((m, i) => i > 0 && (sorted[i - 1] as IdMapping)[side] + (sorted[i - 1] as IdMapping).size > m[side]);
    if (twice) throw refuse(`${side === 'hostID' ? 'host' : 'container'} id ${twice[side]} is mapped twice`);
  }
}

/** Lines of uid_map and gid_map. Errors: as of checkIdMap. */
export function idMapText(mappings: readonly IdMapping[], name: string): string {
  checkIdMap(mappings, `linux.${name}`);
  return mappings.map(({ containerID, hostID, size }) => `${containerID} ${hostID} ${size}\n`).join('');
}
