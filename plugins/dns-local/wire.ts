import { decode, encode, type Answer } from 'dns-packet';

export const RCODE = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5, badVers: 16 } as const;
export const TYPE = { a: 1, ptr: 12, hinfo: 13, aaaa: 28, opt: 41, any: 255 } as const;
const HEADER = 12;
const QR = 0x8000, AA = 0x0400, TC = 0x0200, RD = 0x0100, RA = 0x0080, CD = 0x0010;
/** Bytes of an answer over UDP when nothing else is said, and the most that we send of our own (RFC 9715). */
const PLAIN_UDP = 512;
const MOST_UDP = 1232;

export interface Question {
  readonly packet: Buffer;
  readonly id: number;
  readonly flags: number;
  /** As it was asked, without the last dot. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Bytes of the packet up to which header and question go. */
  readonly end: number;
  /** 0 is an ordinary query. */
  readonly opcode: number;
}

/** The one question of a query. Undefined: it is none that could be answered. Names of labels that are no text are shown byte by byte: they are nobody's here. */
export function readQuestion(packet: Buffer): Question | undefined {
  if (packet.length < HEADER + 5 || packet.length > 65_535) return undefined;
  const flags = packet.readUInt16BE(2);
  if (flags & QR || packet.readUInt16BE(4) !== 1) return undefined;
  const labels: string[] = [];
  let at = HEADER;
  for (;;) {
    const size = packet[at];
    // a pointer has nothing to point to yet
    if (size === undefined || size > 63 || at - HEADER + size > 254) return undefined;
    at++;
    if (size === 0) break;
    if (at + size > packet.length) return undefined;
    const label = packet.toString('latin1', at, at + size);
    labels.push(label.includes('.') ? label.replaceAll('.', '\\.') : label);
    at += size;
  }
  if (at + 4 > packet.length) return undefined;
  return { packet, id: packet.readUInt16BE(0), flags, name: labels.join('.'), type: packet.readUInt16BE(at), class: packet.readUInt16BE(at + 2), end: at + 4, opcode: (flags >> 11) & 15 };
}

/** EDNS of a query (RFC 6891). Undefined: the packet can't be read; null: it has none. */
export function readEdns(packet: Buffer): { readonly size: number; readonly version: number; readonly dnssec: boolean } | null | undefined {
  if (packet.readUInt16BE(10) === 0) return null;
  try {
    const found = decode(packet).additionals?.find((record) => record.type === 'OPT') as { udpPayloadSize: number; ednsVersion: number; flag_do: boolean } | undefined;
    return found ? { size: Math.max(PLAIN_UDP, found.udpPayloadSize), version: found.ednsVersion, dnssec: found.flag_do } : null;
  } catch {
    return undefined;
  }
}

/** An answer of our own: the question stands in it as it was asked. Undefined: the query can't be read after all. */
export function writeAnswer(question: Question, rcode: number, answers: readonly Answer[], transport: 'udp' | 'tcp'): Buffer | undefined {
  const edns = readEdns(question.packet);
  if (edns === undefined) return undefined;
  let code = rcode;
  let records = answers.map(writeRecord);
  if (edns && edns.version > 0) [code, records] = [RCODE.badVers, []];
  const additional = edns ? [encode({ additionals: [{ type: 'OPT', name: '.', udpPayloadSize: MOST_UDP, extendedRcode: code >> 4, ednsVersion: 0, flags: edns.dnssec ? 0x8000 : 0, flag_do: edns.dnssec, options: [] }] }).subarray(HEADER)] : [];
  const head = Buffer.from(question.packet.subarray(0, question.end));
  const length = (): number => [head, ...records, ...additional].reduce((sum, { length: n }) => sum + n, 0);
  const limit = transport === 'tcp' ? 65_535 : edns ? Math.min(edns.size, MOST_UDP) : PLAIN_UDP;
  const truncated = length() > limit;
  // half an answer is of no use to who asks again by TCP, but of some to who doesn't
  while (length() > limit) records.pop();
  head.writeUInt16BE(QR | (question.flags & 0x7800) | AA | (truncated ? TC : 0) | (question.flags & (RD | CD)) | RA | (code & 15), 2);
  head.writeUInt16BE(records.length, 6);
  head.writeUInt16BE(0, 8);
  head.writeUInt16BE(additional.length, 10);
  return Buffer.concat([head, ...records, ...additional]);
}
/** One record whose name is that of the question. */
function writeRecord(record: Answer): Buffer {
  const bytes = encode({ answers: [{ ...record, name: '.' } as Answer] }).subarray(HEADER);
  // the name is a pointer to byte 12, where the question's is
  return Buffer.concat([Buffer.of(0xc0, HEADER), bytes.subarray(1)]);
}

/** The packet under another id; all else stays byte by byte. */
export function withId(packet: Buffer, id: number): Buffer {
  const copy = Buffer.from(packet);
  copy.writeUInt16BE(id, 0);
  return copy;
}
export const isTruncated = (packet: Buffer): boolean => (packet.readUInt16BE(2) & TC) !== 0;
export const rcodeOf = (packet: Buffer): number => packet.readUInt16BE(2) & 15;

/** Is `packet` the answer to what was asked under `id`? Names are compared without case; an error may come without the question. */
export function answers(packet: Buffer, question: Question, id: number): boolean {
  if (packet.length < HEADER || packet.readUInt16BE(0) !== id || !(packet.readUInt16BE(2) & QR)) return false;
  const count = packet.readUInt16BE(4);
  if (count === 0) return rcodeOf(packet) !== RCODE.noError && rcodeOf(packet) !== RCODE.nxDomain;
  if (count !== 1 || packet.length < question.end) return false;
  const name = question.end - 4;
  if (packet.compare(question.packet, name, question.end, name, question.end) !== 0) return false;
  for (let i = HEADER; i < name; i++) if (lower(packet[i]) !== lower(question.packet[i])) return false;
  return true;
}
/** Lengths of labels are below all letters. */
const lower = (byte = 0): number => (byte >= 65 && byte <= 90 ? byte + 32 : byte);
