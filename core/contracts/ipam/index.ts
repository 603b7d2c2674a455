import { type Driver } from '../common/index.ts';
import { type AddressPool } from '../network/records.ts';

/**
 * Which addresses there are. It says what may be given out, and in which order; the core writes down who has what (its leases), so that two never get the
 * same: all methods only read.
 *
 * Model: a *pool* is a subnet with a gateway; a *lease* is one address of it, held by an endpoint.
 */
export interface IpamDriver extends Driver {
  /**
   * **read** The pools of a new network: what was asked for, completed (a subnet where none was named, the gateway, an IPv6 pool when `ipv6`). A subnet that is not asked for
   * overlaps neither `taken` nor a route, an address or a resolver of this host as the kernel has them now.
   * Errors: ERR_INVALID_VALUE (malformed, gateway or range outside the subnet), ERR_SUBNET_TAKEN (names the network or route that is in the way), ERR_NO_ADDRESS (every default subnet is taken).
   */
  choosePools(request: PoolsRequest): readonly AddressPool[];
  /**
   * **read** Asked once the network is there: does one of these subnets overlap with a route that goes elsewhere than `link`? In words, with whom (two engines may have chosen
   * at the same time).
   */
  conflict(pools: readonly AddressPool[], link: string): string | undefined;
  /** **read** Addresses to try, in order, beginning after `last` and going round; never the network's own, broadcast, gateway or an auxiliary one. */
  candidates(pool: AddressPool, last?: string): Iterable<string>;
  /** **read** May this one be given out of the pool? Its canonical text. Errors: ERR_INVALID_VALUE says why not. */
  check(pool: AddressPool, address: string): string;
}
export interface PoolsRequest {
  /** As asked for; empty: the driver chooses. */
  readonly pools: readonly WishedPool[];
  readonly ipv6: boolean;
  /** Of other networks: subnet and name. */
  readonly taken: readonly { readonly subnet: string; readonly network: string }[];
  /** `engine-` + 8 hex digits: IPv6 subnets are derived from it. */
  readonly instance: string;
  readonly network: string;
}
/** `--subnet`, `--gateway`, `--ip-range`, `--aux-address`. */
export interface WishedPool { readonly subnet?: string; readonly gateway?: string; readonly range?: string; readonly auxiliary?: Readonly<Record<string, string>> }
