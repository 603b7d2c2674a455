import { type DriverDeps } from '@engine/core/contracts/common';
import { addressKey } from './address.ts';
import { decide } from './answer.ts';
import { type Forwarder } from './forward.ts';
import { parseUpstreams, type Upstream } from './resolvers.ts';
import { RCODE, readQuestion, writeAnswer } from './wire.ts';
import { type Zone } from './zone.ts';

/** Who sent a packet, and by which network's gateway. */
export interface Client {
  readonly network: string;
  readonly address: string;
  readonly transport: 'udp' | 'tcp';
}
export interface ResolverOptions {
  readonly zone: Zone;
  readonly forwarder: Forwarder;
  /** Name servers for who has none of its own. */
  readonly upstreams: () => readonly Upstream[];
  /** See Store; asked before every answer. */
  readonly refresh: () => void;
  /** Is it an address on which we answer, so that it is the host that asks from it? */
  readonly isOwn: (key: string) => boolean;
  readonly log: Pick<DriverDeps['log'], 'debug'>;
}
/** What is said to a packet; undefined: nothing. Never rejects, whatever the packet is. */
export type Resolver = (packet: Buffer, client: Client) => Promise<Buffer | undefined>;

export function createResolver({ zone, forwarder, upstreams, refresh, isOwn, log }: ResolverOptions): Resolver {
  return async (packet, { network, address, transport }) => {
    try {
      // nobody else is answered: who sends from a foreign address wants the answer to go there
      const key = addressKey(address);
      if (key === undefined || !zone.mayAsk(network, key)) return undefined;
      const question = readQuestion(packet);
      if (!question) return undefined;
      // who has just started has its file there before its program runs; who has ended, none
      refresh();
      const asker = zone.asker(network, key);
      const verdict = decide(zone, asker, question);
      if (verdict.kind === 'answer') return writeAnswer(question, verdict.rcode, verdict.records, transport);
      // the host's own name server may be asking us for what we are about to ask it
      const loop = isOwn(key) && forwarder.isAsking(question);
      const servers = asker.servers.length > 0 ? parseUpstreams(asker.servers) : upstreams();
      const answer = loop ? undefined : await forwarder.ask(question, servers, key, transport === 'tcp');
      return answer ?? writeAnswer(question, RCODE.servFail, [], transport);
    } catch (err) {
      log.debug({ err, network }, 'a question could not be answered');
      return undefined;
    }
  };
}
