import { fail } from '../errors/index.ts';
import { errno } from './fake-entries.ts';

export type PortProtocol = 'tcp' | 'udp' | 'sctp';
const names: Readonly<Record<number, PortProtocol>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };

interface Taken { readonly protocol: PortProtocol; readonly address: string; readonly port: number; readonly holder: string | undefined; readonly owner: object }

/** One text for an address, enough to compare those of tests: `::` and `0:0:…:0` are the same. */
function plain(address: string): string {
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.toLowerCase().split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':').map((group) => group.replace(/^0+(?=.)/, '')));
  if (tail === undefined) return groups(head).join(':');
  const missing = 8 - groups(head).length - groups(tail).length;
  return [...groups(head), ...Array<string>(Math.max(0, missing)).fill('0'), ...groups(tail)].join(':');
}
const isWildcard = (address: string): boolean => /^[0.:]+$/.test(address);
const textOf = (bytes: Uint8Array): string => (bytes.length === 4 ? bytes.join('.') : Array.from({ length: 8 }, (_, i) => (((bytes[2 * i] as number) << 8) | (bytes[2 * i + 1] as number)).toString(16)).join(':'));

/** The ports of a fake machine: those that a test has taken, and those that shims hold. */
export class FakePorts {
  readonly #taken = new Set<Taken>();

  /** Who has it; undefined: nobody. */
  find(protocol: PortProtocol, address: string, port: number): Taken | undefined {
    const wanted = plain(address);
    return [...this.#taken].find((taken) => taken.protocol === protocol && taken.port === port && taken.address.includes(':') === wanted.includes(':') &&
      (taken.address === wanted || isWildcard(wanted) || isWildcard(taken.address)));
  }
  /** Errors: EADDRINUSE. */
  take(protocol: PortProtocol, address: string, port: number, owner: object, holder?: string): void {
    if (this.find(protocol, address, port)) throw errno('EADDRINUSE', `${protocol} ${address.includes(':') ? `[${address}]` : address}:${port}`);
    this.#taken.add({ protocol, address: plain(address), port, holder, owner });
  }
  /** The operation holdPort. */
  hold(args: Readonly<Record<string, unknown>>, owner: object): void {
    const protocol = names[Number(args['protocol'])];
    const address = args['address'] as Uint8Array;
    if (!protocol || (address.length !== 4 && address.length !== 16)) throw fail('ERR_INTERNAL', 'holdPort with an unknown protocol or address');
    const text = textOf(address);
    this.take(protocol, address.every((byte) => byte === 0) && address.length === 16 ? '::' : text, Number(args['port']), owner, 'engine-shim');
  }
  /** All that `owner` holds. */
  free(owner: object): void {
    for (const taken of this.#taken) if (taken.owner === owner) this.#taken.delete(taken);
  }
}
