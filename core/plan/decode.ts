import { fail } from '../errors/index.ts';
import { parts, slotByNumber, type Part, type Slot } from './slots.ts';
import { NO_REGISTER, OP_FLAGS, operations, PLAN_MAGIC, PLAN_VERSION, type OperationEntry } from './table.ts';
import { type Operation, type OperationFlags, type OperationName, type Origin, type PlannedStep } from './types.ts';

const byCode = new Map<number, { name: OperationName; entry: OperationEntry }>(
  Object.entries(operations).map(([name, entry]) => [entry.code, { name: name as OperationName, entry }]),
);

/** A step as read back from a plan, with its place. */
export interface DecodedStep extends PlannedStep {
  readonly index: number;
  readonly part: Part;
}
export interface DecodedPlan {
  readonly version: number;
  readonly steps: readonly DecodedStep[];
  readonly registers: readonly string[];
}

class Reader {
  at = 0;
  readonly #bytes: Buffer;
  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  #take(n: number): number {
    const at = this.at;
    if (n < 0 || at + n > this.#bytes.length) throw fail('ERR_PLAN_INVALID', 'the plan ends too early');
    this.at += n;
    return at;
  }
  u16(): number { return this.#bytes.readUInt16LE(this.#take(2)); }
  u32(): number { return this.#bytes.readUInt32LE(this.#take(4)); }
  i32(): number { return this.#bytes.readInt32LE(this.#take(4)); }
  u64(): bigint { return this.#bytes.readBigUInt64LE(this.#take(8)); }
  i64(): bigint { return this.#bytes.readBigInt64LE(this.#take(8)); }
  bytes(terminators: number): Buffer {
    const length = this.u32();
    const at = this.#take((length + terminators + 3) & ~3);
    return this.#bytes.subarray(at, at + length);
  }
  str(): string { return this.bytes(1).toString('utf8'); }
}

function readFields(reader: Reader, entry: OperationEntry, registers: readonly string[]): Record<string, unknown> {
  const args: Record<string, unknown> = {};
  for (const [field, type] of Object.entries(entry.fields)) {
    const optional = type.endsWith('?');
    let value: unknown;
    switch (optional ? type.slice(0, -1) : type) {
      case 'u32': value = reader.u32(); break;
      case 'i32': value = reader.i32(); break;
      case 'u64': value = reader.u64(); break;
      case 'i64': value = reader.i64(); break;
      case 'str': value = reader.str(); break;
      case 'bytes': value = reader.bytes(0); break;
      case 'strs': value = Array.from({ length: reader.u32() }, () => reader.str()); break;
      default: {
        const number = reader.u32();
        value = number === NO_REGISTER ? undefined : (registers[number] ?? `register ${number}`);
      }
    }
    const empty = value === undefined || (optional && (value === 0 || value === 0n || value === '' || ((Array.isArray(value) || value instanceof Uint8Array) && value.length === 0)));
    if (!empty) args[field] = value;
  }
  return args;
}

/** Whether a whole plan has an after part, by its head alone. Errors: ERR_PLAN_INVALID. */
export function readsAfter(bytes: Uint8Array): boolean {
  const reader = new Reader(bytes);
  if (reader.u32() !== PLAN_MAGIC) return false;
  reader.u32();
  if (reader.u32() !== bytes.length) return false;
  reader.at += 12 + parts.indexOf('after') * 8 + 4;
  return reader.u32() > 0;
}

/** The operations of each part as bytes, without their origin and number: to compare plans by what they do. */
export function planParts(bytes: Uint8Array): ReadonlyMap<Part, readonly Buffer[]> {
  const all = Buffer.from(bytes);
  return new Map(parts.map((part, i) => {
    let at = all.readUInt32LE(24 + i * 8);
    return [part, Array.from({ length: all.readUInt32LE(28 + i * 8) }, () => {
      const start = at;
      at += all.readUInt32LE(start + 8);
      all.fill(0, start + 6, start + 8).fill(0, start + 12, start + 16);
      return all.subarray(start, at);
    })];
  }));
}

/** Read a plan back, of this or an older format; `only` one part of it. Errors: ERR_PLAN_INVALID, ERR_PLAN_VERSION. */
export function decodePlan(bytes: Uint8Array, only?: Part): DecodedPlan {
  const reader = new Reader(bytes);
  if (reader.u32() !== PLAN_MAGIC) throw fail('ERR_PLAN_INVALID', 'this is not a plan');
  const version = reader.u32();
  if (version > PLAN_VERSION) throw fail('ERR_PLAN_VERSION', `the plan has format ${version}, this engine reads up to ${PLAN_VERSION}`);
  if (reader.u32() !== bytes.length) throw fail('ERR_PLAN_INVALID', 'the plan has another length than it says');
  reader.u32();
  const tail = reader.u32();
  reader.u32();
  const spans = parts.map((part) => ({ part, offset: reader.u32(), count: reader.u32() }));
  reader.at = tail;
  const { origins, registers } = JSON.parse(reader.bytes(0).toString('utf8')) as { origins: Origin[]; registers: string[] };
  const steps: DecodedStep[] = [];
  for (const { part, offset, count } of spans) {
    reader.at = offset;
    for (let i = 0; i < count && (only === undefined || only === part); i++) {
      const start = reader.at;
      const code = reader.u16();
      const bits = reader.u16();
      const slot = slotByNumber.get(reader.u16()) as Slot;
      const origin = origins[reader.u16()] ?? { plugin: 'unknown', hook: 'unknown' };
      const length = reader.u32();
      const index = reader.u32();
      const known = byCode.get(code);
      if (!known) throw fail('ERR_PLAN_INVALID', `unknown operation code ${code}`);
      const args = readFields(reader, known.entry, registers);
      if (reader.at !== start + length) throw fail('ERR_PLAN_INVALID', `operation ${known.name} has another length than it says`);
      const flags = Object.fromEntries(Object.entries(OP_FLAGS).filter(([, bit]) => bits & bit).map(([name]) => [name, true])) as OperationFlags;
      const operation: Operation = bits ? { name: known.name, args, flags } : { name: known.name, args };
      steps.push({ index, part, slot, operation, undo: [], origin });
    }
  }
  return { version, steps, registers };
}
