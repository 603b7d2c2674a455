import { forgiving, op, type Operation } from '@engine/core/plan';
import { attribute, encodeMessage, NETLINK_NETFILTER, NLA_F_NESTED, NLM_F } from '@engine/native/netlink-codec';
import { nfgenmsg, nftBatch, NFPROTO, NFT_MSG } from '@engine/native/nfnetlink';
import { type SetName } from './ruleset.ts';

/** An element of a set or map, as the kernel has it. */
export interface Element { readonly set: SetName; readonly key: Uint8Array; readonly data?: Uint8Array }

/** Deletes elements that may be missing: Linux 6.3. */
const NFT_MSG_DESTROYSETELEM = 0xa1e;
const NFTA_SET_ELEM_LIST = { TABLE: 1, SET: 2, ELEMENTS: 3 } as const;
const HEAD = 4;
const MOST_OF_A_LIST = 60_000;

/** Attributes with the types `types`, each nested in the one before, around `bytes`. */
function wrapped(into: Buffer, at: number, types: readonly number[], bytes: Uint8Array): number {
  let start = at;
  types.forEach((type, depth) => {
    into.writeUInt16LE((types.length - depth) * HEAD + bytes.length, start);
    into.writeUInt16LE(depth === types.length - 1 ? type : type | NLA_F_NESTED, start + 2);
    start += HEAD;
  });
  into.set(bytes, start);
  return start + bytes.length;
}
const NFTA_LIST_ELEM = 1;
const KEY = [1, 1] as const;
const DATA = [2, 1] as const;

/** Many elements, of one set and so of one size, written in one go: a thousand in a third of a millisecond. Keys and data are multiples of 4 bytes. */
function listOf(elements: readonly Element[], withData: boolean): Buffer {
  const size = ({ key, data }: Element): number => HEAD + 2 * HEAD + key.length + (withData && data ? 2 * HEAD + data.length : 0);
  const bytes = Buffer.allocUnsafe(elements.reduce((sum, element) => sum + size(element), 0));
  let at = 0;
  for (const element of elements) {
    bytes.writeUInt16LE(size(element), at);
    bytes.writeUInt16LE(NFTA_LIST_ELEM | NLA_F_NESTED, at + 2);
    at = wrapped(bytes, at + HEAD, KEY, element.key);
    if (withData && element.data) at = wrapped(bytes, at, DATA, element.data);
  }
  return bytes;
}

function messagesFor(table: string, type: number, elements: readonly Element[]): Uint8Array[] {
  const adds = type === NFT_MSG.NEWSETELEM;
  return [...Map.groupBy(elements, ({ set }) => set)].flatMap(([set, list]) => {
    const [first] = list;
    const most = Math.floor(MOST_OF_A_LIST / (5 * HEAD + (first?.key.length ?? 0) + (first?.data?.length ?? 0)));
    return Array.from({ length: Math.ceil(list.length / most) }, (_, i) => encodeMessage(type, adds ? NLM_F.CREATE : 0, nfgenmsg(NFPROTO.inet), [
      attribute(NFTA_SET_ELEM_LIST.TABLE, table), attribute(NFTA_SET_ELEM_LIST.SET, set),
      attribute(NFTA_SET_ELEM_LIST.ELEMENTS | NLA_F_NESTED, listOf(list.slice(i * most, (i + 1) * most), adds)),
    ]));
  });
}
const destroying = (table: string, elements: readonly Element[]): Uint8Array[] => messagesFor(table, NFT_MSG_DESTROYSETELEM, elements);

/** One transaction that puts elements in. `instead` (see {@link isTolerant}): what is there with these keys gives way; else other data is EEXIST. */
export const addBatch = (table: string, elements: readonly Element[], instead: readonly Element[] = []): Uint8Array => nftBatch([...destroying(table, instead), ...messagesFor(table, NFT_MSG.NEWSETELEM, elements)]);

/**
 * Operations that take elements out, there or not. A batch with an element that is missing is refused as a whole: with `tolerant` there is a message that does not mind,
 * without it each element needs a batch of its own.
 */
export function removeOperations(table: string, elements: readonly Element[], tolerant: boolean): readonly Operation[] {
  if (elements.length === 0) return [];
  const batches = tolerant ? [nftBatch(destroying(table, elements))] : elements.map((element) => nftBatch(messagesFor(table, NFT_MSG.DELSETELEM, [element])));
  return batches.map((messages) => forgiving(op.netlink({ protocol: NETLINK_NETFILTER, messages })));
}

/** Does the kernel know messages that destroy what may be missing? */
export const isTolerant = ([major, minor]: readonly [number, number]): boolean => major > 6 || (major === 6 && minor >= 3);
