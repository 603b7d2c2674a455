/** Servers and clients in a network namespace of their own, for the tests of ports: one message in, `{id, command, args}`, one answer out. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createSocket, type Socket as Datagrams } from 'node:dgram';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { createNative } from './index.ts';

const servers = new Map<number, Server>();
const kept: Socket[] = [];
const datagrams: Datagrams[] = [];
const results: { received: number; digest: string }[] = [];

/** Writes `size` bytes that nobody would get by chance, then ends; and tells what came. */
function exchange(socket: Socket, size: number, seed: number, endFirst = true): Promise<{ sent: string; received: number; digest: string }> {
  const sent = createHash('sha256');
  const got = createHash('sha256');
  let received = 0;
  socket.on('data', (data) => {
    received += data.length;
    got.update(data);
  });
  const ended = new Promise<void>((resolve, reject) => {
    socket.once('end', resolve);
    socket.once('error', reject);
    socket.once('close', (failed) => (failed ? undefined : reject(new Error('closed before its end'))));
  });
  const write = async (): Promise<void> => {
    const piece = Buffer.alloc(99_991, `${seed} `);
    for (let left = size, n = 0; left > 0; left -= piece.length, n++) {
      piece.writeUInt32LE(n, n % 90_000);
      const now = Buffer.from(piece.subarray(0, Math.min(left, piece.length)));
      sent.update(now);
      if (!socket.write(now)) await new Promise((resolve) => socket.once('drain', resolve));
    }
    if (!endFirst) await ended;
    socket.end();
  };
  return Promise.all([write(), ended]).then(() => ({ sent: sent.digest('hex'), received, digest: got.digest('hex') }));
}
const connected = (host: string, port: number): Promise<Socket> => new Promise((resolve, reject) => {
  const socket = connect({ host, port, allowHalfOpen: true }, () => resolve(socket));
  socket.once('error', reject);
});
const failureOf = (socket: Socket): Promise<string> => new Promise((resolve) => {
  socket.once('error', (error) => resolve((error as NodeJS.ErrnoException).code ?? ''));
  socket.once('end', () => resolve('end'));
  socket.resume();
});

const commands: Record<string, (...args: never[]) => unknown> = {
  shell: async (script: string) => (await promisify(execFile)('/bin/sh', ['-c', script], { encoding: 'utf8' })).stdout,
  isPortFree: (...args: Parameters<ReturnType<typeof createNative>['isPortFree']>) => createNative().isPortFree(...args),
  portHolder: (...args: Parameters<ReturnType<typeof createNative>['portHolder']>) => createNative().portHolder(...args) ?? null,
  /** `echo`: what comes goes back. `talk`: 'early' at once, the rest after the client's end. A number: so many bytes. */
  serve: (host: string, port: number, how: 'echo' | 'talk' | 'keep' | 'reset' | number) => new Promise<void>((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {});
      if (how === 'echo') socket.pipe(socket);
      else if (how === 'keep') kept.push(socket);
      else if (how === 'reset') socket.once('data', () => socket.resetAndDestroy());
      else if (how === 'talk') {
        let text = '';
        socket.write('early ');
        socket.on('data', (data) => (text += data.toString()));
        socket.on('end', () => socket.end(`late ${text}`));
      } else void exchange(socket, how, 2).then((result) => results.push(result), () => {});
    });
    server.once('error', reject);
    server.listen({ host, port, ipv6Only: true, backlog: 511 }, resolve);
    servers.set(port, server);
  }),
  stop: (port: number) => new Promise<void>((resolve) => {
    servers.get(port)?.close();
    for (const socket of kept.splice(0)) socket.destroy();
    resolve();
  }),
  /** Of the exchanges that have ended, one at least. */
  results: async () => {
    while (results.length === 0) await sleep(5);
    return results.splice(0);
  },
  exchange: async (host: string, port: number, size: number, endFirst: boolean) => exchange(await connected(host, port), size, 1, endFirst),
  /** What comes back for `text` and an end. */
  say: async (host: string, port: number, text: string) => {
    const socket = await connected(host, port);
    let got = '';
    socket.on('data', (data) => (got += data.toString()));
    socket.end(text);
    await new Promise((resolve, reject) => socket.once('close', resolve).once('error', reject));
    return got;
  },
  /** `count` connections at once, each with words of its own; how many got them back. */
  crowd: async (host: string, port: number, count: number) => {
    const each = await Promise.all(Array.from({ length: count }, (_, i) => commands['say']?.(...([host, port, `connection ${i}`] as never[]))));
    return each.filter((got, i) => got === `connection ${i}`).length;
  },
  open: async (host: string, port: number, count: number) => {
    kept.push(...(await Promise.all(Array.from({ length: count }, () => connected(host, port)))));
    for (const socket of kept) socket.on('error', () => {});
  },
  /** How a connection ends that says something. */
  fate: (host: string, port: number, text: string) => connected(host, port).then((socket) => {
    const fate = failureOf(socket);
    if (text !== '') socket.write(text);
    return fate;
  }, (error: NodeJS.ErrnoException) => error.code),
  /** An echo of datagrams with the asker's own address in front. */
  serveDatagrams: (host: string, port: number) => new Promise<void>((resolve, reject) => {
    for (const old of datagrams.splice(0)) old.close();
    const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4' });
    socket.on('message', (message, from) => socket.send(`${from.port} ${message.toString('latin1')}`, from.port, from.address));
    socket.once('error', reject);
    socket.bind(port, host, resolve);
    datagrams.push(socket);
  }),
  /** One client that asks `texts` one after another: answers, and where they came from. */
  ask: async (host: string, port: number, texts: readonly string[]) => {
    const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4' });
    const answers: { text: string; from: string }[] = [];
    for (const text of texts) {
      answers.push(await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error('no answer')), 3000);
        socket.once('message', (message, from) => {
          clearTimeout(timer);
          resolve({ text: message.toString('latin1'), from: `${from.address} ${from.port}` });
        });
        socket.send(Buffer.from(text, 'latin1'), port, host);
      }));
    }
    socket.close();
    return answers;
  },
  /** So many clients; how many got an answer. */
  askers: async (host: string, port: number, count: number) => {
    let answered = 0;
    for (let left = count; left > 0; left -= 100) {
      const some = await Promise.allSettled(Array.from({ length: Math.min(100, left) }, () => commands['ask']?.(...([host, port, ['x']] as never[]))));
      answered += some.filter(({ status }) => status === 'fulfilled').length;
    }
    return answered;
  },
};

process.on('message', (message: { id: number; command: string; args: never[] }) => {
  const answer = async (): Promise<unknown> => commands[message.command]?.(...message.args);
  void answer().then((value) => process.send?.({ id: message.id, value }), (error: Error) => process.send?.({ id: message.id, error: `${error.message}` }));
});
