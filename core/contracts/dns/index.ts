import { type Effect } from '../../plan/types.ts';
import { type Driver, type RunContext, type Steps } from '../common/index.ts';
import { type NetworkRecord } from '../network/records.ts';

/**
 * Names of containers on networks that are made by users.
 *
 * Model: a container has, on each network, its name, its short id and its aliases; who asks hears of the networks it is on itself. Other names are asked of the host's resolvers.
 * The names of a container are one file, written by the plan of its run and taken away by its undo; a service (see PluginManifest.service) answers by these files, so that it can
 * be started again at any time.
 */
export interface DnsDriver extends Driver {
  /** **read** Name servers for containers on this network; empty: those of the host. */
  resolvers(network: NetworkRecord): readonly string[];
  /** **act** What the service has to know of a network; nothing when it is known. Asked before every start. */
  ensure(network: NetworkRecord): readonly Effect[];
  /** **act** The reverse. */
  remove(network: NetworkRecord): readonly Effect[];
  /** **plan** In slot `shim.links`, with its undo. */
  planNames(names: ContainerNames, run: RunContext): Steps;
  /** **act** What is known of a running container has changed (connect, disconnect, rename). Undo: `before`. */
  change(names: ContainerNames, before: ContainerNames): readonly Effect[];
}
export interface ContainerNames {
  readonly container: string;
  /** `dns` of the container's request: asked for other names instead of the host's resolvers. */
  readonly servers: readonly string[];
  /** `name` is what PTR answers with. Only networks with names. */
  readonly endpoints: readonly { readonly network: string; readonly name: string; readonly names: readonly string[]; readonly addresses: readonly string[] }[];
}
