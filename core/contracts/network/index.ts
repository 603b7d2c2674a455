import { type Effect } from '../../plan/types.ts';
import { type Driver, type RunContext, type Steps } from '../common/index.ts';
import { type FirewallNetwork } from '../firewall/index.ts';
import { type Endpoint, type NetworkRecord } from './records.ts';

export * from './records.ts';

/**
 * How a container is connected.
 *
 * Model: a *network* is what `--network` names; an *endpoint* is one container's place on it. Some modes are no networks (`none`, `host`,
 * `container:ID`): a driver serves them by name. Networks that are made and kept in a record (`bridge` and its like) are served by the
 * driver that made them, through {@link ManagedNetworks}. All that an endpoint needs is planned before the run, and dies with the netns or
 * is undone by the plan.
 * Features: `networks` (has `managed`), `own-netns` (a netns is made for the container), `shares` (joins another's).
 */
export interface NetworkDriver extends Driver {
  /** **read** Does this driver serve the mode `--network <mode>` (`none`, `host`, `container:ID`)? Networks with a record are not asked about. */
  serves(mode: string): boolean;
  /** **read** What the network namespace is: a new one, the host's, or another container's (resolved by the core through `target`). */
  namespace(request: EndpointRequest): { readonly kind: 'new' | 'host' } | { readonly kind: 'container'; readonly container: string };
  /**
   * **plan** Once per run, before its endpoints: what the namespace itself needs (lo up). Steps in `shim.namespaces`, `shim.links`,
   * `init.netns`. `target`: the running container whose netns is joined, for `container:`.
   */
  planEndpoint(request: EndpointRequest, run: RunContext): Steps | Promise<Steps>;
  /** With feature `networks`. */
  readonly managed?: ManagedNetworks;
}
export interface EndpointRequest {
  /** The text after `--network`. */
  readonly mode: string;
  readonly hostname: string;
  readonly ports: readonly PortMapping[];
  readonly options: Readonly<Record<string, string>>;
  /** For `container:`: init of the target, alive when it was read. */
  readonly target?: { readonly container: string; readonly pid: number; readonly startTime: bigint };
  /** Who joins a namespace that is not the container's own: `stage` in a user namespace, where init may not; default `init`. */
  readonly join?: 'init' | 'stage';
}
/** As asked for with -p. No `hostAddress`: every address of the host, IPv4 and IPv6; no `hostPort`: any that is free. */
export interface PortMapping {
  readonly hostAddress?: string;
  readonly hostPort?: number;
  /** With `hostPort`: the first that is free from there to here. */
  readonly hostPortEnd?: number;
  readonly containerPort: number;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
}

/**
 * Networks that are made, have an address range, and keep a record.
 *
 * Lifecycle: `design` once, when it is made; `ensure` then, and before every start on it (a reboot, or somebody, may have taken it away);
 * `planAttach` per endpoint and run; `connect`/`disconnect` for containers that run; `remove` when it goes.
 * Example: see plugins/network-bridge.
 */
export interface ManagedNetworks {
  /** **read** Settings of a new network out of what was asked for: plain JSON, kept as `NetworkRecord.settings`. Errors: ERR_INVALID_VALUE names an unknown or wrong option. */
  design(request: NetworkDesign): Readonly<Record<string, unknown>>;
  /** **act** What of the network is not there now; nothing when all is. Asked before every start: must not take more than microseconds then. Undo: back to what was there. */
  ensure(network: NetworkRecord): readonly Effect[] | Promise<readonly Effect[]>;
  /** **act** Take it away; what is gone already is success. */
  remove(network: NetworkRecord): readonly Effect[] | Promise<readonly Effect[]>;
  /**
   * **plan** One endpoint of a run, in slots `shim.attach` (init waits until these are done) and `init.netns`. The register REGISTER.init holds
   * init's pid in the shim. Must not read anything about the container but what it is given.
   */
  planAttach(endpoint: Endpoint, network: NetworkRecord, run: RunContext): Steps;
  /** **act** The same for a container that runs. Undo: as before. Errors: EEXIST and the like, from the kernel. */
  connect(endpoint: Endpoint, network: NetworkRecord, target: NetworkTarget): readonly Effect[];
  /** **act** The reverse; of a missing link success. */
  disconnect(endpoint: Endpoint, network: NetworkRecord): readonly Effect[];
  /** **act** The endpoint that had the default route is gone: this one of a running container has it from now on. */
  promote?(endpoint: Endpoint, network: NetworkRecord, target: NetworkTarget): readonly Effect[];
  /** **read** What interfaces inside are called, before their number: at most 12 characters; `eth` without it. */
  interfacePrefix?(network: NetworkRecord): string | undefined;
  /** **read** Is the host's side of this endpoint gone? Only then its addresses are free. Microseconds. */
  isGone(endpoint: Endpoint): boolean;
  /** **read** What a firewall has to know of it. */
  firewalled(network: NetworkRecord): FirewallNetwork;
  /**
   * **read** Byte strings in which the plans of two endpoints on one network differ besides text (see core/lifecycle/shapes.ts): in one order, and of the same
   * lengths where plans can be exchanged. Each must be long enough to occur nowhere by chance (8 bytes). Without it every plan is made in full.
   */
  tokens?(endpoint: Endpoint): readonly Uint8Array[];
}
export interface NetworkDesign {
  /** 64 hex digits. */
  readonly id: string;
  readonly name: string;
  /** The engine's own default network. */
  readonly predefined: boolean;
  readonly internal: boolean;
  readonly ipv6: boolean;
  /** `--opt`. */
  readonly options: Readonly<Record<string, string>>;
}
/** init of a running container; a pid alone may have been given to another process since. */
export interface NetworkTarget { readonly container: string; readonly run: string; readonly pid: number; readonly startTime: bigint }
