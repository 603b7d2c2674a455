import path from 'node:path';
import { fail } from '@engine/core/errors';
import { type ContainerRequest } from '@engine/core/api';
import { type Device, type DeviceRule } from '@engine/core/spec';
import { type HostDevice, type HostView } from './host-view.ts';

const defaults: readonly Device[] = [['null', 1, 3], ['zero', 1, 5], ['full', 1, 7], ['random', 1, 8], ['urandom', 1, 9], ['tty', 5, 0]]
  .map(([name, major, minor]): Device => ({ type: 'c', path: `/dev/${name}`, major: major as number, minor: minor as number, fileMode: 0o666, uid: 0, gid: 0 }));
/** What a privileged container doesn't get of the host's /dev: it has its own. */
const skipped = new Set(['pts', 'shm', 'fd', 'mqueue', 'ptmx', 'console', '.lxc', '.lxd-mounts', '.udev']);
const MAX_NESTING = 8;

function found(target: string, d: HostDevice): Device {
  return { type: d.type, path: target, major: d.major, minor: d.minor, fileMode: d.mode & 0o777, uid: d.uid, gid: d.gid };
}

/** Devices below a folder, by their path in the container. */
function walk(host: HostView, source: string, target: string, nesting = 0): Device[] {
  if (nesting > MAX_NESTING) return [];
  return host.list(source).flatMap((name) => {
    if (nesting === 0 && source === '/dev' && skipped.has(name)) return [];
    const device = host.device(path.join(source, name));
    if (device) return [found(path.posix.join(target, name), device)];
    return host.kind(path.join(source, name)) === 'folder' ? walk(host, path.join(source, name), path.posix.join(target, name), nesting + 1) : [];
  });
}

/** Nodes in the container's /dev and the rules that let it use them. Errors: ERR_INVALID_VALUE names the device. */
export function compileDevices(request: ContainerRequest, host: HostView): { devices: Device[]; rules: DeviceRule[] } {
  const devices = new Map(defaults.map((d) => [d.path, d]));
  const rules: DeviceRule[] = [];
  if (request.privileged) for (const d of walk(host, '/dev', '/dev')) devices.set(d.path, d);
  for (const { source, target, access } of request.devices) {
    if (!/^[rwm]{1,3}$/.test(access)) throw fail('ERR_INVALID_VALUE', `invalid device mode: ${access}`, { operation: 'device', path: source });
    if (!target.startsWith('/')) throw fail('ERR_INVALID_VALUE', `invalid device target: ${target} is not absolute`, { operation: 'device', path: target });
    const device = host.device(source);
    const all = device ? [found(target, device)] : walk(host, source, target);
    if (all.length === 0) throw fail('ERR_INVALID_VALUE', `error gathering device information while adding custom device "${source}": ${host.kind(source) ? 'not a device node' : 'no such file or directory'}`, { operation: 'device', path: source });
    for (const d of all) {
      devices.set(d.path, d);
      rules.push({ allow: true, type: d.type as 'c' | 'b', major: d.major as number, minor: d.minor as number, access });
    }
  }
  return { devices: [...devices.values()], rules };
}
