import { closeSync, openSync } from 'node:fs';
import { CLONE_NEWNET } from './constants.ts';
import { defineLibrary, errnoName } from './library.ts';

/**
 * For tests that talk to the real kernel: the main thread goes into a net namespace of its own, which is as empty as a new one is (lo is down). Sockets and
 * processes that are made from then on are there. Returns the way back; the namespace is gone when nothing is in it. Root is needed.
 */
export function enterNetns(): () => void {
  const libc = defineLibrary('libc.so.6', { unshare: { args: ['int'], result: 'int' }, setns: { args: ['int', 'int'], result: 'int' } });
  const before = openSync('/proc/thread-self/ns/net', 'r');
  const { value, errno } = libc.unshare(CLONE_NEWNET);
  if (value < 0) throw new Error(`cannot make a net namespace: ${errnoName(errno)}`);
  return () => {
    const back = libc.setns(before, CLONE_NEWNET);
    closeSync(before);
    if (back.value < 0) throw new Error(`cannot return to the net namespace: ${errnoName(back.errno)}`);
  };
}
/** Why it cannot be done here; undefined when it can. */
export const netnsUnable = process.getuid?.() === 0 ? undefined : 'not root';
