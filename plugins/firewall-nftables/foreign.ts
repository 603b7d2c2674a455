import { op, type Operation } from '@engine/core/plan';
import { ENVIRONMENT } from '@engine/native/foreign-accepts';

const shell = (script: string, ...args: string[]): Operation => op.execHost({ argv: ['/bin/sh', '-c', script, 'sh', ...args], env: ENVIRONMENT, deadline: 10_000 });

/**
 * The old iptables has tables of its own, which nft does not see. `/proc/net/ip_tables_names` lists those that exist; only a FORWARD chain that drops gets the accepts.
 */
const LEGACY = `
verb=$1 link=$2 comment=$3; shift 3
for program; do
  command -v "$program" >/dev/null || continue
  for direction in -i -o; do
    set -- FORWARD "$direction" "$link" -m comment --comment "$comment" -j ACCEPT
    if [ "$verb" = remove ]; then
      while "$program" -w -D "$@" 2>/dev/null; do :; done
    elif "$program" -w -S FORWARD | grep -qE '^-P FORWARD DROP|^-A FORWARD -j (DROP|REJECT)'; then
      "$program" -w -C "$@" 2>/dev/null || "$program" -w -I "$@" || exit 1
    fi
  done
done
exit 0
`;
export type LegacyProgram = 'iptables-legacy' | 'ip6tables-legacy';
export const legacyAccepts = (verb: 'add' | 'remove', link: string, comment: string, programs: readonly LegacyProgram[]): Operation => shell(LEGACY, verb, link, comment, ...programs);

/** Which programs of the old iptables have a table `filter` here. */
export function legacyPrograms(read: (path: string) => string | undefined): readonly LegacyProgram[] {
  const has = (path: string): boolean => read(path)?.split('\n').includes('filter') ?? false;
  return [...(has('/proc/net/ip_tables_names') ? ['iptables-legacy' as const] : []), ...(has('/proc/net/ip6_tables_names') ? ['ip6tables-legacy' as const] : [])];
}
