import { type Arguments, type Effect, type EffectUndo, type Operation, type OperationFlags, type OperationName, type Step, type Undo, type UndoArgument } from './types.ts';
import { operations } from './table.ts';
import { type Slot } from './slots.ts';

type Builders = { readonly [N in OperationName]: (args: Arguments<N>, flags?: OperationFlags) => Operation<N> };

/** One builder per operation: `op.mkdir({path: '/x', mode: 0o700})`. Arguments are checked by type here and by value in the encoder. */
export const op = Object.fromEntries(
  Object.keys(operations).map((name) => [name, (args: object, flags?: OperationFlags) => (flags ? { name, args, flags } : { name, args })]),
) as unknown as Builders;

function undoOf(undo: Undo | undefined): { undo: readonly Operation[]; noUndo?: string } {
  if (undo === undefined) return { undo: [] };
  if ('none' in undo) return { undo: [], noUndo: undo.none };
  return { undo: Array.isArray(undo) ? undo : [undo as Operation] };
}

/** A step of a plan. In host slots (`shim.*`, `helper.*`) a changing operation without an undo is a type error. */
export function step<S extends Slot, N extends OperationName>(slot: S, operation: Operation<N>, ...undo: UndoArgument<S, N>): Step {
  return { slot, operation, ...undoOf(undo[0]) };
}

/** An operation to be run now, through `Effects`. A changing operation without an undo is a type error. */
export function effect<N extends OperationName>(operation: Operation<N>, ...undo: EffectUndo<N>): Effect {
  return { operation, ...undoOf(undo[0]) };
}

/** An undo may find that what it undoes was never done, or has been undone already. */
export const forgiving = (operation: Operation): Operation => ({ ...operation, flags: { ...operation.flags, okMissing: true } });
