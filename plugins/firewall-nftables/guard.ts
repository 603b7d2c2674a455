import { attribute, be32, encodeMessage, NETLINK_NETFILTER, NLM_F, type Attribute } from '@engine/native/netlink-codec';
import { openNetlink } from '@engine/native/netlink-socket';
import { nfgenmsg, nftBatch, NFPROTO, NFT_MSG } from '@engine/native/nfnetlink';

const NFT_TABLE_F_OWNER = 2;
const NFT_MSG_NEWRULE = 0xa06;
const NFTA_TABLE = { NAME: 1, FLAGS: 2 } as const;
const NFTA_CHAIN = { TABLE: 1, NAME: 3, HOOK: 4, TYPE: 7 } as const;
const NFTA_HOOK = { NUMBER: 1, PRIORITY: 2 } as const;
const NFTA_RULE = { TABLE: 1, CHAIN: 2, EXPRESSIONS: 4 } as const;
const NFTA_LIST_ELEM = 1;
const NFTA_EXPR = { NAME: 1, DATA: 2 } as const;
const NFTA_CT = { DREG: 1, KEY: 2 } as const;
const NFTA_BITWISE = { SREG: 1, DREG: 2, LEN: 3, MASK: 4, XOR: 5 } as const;
const NFTA_CMP = { SREG: 1, OP: 2, DATA: 3 } as const;
const NFTA_DATA_VALUE = 1;
const NFT_CT_STATE = 0;
const NFT_CMP_NEQ = 1;
const NFT_REG_1 = 1;
const STATE_INVALID = 1;
const HOOKS = { prerouting: 0, input: 1, output: 3, postrouting: 4 } as const;

export const guardTable = (instance: string): string => `${instance}-guard`;

const expression = (name: string, ...data: Attribute[]): Attribute => attribute(NFTA_LIST_ELEM, [attribute(NFTA_EXPR.NAME, name), attribute(NFTA_EXPR.DATA, data)]);
/** A number in the byte order of the machine, as registers have it. */
const value = (type: number, number: number): Attribute => attribute(type, [attribute(NFTA_DATA_VALUE, number)]);

/** The guard table in one batch: a nat chain without verdict on each hook, and a rule that reads the state of a connection. */
export function guardBatch(instance: string): Uint8Array {
  const table = guardTable(instance);
  const message = (type: number, attributes: readonly Attribute[]): Uint8Array => encodeMessage(type, NLM_F.CREATE | NLM_F.APPEND, nfgenmsg(NFPROTO.inet), attributes);
  return nftBatch([
    message(NFT_MSG.NEWTABLE, [attribute(NFTA_TABLE.NAME, table), attribute(NFTA_TABLE.FLAGS, be32(NFT_TABLE_F_OWNER))]),
    ...Object.entries(HOOKS).map(([name, number]) => message(NFT_MSG.NEWCHAIN, [
      attribute(NFTA_CHAIN.TABLE, table), attribute(NFTA_CHAIN.NAME, name), attribute(NFTA_CHAIN.TYPE, 'nat'),
      attribute(NFTA_CHAIN.HOOK, [attribute(NFTA_HOOK.NUMBER, be32(number)), attribute(NFTA_HOOK.PRIORITY, be32(0))]),
    ])),
    message(NFT_MSG_NEWRULE, [
      attribute(NFTA_RULE.TABLE, table), attribute(NFTA_RULE.CHAIN, 'prerouting'),
      // `ct state invalid`, in full: `nft list` has no words for a rule that only loads something
      attribute(NFTA_RULE.EXPRESSIONS, [
        expression('ct', attribute(NFTA_CT.DREG, be32(NFT_REG_1)), attribute(NFTA_CT.KEY, be32(NFT_CT_STATE))),
        expression('bitwise', attribute(NFTA_BITWISE.SREG, be32(NFT_REG_1)), attribute(NFTA_BITWISE.DREG, be32(NFT_REG_1)), attribute(NFTA_BITWISE.LEN, be32(4)), value(NFTA_BITWISE.MASK, STATE_INVALID), value(NFTA_BITWISE.XOR, 0)),
        expression('cmp', attribute(NFTA_CMP.SREG, be32(NFT_REG_1)), attribute(NFTA_CMP.OP, be32(NFT_CMP_NEQ)), value(NFTA_CMP.DATA, 0)),
      ]),
    ]),
  ]);
}

/**
 * A table that belongs to a socket of this process (`flags owner`, Linux 5.12): `nft flush ruleset` leaves it alone, and it goes when the socket is closed. While it is there,
 * connection tracking and NAT stay hooked, so that what is established goes on until the rules are back: without it the kernel answers with RST in the gap.
 * Errors: ERR_NATIVE (EPERM: there is one already, of another process).
 */
export function holdGuard(instance: string): { close(): void } {
  const socket = openNetlink(NETLINK_NETFILTER);
  try {
    socket.request(guardBatch(instance));
  } catch (error) {
    socket.close();
    throw error;
  }
  return socket;
}
