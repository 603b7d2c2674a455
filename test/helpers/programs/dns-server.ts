/**
 * A name server for tests. argv[2]: JSON {address, port?, records: {name: {A?: [], AAAA?: [], TXT?: [], PTR?: []}}, mode?, pad?}. Prints `ready`, then each question as `TYPE NAME TRANSPORT CLIENT`.
 * mode: `silent` answers nothing, `refuse` REFUSED, `servfail` SERVFAIL, `truncate` UDP answers are empty and truncated, `lie` answers have another id.
 */
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { isIPv6 } from 'node:net';

interface Order { address: string; port?: number; records: Record<string, Partial<Record<'A' | 'AAAA' | 'TXT' | 'PTR', string[]>>>; mode?: string }
const { address, port = 53, records, mode } = JSON.parse(process.argv[2] ?? '{}') as Order;
const types: Record<number, 'A' | 'AAAA' | 'TXT' | 'PTR'> = { 1: 'A', 28: 'AAAA', 16: 'TXT', 12: 'PTR' };

const label = (name: string): Buffer => Buffer.concat([...name.split('.').filter(Boolean).map((part) => Buffer.concat([Buffer.from([part.length]), Buffer.from(part, 'latin1')])), Buffer.from([0])]);
function groups(text: string): number[] {
  const [head = '', tail] = text.split('::');
  const left = head.split(':').filter(Boolean);
  const right = (tail ?? '').split(':').filter(Boolean);
  return [...left, ...Array.from({ length: tail === undefined ? 0 : 8 - left.length - right.length }, () => '0'), ...right].map((group) => parseInt(group, 16));
}
function data(type: string, value: string): Buffer {
  if (type === 'A') return Buffer.from(value.split('.').map(Number));
  if (type === 'AAAA') return Buffer.from(groups(value).flatMap((group) => [group >> 8, group & 255]));
  if (type === 'TXT') return Buffer.concat((value.match(/[^]{1,255}/g) ?? []).map((part) => Buffer.concat([Buffer.from([part.length]), Buffer.from(part, 'latin1')])));
  return label(value);
}
function answer(query: Buffer, transport: string, client: string): Buffer | undefined {
  const parts: string[] = [];
  let at = 12;
  while (at < query.length && query[at] !== 0) {
    const size = query[at] ?? 0;
    parts.push(query.toString('latin1', at + 1, at + 1 + size));
    at += size + 1;
  }
  const number = query.readUInt16BE(at + 1);
  const type = types[number] ?? String(number);
  const name = parts.join('.').toLowerCase();
  process.stdout.write(`${type} ${name} ${transport} ${client}\n`);
  if (mode === 'silent') return undefined;
  const known = records[name];
  const found = mode === undefined || mode === 'truncate' || mode === 'lie' ? (known?.[type as 'A'] ?? []) : [];
  const truncated = mode === 'truncate' && transport === 'udp';
  const rcode = mode === 'refuse' ? 5 : mode === 'servfail' ? 2 : known ? 0 : 3;
  const head = Buffer.alloc(12);
  head.writeUInt16BE(query.readUInt16BE(0) ^ (mode === 'lie' ? 0x5555 : 0), 0);
  head.writeUInt16BE(0x8180 | rcode | (truncated ? 0x200 : 0), 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(truncated ? 0 : found.length, 6);
  const entries = truncated ? [] : found.map((value) => {
    const body = data(type, value);
    const entry = Buffer.alloc(12);
    entry.writeUInt16BE(0xc00c, 0);
    entry.writeUInt16BE(number, 2);
    entry.writeUInt16BE(1, 4);
    entry.writeUInt32BE(60, 6);
    entry.writeUInt16BE(body.length, 10);
    return Buffer.concat([entry, body]);
  });
  return Buffer.concat([head, query.subarray(12, at + 5), ...entries]);
}

const udp = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
udp.on('message', (query, from) => {
  const reply = answer(query, 'udp', from.address);
  if (reply) udp.send(reply, from.port, from.address);
});
udp.bind(port, address);
const tcp = createServer((socket) => {
  let input = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => {
    input = Buffer.concat([input, chunk]);
    while (input.length >= 2 && input.length >= 2 + input.readUInt16BE(0)) {
      const size = input.readUInt16BE(0);
      const reply = answer(input.subarray(2, 2 + size), 'tcp', socket.remoteAddress ?? '');
      input = input.subarray(2 + size);
      if (reply) socket.write(Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 255]), reply]));
    }
  });
});
tcp.listen(port, address);
let open = 2;
const ready = (): void => void (--open === 0 && process.stdout.write('ready\n'));
udp.once('listening', ready);
tcp.once('listening', ready);
