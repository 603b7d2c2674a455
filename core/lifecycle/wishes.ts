import { isIP } from 'node:net';
import { fail } from '../errors/index.ts';
import { type ContainerRequest, type EndpointWish } from '../api/index.ts';
import { type NetworkRecord } from '../contracts/network/index.ts';
import { type Core } from './core.ts';

/** A network by name or id; undefined: it is a mode, or nothing. */
export function findNetwork({ parts: { state }, designed }: Core, ref: string): NetworkRecord | undefined {
  const drawn = [...designed.values()].find(({ name, id }) => name === ref || id === ref);
  return state.networks.get(ref) ?? state.networks.byName(ref) ?? drawn ?? (/^[0-9a-f]{4,}$/.test(ref) && state.networks.list().some(({ id }) => id.startsWith(ref)) ? state.networks.resolve(ref) : undefined);
}

const asksForMore = (wish: EndpointWish): boolean => wish.aliases.length > 0 || [wish.ip, wish.ip6, wish.mac].some((w) => w !== undefined);

/** What a wish may ask of a network. Errors: ERR_INVALID_VALUE, in Docker's words. */
export function checkWish(wish: EndpointWish, { predefined, pools, name }: NetworkRecord): void {
  const refuse = (text: string, operation: string): never => { throw fail('ERR_INVALID_VALUE', text, { operation, path: name }); };
  if (predefined && (wish.ip ?? wish.ip6) !== undefined) refuse('user specified IP address is supported on user defined networks only', 'ip');
  if (predefined && wish.aliases.length > 0) refuse('network-scoped alias is supported only for containers in user defined networks', 'network-alias');
  for (const [address, family, flag] of [[wish.ip, 4, 'ip'], [wish.ip6, 6, 'ip6']] as const) {
    if (address === undefined) continue;
    if (isIP(address) !== family) refuse(`invalid IPv${family} address: ${address}`, flag);
    if (!pools.some((pool) => pool.family === family)) refuse(`network ${name} has no IPv${family} addresses`, flag);
  }
  const [first = '', ...rest] = wish.mac?.split(':') ?? [];
  if (wish.mac !== undefined && (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(wish.mac) || Number.parseInt(first, 16) & 1 || [first, ...rest].every((b) => b === '00'))) refuse(`${wish.mac} is not a valid mac address`, 'mac-address');
  for (const alias of wish.aliases) if (!/^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?$/.test(alias)) refuse(`invalid network alias: ${JSON.stringify(alias)}`, 'network-alias');
}

/** The networks of a request, by their ids; none with a mode such as `none`. Errors: ERR_NO_SUCH_NETWORK, ERR_INVALID_VALUE. */
export function wishesOf(core: Core, request: ContainerRequest): EndpointWish[] {
  const asked = request.endpoints?.length ? request.endpoints : [{ network: request.network, aliases: [] }];
  const found = asked.map((wish) => ({ wish, network: findNetwork(core, wish.network) }));
  const [first] = found;
  if (!first?.network) {
    if (found.length > 1) throw fail('ERR_INVALID_VALUE', `conflicting options: cannot attach both user-defined and non-user-defined network-modes`, { operation: 'network', path: request.network });
    if (first && asksForMore(first.wish)) throw fail('ERR_INVALID_VALUE', `network ${request.network} has no addresses and no names to choose`, { operation: 'network', path: request.network });
    return [];
  }
  return found.map(({ wish, network }, i) => {
    if (!network) throw fail('ERR_NO_SUCH_NETWORK', `network ${wish.network} not found`, { path: wish.network, hint: 'see: engine network ls' });
    if (found.findIndex((other) => other.network?.id === network.id) !== i) throw fail('ERR_INVALID_VALUE', `network ${network.name} is specified multiple times`, { operation: 'network', path: network.name });
    checkWish(wish, network);
    return { ...wish, network: network.id, ...(wish.mac === undefined ? {} : { mac: wish.mac.toLowerCase() }) };
  });
}
