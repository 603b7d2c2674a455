import { fail } from '../errors/index.ts';
import { parts, slotNumber, type Part } from './slots.ts';
import { MAX_REGISTERS, NO_REGISTER, OP_FLAGS, operations, PLAN_MAGIC, PLAN_VERSION, type OperationEntry } from './table.ts';
import { type Operation, type Origin, type Plan, type PlannedStep } from './types.ts';

const HEAD = 6 * 4 + parts.length * 8;
/** The table as it is walked for every operation of every plan. */
const table = new Map(Object.entries(operations as Record<string, OperationEntry>).map(([name, { code, fields }]) => [
  name, { code, names: new Set(Object.keys(fields)), fields: Object.entries(fields).map(([field, type]) => ({ field, optional: type.endsWith('?'), kind: type.endsWith('?') ? type.slice(0, -1) : type })) },
]));
type Entry = NonNullable<ReturnType<typeof table.get>>;
const flagBits = Object.entries(OP_FLAGS);

/** Longest text that is copied letter by letter. */
const MAX_SHORT = 128;
/** A growing little-endian byte string. */
class Writer {
  #buffer = Buffer.alloc(4096);
  length = 0;

  /** The bytes, with `n` more of them, which end at `length`. */
  #grown(n: number): Buffer {
    this.length += n;
    if (this.length > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(this.#buffer.length * 2, this.length));
      this.#buffer.copy(larger);
      this.#buffer = larger;
    }
    return this.#buffer;
  }
  u16(value: number): void { this.#grown(2).writeUInt16LE(value, this.length - 2); }
  u32(value: number): void { this.#grown(4).writeUInt32LE(value, this.length - 4); }
  i32(value: number): void { this.#grown(4).writeInt32LE(value, this.length - 4); }
  u64(value: bigint): void { this.#grown(8).writeBigUInt64LE(value, this.length - 8); }
  i64(value: bigint): void { this.#grown(8).writeBigInt64LE(value, this.length - 8); }
  /** Length, bytes, `terminators` zero bytes, and padding to 4. */
  bytes(value: Uint8Array, terminators: number): void {
    this.u32(value.length);
    const padded = (value.length + terminators + 3) & ~3;
    this.#grown(padded).set(value, this.length - padded);
  }
  /** The same of text, with one zero byte behind it. */
  text(value: string): void {
    const { length } = value;
    const start = this.length + 4;
    if (length < MAX_SHORT) {
      // most are short and plain: a call into C++ costs more than the loop
      this.#grown(4 + ((length + 4) & ~3));
      const buffer = this.#buffer;
      let i = 0;
      for (; i < length; i++) {
        const code = value.charCodeAt(i);
        if (code > 127) break;
        buffer[start + i] = code;
      }
      if (i === length) {
        buffer.writeUInt32LE(length, start - 4);
        return;
      }
      buffer.fill(0, start - 4, this.length);
      this.length = start - 4;
    }
    this.bytes(Buffer.from(value, 'utf8'), 1);
  }
  patch32(at: number, value: number): void { this.#buffer.writeUInt32LE(value, at); }
  finish(): Uint8Array {
    return this.#buffer.subarray(0, this.length);
  }
}

/** Register names become numbers: `fd0`..`fd7` are 0..7, others follow in order of first use. */
class Registers {
  readonly names: string[];
  readonly #numbers: Map<string, number>;

  constructor(names: readonly string[] = Array.from({ length: 8 }, (_, i) => `fd${i}`)) {
    this.names = [...names];
    this.#numbers = new Map(names.map((name, i) => [name, i]));
  }

  number(name: string): number {
    let n = this.#numbers.get(name);
    if (n === undefined) {
      n = this.names.length;
      if (n >= MAX_REGISTERS) throw fail('ERR_PLAN_INVALID', `a plan may use at most ${MAX_REGISTERS} registers`);
      this.names.push(name);
      this.#numbers.set(name, n);
    }
    return n;
  }
}

function wrong(operation: Operation, field: string, why: string): Error {
  return fail('ERR_PLAN_INVALID', `operation ${operation.name}: field ${field} ${why}`, { operation: operation.name, path: field });
}

function text(operation: Operation, field: string, value: unknown): string {
  if (typeof value !== 'string') throw wrong(operation, field, 'is not text');
  if (value.includes('\0')) throw wrong(operation, field, 'contains a NUL byte');
  return value;
}

function writeField(out: Writer, registers: Registers, operation: Operation, { field, optional, kind }: Entry['fields'][number]): void {
  const value = operation.args[field];
  if (value === undefined && !optional) throw wrong(operation, field, 'is missing');
  switch (kind) {
    case 'u32':
    case 'i32': {
      const number = value ?? 0;
      const low = kind === 'u32' ? 0 : -0x80000000;
      const high = kind === 'u32' ? 0xffffffff : 0x7fffffff;
      if (typeof number !== 'number' || !Number.isInteger(number) || number < low || number > high) throw wrong(operation, field, `is not a ${kind}`);
      return kind === 'u32' ? out.u32(number) : out.i32(number);
    }
    case 'u64':
    case 'i64': {
      const number = value ?? 0n;
      if (typeof number !== 'bigint') throw wrong(operation, field, 'is not a bigint');
      if ((kind === 'u64' ? BigInt.asUintN(64, number) : BigInt.asIntN(64, number)) !== number) throw wrong(operation, field, `is not a ${kind}`);
      return kind === 'u64' ? out.u64(number) : out.i64(number);
    }
    case 'str':
      return out.text(text(operation, field, value ?? ''));
    case 'bytes':
      if (value !== undefined && !(value instanceof Uint8Array)) throw wrong(operation, field, 'is not bytes');
      return out.bytes((value as Uint8Array | undefined) ?? new Uint8Array(0), 0);
    case 'strs': {
      const list = value ?? [];
      if (!Array.isArray(list)) throw wrong(operation, field, 'is not a list of text');
      out.u32(list.length);
      for (const item of list) out.text(text(operation, field, item));
      return;
    }
    default: {
      if (value === undefined) return out.u32(NO_REGISTER);
      if (typeof value !== 'string' || value === '') throw wrong(operation, field, 'is not the name of a register');
      return out.u32(registers.number(value));
    }
  }
}

/** Every argument is one the table knows: a typing mistake in a plugin without types must not vanish. */
function refuseUnknown(operation: Operation, entry: Entry): void {
  for (const name of Object.keys(operation.args)) if (!entry.names.has(name)) throw wrong(operation, name, 'is unknown');
}

function writeOperation(out: Writer, registers: Registers, step: PlannedStep, origin: number, index: number): void {
  const { operation } = step;
  const entry = table.get(operation.name);
  if (!entry) throw fail('ERR_PLAN_INVALID', `unknown operation ${String(operation.name)}`);
  const slot = slotNumber.get(step.slot);
  if (slot === undefined) throw fail('ERR_PLAN_INVALID', `operation ${operation.name}: unknown slot ${step.slot}`);
  refuseUnknown(operation, entry);
  let flags = 0;
  if (operation.flags) for (const [name, bit] of flagBits) if (operation.flags[name as keyof typeof OP_FLAGS]) flags |= bit;
  const start = out.length;
  out.u16(entry.code);
  out.u16(flags);
  out.u16(slot);
  out.u16(origin);
  out.u32(0);
  out.u32(index);
  for (const field of entry.fields) writeField(out, registers, operation, field);
  out.patch32(start + 8, out.length - start);
}

/** The part that a slot belongs to. */
export function partOf(slot: string): Part {
  return slot.slice(0, slot.indexOf('.')) as Part;
}

/**
 * Put steps into the order they will run: by part, then slot, then as they were added. The sort is stable.
 */
export function orderSteps(steps: readonly PlannedStep[]): PlannedStep[] {
  return [...steps].sort((a, b) => (slotNumber.get(a.slot) ?? 0) - (slotNumber.get(b.slot) ?? 0));
}

/**
 * The steps of the `after` part: the undo of every host step, newest first. Where one step has several undo operations,
 * they run in the order given.
 */
export function undoSteps(steps: readonly PlannedStep[]): PlannedStep[] {
  return orderSteps(steps)
    .filter((step) => step.undo.length > 0)
    .reverse()
    .flatMap((step) => step.undo.map((operation) => ({ slot: 'after.undo' as const, operation, undo: [], origin: step.origin })));
}

/**
 * The byte string of a plan. Steps must stand in order (see {@link orderSteps}). `continues`: registers of the plan that this one is added to
 * while it runs; the same names then mean the same registers. Errors: ERR_PLAN_INVALID names operation and field.
 */
export function encodePlan(plan: Plan, continues?: readonly string[]): Uint8Array {
  const out = new Writer();
  const registers = new Registers(continues);
  const origins: Origin[] = [];
  const originNumbers = new Map<string, number>();
  const seen = new Map<Origin, number>();
  for (let i = 0; i < HEAD / 4; i++) out.u32(0);
  const spans = new Map<Part, { offset: number; count: number }>();
  let last = -1;
  plan.steps.forEach((step, index) => {
    const part = partOf(step.slot);
    const order = slotNumber.get(step.slot) ?? -1;
    if (part !== 'after' && order < last) throw fail('ERR_PLAN_INVALID', `step ${index} (${step.slot}) stands out of order`);
    last = order;
    let origin = seen.get(step.origin);
    if (origin === undefined) {
      const key = JSON.stringify(step.origin);
      origin = originNumbers.get(key) ?? origins.push(step.origin) - 1;
      originNumbers.set(key, origin);
      seen.set(step.origin, origin);
    }
    const span = spans.get(part) ?? { offset: out.length, count: 0 };
    span.count++;
    spans.set(part, span);
    writeOperation(out, registers, step, origin, index);
  });
  const tail = out.length;
  out.bytes(Buffer.from(JSON.stringify({ origins, registers: registers.names })), 0);
  [PLAN_MAGIC, PLAN_VERSION, out.length, plan.steps.length, tail, registers.names.length].forEach((value, i) => out.patch32(i * 4, value));
  parts.forEach((part, i) => {
    const span = spans.get(part);
    out.patch32(24 + i * 8, span?.offset ?? 0);
    out.patch32(28 + i * 8, span?.count ?? 0);
  });
  return out.finish();
}
