import { fail } from '@engine/core/errors';
import { type ContainerRequest } from '@engine/core/api';
import { type CompileFacts } from '@engine/core/hooks';

/**
 * What cannot be had together with the network of another container, or of the host. What the record of a network says is for the core. Errors:
 * ERR_INVALID_VALUE, in Docker's words.
 */
export function checkNetworkOptions(request: ContainerRequest, network: CompileFacts['network']): void {
  const refuse = (what: string, hint: string): Error => fail('ERR_INVALID_VALUE', `conflicting options: ${what}`, { operation: 'network', path: request.network, hint });
  const own = 'say it of the container whose network this is';
  const mac = request.endpoints?.some((wish) => wish.mac !== undefined);
  if (network !== 'new' && mac) throw refuse('mac-address and the network mode', network === 'host' ? 'leave out --mac-address' : own);
  if (network !== 'container') return;
  if ([request.dns, request.dnsSearch, request.dnsOptions].some((list) => list?.length)) throw refuse('dns and the network mode', own);
  if (request.addHosts.length > 0) throw refuse('custom host-to-IP mapping and the network mode', own);
  if (request.ports.length > 0 || request.publishAll) throw refuse('port publishing and the container type network mode', own);
  if (request.expose?.length) throw refuse('port exposing and the container type network mode', own);
}
