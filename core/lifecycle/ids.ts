import { randomInt } from 'node:crypto';
import { fail } from '../errors/index.ts';
import { type IdMapping } from '../spec/index.ts';
import { type ContainerRecord, type ContainerRequest, type IdReport } from '../api/index.ts';
import { checkIdMap, type Machine } from '../contracts/common/index.ts';
import { isIdConflict } from '../state/ids.ts';
import { type State } from '../state/index.ts';

type Kind = 'uid' | 'gid';
interface Range { readonly first: number; readonly size: number }
/** What a container's ids are on the host. `leased`: ranges that nobody else may have, see the table of state/ids. */
export interface ChosenIds { readonly uidMappings: IdMapping[]; readonly gidMappings: IdMapping[]; readonly leased: NonNullable<ContainerRecord['ids']> }

/** How many ids a container has: those that images use, `nobody` (65534) included. */
const DEFAULT_SIZE = 65536;
/**
 * Where ranges come from when /etc/subuid has none for us: above the ids that SSSD gives to a domain's users (up to 2,000,200,000), and those that systemd and
 * shadow give out; below systemd's foreign ids, and below 2^31, beyond which some take an id for negative. 2,245 ranges of 65,536.
 */
const BUILTIN: Range = { first: 2_000_224_256, size: 147_128_320 };
/** Users of /etc/subuid and /etc/subgid whose entries are ours: the second is podman's for the same purpose. */
const OWNERS = ['engine', 'containers'];

const refuse = (text: string, hint?: string): Error => fail('ERR_INVALID_VALUE', text, { operation: 'userns', ...(hint !== undefined && { hint }) });
const HINT = 'give host, auto[:size=N], or CONTAINER:HOST:SIZE[,…]';

/** `CONTAINER:HOST[:SIZE]`. Errors: ERR_INVALID_VALUE. */
function parseMapping(text: string, name: string): IdMapping {
  const match = /^(\d{1,10}):(\d{1,10})(?::(\d{1,10}))?$/.exec(text);
  if (!match) throw refuse(`${name}: invalid mapping ${JSON.stringify(text)}`, HINT);
  return { containerID: Number(match[1]), hostID: Number(match[2]), size: Number(match[3] ?? 1) };
}
/** Errors: ERR_INVALID_VALUE. */
function parseMap(texts: readonly string[], name: string): IdMapping[] {
  const maps = texts.map((text) => parseMapping(text, name));
  checkIdMap(maps, name);
  if (!maps.some(({ containerID }) => containerID === 0)) throw refuse(`${name}: nobody is root: container id 0 is not mapped`);
  return maps;
}

/** `size=N,uidmapping=…,gidmapping=…` of `auto:`. Errors: ERR_INVALID_VALUE. */
function parseAuto(text: string): { readonly size: number; readonly fixed: Readonly<Record<Kind, IdMapping[]>> } {
  let size = DEFAULT_SIZE;
  const fixed: Record<Kind, IdMapping[]> = { uid: [], gid: [] };
  for (const option of text === '' ? [] : text.split(',')) {
    const [key = '', value = ''] = option.split(/=(.*)/s);
    if (key === 'size') {
      size = /^\d{1,10}$/.test(value) ? Number(value) : 0;
      if (size < 1 || size >= 0xffff_ffff) throw refuse(`--userns=auto: invalid size ${JSON.stringify(value)}`);
    } else if (key === 'uidmapping' || key === 'gidmapping') fixed[key === 'uidmapping' ? 'uid' : 'gid'].push(parseMapping(value, `--userns=auto:${key}`));
    else throw refuse(`--userns=auto: unknown option ${JSON.stringify(key)}`, 'known are size, uidmapping and gidmapping');
  }
  return { size, fixed };
}

