import { closeSync } from 'node:fs';
import { watchReadable } from './library.ts';
import { decodeAttributes, decodeMessages, NETLINK_NETFILTER, textOf } from './netlink-codec.ts';
import { ERRNO, joinGroup, netlinkDescriptor, netlinkError, receiveWhole, resizeBuffers } from './netlink-wire.ts';

const NFNLGRP_NFTABLES = 7;
const names: Readonly<Record<number, string>> = {
  0xa00: 'newtable', 0xa02: 'deltable', 0xa03: 'newchain', 0xa05: 'delchain', 0xa06: 'newrule', 0xa08: 'delrule', 0xa09: 'newset', 0xa0b: 'delset', 0xa0c: 'newelement', 0xa0e: 'delelement', 0xa0f: 'generation',
  0xa12: 'newobject', 0xa14: 'delobject', 0xa16: 'newflowtable', 0xa18: 'delflowtable',
};
const NFTA_TABLE_NAME = 1;
const NFTA_NAMES: Readonly<Record<string, number>> = { newchain: 3, delchain: 3, newset: 2, delset: 2, newelement: 2, delelement: 2, newrule: 2, delrule: 2 };

/**
 * A change of nftables, by anybody, after it was made. `generation` ends each transaction. `lost`: there were more than the socket holds; look at everything.
 * `table`, and `name` of the chain or set, where the kernel says them.
 */
export interface NftablesEvent { readonly kind: string; readonly table?: string; readonly name?: string; readonly family?: number }

/** Body of one message as an event; undefined for what is none. */
export function decodeNftablesEvent(type: number, body: Buffer): NftablesEvent | undefined {
  const kind = names[type];
  if (kind === undefined || body.length < 4) return undefined;
  if (kind === 'generation') return { kind };
  const found = decodeAttributes(body, 4);
  const table = textOf(found.get(NFTA_TABLE_NAME));
  const name = NFTA_NAMES[kind] === undefined ? undefined : textOf(found.get(NFTA_NAMES[kind]));
  return { kind, family: body.readUInt8(0), ...(table === undefined ? {} : { table }), ...(name === undefined ? {} : { name }) };
}

/**
 * Tell of every change of nftables in the net namespace of the calling thread, from the event loop and without a thread of its own. It keeps the process alive, until
 * `close`, after which nothing is told any more. `buffer`: bytes of changes that the kernel holds (8 MiB). Errors: ERR_NATIVE.
 */
export function watchNftables(onEvent: (event: NftablesEvent) => void, options: { readonly buffer?: number } = {}): { close(): void } {
  const fd = netlinkDescriptor(NETLINK_NETFILTER);
  try {
    joinGroup(fd, NFNLGRP_NFTABLES);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  resizeBuffers(fd, options.buffer);
  let open = true;
  const watch = watchReadable(fd, () => {
    while (open) {
      const got = receiveWhole(fd);
      if (got === undefined) return;
      if (typeof got === 'number') {
        // told once; what came since can be read
        if (got !== -ERRNO.ENOBUFS) throw netlinkError('read the changes of nftables', -got);
        onEvent({ kind: 'lost' });
        continue;
      }
      const events = decodeMessages(got).flatMap(({ type, body }) => decodeNftablesEvent(type, body) ?? []);
      for (const event of events) if (open) onEvent(event);
    }
  });
  return {
    close() {
      if (!open) return;
      open = false;
      watch.close();
      closeSync(fd);
    },
  };
}
