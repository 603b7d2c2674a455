/** A program for service.test.ts, in a network namespace of its own: runs the service, asks it, and plays the name servers that it asks. One JSON order per line, one answer each. */
import { createSocket } from 'node:dgram';
import { createConnection, createServer, isIPv6 } from 'node:net';
import { createInterface } from 'node:readline';
import { decode, encode } from 'dns-packet';
import { serveNames } from './service.ts';

export type Mode = 'answer' | 'silent' | 'servfail' | 'truncate' | 'lie' | 'late';
export interface Ask { readonly source?: string; readonly server: string; readonly port?: number; readonly transport?: 'udp' | 'tcp'; readonly packets: readonly string[]; readonly patience?: number }
export interface Order {
  readonly start?: { readonly folder: string; readonly options?: { readonly resolvers?: readonly string[] } };
  readonly stop?: number;
  readonly ask?: Ask;
  readonly upstream?: { readonly address: string; readonly port?: number; readonly mode: Mode };
  readonly log?: string;
  readonly occupy?: string;
  readonly free?: string;
}
export interface Received { readonly transport: 'udp' | 'tcp'; readonly packet: string; readonly port: number }

const services: { stop(): Promise<void> }[] = [];
const logs: string[] = [];
const upstreams = new Map<string, { mode: Mode; readonly received: Received[] }>();
const occupied = new Map<string, { close(): void }>();
const write = (level: string) => (first: unknown, text?: string) => void logs.push(`${level} ${text ?? String(first)}`);
const log = { debug() {}, info: write('info'), warn: write('warn'), error: write('error') } as never;

async function ask({ source, server, port = 53, transport = 'udp', packets, patience = 6000 }: Ask): Promise<(string | null)[]> {
  if (transport === 'tcp') {
    return new Promise((resolve) => {
      const replies: string[] = [];
      let input = Buffer.alloc(0);
      const socket = createConnection({ host: server, port, ...(source ? { localAddress: source } : {}) });
      const end = (): void => {
        socket.destroy();
        resolve([...replies, ...Array<null>(packets.length - replies.length).fill(null)]);
      };
      setTimeout(end, patience);
      socket.on('error', end);
      socket.on('close', end);
      socket.on('connect', () => socket.write(Buffer.concat(packets.map((hex) => Buffer.concat([Buffer.of(hex.length >> 9, (hex.length >> 1) & 255), Buffer.from(hex, 'hex')])))));
      socket.on('data', (chunk: Buffer) => {
        input = Buffer.concat([input, chunk]);
        while (input.length >= 2 && input.length >= 2 + input.readUInt16BE(0)) {
          const size = input.readUInt16BE(0);
          replies.push(input.toString('hex', 2, 2 + size));
          input = input.subarray(2 + size);
        }
        if (replies.length === packets.length) end();
      });
    });
  }
  return Promise.all(
    packets.map(
      (hex) =>
        new Promise<string | null>((resolve) => {
          const socket = createSocket(isIPv6(server) ? 'udp6' : 'udp4');
          const end = (reply: string | null): void => {
            clearTimeout(timer);
            socket.removeAllListeners('message');
            socket.close(() => resolve(reply));
          };
          const timer = setTimeout(() => end(null), patience);
          socket.once('error', () => end('refused'));
          socket.once('message', (packet: Buffer) => end(packet.toString('hex')));
          socket.bind(0, source, () => socket.connect(port, server, ((error?: Error) => (error ? end('refused') : socket.send(Buffer.from(hex, 'hex')))) as () => void));
        }),
    ),
  );
}

function replyTo(query: Buffer, transport: 'udp' | 'tcp', mode: Mode): Buffer | undefined {
  const { id = 0, questions = [] } = decode(query);
  const [question] = questions;
  if (mode === 'silent' || !question) return undefined;
  if (mode === 'servfail') return encode({ type: 'response', id, flags: 0x8180 | 2, questions });
  if (mode === 'truncate' && transport === 'udp') return encode({ type: 'response', id, flags: 0x8380, questions });
  const data = question.type === 'A' ? '192.0.2.80' : 'x';
  return encode({ type: 'response', id: mode === 'lie' ? id ^ 1 : id, flags: 0x8180, questions, answers: question.type === 'A' ? [{ type: 'A', name: question.name, ttl: 60, data }] : [] });
}
async function upstream(address: string, port: number, mode: Mode): Promise<void> {
  const key = `${address} ${port}`;
  const known = upstreams.get(key);
  if (known) return void (known.mode = mode);
  const state: { mode: Mode; readonly received: Received[] } = { mode, received: [] };
  upstreams.set(key, state);
  const udp = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  udp.on('message', (packet, from) => {
    state.received.push({ transport: 'udp', packet: packet.toString('hex'), port: from.port });
    const reply = replyTo(packet, 'udp', state.mode);
    if (reply) setTimeout(() => udp.send(reply, from.port, from.address), state.mode === 'late' ? 2000 : 0);
    // a liar is followed by the truth
    if (state.mode === 'lie') setTimeout(() => udp.send(replyTo(packet, 'udp', 'answer') ?? '', from.port, from.address), 50);
  });
  await new Promise<void>((resolve) => udp.bind(port, address, resolve));
  const tcp = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (chunk: Buffer) => {
      const packet = chunk.subarray(2);
      state.received.push({ transport: 'tcp', packet: packet.toString('hex'), port: socket.remotePort ?? 0 });
      const reply = replyTo(packet, 'tcp', state.mode);
      if (reply) socket.write(Buffer.concat([Buffer.of(reply.length >> 8, reply.length & 255), reply]));
    });
  });
  await new Promise<void>((resolve) => tcp.listen(port, address, resolve));
}

async function obey(order: Order): Promise<unknown> {
  if (order.start) return services.push(await serveNames({ serviceFolder: order.start.folder, options: order.start.options ?? {}, log })) - 1;
  if (order.stop !== undefined) return services[order.stop]?.stop();
  if (order.ask) return ask(order.ask);
  if (order.upstream) return upstream(order.upstream.address, order.upstream.port ?? 53, order.upstream.mode);
  if (order.occupy !== undefined) {
    const socket = createSocket('udp4');
    occupied.set(order.occupy, socket);
    return new Promise<void>((resolve) => socket.bind(53, order.occupy, resolve));
  }
  if (order.free !== undefined) return occupied.get(order.free)?.close();
  if (order.log === 'service') return logs.splice(0);
  return upstreams.get(order.log ?? '')?.received.splice(0) ?? [];
}

process.on('uncaughtException', (error) => {
  process.stderr.write(`${String(error.stack)}\n`);
  process.exit(1);
});
createInterface({ input: process.stdin }).on('line', (line) => {
  const { number, ...order } = JSON.parse(line) as Order & { readonly number: number };
  void obey(order).then((result) => process.stdout.write(`${JSON.stringify({ number, result: result ?? null })}\n`));
}).on('close', () => process.exit(0));
process.stdout.write('{"number":0}\n');
