import { createSocket, type Socket as Datagrams } from 'node:dgram';
import { createServer, isIPv6, type Server, type Socket } from 'node:net';
import { type DriverDeps } from '@engine/core/contracts/common';
import { framed } from './forward.ts';
import { type Client, type Resolver } from './resolver.ts';

const PORT = 53;
/** An address that is not there yet is tried again soon, then less often; a port that somebody else has, seldom. ms. */
const FIRST_RETRY = 10;
const LAST_RETRY = 1000;
const TAKEN_RETRY = 5000;
/** A stream on which nothing comes for so long is closed, ms. */
const IDLE = 10_000;
/** Longest message of a client, and how many of its questions are answered at a time. */
const MOST_BYTES = 4096;
const MOST_PENDING = 16;
const MOST_STREAMS = 128;
/** Of one client: he shall not take them from the others. */
const MOST_OF_A_CLIENT = 24;
/** Longest time that those who are being answered may take when it ends, ms. */
const DRAIN = 1000;

export interface ListenerOptions {
  readonly network: string;
  readonly address: string;
  readonly port?: number;
  readonly resolve: Resolver;
  readonly log: Pick<DriverDeps['log'], 'info' | 'warn'>;
  /** Its sockets are others. */
  onSockets?(): void;
}
/** Answers on one address, by UDP and TCP, from when it is there. */
export interface Listener {
  readonly bound: boolean;
  close(): Promise<void>;
}

export function createListener({ network, address, port = PORT, resolve, log, onSockets }: ListenerOptions): Listener {
  let closed = false;
  let datagrams: Datagrams | undefined;
  let server: Server | undefined;
  let timer: NodeJS.Timeout | undefined;
  let pause = FIRST_RETRY;
  let told = '';
  let bound = false;
  let pending = 0;
  const streams = new Set<Socket>();

  const answer = async (packet: Buffer, client: Client): Promise<Buffer | undefined> => {
    pending++;
    try {
      return await resolve(packet, client);
    } finally {
      pending--;
    }
  };
  const bindDatagrams = (): Promise<Datagrams> =>
    new Promise((done, refused) => {
      // shared with the process that comes after us, so that there is always one
      const socket = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4', reusePort: true, ...(isIPv6(address) ? { ipv6Only: true } : {}) });
      socket.once('error', refused);
      socket.bind({ port, address, exclusive: true }, () => {
        socket.off('error', refused);
        // ICMP errors of clients that are gone
        socket.on('error', () => {});
        done(socket);
      });
      socket.on('message', (packet, from) => {
        void answer(packet, { network, address: from.address, transport: 'udp' }).then((reply) => {
          if (reply && datagrams === socket) socket.send(reply, from.port, from.address, () => {});
        });
      });
    });
  const bindStreams = (): Promise<Server> =>
    new Promise((done, refused) => {
      const made = createServer((socket) => accept(socket));
      made.maxConnections = MOST_STREAMS;
      made.once('error', refused);
      made.listen({ port, host: address, reusePort: true, exclusive: true, ipv6Only: true }, () => {
        made.off('error', refused);
        made.on('error', () => {});
        done(made);
      });
    });
  function accept(socket: Socket): void {
    const from = socket.remoteAddress ?? '';
    let input: Buffer = Buffer.alloc(0);
    let waiting = 0;
    let others = 0;
    for (const { remoteAddress } of streams) if (remoteAddress === from) others++;
    if (others >= MOST_OF_A_CLIENT) return void socket.on('error', () => {}).destroy();
    streams.add(socket);
    socket.setTimeout(IDLE, () => socket.destroy());
    socket.on('error', () => {});
    socket.on('close', () => streams.delete(socket));
    const take = (): void => {
      while (input.length >= 2 && waiting < MOST_PENDING) {
        const size = input.readUInt16BE(0);
        if (size > MOST_BYTES) return void socket.destroy();
        if (input.length < 2 + size) break;
        const packet = input.subarray(2, 2 + size);
        input = input.subarray(2 + size);
        waiting++;
        void answer(packet, { network, address: from, transport: 'tcp' }).then((reply) => {
          waiting--;
          // who asks nothing sensible is not kept
          if (!reply) return void socket.destroy();
          if (!socket.destroyed) socket.write(framed(reply));
          take();
        });
      }
      if (waiting >= MOST_PENDING || socket.writableLength > 1 << 20) socket.pause();
      else socket.resume();
    };
    socket.on('drain', take);
    socket.on('data', (chunk: Buffer) => {
      input = Buffer.concat([input, chunk]);
      take();
    });
  }

  const bind = async (): Promise<void> => {
    try {
      datagrams ??= await bindDatagrams();
      server ??= await bindStreams();
      if (closed) return release();
      bound = true;
      onSockets?.();
      if (told !== '') log.info({ network, address }, 'names are answered after all');
    } catch (error) {
      if (closed) return release();
      const { code = 'error' } = error as NodeJS.ErrnoException;
      // the bridge comes with the network's first use, and its IPv6 address a moment later
      const taken = code !== 'EADDRNOTAVAIL';
      if (taken && told !== code) {
        told = code;
        log.warn({ network, address, port, err: error }, code === 'EADDRINUSE' ? 'another program answers on this address: names of this network cannot be served' : 'names of this network cannot be served');
      }
      timer = setTimeout(() => void bind(), taken ? TAKEN_RETRY : pause);
      pause = Math.min(pause * 2, LAST_RETRY);
    }
  };
  const release = (): void => {
    const [ours, streaming] = [datagrams, server];
    datagrams = server = undefined;
    ours?.close();
    streaming?.close();
    for (const socket of streams) socket.destroy();
    // closed in the next turn of the loop
    if (ours || streaming) setImmediate(() => onSockets?.());
  };
  void bind();
  return {
    get bound() {
      return bound;
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      for (const end = Date.now() + DRAIN; pending > 0 && Date.now() < end; ) await new Promise((done) => setTimeout(done, 5));
      release();
    },
  };
}
