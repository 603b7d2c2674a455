/**
 * Netlink messages as bytes, and cut and read again. Everything is in the byte order of the machine, which is little-endian on all that the engine runs on, but
 * for what a protocol wants otherwise.
 */

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

export const NLM_F = {
  REQUEST: 1, MULTI: 2, ACK: 4, ECHO: 8, DUMP_INTR: 0x10, ROOT: 0x100, MATCH: 0x200, DUMP: 0x300, REPLACE: 0x100, EXCL: 0x200, CREATE: 0x400, APPEND: 0x800,
} as const;
export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4 } as const;
export const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

export const align = (n: number): number => (n + 3) & ~3;

/** A u32 that is known only when the plan runs: operation netlinkWith stores it where {@link encodePatched} says. */
export interface Slot { readonly slot: string }
export const slot = (name: string): Slot => ({ slot: name });
/** Where a message or a list of attributes wants its slots: offset of the u32 in its own bytes. */
export interface SlotPlace { readonly name: string; readonly at: number }
/** Bytes, with the places of their slots where they have any. */
export type Encoded = Buffer & { readonly slots?: readonly SlotPlace[] };
const withSlots = (bytes: Buffer, slots: readonly SlotPlace[]): Encoded => (slots.length === 0 ? bytes : Object.assign(bytes, { slots }));

/** One attribute: its value is bytes (with their slots), a u32 (or a slot for one), text (a NUL is added), or more attributes (nested). */
export interface Attribute { readonly type: number; readonly value: Encoded | Uint8Array | number | Slot | string | readonly Attribute[] }
export const attribute = (type: number, value: Attribute['value']): Attribute => ({ type, value });
/** The attribute, or none when there is no value. */
export const optional = (type: number, value: Attribute['value'] | undefined): Attribute[] => (value === undefined ? [] : [{ type, value }]);

export const u8 = (value: number | boolean): Uint8Array => Uint8Array.of(Number(value));
export const u16 = (value: number): Uint8Array => Uint8Array.of(value & 255, value >>> 8);
/** Big-endian, as nftables wants its numbers. */
export const be32 = (value: number): Uint8Array => Uint8Array.of((value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
export const be16 = (value: number): Uint8Array => Uint8Array.of((value >>> 8) & 255, value & 255);

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
function bodyOf(value: Attribute['value']): Encoded {
  if (typeof value === 'number') return u32(value);
  if (typeof value === 'string') return Buffer.from(`${value}\0`);
  if (value instanceof Uint8Array) return value as Encoded;
  if ('slot' in value) return withSlots(u32(0), [{ name: value.slot, at: 0 }]);
  return encodeAttributes(value);
}

/** Errors: RangeError for a value that is longer than an attribute can be (65,531 bytes). */
export function encodeAttributes(attributes: readonly Attribute[]): Encoded {
  const slots: SlotPlace[] = [];
  let offset = 0;
  const parts = attributes.map(({ type, value }) => {
    const body = bodyOf(value);
    if (body.length > 0xffff - 4) throw new RangeError(`${body.length} bytes are too many for a netlink attribute`);
    const bytes = Buffer.alloc(align(4 + body.length));
    bytes.writeUInt16LE(4 + body.length, 0);
    bytes.writeUInt16LE(type | (Array.isArray(value) ? NLA_F_NESTED : 0), 2);
    bytes.set(body, 4);
    for (const { name, at } of body.slots ?? []) slots.push({ name, at: offset + 4 + at });
    offset += bytes.length;
    return bytes;
  });
  return withSlots(Buffer.concat(parts), slots);
}

const bufferOf = (bytes: Uint8Array): Buffer => (Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));

/** Call `visit` with type and place of each attribute in `buffer`, in order. Damaged ones end it. */
export function eachAttribute(buffer: Buffer, from: number, visit: (type: number, start: number, end: number) => void): void {
  for (let at = from; at + 4 <= buffer.length;) {
    const length = (buffer[at] as number) | ((buffer[at + 1] as number) << 8);
    if (length < 4 || at + length > buffer.length) break;
    visit(((buffer[at + 2] as number) | ((buffer[at + 3] as number) << 8)) & NLA_TYPE_MASK, at + 4, at + length);
    at += align(length);
  }
}
/** Type and value of the attributes in `bytes`, in order, as lists of things have them. Damaged ones end the list. */
export function listAttributes(bytes: Uint8Array): { readonly type: number; readonly value: Buffer }[] {
  const buffer = bufferOf(bytes);
  const found: { type: number; value: Buffer }[] = [];
  eachAttribute(buffer, 0, (type, start, end) => found.push({ type, value: buffer.subarray(start, end) }));
  return found;
}
/** Type → value of the attributes in `bytes` (after the first `from`), of types `only` where given; the last one of a type wins. Damaged ones end the list. */
export function decodeAttributes(bytes: Uint8Array, from = 0, only?: ReadonlySet<number>): Map<number, Buffer> {
  const buffer = bufferOf(bytes);
  const found = new Map<number, Buffer>();
  eachAttribute(buffer, from, (type, start, end) => {
    if (!only || only.has(type)) found.set(type, buffer.subarray(start, end));
  });
  return found;
}
/** What an attribute holds, as far as it is there. */
export const textOf = (value: Buffer | undefined): string | undefined => value?.toString('utf8', 0, ((end) => (end < 0 ? value.length : end))(value.indexOf(0)));
export const numberOf = (value: Buffer | undefined): number | undefined => (value && value.length >= 4 ? value.readUInt32LE() : undefined);
export const be32Of = (value: Buffer | undefined): number | undefined => (value && value.length >= 4 ? value.readUInt32BE() : undefined);

/** A whole message. `flags` besides REQUEST and ACK; the sender of the batch fills in port and sequence number where it needs them. `body`: the fixed part, with its slots. */
export function encodeMessage(type: number, flags: number, body: Encoded | Uint8Array, attributes: readonly Attribute[] = [], sequence = 0): Encoded {
  const rest = encodeAttributes(attributes);
  const start = 16 + align(body.length);
  const length = start + rest.length;
  const bytes = Buffer.alloc(align(length));
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags | NLM_F.REQUEST | NLM_F.ACK, 6);
  bytes.writeUInt32LE(sequence, 8);
  bytes.set(body, 16);
  bytes.set(rest, start);
  const own = (body as Encoded).slots ?? [];
  return withSlots(bytes, [...own.map(({ name, at }) => ({ name, at: 16 + at })), ...(rest.slots ?? []).map(({ name, at }) => ({ name, at: start + at }))]);
}
/** A fixed part whose u32 at `at` may be a slot. */
export function withNumber(body: Buffer, at: number, value: number | Slot): Encoded {
  if (typeof value === 'number') {
    body.writeUInt32LE(value >>> 0, at);
    return body;
  }
  return withSlots(body, [{ name: value.slot, at }]);
}

