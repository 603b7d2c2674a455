import { type Bundles, type BundleRef } from '@engine/core/api';
import { type CallerProcess, type Invocation } from '@engine/core/contracts/frontend';
import { fail } from '@engine/core/errors';
import { type Globals } from './globals.ts';
import { type Flags, type Values } from './parse.ts';
import { type Report } from './report.ts';

/** What a command runs with. */
export interface CommandContext {
  readonly invocation: Invocation;
  readonly globals: Globals;
  readonly report: Report;
  bundles(): Promise<Bundles>;
  ref(id: string): BundleRef;
  /** Print to standard output; resolves when it is written. */
  print(text: string): Promise<void>;
}

export interface Command {
  readonly name: string;
  /** What follows the name in the help. */
  readonly usage: string;
  readonly summary: string;
  /** More for the help. */
  readonly description?: string;
  readonly flags: Flags;
  readonly args: readonly [number, number];
  /** Everything from the first word on that is no flag is not looked at. */
  readonly passThrough?: boolean;
  /** What errors begin with, as runc's do: `exec failed: `. */
  readonly prefix?: string;
  /** Exit code of what goes wrong; default 1. */
  readonly exitCode?: number;
  run(context: CommandContext, flags: never, args: readonly string[]): Promise<number>;
}

/** Ties the type of `flags` to the table. */
export function command<F extends Flags>(
  definition: Omit<Command, 'flags' | 'run'> & { readonly flags: F; run(context: CommandContext, flags: Values<F>, args: readonly string[]): Promise<number> },
): Command {
  return definition as unknown as Command;
}

/** Errors: ERR_NOT_SUPPORTED where there is nobody who could start the container's processes as his children. */
export function callerOf({ invocation: { caller } }: CommandContext, operation: string): CallerProcess {
  if (!caller) throw fail('ERR_NOT_SUPPORTED', 'there is no process of the caller that could start the container', { operation, hint: 'call it as bin/engine-oci' });
  return caller;
}
