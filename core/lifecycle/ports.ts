import { randomInt } from 'node:crypto';
import { fail, isEngineError } from '../errors/index.ts';
import { addressBytes, type Steps } from '../contracts/common/index.ts';
import { op, step } from '../plan/index.ts';
import { type BoundPort, type Endpoint, type PortMapping } from '../contracts/network/index.ts';
import { type Core } from './core.ts';
import { publisher, type Connected } from './endpoints.ts';

/** Dynamic ports (RFC 6335): above those that Linux gives to connections by itself, up to 60999, there are fewer. */
const RANDOM = { from: 49153, to: 65535 } as const;

/** `80`, `80/udp`, `8000-8010/tcp`. Errors: ERR_INVALID_VALUE. */
export function parseExposed(text: string): { readonly containerPort: number; readonly protocol: PortMapping['protocol'] }[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/.exec(text.toLowerCase());
  const [from, to] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
  if (!match || from < 1 || to > 65535 || to < from) throw fail('ERR_INVALID_VALUE', `invalid containerPort: ${text}`, { operation: 'expose', path: text });
  const protocol = (match[3] ?? 'tcp') as PortMapping['protocol'];
  return Array.from({ length: to - from + 1 }, (_, i) => ({ containerPort: from + i, protocol }));
}

/** What is to be published, with -P. */
export function wantedPorts({ request, imageConfig }: Pick<Connected, 'request' | 'imageConfig'>): readonly PortMapping[] {
  if (!request.publishAll) return request.ports;
  const asked = new Set(request.ports.map((p) => `${p.containerPort}/${p.protocol}`));
  const exposed = [...(request.expose ?? []), ...Object.keys(imageConfig.ExposedPorts ?? {})].flatMap(parseExposed);
  const more = new Map(exposed.map((p) => [`${p.containerPort}/${p.protocol}`, p]));
  return [...request.ports, ...[...more].filter(([key]) => !asked.has(key)).map(([, p]) => p)];
}

const PROTOCOL = { tcp: 6, udp: 17, sctp: 132 } as const;
/** The ports themselves are held by the shim, whatever the firewall does: nobody else gets them, and what reaches the socket is relayed. */
export function holdPorts({ ports, addresses }: Endpoint): Steps {
  const inside = (family: 4 | 6): Uint8Array | undefined => {
    const found = addresses.find((a) => a.family === family)?.address;
    return found === undefined ? undefined : addressBytes(found);
  };
  return ports.map(({ protocol, hostAddress, hostPort, containerPort }) => {
    const address = addressBytes(hostAddress);
    const to = inside(address.length === 16 ? 6 : 4) ?? inside(4) ?? inside(6);
    return step('shim.links', op.holdPort({ protocol: PROTOCOL[protocol], address, port: hostPort, ...(to && { to, toPort: containerPort }) }));
  });
}

/** Where these operations have the container's address: with its length before it, as bytes are encoded. */
export const heldTokens = (endpoint: Endpoint): readonly Uint8Array[] => (endpoint.ports.length === 0 ? [] : endpoint.addresses.map(({ address }) => {
  const bytes = addressBytes(address);
  return Buffer.concat([Uint8Array.of(bytes.length, 0, 0, 0), bytes]);
}));

const isWild = (address: string): boolean => address === '0.0.0.0' || address === '::';
/** Can the host give only one of them? */
export const collides = (a: Omit<BoundPort, 'containerPort'>, b: Omit<BoundPort, 'containerPort'>): boolean => a.protocol === b.protocol && a.hostPort === b.hostPort
  && (a.hostAddress === b.hostAddress || ((isWild(a.hostAddress) || isWild(b.hostAddress)) && a.hostAddress.includes(':') === b.hostAddress.includes(':')));

/** Both families, where the host has both. */
const everywhere = (core: Core): readonly string[] => (core.parts.machine.read('/proc/net/if_inet6') === undefined ? ['0.0.0.0'] : ['0.0.0.0', '::']);

