import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { type TestEngine } from './engine.ts';

/** Of `inspect`, as Docker's API has it. */
export interface SeenEndpoint {
  readonly NetworkID: string;
  readonly IPAddress: string;
  readonly IPPrefixLen: number;
  readonly Gateway: string;
  readonly GlobalIPv6Address: string;
  readonly IPv6Gateway: string;
  readonly MacAddress: string;
  readonly Aliases: readonly string[] | null;
}
export interface SeenContainer {
  readonly Id: string;
  readonly State: { readonly Pid: number; readonly Status: string };
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, SeenEndpoint>>; readonly Ports: Readonly<Record<string, readonly { readonly HostIp: string; readonly HostPort: string }[] | null>> };
}
export interface SeenNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly Internal: boolean;
  readonly EnableIPv6: boolean;
  readonly IPAM: { readonly Config: readonly { readonly Subnet: string; readonly Gateway?: string; readonly IPRange?: string }[] };
  readonly Options: Readonly<Record<string, string>>;
  readonly Labels: Readonly<Record<string, string>>;
  readonly Containers: Readonly<Record<string, { readonly Name: string; readonly IPv4Address: string; readonly MacAddress: string }>>;
}

export async function inspect(engine: TestEngine, container: string): Promise<SeenContainer> {
  return (JSON.parse(await engine.ok('inspect', container)) as SeenContainer[])[0] as SeenContainer;
}
export async function inspectNetwork(engine: TestEngine, network: string): Promise<SeenNetwork> {
  return (JSON.parse(await engine.ok('network', 'inspect', network)) as SeenNetwork[])[0] as SeenNetwork;
}
export async function endpointOf(engine: TestEngine, container: string, network = 'bridge'): Promise<SeenEndpoint> {
  const endpoint = (await inspect(engine, container)).NetworkSettings.Networks[network];
  if (!endpoint) throw new Error(`${container} is not on ${network}`);
  return endpoint;
}
/** IPv4 address of a running container. */
export const addressOf = async (engine: TestEngine, container: string, network?: string): Promise<string> => (await endpointOf(engine, container, network)).IPAddress;
export const address6Of = async (engine: TestEngine, container: string, network?: string): Promise<string> => (await endpointOf(engine, container, network)).GlobalIPv6Address;

/** Where `-p HOST::CONTAINER` came out, the number alone. */
export async function portOf(engine: TestEngine, container: string, port: string): Promise<number> {
  return Number((await engine.ok('port', container, port)).split('\n')[0]?.split(':').at(-1));
}

/** Run a program of this machine in the network namespace of a container. */
export async function inNetworkOf(engine: TestEngine, container: string, ...argv: string[]): Promise<string> {
  const { Pid } = (await inspect(engine, container)).State;
  return (await promisify(execFile)('nsenter', [`--net=/proc/${Pid}/ns/net`, '--', ...argv], { encoding: 'utf8' })).stdout.trim();
}
/** Run `net` in a container; what it prints on either stream. */
export async function call(engine: TestEngine, container: string, protocol: 'tcp' | 'udp', address: string, port: number, ...text: string[]): Promise<string> {
  const { stdout, stderr } = await engine.run(['exec', container, 'net', 'call', protocol, address, String(port), ...text]);
  return (stdout + stderr).trim();
}
/** A container with servers in it; waits until they serve. */
export async function serve(engine: TestEngine, name: string, flags: readonly string[], ...specs: string[]): Promise<void> {
  await engine.ok('run', '-d', '--name', name, '-e', `NAME=${name}`, ...flags, 'net', 'net', 'serve', ...specs);
  for (let out = ''; !out.includes('ready'); out = await engine.ok('logs', name)) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Is this IPv4 address in this CIDR? */
export function contains(cidr: string, address: string): boolean {
  const number = (text: string): number => text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
  const [base = '', bits = '32'] = cidr.split('/');
  const size = 2 ** (32 - Number(bits));
  return Math.floor(number(base) / size) === Math.floor(number(address) / size);
}
