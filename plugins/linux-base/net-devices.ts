import { fail } from '@engine/core/errors';
import { op } from '@engine/core/plan';
import { REGISTER } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Spec } from '@engine/core/spec';
import { encodePatched, newAddress, NETLINK_ROUTE, setLink, slot } from '@engine/native/netlink';
import { type Rtnetlink } from '@engine/native/rtnetlink';
import { readNamespaces } from './namespaces.ts';

/** As the kernel takes names of links (dev_valid_name), without what a pattern would be (`%d`). */
const NAME = /^(?!\.{1,2}$)[^\s/:%\0]{1,15}$/;
const checkName = (name: string, field: string): string => {
  if (!NAME.test(name)) throw fail('ERR_INVALID_VALUE', `${field}: ${JSON.stringify(name)} is no name of a network device`, { path: field });
  return name;
};
const WHERE = 'netns';
const LINK = 'link';

/**
 * `linux.netDevices`: links of the host go into the container's net namespace, get their name there, the lasting addresses of global scope that they have now, and are
 * up. They come back by themselves: with the namespace the kernel gives physical ones back to the host, and ends virtual ones (config-linux.md, Network Devices).
 * Errors: ERR_INVALID_VALUE: a bad name, two of one name, no net namespace of its own; one that is not there is told when the plan runs, by the kernel.
 */
export function planNetDevices(plan: PlanWriter, spec: Spec, rtnetlink: Pick<Rtnetlink, 'link' | 'addresses'>): void {
  const devices = Object.entries(spec.linux?.netDevices ?? {});
  if (devices.length === 0) return;
  const { own, joined } = readNamespaces(spec);
  if (!own.has('network') && !joined.some(({ type }) => type === 'network')) throw fail('ERR_INVALID_VALUE', 'linux.netDevices: the container shares the host\'s network namespace', { path: 'linux.netDevices', hint: 'give it a network namespace' });
  const taken = new Set<string>();
  for (const [name, { name: renamed }] of devices) {
    const field = `linux.netDevices.${name}`;
    checkName(name, field);
    const inside = renamed ? checkName(renamed, `${field}.name`) : name;
    if (taken.has(inside)) throw fail('ERR_INVALID_VALUE', `${field}: two devices are to be ${inside} inside`, { path: field });
    taken.add(inside);
    const link = rtnetlink.link({ name });
    if (!link) throw fail('ERR_INVALID_VALUE', `${field}: there is no such network device`, { path: field });
    const writer = plan.at(`/linux/netDevices/${name.replaceAll('~', '~0')}`);
    const index = `linux-base.link.${taken.size}`;
    // one message: in the other namespace nobody sees it by its old name
    const move = encodePatched([setLink({ index: link.index }, { rename: inside, netnsPid: slot(WHERE) })]);
    writer.add('shim.attach', op.netlinkWith({ protocol: NETLINK_ROUTE, messages: move.bytes, patch: REGISTER.init, patchAt: move.at[WHERE] as Uint8Array }), { none: 'the kernel gives it back when the container\'s net namespace ends' });
    writer.add('init.netns', op.linkIndex({ name: inside, out: index }));
    const there = slot(LINK);
    const settle = encodePatched([
      ...rtnetlink.addresses(link.index).filter(({ scope, permanent }) => scope === 0 && permanent).map(({ address, prefix, broadcast }) => newAddress(there, address, prefix, broadcast === undefined ? {} : { broadcast })),
      setLink({ index: there }, { up: true }),
    ]);
    writer.add('init.netns', op.netlinkWith({ protocol: NETLINK_ROUTE, messages: settle.bytes, patch: index, patchAt: settle.at[LINK] as Uint8Array }, { okExists: true }));
  }
}
