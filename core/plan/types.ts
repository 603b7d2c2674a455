import { type operations, type FieldType, type OP_FLAGS } from './table.ts';
import { type HostSlot, type Slot } from './slots.ts';

export type OperationName = keyof typeof operations;

type KindOf<F extends FieldType> = F extends `${infer K}?` ? K : F;
interface ValueOf { u32: number; i32: number; u64: bigint; i64: bigint; str: string; bytes: Uint8Array; strs: readonly string[]; reg: string; out: string }
type Value<F extends FieldType> = KindOf<F> extends keyof ValueOf ? ValueOf[KindOf<F>] : never;
type Fields<N extends OperationName> = (typeof operations)[N]['fields'];
type OptionalKeys<N extends OperationName> = { [K in keyof Fields<N>]: Fields<N>[K] extends `${string}?` ? K : never }[keyof Fields<N>];

/** The arguments of one operation, derived from the table. Registers are named; names are unique within a plan. */
export type Arguments<N extends OperationName> =
  & { -readonly [K in Exclude<keyof Fields<N>, OptionalKeys<N>>]: Fields<N>[K] extends FieldType ? Value<Fields<N>[K]> : never }
  & { -readonly [K in OptionalKeys<N>]?: Fields<N>[K] extends FieldType ? Value<Fields<N>[K]> : never };

/** Flags valid for every operation, by name (see OP_FLAGS). */
export type OperationFlags = { readonly [K in keyof typeof OP_FLAGS]?: boolean };

/** An operation: plain data. */
export interface Operation<N extends OperationName = OperationName> {
  readonly name: N;
  readonly args: Readonly<Record<string, unknown>>;
  readonly flags?: OperationFlags;
}

type ChangingName = { [N in OperationName]: (typeof operations)[N]['changes'] extends true ? N : never }[OperationName];

/** What undoes an operation; `none` only with a reason in words, shown by --explain. */
export type Undo = Operation | readonly Operation[] | { readonly none: string };

/** An operation with its place in a plan. */
export interface Step {
  readonly slot: Slot;
  readonly operation: Operation;
  readonly undo: readonly Operation[];
  /** Why there is no undo, when a changing operation on the host has none. */
  readonly noUndo?: string;
}

/** An operation that a driver asks to have run now, with its undo; see `Effects`. */
export interface Effect {
  readonly operation: Operation;
  readonly undo: readonly Operation[];
  readonly noUndo?: string;
  /** The field of what was asked for that it serves, for the words of its failure: `cpu.cpus`. */
  readonly asked?: string;
}

/** A place of a plan where an undo is demanded by the type when the operation changes something. */
export type UndoArgument<S extends Slot, N extends OperationName> =
  S extends HostSlot ? (N extends ChangingName ? [undo: Undo] : [undo?: Undo]) : [undo?: Undo];
export type EffectUndo<N extends OperationName> = N extends ChangingName ? [undo: Undo] : [undo?: Undo];

/** Who asked for an operation and who compiled it. Both are plugin names. */
export interface Origin {
  /** The plugin whose tap or driver wrote the operation. */
  readonly plugin: string;
  /** The hook it ran in. */
  readonly hook: string;
  /** The JSON pointer of the spec it compiles, where there is one. */
  readonly pointer?: string;
  /** The plugin that put that part into the spec, where it is another one. */
  readonly asked?: string;
}
export interface PlannedStep extends Step { readonly origin: Origin }

/** A finished plan, before encoding. Steps stand in the order they will run. */
export interface Plan {
  readonly steps: readonly PlannedStep[];
}
