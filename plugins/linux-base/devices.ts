import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { op } from '@engine/core/plan';
import { REGISTER, type Machine } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Device, type Spec } from '@engine/core/spec';
import { S_IF } from './kernel.ts';
import { readMountOptions } from './mount-options.ts';

/** Nodes that every container has (OCI runtime spec, default devices). /dev/console comes with the terminal. */
export const defaultDevices: readonly Device[] = [
  { type: 'c', path: '/dev/null', major: 1, minor: 3, fileMode: 0o666 },
  { type: 'c', path: '/dev/zero', major: 1, minor: 5, fileMode: 0o666 },
  { type: 'c', path: '/dev/full', major: 1, minor: 7, fileMode: 0o666 },
  { type: 'c', path: '/dev/random', major: 1, minor: 8, fileMode: 0o666 },
  { type: 'c', path: '/dev/urandom', major: 1, minor: 9, fileMode: 0o666 },
  { type: 'c', path: '/dev/tty', major: 5, minor: 0, fileMode: 0o666 },
];
const links: readonly (readonly [path: string, target: string])[] = [
  ['/dev/fd', '/proc/self/fd'], ['/dev/stdin', '/proc/self/fd/0'], ['/dev/stdout', '/proc/self/fd/1'], ['/dev/stderr', '/proc/self/fd/2'],
  ['/dev/core', '/proc/kcore'], ['/dev/ptmx', 'pts/ptmx'],
];

const type: Readonly<Record<Device['type'], number>> = { c: S_IF.character, u: S_IF.character, b: S_IF.block, p: S_IF.fifo };

/** Where the host has this device, whatever it is called inside. */
function hostPath({ type: kind, path, major = 0, minor = 0 }: Device, machine: Pick<Machine, 'read'>): string {
  // these are the same everywhere (Linux, devices.txt)
  if (defaultDevices.some((device) => device.path === path && device.type === kind && device.major === major && device.minor === minor)) return path;
  const name = /^DEVNAME=(.+)$/m.exec(machine.read(`/sys/dev/${kind === 'b' ? 'block' : 'char'}/${major}:${minor}/uevent`) ?? '')?.[1];
  return name === undefined ? path : `/dev/${name}`;
}

/** Is /dev the container's own (and not a bind of somebody else's)? */
function ownsDev(spec: Spec): boolean {
  return !(spec.mounts ?? []).some((mount) => posix.normalize(mount.destination).replace(/(.)\/$/, '$1') === '/dev' && readMountOptions(mount).bind);
}

/**
 * Nodes and links below /dev. Slot `init.devices`; a device of the spec replaces the default one of the same path.
 * Errors: ERR_INVALID_VALUE for a relative path or numbers out of range.
 */
export function planDevices(plan: PlanWriter, spec: Spec, machine: Pick<Machine, 'read'>): void {
  const chosen = (spec.linux?.devices ?? []).map((device, index) => ({ device: { ...device, path: posix.normalize(device.path) }, pointer: `/linux/devices/${index}` }));
  const paths = new Set(chosen.map(({ device }) => device.path));
  const own = ownsDev(spec);
  // as runc: a /dev that is bound is somebody else's folder, in which nothing is made
  const all = own ? [...defaultDevices.filter(({ path }) => !paths.has(path)).map((device) => ({ device, pointer: '/linux/devices' })), ...chosen] : chosen.filter(({ device }) => !device.path.startsWith('/dev/'));
  const root = REGISTER.rootfs;
  // as runc: a rootfs may have no /dev, and nothing be mounted there
  const folders = new Set(['/', ...((spec.mounts ?? []).some(({ destination }) => posix.resolve('/', destination) === '/dev') ? ['/dev'] : [])]);
  for (const { device, pointer } of all) {
    const writer = plan.at(pointer);
    if (!posix.isAbsolute(device.path)) throw fail('ERR_INVALID_VALUE', `device ${device.path}: the path is not absolute`, { path: device.path });
    const format = type[device.type];
    if (format === undefined) throw fail('ERR_INVALID_VALUE', `device ${device.path}: unknown type ${String(device.type)}`, { path: device.path });
    const folder = posix.dirname(device.path);
    if (!folders.has(folder)) {
      folders.add(folder);
      writer.add('init.devices', op.mkdir({ root, path: folder, mode: 0o755, parents: 1 }, { okExists: true }));
    }
    const node = device.type === 'p' ? {} : { major: device.major ?? 0, minor: device.minor ?? 0 };
    // a user namespace may not mknod: the host's node stands in
    const bind = device.type === 'p' ? {} : { bind: hostPath(device, machine) };
    writer.add('init.devices', op.mknod({ root, path: device.path, mode: format | ((device.fileMode ?? 0o666) & 0o7777), ...node, uid: device.uid ?? 0, gid: device.gid ?? 0, ...bind }));
  }
  if (!own) return;
  const writer = plan.at('/linux/devices');
  for (const [path, target] of links) if (!paths.has(path)) writer.add('init.devices', op.symlink({ root, path, target }, { okExists: true }));
}
