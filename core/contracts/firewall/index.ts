import { type Effect } from '../../plan/types.ts';
import { type Driver, type RunContext, type Steps } from '../common/index.ts';
import { type BoundPort, type Endpoint } from '../network/records.ts';

/**
 * Who may talk with whom, and how published ports reach containers.
 *
 * Model: networks are kept apart from each other; what comes from outside reaches a container only by a published port; what goes out is masqueraded. A published
 * port is a *binding*: protocol, host address, host port → container address, container port. The core holds the port itself (operation holdPort: bound on the host for the life of
 * the run, and relays what reaches that socket), so that a firewall is what keeps the client's address and the speed, and not what makes ports work at all.
 * Features: `ports` (bindings by NAT, the client's address is kept), `restore` (rules that vanish are put back).
 */
export interface FirewallDriver extends Driver {
  /** **act** What is missing of the rules of a network (foreign chains that would drop its traffic included); nothing when all is there. Asked before every start: microseconds then. */
  ensure(network: FirewallNetwork): readonly Effect[] | Promise<readonly Effect[]>;
  /** **act** Take them away; what is gone already is success. The last network takes all that is this engine's. */
  remove(network: FirewallNetwork): readonly Effect[] | Promise<readonly Effect[]>;
  /** **plan** The bindings of an endpoint of a run (`endpoint.ports`, not empty), in slots `shim.links` and `shim.attach`; each with its undo. */
  planPorts(endpoint: Endpoint, network: FirewallNetwork, run: RunContext): Steps;
  /** **read** As ManagedNetworks.tokens, for what planPorts makes of an endpoint with ports. */
  tokens?(endpoint: Endpoint): readonly Uint8Array[];
  /** **read** Why, or why not, this binding can be reached: by whom, by which rule; one line each, as the kernel has the rules now. */
  why(binding: BoundPort, endpoint: Endpoint, network: FirewallNetwork): readonly string[] | Promise<readonly string[]>;
}

/** A network, as far as a firewall cares. Plain data. */
export interface FirewallNetwork {
  readonly id: string;
  readonly name: string;
  /** The host's interface of the network, `br-0123456789ab`. */
  readonly link: string;
  /** CIDR, both families. */
  readonly subnets: readonly string[];
  readonly gateways: readonly string[];
  readonly internal: boolean;
  /** Containers on it may talk with each other. */
  readonly icc: boolean;
  /** False: it may exchange traffic with other networks that are not isolated either. */
  readonly isolated: boolean;
  readonly masquerade: boolean;
  /** The gateway answers names (port 53). */
  readonly dns: boolean;
}
