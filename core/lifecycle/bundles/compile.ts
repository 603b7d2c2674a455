import path from 'node:path';
import { type BundleRequest, type ContainerRecord, type ContainerRequest } from '../../api/index.ts';
import { type RunContext } from '../../contracts/common/index.ts';
import { ownsNamespace, type Spec } from '../../spec/index.ts';
import { type Core } from '../core.ts';
import { choicesOf, type ContainerDrivers } from '../drivers.ts';
import { type Found, type Store } from './store.ts';

/** What the caller's engine says by the bundle alone is not asked for a second time. */
const NOTHING: ContainerRequest = {
  image: '', env: [], labels: {}, addHosts: [], terminal: false, openStdin: false, stdinOnce: false, attach: { stdin: false, stdout: false, stderr: false }, detached: true, autoRemove: false, network: 'none', ports: [], mounts: [], tmpfs: [], readonlyRootfs: false,
  init: false, privileged: false, capAdd: [], capDrop: [], securityOptions: [], devices: [], deviceCgroupRules: [], rlimits: [], sysctls: {}, groupAdd: [], log: { options: {} }, storageOptions: {}, limits: {},
};

/** The record that a container would have, for hooks and drivers. No row is ever made of it. */
export function recordOf(id: string, bundle: string, spec: Spec, rest: Pick<ContainerRecord, 'created' | 'drivers'> & { readonly rootfs: string; readonly plugins?: ContainerRecord['plugins'] }): ContainerRecord {
  const { rootfs, created, drivers, plugins } = rest;
  return {
    id, name: id, created, spec, drivers, image: { id: '', name: bundle, source: 'bundle' }, imageConfig: {}, rootfs: { path: rootfs }, volumes: [], networks: [], starts: 0,
    request: { ...NOTHING, bundle, terminal: spec.process?.terminal ?? false }, ...(plugins && { plugins }),
  };
}
export const recordFrom = ({ stored }: Found, spec: Spec): ContainerRecord => recordOf(stored.id, stored.bundle, spec, stored);

/** No storage, no log, and no network but the loopback of a namespace of its own: these are the caller's. */
export async function chooseDrivers({ registry }: Core, spec: Spec, cgroup: string | undefined): Promise<ContainerDrivers> {
  return { cgroup: await registry.chosen('cgroup', cgroup), ...(ownsNamespace(spec, 'network') && { network: await registry.network('none') }), security: await registry.security() };
}
export { choicesOf };

/** The spec with what is a runtime's to say: where its group is, when nobody has named one, and what the environment gets. */
export function completed(spec: Spec, request: BundleRequest, { instance }: Store, { cgroup }: ContainerDrivers): Spec {
  const { process } = spec;
  const group = spec.linux?.cgroupsPath || (cgroup?.driver.features.has('slices') ? `system.slice:${instance}:${request.id}` : `/${instance}-${request.id}`);
  return { ...spec, linux: { ...spec.linux, cgroupsPath: group }, ...(process && { process: { ...process, env: [...(process.env ?? []), ...request.env] } }) };
}

export function contextOf(found: { readonly store: Store; readonly folder: string }, id: string, run: string, bundle: Pick<BundleRequest, 'bundle' | 'noPivot' | 'noNewKeyring'>, execCgroups: readonly string[] = []): RunContext {
  return { container: id, run, instance: found.store.instance, runFolder: found.folder, explain: false, bundle: { path: bundle.bundle, noNewKeyring: bundle.noNewKeyring, noPivot: bundle.noPivot, ...(execCgroups.length > 0 && { execCgroups }) } };
}
export const rootfsOf = (bundle: string, spec: Spec): string => path.resolve(bundle, spec.root?.path ?? 'rootfs');
