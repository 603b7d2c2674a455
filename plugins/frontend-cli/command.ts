import { type Engine } from '@engine/core/api';
import { type Invocation } from '@engine/core/contracts/frontend';
import { type Flags, type Values } from './parse.ts';

/** What a command runs with. */
export interface CommandContext {
  readonly open: () => Promise<Engine>;
  readonly invocation: Invocation;
  /** Print to standard output; resolves when it is written. */
  print(text: string): Promise<void>;
  warn(text: string): void;
  /** Run `each` for every reference; failures are printed, the others go on. Resolves to the exit code. */
  forEach(refs: readonly string[], each: (ref: string) => Promise<void>): Promise<number>;
}

export interface Command {
  /** As typed: `run`, `volume ls`. */
  readonly name: string;
  readonly aliases?: readonly string[];
  /** What follows the name in the help. */
  readonly usage: string;
  readonly summary: string;
  readonly flags: Flags;
  readonly args: readonly [number, number];
  /** Everything after the first positional belongs to the container. */
  readonly passThrough?: boolean;
  run(context: CommandContext, flags: never, args: readonly string[]): Promise<number>;
}

/** Ties the type of `flags` to the table. */
export function command<F extends Flags>(
  definition: Omit<Command, 'flags' | 'run'> & { readonly flags: F; run(context: CommandContext, flags: Values<F>, args: readonly string[]): Promise<number> },
): Command {
  return definition as unknown as Command;
}