/** `ranges` without what `taken` covers. */
function without(ranges: readonly Range[], taken: readonly Range[]): Range[] {
  return taken.reduce<Range[]>((left, { first, size }) => left.flatMap((range) => {
    const end = range.first + range.size;
    if (first >= end || first + size <= range.first) return [range];
    return [{ first: range.first, size: first - range.first }, { first: first + size, size: end - first - size }].filter((piece) => piece.size > 0);
  }), [...ranges]);
}
const entries = (text: string | undefined): (Range & { readonly owner: string })[] =>
  [...(text ?? '').matchAll(/^([^:#\s][^:\n]*):(\d{1,10}):(\d{1,10})\s*$/gm)].map(([, owner = '', first, size]) => ({ owner, first: Number(first), size: Number(size) }));

/** The ids outside of a uid_map or gid_map, but for those that are the same inside: who has these is fenced in by other means. */
const rangesOf = (map: string): Range[] => [...map.matchAll(/^\s*(\d+)\s+(\d+)\s+(\d+)$/gm)].flatMap(([, inside, first, size]) => (inside === first ? [] : { first: Number(first), size: Number(size) }));

/** The ids of the host that containers may be given. Never 0. */
export function idPool(machine: Pick<Machine, 'read'>, kind: Kind): { readonly ranges: readonly Range[]; readonly source: string } {
  const file = `/etc/sub${kind}`;
  const all = entries(machine.read(file));
  const mine = OWNERS.find((owner) => all.some((e) => e.owner === owner));
  const taken = [...(machine.read(kind === 'uid' ? '/etc/passwd' : '/etc/group') ?? '').matchAll(/^[^:\n]+:[^:\n]*:(\d{1,10}):/gm)].map(([, id]) => ({ first: Number(id), size: 1 }));
  const ours = mine === undefined ? without([BUILTIN], all) : all.filter(({ owner }) => owner === mine);
  // an engine that is in a user namespace itself has no other ids than that
  const own = [...(machine.read(`/proc/self/${kind}_map`) ?? '0 0 4294967295').matchAll(/^\s*(\d+)\s+\d+\s+(\d+)$/gm)].map(([, first, size]) => ({ first: Number(first), size: Number(size) }));
  const outside = [...without([{ first: 0, size: 0xffff_ffff }], own), { first: 0xffff_ffff, size: Number.MAX_SAFE_INTEGER - 0xffff_ffff }];
  return { ranges: without(ours, [{ first: 0, size: 1 }, ...taken, ...outside]), source: mine === undefined ? 'built in' : `${file}, user ${mine}` };
}

/** A place for `size` ids: any, so that engines which choose at the same time seldom choose the same; `wish` where that is free. Errors: ERR_NO_ADDRESS. */
function place(free: readonly Range[], size: number, wish: number | undefined): number | undefined {
  if (wish !== undefined && free.some(({ first, size: n }) => wish >= first && wish + size <= first + n)) return wish;
  const slots = free.map(({ first, size: n }) => ({ first, count: Math.floor(n / size) }));
  const all = slots.reduce((sum, { count }) => sum + count, 0);
  let number = all === 0 ? 0 : randomInt(all);
  for (const { first, count } of slots) {
    if (number < count) return first + number * size;
    number -= count;
  }
  return undefined;
}

function chooseAuto(state: State, machine: Pick<Machine, 'read' | 'idMaps'>, text: string): ChosenIds {
  const { size, fixed } = parseAuto(text);
  const leased: { kind: Kind; first: number; size: number }[] = [];
  // containers of other engines and other programs: what is not ours to know is asked of the kernel
  const { idMaps } = machine;
  const used = (kind: Kind): Range[] => idMaps.flatMap((map) => rangesOf(map[kind]));
  const maps = (kind: Kind): IdMapping[] => {
    const holes = without([{ first: 0, size }], fixed[kind].map(({ containerID, size: n }) => ({ first: containerID, size: n })));
    const wanted = holes.reduce((sum, hole) => sum + hole.size, 0);
    const { ranges, source } = idPool(machine, kind);
    const free = without(ranges, [...state.ids.list(kind), ...used(kind), ...fixed[kind].map(({ hostID, size: n }) => ({ first: hostID, size: n }))]);
    const first = wanted === 0 ? 0 : place(free, wanted, leased[0]?.first);
    if (first === undefined) throw fail('ERR_NO_ADDRESS', `no range of ${wanted} ${kind}s is free (${source})`, { operation: 'userns', hint: `remove containers, ask for a smaller one with --userns=auto:size=N, or give user ${OWNERS[0]} a larger range in /etc/sub${kind}` });
    let at = first;
    const chosen = holes.map((hole): IdMapping => ({ containerID: hole.first, hostID: (at += hole.size) - hole.size, size: hole.size }));
    leased.push(...chosen.map(({ hostID, size: n }) => ({ kind, first: hostID, size: n })));
    const result = [...fixed[kind], ...chosen].sort((a, b) => a.containerID - b.containerID);
    checkIdMap(result, '--userns=auto');
    return result;
  };
  return { uidMappings: maps('uid'), gidMappings: maps('gid'), leased };
}

/** Only engines without root have a use for these, or they need what a container's own namespaces cannot give. */
const unsupported: Readonly<Record<string, string>> = {
  'keep-id': 'is for engines that do not run as root', nomap: 'is for engines that do not run as root', private: 'does not say which ids to map',
  ns: 'an existing user namespace cannot be joined', container: 'the user namespace of another container cannot be joined',
};

/**
 * What `--userns`, `--uidmap` and `--gidmap` come to; undefined: the ids of the host. Reads only: who writes the container down claims them.
 * Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED, ERR_NO_ADDRESS.
 */
export function chooseIds(state: State, machine: Pick<Machine, 'read' | 'idMaps'>, { userns = '', uidMaps, gidMaps }: Pick<ContainerRequest, 'userns' | 'uidMaps' | 'gidMaps'>): ChosenIds | undefined {
  if (uidMaps?.length || gidMaps?.length) {
    if (userns !== '') throw refuse('conflicting options: --userns and --uidmap or --gidmap', 'leave out one of them');
    return { uidMappings: parseMap(uidMaps ?? gidMaps ?? [], '--uidmap'), gidMappings: parseMap(gidMaps ?? uidMaps ?? [], '--gidmap'), leased: [] };
  }
  if (userns === '' || userns === 'host') return undefined;
  const [word = '', rest = ''] = userns.split(/:(.*)/s);
  if (word === 'auto') return chooseAuto(state, machine, rest);
  const why = unsupported[word];
  if (why !== undefined) throw fail('ERR_NOT_SUPPORTED', `--userns=${userns}: ${why}`, { operation: 'userns', hint: word === 'container' ? 'give both containers the same maps: --userns=CONTAINER:HOST:SIZE' : HINT });
  if (!/^\d/.test(userns)) throw refuse(`--userns: invalid mode ${userns}`, HINT);
  const maps = parseMap(userns.split(','), '--userns');
  return { uidMappings: maps, gidMappings: maps, leased: [] };
}

/**
 * Words for each other container whose ids on the host are among those that somebody wrote down for `record`: what both may do to one another's files and
 * processes is then fenced by namespaces only. It is no error, and two that share files are given the same map, which needs no words. Read before the row is there.
 */
export function overlapWarnings(state: State, { id, name, ids: leased = [], spec }: Pick<ContainerRecord, 'id' | 'name' | 'ids' | 'spec'>): readonly string[] {
  const others = new Map<string, string>();
  for (const kind of ['uid', 'gid'] as const) {
    // `spec` is a bundle's too, which may lack anything
    for (const { hostID, size } of spec?.linux?.[`${kind}Mappings`] ?? []) {
      if (leased.some((range) => range.kind === kind && range.first === hostID)) continue;
      for (const { container, first, size: n, leased: alone } of state.ids.list(kind)) {
        // the same map twice is meant: these two share files
        if (!alone && first === hostID && n === size) continue;
        if (container !== id && first < hostID + size && first + n > hostID && !others.has(container)) others.set(container, `${kind}s from ${Math.max(first, hostID)} to ${Math.min(first + n, hostID + size) - 1}`);
      }
    }
  }
  return [...others].map(([container, range]) => `container ${name} shares ${range} of this machine with container ${state.containers.get(container)?.name ?? container}; --userns=auto gives ids that nobody else has`);
}

/** For doctor. */
export const idReport = (state: State, machine: Pick<Machine, 'read'>): readonly IdReport[] => (['uid', 'gid'] as const).map((kind) => {
  const sum = (ranges: readonly Range[]): number => ranges.reduce((total, { size }) => total + size, 0);
  const { ranges, source } = idPool(machine, kind);
  const leases = state.ids.list(kind).filter(({ leased }) => leased);
  return { kind, source, ids: sum(ranges), leased: sum(leases), containers: new Set(leases.map(({ container }) => container)).size };
});

/** `work` chooses ids and claims them: once more when somebody else was faster. */
export async function withIds<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (!isIdConflict(error) || tries >= 20) throw error;
    }
  }
}
