import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { defineLibrary } from '@engine/native';
import { encodeBatch, NETLINK_ROUTE, setLink } from '@engine/native/netlink';
import { openNetlink } from '@engine/native/netlink-socket';
import { createRtnetlink } from '@engine/native/rtnetlink';

const CLONE_NEWNET = 0x40000000;
let libc: ReturnType<typeof load> | undefined;
const load = () => defineLibrary(['libc.so.6', `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`], {
  unshare: { args: ['int'], result: 'int' },
  setns: { args: ['int', 'int'], result: 'int' },
  socket: { args: ['int', 'int', 'int'], result: 'int' },
  setsockopt: { args: ['int', 'int', 'int', 'bytes', 'u32'], result: 'int' },
  sendto: { args: ['int', 'bytes', 'size', 'int', 'bytes', 'u32'], result: 'i64' },
});
/** What tests of networks need of the C library, called on the main thread. */
export const networkCalls = (): NonNullable<typeof libc> => (libc ??= load());

/**
 * From here on this process (its main thread, and whoever is started by it) has a net namespace of its own, with lo up: what a test file does with networks does not touch the
 * machine's. For files that hold suites of level 2; tests of the whole program make a world instead.
 */
export function leaveTheNetwork(): void {
  assert.equal(networkCalls().unshare(CLONE_NEWNET).value, 0);
  const socket = openNetlink(NETLINK_ROUTE);
  socket.request(encodeBatch([setLink({ index: 1 }, { up: true })]));
  socket.close();
  assert.deepEqual(createRtnetlink().links().map(({ name }) => name), ['lo']);
}

/** Run `work`, synchronously, in the net namespace of a process. */
export function inNetworkOf<T>(pid: number, work: () => T): T {
  const calls = networkCalls();
  const [own, other] = [openSync('/proc/self/ns/net', 'r'), openSync(`/proc/${pid}/ns/net`, 'r')];
  try {
    assert.equal(calls.setns(other, CLONE_NEWNET).value, 0);
    return work();
  } finally {
    assert.equal(calls.setns(own, CLONE_NEWNET).value, 0);
    closeSync(own);
    closeSync(other);
  }
}
