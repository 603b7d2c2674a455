import { type ContainerRequest } from '@engine/core/api';
import { invalid } from './units.ts';

/** Flags of user and time namespaces. Names and meaning are podman's, which knows more of them than Docker; `--userns=host` is both's. */
export const usernsFlags = {
  gidmap: { type: 'list', value: 'CONTAINER:HOST:SIZE', help: 'map group ids of the container to those of the host; as --uidmap when only that is given' },
  'time-offset': { type: 'list', value: 'CLOCK=SECONDS', help: 'set its monotonic or boottime clock ahead, or back' },
  uidmap: { type: 'list', value: 'CONTAINER:HOST:SIZE', help: 'map user ids of the container to those of the host, in a user namespace of its own' },
  userns: { type: 'string', value: 'MODE', help: 'user namespace: host, auto[:size=N] (ids of its own), or CONTAINER:HOST:SIZE[,…]' },
} as const;

/** `monotonic=-86400.5`. Errors: ERR_USAGE. */
function timeOffset(text: string): readonly [string, { secs: number; nanosecs: number }] {
  const match = /^(monotonic|boottime)=([+-]?)(\d{1,10})(?:\.(\d{1,9}))?$/.exec(text);
  if (!match) throw invalid('--time-offset', text, 'monotonic=SECONDS or boottime=SECONDS is expected');
  const [, clock = '', sign, whole, fraction = ''] = match;
  const nanosecs = Number(fraction.padEnd(9, '0'));
  const back = sign === '-';
  // nanoseconds only go forward
  const secs = (back ? -Number(whole) : Number(whole)) - (back && nanosecs > 0 ? 1 : 0);
  return [clock, { secs, nanosecs: back && nanosecs > 0 ? 1_000_000_000 - nanosecs : nanosecs }];
}

/** Where the same is said more than once, the last counts. Errors: ERR_USAGE. */
export function usernsRequest(flags: { readonly userns?: string | undefined; readonly uidmap?: readonly string[] | undefined; readonly gidmap?: readonly string[] | undefined; readonly 'time-offset'?: readonly string[] | undefined }): Pick<ContainerRequest, 'userns' | 'uidMaps' | 'gidMaps' | 'timeOffsets'> {
  const maps = (texts: readonly string[] | undefined): string[] => (texts ?? []).flatMap((text) => text.split(','));
  const [uidMaps, gidMaps, offsets] = [maps(flags.uidmap), maps(flags.gidmap), (flags['time-offset'] ?? []).map(timeOffset)];
  return {
    ...(flags.userns && { userns: flags.userns }), ...(uidMaps.length > 0 && { uidMaps }), ...(gidMaps.length > 0 && { gidMaps }),
    ...(offsets.length > 0 && { timeOffsets: Object.fromEntries(offsets) }),
  };
}
