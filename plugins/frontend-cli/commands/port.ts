import { type BoundPort } from '@engine/core/contracts/network';
import { fail } from '@engine/core/errors';
import { command } from '../command.ts';
import { hostPortText, parsePort } from '../ports.ts';

const at = ({ hostAddress, hostPort }: BoundPort): string => hostPortText(hostAddress, hostPort);
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
const inOrder = (a: BoundPort, b: BoundPort): number =>
  a.containerPort - b.containerPort || compare(a.protocol, b.protocol) || compare(hostPortText(a.hostAddress, ''), hostPortText(b.hostAddress, '')) || a.hostPort - b.hostPort;

export const portCommand = command({
  name: 'port', usage: 'CONTAINER [PRIVATE_PORT[/PROTO]]', summary: 'list the published ports of a container', args: [1, 2], flags: {},
  async run(context, _flags, [ref = '', wanted]) {
    const asked = wanted === undefined ? undefined : parsePort('port', wanted);
    const { endpoints = [] } = await (await context.open()).containers.resolve(ref);
    const ports = endpoints.flatMap((endpoint) => endpoint.ports).sort(inOrder);
    if (!asked) {
      await context.print(ports.map((port) => `${port.containerPort}/${port.protocol} -> ${at(port)}\n`).join(''));
      return 0;
    }
    const found = ports.filter(({ containerPort, protocol }) => containerPort === asked.port && protocol === asked.protocol);
    if (found.length === 0) throw fail('ERR_NO_SUCH_PORT', `no public port '${wanted ?? ''}' published for ${ref}`, { path: ref, hint: `see: engine port ${ref}` });
    await context.print(found.map((port) => `${at(port)}\n`).join(''));
    return 0;
  },
});
