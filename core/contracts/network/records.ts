/** Which driver made an object, with the plugin's version and the digest of its options; later verbs use this, never the caller's config. */
export interface DriverChoice { driver: string; plugin: string; version: string; options: string }

/** A range of addresses. `subnet` and `range` as CIDR (`10.208.0.0/20`); `auxiliary`: addresses that others have, by name. */
export interface AddressPool {
  readonly family: 4 | 6;
  readonly subnet: string;
  readonly gateway: string;
  /** Only from here addresses are given out; the whole subnet when absent. */
  readonly range?: string;
  readonly auxiliary?: Readonly<Record<string, string>>;
}

/** A network, as kept. Plain data. */
export interface NetworkRecord {
  /** 64 hex digits. */
  id: string;
  name: string;
  created: string;
  labels: Record<string, string>;
  /** No way out, and none in. */
  internal: boolean;
  ipv6: boolean;
  /** The engine's own default network: without names (DNS), as Docker's `bridge`. */
  predefined: boolean;
  /** `--opt`, as asked for. */
  options: Record<string, string>;
  pools: AddressPool[];
  /** Of the network's driver, see ManagedNetworks.design. */
  settings: Readonly<Record<string, unknown>>;
  drivers: { network: DriverChoice; ipam: DriverChoice; firewall: DriverChoice; dns?: DriverChoice };
}

/** What a container wants of a network: kept with it. `network`: its id (a name before it is resolved). */
export interface EndpointWish {
  network: string;
  /** Names besides those it has anyway. */
  aliases: string[];
  ip?: string;
  ip6?: string;
  mac?: string;
  options?: Record<string, string>;
}

/** A port that is really published: one address, one number. `hostAddress` `0.0.0.0` and `::` are all of their family. */
export interface BoundPort {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly containerPort: number;
}

/** A container's place on a network, during one run. Plain data. */
export interface Endpoint {
  readonly container: string;
  /** 16 hex digits. */
  readonly run: string;
  /** The network's id. */
  readonly network: string;
  /** Inside: `eth0`. */
  readonly interface: string;
  /** On the host: `v0-` and the first 12 digits of the run's id. */
  readonly link: string;
  /** `02:42:0a:d0:00:02` */
  readonly mac: string;
  readonly addresses: readonly EndpointAddress[];
  /** The default route goes here. */
  readonly isDefault: boolean;
  /** Names on this network, without the container's own name and id. */
  readonly aliases: readonly string[];
  /** What is published, on the endpoint that has the default route. */
  readonly ports: readonly BoundPort[];
  readonly options: Readonly<Record<string, string>>;
}
/** `gateway` is absent on an internal network's endpoint that must not route. */
export interface EndpointAddress { readonly family: 4 | 6; readonly address: string; readonly prefix: number; readonly gateway?: string }