function concatenate(messages: readonly (Encoded | Uint8Array)[]): { readonly bytes: Buffer; readonly slots: readonly SlotPlace[] } {
  const slots: SlotPlace[] = [];
  let offset = 0;
  for (const message of messages) {
    for (const { name, at } of (message as Encoded).slots ?? []) slots.push({ name, at: offset + at });
    offset += message.length;
  }
  const bytes = Buffer.concat(messages);
  for (let at = 0, n = 1; at + 16 <= bytes.length; n++) {
    bytes.writeUInt32LE(n, at + 8);
    at += align(Math.max(16, bytes.readUInt32LE(at)));
  }
  return { bytes, slots };
}
/** Several messages as one batch, numbered from 1. Errors: RangeError when one has a slot: nobody would fill it in. */
export function encodeBatch(messages: readonly (Encoded | Uint8Array)[]): Buffer {
  const { bytes, slots } = concatenate(messages);
  if (slots[0]) throw new RangeError(`nothing says what ${slots[0].name} is: use encodePatched`);
  return bytes;
}
/** A batch with slots; `at`: by slot, the offsets as the operation netlinkWith wants them (`patchAt`). */
export interface PatchedBatch { readonly bytes: Buffer; readonly at: Readonly<Record<string, Uint8Array>> }
/** `const {bytes, at} = encodePatched([newVeth({name}, {name: 'eth0', netnsPid: slot('init')})])` → `op.netlinkWith({messages: bytes, patch: 'init', patchAt: at.init})`. */
export function encodePatched(messages: readonly (Encoded | Uint8Array)[]): PatchedBatch {
  const { bytes, slots } = concatenate(messages);
  const at: Record<string, Uint8Array> = {};
  for (const place of slots) at[place.name] = Buffer.concat([at[place.name] ?? Buffer.alloc(0), u32(place.at)]);
  return { bytes, at };
}

export interface Message { readonly type: number; readonly flags: number; readonly sequence: number; readonly body: Buffer }
/** Cut what a netlink socket gave into messages. A damaged one ends the list. */
export function decodeMessages(bytes: Uint8Array): Message[] {
  const buffer = bufferOf(bytes);
  const messages: Message[] = [];
  for (let at = 0; at + 16 <= buffer.length;) {
    const length = buffer.readUInt32LE(at);
    if (length < 16 || at + length > buffer.length) break;
    messages.push({ type: buffer.readUInt16LE(at + 4), flags: buffer.readUInt16LE(at + 6), sequence: buffer.readUInt32LE(at + 8), body: buffer.subarray(at + 16, at + length) });
    at += align(length);
  }
  return messages;
}

const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;
/** An NLMSG_ERROR message: errno (positive, 0 = acknowledged) and the kernel's own words, where it has some. A damaged one is EBADMSG. */
export function decodeError(message: Message): { readonly errno: number; readonly text: string } {
  const { body, flags } = message;
  if (body.length < 4) return { errno: 74, text: 'damaged answer' };
  const errno = -body.readInt32LE(0);
  let text = '';
  if (flags & NLM_F_ACK_TLVS && body.length >= 20) {
    const inner = flags & NLM_F_CAPPED ? 16 : align(body.readUInt32LE(4));
    text = textOf(decodeAttributes(body.subarray(4 + inner)).get(NLMSGERR_ATTR_MSG)) ?? '';
  }
  return { errno: errno === 0 ? 0 : errno, text };
}