/** Errors: ERR_PORT_TAKEN names who has it. */
async function refuseTaken(core: Core, port: BoundPort): Promise<void> {
  const { protocol, hostAddress, hostPort } = port;
  const { native } = core.parts;
  // a kernel without SCTP sockets translates it all the same: then only what is written down says who has a port
  if (protocol !== 'sctp' && native.isPortFree(protocol, hostAddress, hostPort)) return;
  const ours = await publisher(core, port);
  // the one that has it may have ended while it was asked about
  if ((protocol !== 'sctp' || !ours) && native.isPortFree(protocol, hostAddress, hostPort)) return;
  const holder = ours ? `container ${ours.name}` : native.portHolder(protocol, hostAddress, hostPort);
  const at = hostAddress.includes(':') ? `[${hostAddress}]` : hostAddress;
  throw fail('ERR_PORT_TAKEN', `port ${at}:${hostPort}/${protocol} is already allocated${holder ? `: ${holder} has it` : ''}`, { operation: 'publish', path: `${at}:${hostPort}/${protocol}`, errno: 'EADDRINUSE' });
}

/** The shim could not bind a port that was free a moment ago: then it is told who has it now. With the run undone. */
export async function whoTook(core: Core, error: unknown, endpoints: readonly Endpoint[]): Promise<unknown> {
  if (!isEngineError(error) || error.operation !== 'holdPort' || error.errno !== 'EADDRINUSE') return error;
  try {
    for (const port of endpoints.flatMap(({ ports }) => ports)) await refuseTaken(core, port);
    return error;
  } catch (taken) {
    return taken;
  }
}

/**
 * Real ports for what is wished: each is free at this moment; the shim, which binds them, has the last word. `explain`: nothing is tried, ports that are not named are 0.
 * Errors: ERR_PORT_TAKEN.
 */
export async function choosePorts(core: Core, container: Connected, { explain = false } = {}): Promise<readonly BoundPort[]> {
  const bound: BoundPort[] = [];
  const has = (port: BoundPort, among: readonly BoundPort[] = bound): boolean => among.some((one) => collides(one, port));
  for (const { protocol, containerPort, hostAddress, hostPort, hostPortEnd = hostPort } of wantedPorts(container)) {
    const addresses = hostAddress === undefined || hostAddress === '' ? everywhere(core) : [hostAddress];
    const at = (port: number): BoundPort[] => addresses.map((address) => ({ protocol, hostAddress: address, hostPort: port, containerPort }));
    if (explain) bound.push(...at(hostPort ?? 0));
    else if (hostPort && hostPort === hostPortEnd) {
      for (const port of at(hostPort)) {
        if (has(port)) throw fail('ERR_INVALID_VALUE', `port ${hostPort}/${protocol} is published twice`, { operation: 'publish' });
        await refuseTaken(core, port);
        bound.push(port);
      }
    } else {
      // of a range that was named the first, of all others any
      const { from, to } = hostPort && hostPortEnd ? { from: hostPort, to: hostPortEnd } : RANDOM;
      const count = to - from + 1;
      const first = hostPort ? 0 : randomInt(count);
      // others that start just now bind theirs in a moment; of all ports there are, nobody else draws the same
      const claimed = hostPort ? core.parts.state.endpoints.list().flatMap((endpoint) => endpoint.ports) : [];
      const isFree = (port: BoundPort): boolean => !has(port) && !has(port, claimed) && core.parts.native.isPortFree(protocol, port.hostAddress, port.hostPort);
      let found: BoundPort[] | undefined;
      for (let i = 0; i < count && !found; i++) {
        const tried = at(from + ((first + i) % count));
        if (tried.every(isFree)) found = tried;
      }
      if (!found) throw fail('ERR_PORT_TAKEN', `no port of ${from}-${to}/${protocol} is free`, { operation: 'publish' });
      bound.push(...found);
    }
  }
  return bound;
}
