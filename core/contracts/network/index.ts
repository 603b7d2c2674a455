import { type Driver, type RunContext, type Steps } from '../common/index.ts';

/**
 * How a container is connected.
 *
 * Model: a *network* is what `--network` names; an *endpoint* is one container's place on it. Everything an endpoint needs is planned
 * before the run and dies with the netns, or is undone by the plan. `none` and `host` have no endpoint.
 * Features: `ports`, `addresses`, `names`, `own-netns` (a netns is made for the container), `shares` (joins another's).
 */
export interface NetworkDriver extends Driver {
  /** **read** Does this driver serve `--network <mode>` (`none`, `host`, `container:ID`, or a network's name)? */
  serves(mode: string): boolean;
  /** **read** What the network namespace is: a new one, the host's, or another container's (resolved by the core through `target`). */
  namespace(request: EndpointRequest): { readonly kind: 'new' | 'host' } | { readonly kind: 'container'; readonly container: string };
  /** **plan** Steps in `shim.links`, `shim.attach`, `init.netns`. `target`: the running container whose netns is joined, for `container:`. */
  planEndpoint(request: EndpointRequest, run: RunContext): Steps | Promise<Steps>;
}
export interface EndpointRequest {
  /** The text after `--network`. */
  readonly mode: string;
  readonly hostname: string;
  readonly ports: readonly PortMapping[];
  readonly options: Readonly<Record<string, string>>;
  /** For `container:`: init of the target, alive when it was read. */
  readonly target?: { readonly container: string; readonly pid: number; readonly startTime: bigint };
}
export interface PortMapping {
  readonly hostAddress?: string;
  readonly hostPort?: number;
  readonly containerPort: number;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
}
