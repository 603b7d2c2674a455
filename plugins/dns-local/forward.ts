import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createConnection, isIPv6 } from 'node:net';
import { addressKey } from './address.ts';
import { type Upstream } from './resolvers.ts';
import { answers, isTruncated, RCODE, rcodeOf, withId, type Question } from './wire.ts';

/** How long one server has before the next is asked too; its answer still counts then. Who asks us waits five seconds, ms. */
const PATIENCE = 1500;
/** The whole of it, ms. */
const DEADLINE = 4500;
/** So long a server that did not answer is asked last, ms. */
const PENALTY = 30_000;
/** So long one that has nobody on its port is not waited for as others are: it says so only a few times a second, ms. */
const ABSENT = 10_000;
const HURRY = 3;

export interface ForwardLimits {
  readonly all: number;
  readonly perClient: number;
}
export interface ForwarderOptions {
  /** Is it one of the addresses on which we answer? Asking there would be asking ourselves. */
  isOwn(key: string): boolean;
  readonly limits?: ForwardLimits;
  readonly patience?: number;
  readonly now?: () => number;
}
export interface Forwarder {
  /** The answer of the first server that has one, under the id of the question. Undefined: none. `full`: not one that is cut off. Never rejects. */
  ask(question: Question, upstreams: readonly Upstream[], client: string, full: boolean): Promise<Buffer | undefined>;
  /** Is the same being asked of others just now? */
  isAsking(question: Question): boolean;
  readonly inFlight: number;
}

const keyOf = ({ name, type }: Question): string => `${type} ${name.toLowerCase()}`;

export function createForwarder({ isOwn, limits = { all: 512, perClient: 64 }, patience = PATIENCE, now = Date.now }: ForwarderOptions): Forwarder {
  const perClient = new Map<string, number>();
  const asking = new Map<string, number>();
  const silentUntil = new Map<string, number>();
  const absentUntil = new Map<string, number>();
  let inFlight = 0;
  const count = (map: Map<string, number>, key: string, by: 1 | -1): void => {
    const value = (map.get(key) ?? 0) + by;
    if (value === 0) map.delete(key);
    else map.set(key, value);
  };
  const order = (upstreams: readonly Upstream[]): Upstream[] => {
    const usable = upstreams.filter(({ address }) => !isOwn(addressKey(address) ?? address));
    const late = ({ address }: Upstream): number => Number((silentUntil.get(address) ?? 0) > now());
    return usable.toSorted((a, b) => late(a) - late(b)).slice(0, 3);
  };

  async function askAll(question: Question, servers: readonly Upstream[], full: boolean): Promise<Buffer | undefined> {
    // a lone one is asked again: a datagram may be lost
    const attempts = servers.length === 1 ? [...servers, ...servers] : servers;
    const wait = servers.every(({ address }) => (absentUntil.get(address) ?? 0) > now()) ? patience / HURRY : patience;
    const done = new AbortController();
    const result = Promise.withResolvers<Buffer | undefined>();
    let fallback: Buffer | undefined;
    let next = 0;
    let open = 0;
    let timer: NodeJS.Timeout | undefined;
    const end = setTimeout(() => result.resolve(fallback), Math.min(DEADLINE, wait * 3));
    const advance = (): void => {
      clearTimeout(timer);
      const server = attempts[next++];
      if (!server) {
        if (open === 0) result.resolve(fallback);
        return;
      }
      open++;
      timer = setTimeout(() => {
        silentUntil.set(server.address, now() + PENALTY);
        advance();
      }, wait);
      void askOne(question, server, full, done.signal).then((answer) => {
        open--;
        if (answer) {
          silentUntil.delete(server.address);
          absentUntil.delete(server.address);
        } else if (!done.signal.aborted) absentUntil.set(server.address, now() + ABSENT);
        const code = answer && rcodeOf(answer);
        if (answer && code !== RCODE.servFail && code !== RCODE.refused && code !== RCODE.notImp) return result.resolve(answer);
        fallback ??= answer;
        advance();
      });
    };
    advance();
    try {
      return await result.promise;
    } finally {
      clearTimeout(timer);
      clearTimeout(end);
      done.abort();
    }
  }

  return {
    get inFlight() {
      return inFlight;
    },
    isAsking: (question) => asking.has(keyOf(question)),
    async ask(question, upstreams, client, full) {
      const servers = order(upstreams);
      if (servers.length === 0 || inFlight >= limits.all || (perClient.get(client) ?? 0) >= limits.perClient) return undefined;
      const key = keyOf(question);
      inFlight++;
      count(perClient, client, 1);
      count(asking, key, 1);
      try {
        const answer = await askAll(question, servers, full);
        return answer && withId(answer, question.id);
      } catch {
        return undefined;
      } finally {
        inFlight--;
        count(perClient, client, -1);
        count(asking, key, -1);
        for (const marks of [silentUntil, absentUntil]) if (marks.size > 64) marks.clear();
      }
    },
  };
}

async function askOne(question: Question, server: Upstream, full: boolean, signal: AbortSignal): Promise<Buffer | undefined> {
  const answer = await byDatagram(question, server, signal);
  return answer && full && isTruncated(answer) ? ((await byStream(question, server, signal)) ?? answer) : answer;
}

/** From a port of its own, connected: only that server's answers arrive at all. */
function byDatagram(question: Question, { address, port }: Upstream, signal: AbortSignal): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(undefined);
    const id = randomInt(65_536);
    const socket = createSocket(isIPv6(address.replace(/%.*$/, '')) ? 'udp6' : 'udp4');
    let closed = false;
    const finish = (answer?: Buffer): void => {
      if (closed) return;
      closed = true;
      signal.removeEventListener('abort', cancel);
      socket.close();
      resolve(answer);
    };
    const cancel = (): void => finish();
    signal.addEventListener('abort', cancel);
    socket.on('error', cancel);
    socket.on('message', (packet) => {
      if (answers(packet, question, id)) finish(packet);
    });
    socket.connect(port, address, ((error?: Error) => {
      if (error || closed) return finish();
      socket.send(withId(question.packet, id), (failed) => void (failed && finish()));
    }) as () => void);
  });
}

function byStream(question: Question, { address, port }: Upstream, signal: AbortSignal): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(undefined);
    const id = randomInt(65_536);
    const socket = createConnection({ host: address, port });
    let input: Buffer = Buffer.alloc(0);
    const finish = (answer?: Buffer): void => {
      signal.removeEventListener('abort', cancel);
      socket.destroy();
      resolve(answer);
    };
    const cancel = (): void => finish();
    signal.addEventListener('abort', cancel);
    socket.on('error', cancel);
    socket.on('close', cancel);
    socket.on('connect', () => socket.write(framed(withId(question.packet, id))));
    socket.on('data', (chunk: Buffer) => {
      input = Buffer.concat([input, chunk]);
      if (input.length < 2 || input.length < 2 + input.readUInt16BE(0)) return;
      const packet = input.subarray(2, 2 + input.readUInt16BE(0));
      finish(answers(packet, question, id) ? packet : undefined);
    });
  });
}

/** As messages go over TCP: with their length before them. */
export function framed(packet: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(2 + packet.length);
  bytes.writeUInt16BE(packet.length, 0);
  packet.copy(bytes, 2);
  return bytes;
}
