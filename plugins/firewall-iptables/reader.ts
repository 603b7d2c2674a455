import { type Variant } from './programs.ts';
import { createLegacyReader } from './read-legacy.ts';
import { createNftReader } from './read-nft.ts';

export type Family = 4 | 6;
export type TableName = 'filter' | 'nat' | 'mangle' | 'raw';

/** As much of a rule as can be told from its bytes with both kinds of tables. */
export interface Rule {
  /** Is this the chain that it goes to, or one of its interfaces? */
  mentions(name: string): boolean;
}
/** The rules as the kernel had them when they were first asked for: one look for all questions that belong together. Synchronous: no program is started. Errors: ERR_NATIVE. */
export interface Rules {
  /** In order; empty also for a chain that is not there. */
  rules(family: Family, table: TableName, chain: string): readonly Rule[];
  hasChain(family: Family, table: TableName, chain: string): boolean;
}
export interface RuleReader {
  /** A number that changes with every change of any rule; undefined where the kernel counts none. */
  generation(): number | undefined;
  look(): Rules;
}

export const createReader = (variant: Variant): RuleReader => (variant === 'nft' ? createNftReader() : createLegacyReader());
