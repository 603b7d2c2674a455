import { constants } from 'node:os';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { op, type Operation } from '@engine/core/plan';
import { CLONE_NEWNET, CLONE_NEWUTS } from '../constants.ts';
import { newLink, newVeth, setLink } from '../netlink.ts';
import { canRun, encode, inFolder, run, runBytes, type Result } from './harness.ts';

const E = constants.errno;
const offsets = (...at: number[]): Uint8Array => Buffer.from(Uint32Array.from(at).buffer);
const NO_UNDO = 0xf00d_beef;
/** Where the made-up number stands in a message. */
const patchAt = (messages: Buffer): Uint8Array => offsets(messages.indexOf(Buffer.from([0xef, 0xbe, 0x0d, 0xf0])));
const inNamespace = (...operations: Operation[]): Result => run([op.unshare({ flags: BigInt(CLONE_NEWNET | CLONE_NEWUTS) }), ...operations]);
const shell = (script: string): Operation => op.execHost({ argv: ['/bin/sh', '-c', script], env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'], deadline: 5000 });
const ROUTE = 0;

describe.skipIf(!canRun)('network operations', () => {
  it('find the index of a link and put it into messages', () => inFolder((folder) => {
    const up = setLink({ index: NO_UNDO }, { up: true });
    const { failures } = inNamespace(
      op.netlink({ protocol: ROUTE, messages: newLink('brief0', 'bridge', { index: 77 }) }),
      op.linkIndex({ name: 'brief0', out: 'link' }),
      op.netlinkWith({ protocol: ROUTE, messages: Buffer.concat([up, up]), patch: 'link', patchAt: offsets(20, up.length + 20) }),
      op.linkIndex({ name: 'lo', out: 'link' }),
      op.netlinkWith({ protocol: ROUTE, messages: up, patch: 'link', patchAt: patchAt(up) }),
      shell(`ip -o link show up > ${join(folder, 'links')}`),
    );
    expect(failures).toEqual([]);
    expect(readFileSync(join(folder, 'links'), 'utf8')).toMatch(/^1: lo:.*\n77: brief0:.*\n$/);
  }));

  it('do so in another namespace, whose fd a message names', () => {
    const veth = newVeth({ name: 'here0' }, { name: 'there0', pid: NO_UNDO });
    // IFLA_NET_NS_PID becomes IFLA_NET_NS_FD
    const at = veth.indexOf(Buffer.from([0xef, 0xbe, 0x0d, 0xf0]));
    veth.writeUInt16LE(28, at - 2);
    const { failures } = inNamespace(
      op.openNamespace({ type: 'net', path: '/proc/self/ns/net', out: 'there' }),
      op.unshare({ flags: BigInt(CLONE_NEWNET) }),
      op.netlinkWith({ protocol: ROUTE, messages: veth, patch: 'there', patchAt: offsets(at) }),
      op.linkIndex({ name: 'there0', namespace: 'there', out: 'peer' }),
      op.netlinkWith({ protocol: ROUTE, messages: setLink({ index: NO_UNDO }, { up: true }), namespace: 'there', patch: 'peer', patchAt: offsets(20) }),
      op.linkIndex({ name: 'here0', out: 'peer' }),
      op.linkIndex({ name: 'there0', out: 'peer' }),
    );
    expect(failures).toMatchObject([{ index: 7, errno: E.ENODEV, detail: expect.stringContaining('there0') }]);
  });

  it.each(['', 'sixteen-letters-', 'a name'.repeat(20)])('refuse "%s" as a link\'s name', (name) => {
    expect(inNamespace(op.linkIndex({ name, out: 'x' })).failures).toMatchObject([{ errno: E.EINVAL }]);
  });

  it('give the kernel\'s own words', () => {
    expect(inNamespace(op.linkIndex({ name: 'lo', out: 'x' }), op.netlinkWith({ protocol: ROUTE, messages: newLink('x', 'nonsense'), patch: 'x', patchAt: offsets() })).failures).toMatchObject([{ index: 2, detail: expect.stringContaining('Unknown device type') }]);
  });

  it('patch nothing outside of the messages', () => {
    const messages = setLink({ index: 0 }, { up: true });
    const patched = (...at: number[]): Result => inNamespace(op.linkIndex({ name: 'lo', out: 'x' }), op.netlinkWith({ protocol: ROUTE, messages, patch: 'x', patchAt: offsets(...at) }));
    expect(patched(20).failures).toEqual([]);
    for (const at of [messages.length - 3, messages.length, messages.length + 1, 0x7fff_fffc, 0x8000_0000, 0xffff_fffc, 0xffff_ffff]) expect(patched(20, at).failures, String(at)).toMatchObject([{ errno: E.EINVAL, detail: `offset ${at} lies outside the messages` }]);
    expect(patched(messages.length - 4).failures).not.toMatchObject([{ detail: expect.stringContaining('outside') }]);
    const odd = inNamespace(op.linkIndex({ name: 'lo', out: 'x' }), op.netlinkWith({ protocol: ROUTE, messages, patch: 'x', patchAt: Buffer.alloc(3) }));
    expect(odd.failures).toMatchObject([{ errno: E.EINVAL, detail: 'damaged list of offsets' }]);
    const empty = inNamespace(op.linkIndex({ name: 'lo', out: 'x' }), op.netlinkWith({ protocol: ROUTE, messages: Buffer.alloc(0), patch: 'x', patchAt: offsets(0) }));
    expect(empty.failures).toMatchObject([{ errno: E.EINVAL }]);
    expect(inNamespace(op.netlinkWith({ protocol: ROUTE, messages, patch: 'unset', patchAt: offsets(20) })).failures).toMatchObject([{ errno: E.EBADF }]);
  });

  it('patch at whatever offset without a crash', { timeout: 60_000 }, () => {
    const messages = Buffer.concat([newLink('br', 'bridge', { index: 9 }), newVeth({ name: 'a' }, { name: 'b' })]);
    const each = Array.from({ length: messages.length - 3 }, (_, at) => op.netlinkWith({ protocol: ROUTE, messages, patch: 'x', patchAt: offsets(at) }, { optional: true }));
    const result = inNamespace(op.linkIndex({ name: 'lo', out: 'x' }), ...each);
    expect(result.failures).toEqual([]);
    expect(result.warnings.length).toBeGreaterThan(each.length / 2);
  });

  it('hold no port where there is no shim', () => {
    expect(inNamespace(op.holdPort({ protocol: 6, address: Buffer.alloc(4), port: 8080 })).failures).toMatchObject([{ errno: E.ENOTSUP }]);
  });

  describe.skipIf(!existsSync('/usr/sbin/nft') || !existsSync('/bin/bash'))('forgetFlows', () => {
    // a rule that looks at connections makes this kernel follow them in the namespace
    const follow = 'ip link set lo up; nft add table inet t; nft "add chain inet t c { type filter hook input priority 0; }"; nft add rule inet t c ct state invalid drop';
    const flows = (script: string, ...operations: Operation[]): string => inFolder((folder) => {
      const { failures } = inNamespace(shell(`{ ${follow}; ${script}; } 2>&1; true`), ...operations, shell(`cat /proc/net/nf_conntrack > ${folder}/left`));
      expect(failures).toEqual([]);
      return readFileSync(join(folder, 'left'), 'utf8');
    });
    const speak = ['127.0.0.1/5000', '127.0.0.1/5001', '127.0.0.2/5000', '::1/5000'].map((to) => `bash -c "echo x > /dev/udp/${to}"`).join('; ');
    const ports = (left: string): string[] => [...left.matchAll(/udp .*? dst=(\S+) sport=\d+ dport=(\d+) .*?(?:dst=|\n)/g)].map((found) => `${found[1]} ${found[2]}`).sort();

    it('forgets those of one port', () => {
      const left = flows(speak);
      expect(ports(left)).toEqual(['0000:0000:0000:0000:0000:0000:0000:0001 5000', '127.0.0.1 5000', '127.0.0.1 5001', '127.0.0.2 5000']);
      expect(ports(flows(speak, op.forgetFlows({ protocol: 17, port: 5000 })))).toEqual(['127.0.0.1 5001']);
      expect(ports(flows(speak, op.forgetFlows({ protocol: 17, address: Buffer.from([127, 0, 0, 2]), port: 5000 })))).toHaveLength(3);
      expect(ports(flows(speak, op.forgetFlows({ protocol: 17, address: Buffer.from('00000000000000000000000000000001', 'hex'), port: 5000 })))).toEqual(['127.0.0.1 5000', '127.0.0.1 5001', '127.0.0.2 5000']);
      expect(ports(flows(speak, op.forgetFlows({ protocol: 6, port: 5000 }), op.forgetFlows({ protocol: 17, port: 5002 })))).toHaveLength(4);
    });

    it('forgets those of many ports by one walk, however they are mixed', () => {
      const of = (last: number): Uint8Array => Buffer.from([127, 0, 0, last]);
      const many = Array.from({ length: 2500 }, (_, i) => op.forgetFlows({ protocol: i % 2 ? 17 : 6, port: 10_000 + i }));
      expect(ports(flows(speak, ...many, op.forgetFlows({ protocol: 17, address: of(2), port: 5000 }), op.forgetFlows({ protocol: 17, port: 5001 })))).toEqual(['0000:0000:0000:0000:0000:0000:0000:0001 5000', '127.0.0.1 5000']);
      expect(ports(flows(speak, op.forgetFlows({ protocol: 17, port: 5001 }), op.forgetFlows({ protocol: 17, address: of(1), port: 5000 }), op.forgetFlows({ protocol: 17, address: of(9), port: 5000 })))).toHaveLength(2);
      expect(ports(flows(speak, op.forgetFlows({ protocol: 17, port: 1 }), op.forgetFlows({ protocol: 6, port: 5000 }), op.setHostname({ name: 'between' }), op.forgetFlows({ protocol: 17, port: 5000 })))).toEqual(['127.0.0.1 5001']);
      const wrong = inNamespace(op.forgetFlows({ protocol: 17, port: 1 }), op.forgetFlows({ protocol: 17, port: 2 }), op.forgetFlows({ protocol: 17, port: 70_000 }));
      expect(wrong.failures).toMatchObject([{ index: 3, errno: E.EINVAL }]);
    });

    it('succeeds where nobody follows connections, also as an undo', () => {
      expect(inNamespace(op.forgetFlows({ protocol: 17, port: 5000 })).failures).toEqual([]);
      expect(runBytes('after', encode([['after.undo', op.forgetFlows({ protocol: 17, port: 1 })]])).failures).toEqual([]);
      expect(inNamespace(op.forgetFlows({ protocol: 17, port: 70_000 })).failures).toMatchObject([{ errno: E.EINVAL }]);
    });
  });
});
