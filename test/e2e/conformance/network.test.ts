import assert from 'node:assert/strict';
import { describe, it } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { networkSuite } from '@engine/core/contracts/network/suite';
import { createNative, defineLibrary } from '@engine/native';
import { createContainerRunner, unable as noShim } from '@engine/native/container-runner';
import { encodeBatch, NETLINK_ROUTE, setLink } from '@engine/native/netlink';
import { openNetlink } from '@engine/native/netlink-socket';
import { createRtnetlink } from '@engine/native/rtnetlink';
import { createNetworkBridge } from '../../../plugins/network-bridge/driver.ts';
import { realBench, unable } from './bench.ts';

const CLONE_NEWNET = 0x40000000;

/** From here on this process (its main thread, and who is started by it) has a net namespace of its own: nothing below touches the machine's. */
function leaveTheNetwork(): void {
  const libc = defineLibrary(['libc.so.6', 'libc.musl-x86_64.so.1'], { unshare: { args: ['int'], result: 'int' } });
  assert.equal(libc.unshare(CLONE_NEWNET).value, 0);
  const socket = openNetlink(NETLINK_ROUTE);
  socket.request(encodeBatch([setLink({ index: 1 }, { up: true })]));
  socket.close();
  assert.deepEqual(createRtnetlink().links().map(({ name }) => name), ['lo']);
}

describe.skipIf(unable ?? noShim)('real shim', () => {
  if ((unable ?? noShim) === undefined) leaveTheNetwork();
  const common = { bench: () => realBench(), containers: createContainerRunner(createNative()) };
  describeSuite('network bridge', networkSuite, { ...common, create: ({ machine, instance }) => createNetworkBridge({ machine, instance, rtnetlink: createRtnetlink() }) }, { timeout: 110_000 });

  it('nothing is left', () => assert.deepEqual(createRtnetlink().links().map(({ name }) => name), ['lo']));
});
