import { closeSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { defineLibrary, type Library } from './library.ts';
import { NETLINK_NETFILTER } from './netlink-codec.ts';
import { netlinkDescriptor } from './netlink-wire.ts';

/** nft's own language, in this process: 0.15 ms instead of the 2.6 ms of the program. */

const table = {
  nft_ctx_new: { args: ['u32'], result: 'pointer' },
  nft_ctx_free: { args: ['pointer'], result: 'void' },
  nft_ctx_set_dry_run: { args: ['pointer', 'koffi:bool'], result: 'void' },
  nft_ctx_output_set_flags: { args: ['pointer', 'u32'], result: 'void' },
  nft_ctx_buffer_output: { args: ['pointer'], result: 'int' },
  nft_ctx_buffer_error: { args: ['pointer'], result: 'int' },
  nft_run_cmd_from_buffer: { args: ['pointer', 'str'], result: 'int' },
  nft_ctx_get_output_buffer: { args: ['pointer'], result: 'str' },
  nft_ctx_get_error_buffer: { args: ['pointer'], result: 'str' },
} as const;
const HANDLE = 1 << 3;
const JSON_OUTPUT = 1 << 4;
const NUMERIC_PRIO = 1 << 8;
const TERSE = 1 << 11;

let library: Library<typeof table> | undefined;
function libnftables(): Library<typeof table> {
  if (library) return library;
  // where nfnetlink is missing the library would end the process
  closeSync(netlinkDescriptor(NETLINK_NETFILTER));
  try {
    library = defineLibrary('libnftables.so.1', table);
  } catch (cause) {
    throw fail('ERR_NATIVE', 'libnftables cannot be loaded', { path: 'libnftables.so.1', cause, hint: 'install it: apt install libnftables1' });
  }
  return library;
}

export interface NftOptions {
  /** Read the answer as JSON: `nft -j`. Not of whole rulesets: with 1.0.6 that damages the heap where a table has flags; see nft-ruleset.ts. */
  readonly json?: boolean;
  /** With the handles of rules and chains: `nft -a`. */
  readonly handles?: boolean;
  /** Without the elements of sets and maps: `nft -t`. Without it every `list` reads all there are of all tables, some microseconds each. */
  readonly terse?: boolean;
}
function run(text: string, options: NftOptions, dry: boolean): string {
  const nft = libnftables();
  // one context per command: it would remember the ruleset, and the net namespace of its socket
  const context = nft.nft_ctx_new(0).value;
  if (context === null) throw fail('ERR_NATIVE', 'libnftables has no memory', { operation: 'nft' });
  try {
    if (nft.nft_ctx_buffer_output(context).value || nft.nft_ctx_buffer_error(context).value) throw fail('ERR_NATIVE', 'libnftables has no memory', { operation: 'nft' });
    nft.nft_ctx_output_set_flags(context, (options.json ? JSON_OUTPUT : 0) | (options.handles ? HANDLE : 0) | (options.terse ? TERSE : 0) | NUMERIC_PRIO);
    if (dry) nft.nft_ctx_set_dry_run(context, true);
    const { value, errno } = nft.nft_run_cmd_from_buffer(context, text);
    // copied by the call, before the context goes
    const output = nft.nft_ctx_get_output_buffer(context).value ?? '';
    if (value === 0) return output;
    const words = (nft.nft_ctx_get_error_buffer(context).value ?? '').trim();
    throw fail('ERR_NATIVE', `nft: ${words === '' ? 'the command failed' : firstLine(words)}`, { operation: 'nft', data: { output: words }, ...(errno ? { errno: nameIn(words) ?? 'EINVAL' } : {}) });
  } finally {
    nft.nft_ctx_free(context);
  }
}
/** `/dev/stdin:1:2-3: Error: …` without the place, which is in `data.output`. */
const firstLine = (words: string): string => (/Error: (.*)/.exec(words)?.[1] ?? words.split('\n')[0] ?? '').trim();
const errnos: readonly (readonly [RegExp, string])[] = [[/No such file or directory/, 'ENOENT'], [/File exists/, 'EEXIST'], [/Device or resource busy/, 'EBUSY'], [/Operation not permitted/, 'EPERM'], [/Operation not supported/, 'ENOTSUP']];
const nameIn = (words: string): string | undefined => errnos.find(([pattern]) => pattern.test(words))?.[1];

/**
 * Run commands of nft's language in the net namespace of the calling thread, all of them as one transaction. Its output. Synchronous.
 * Errors: ERR_NATIVE with nft's first message, all of them in `data.output`; with a hint when the library isn't there.
 */
export const runNft = (text: string, options: NftOptions = {}): string => run(text, options, false);
/** Would it be accepted? The kernel is asked what there is, and changes nothing. Errors: as runNft. */
export function checkNft(text: string): void {
  run(text, {}, true);
}
