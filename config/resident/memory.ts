import { readFile } from 'node:fs/promises';
import { defineLibrary } from '@engine/native/library';

const MADV_DONTNEED = 4;

/** Mappings of the program file that nothing has ever been written to: address and length. */
export function cleanCode(smaps: string, program: string): { readonly start: bigint; readonly length: bigint }[] {
  const found: { start: bigint; length: bigint }[] = [];
  for (const part of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const [, from = '0', to = '0', path = ''] = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \S+ +(.*)$/m.exec(part) ?? [];
    if (path !== program || !/^Anonymous: +0 kB$/m.test(part) || !/^Private_Dirty: +0 kB$/m.test(part)) continue;
    found.push({ start: BigInt(`0x${from}`), length: BigInt(`0x${to}`) - BigInt(`0x${from}`) });
  }
  return found;
}

/**
 * Give back the pages of Node's own program that were touched once, at its start mostly: half of what a process of Node holds. They stay in the page
 * cache; what is needed comes back with a minor fault. Best effort.
 */
export async function giveBackCode(): Promise<void> {
  try {
    const mappings = cleanCode(await readFile('/proc/self/smaps', 'latin1'), process.execPath);
    const libc = defineLibrary(['libc.so.6', 'libc.so'], { madvise: { args: ['u64', 'size', 'int'], result: 'int' }, malloc_trim: { args: ['size'], result: 'int' } });
    libc.malloc_trim(0);
    for (const { start, length } of mappings) libc.madvise(start, length, MADV_DONTNEED);
  } catch {
    // another libc, no /proc: then it holds more
  }
}
