import { forgiving, op, type Operation } from '@engine/core/plan';
import { NETLINK_NETFILTER } from '@engine/native/netlink';
import { elementMessages, nftBatch } from '@engine/native/nfnetlink';
import { type SetName } from './ruleset.ts';

/** An element of a set or map, as the kernel has it. */
export interface Element { readonly set: SetName; readonly key: Uint8Array; readonly data?: Uint8Array }

/** Deletes elements that may be missing: Linux 6.3. */
const NFT_MSG_DESTROYSETELEM = 0xa1e;
const TYPE_OFFSET = 4;

const bySet = (table: string, add: boolean, elements: readonly Element[]): Uint8Array[] =>
  [...Map.groupBy(elements, ({ set }) => set)].flatMap(([set, list]) => elementMessages({ table, set, add, elements: list }));
function destroying(table: string, elements: readonly Element[]): Uint8Array[] {
  const messages = bySet(table, false, elements);
  for (const message of messages) Buffer.from(message.buffer, message.byteOffset, message.length).writeUInt16LE(NFT_MSG_DESTROYSETELEM, TYPE_OFFSET);
  return messages;
}

/** One transaction that puts elements in. `instead` (see {@link isTolerant}): what is there with these keys gives way; else other data is EEXIST. */
export const addBatch = (table: string, elements: readonly Element[], instead: readonly Element[] = []): Uint8Array => nftBatch([...destroying(table, instead), ...bySet(table, true, elements)]);

/**
 * Operations that take elements out, there or not. A batch with an element that is missing is refused as a whole: with `tolerant` there is a message that does not mind,
 * without it each element needs a batch of its own.
 */
export function removeOperations(table: string, elements: readonly Element[], tolerant: boolean): readonly Operation[] {
  if (elements.length === 0) return [];
  const batches = tolerant ? [nftBatch(destroying(table, elements))] : elements.map((element) => nftBatch(bySet(table, false, [element])));
  return batches.map((messages) => forgiving(op.netlink({ protocol: NETLINK_NETFILTER, messages })));
}

/** Does the kernel know messages that destroy what may be missing? */
export const isTolerant = ([major, minor]: readonly [number, number]): boolean => major > 6 || (major === 6 && minor >= 3);
