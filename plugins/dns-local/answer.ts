import { isIP } from 'node:net';
import { type Answer } from 'dns-packet';
import { reverseAddress } from './address.ts';
import { RCODE, TYPE, type Question } from './wire.ts';
import { type Asker, type Zone } from './zone.ts';

/** Our own answer, or that others are to be asked. */
export type Verdict = { readonly kind: 'answer'; readonly rcode: number; readonly records: readonly Answer[] } | { readonly kind: 'forward' };

/** Who has the address now may have another one with his next run. */
const TTL = 0;
const IN = 1;
const ANY_CLASS = 255;
const answer = (rcode: number, records: readonly Answer[] = []): Verdict => ({ kind: 'answer', rcode, records });

/** What is said to `asker`, by the names that are known now. */
export function decide(zone: Zone, asker: Asker, { name, type, class: kind, opcode }: Question): Verdict {
  if (opcode !== 0) return answer(RCODE.notImp);
  if (kind !== IN && kind !== ANY_CLASS) return answer(RCODE.refused);
  // as RFC 8482 wants it: the one who asks for everything gets something small, and doesn't ask elsewhere
  if (type === TYPE.any) return answer(RCODE.noError, [{ type: 'HINFO', name, ttl: 3600, data: { cpu: 'RFC8482', os: '' } }]);
  const ours = zone.lookup(asker, name);
  if (ours) {
    const family = type === TYPE.a ? 4 : type === TYPE.aaaa ? 6 : undefined;
    return answer(RCODE.noError, ours.filter((address) => isIP(address) === family).map((data) => ({ type: family === 4 ? 'A' : 'AAAA', name, ttl: TTL, data })));
  }
  const key = reverseAddress(name.toLowerCase());
  if (key !== undefined) {
    const holder = zone.reverse(asker, key);
    if (holder !== undefined) return answer(RCODE.noError, type === TYPE.ptr ? [{ type: 'PTR', name, ttl: TTL, data: holder }] : []);
    if (zone.isOurs(key)) return answer(RCODE.nxDomain);
  }
  // not REFUSED: musl waits until its time is up then. Nothing outside exists for who has no way out
  if (asker.internal) return answer(RCODE.nxDomain);
  return { kind: 'forward' };
}
