import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fail, isEngineError } from '../errors/index.ts';
import { parseSignal, type ContainerRecord, type ContainerRequest, type EndpointWish } from '../api/index.ts';
import { type CompileFacts } from '../hooks/index.ts';
import { type ImageConfig, type ImageRootfs } from '../contracts/image/index.ts';
import { type Spec } from '../spec/index.ts';
import { type Core } from './core.ts';
import { securityRequest } from './adapters.ts';
import { choicesOf, volumeDriver, type ContainerDrivers } from './drivers.ts';
import { chooseIds } from './ids.ts';
import { findImage, type FoundImage } from './images.ts';
import { newId } from './names.ts';
import { mountpointOf, shiftOf, volumeObstacle } from './owners.ts';
import { idmapRefusal } from './rootfs.ts';
import { wishesOf } from './wishes.ts';
import { type ResolvedDriver } from './parts.ts';
import { planVolumes, reachSources, type PlannedVolume } from './requested.ts';
import { type Contracts } from '../plugin/index.ts';

export interface DraftVolume extends PlannedVolume {
  readonly source: ResolvedDriver<Contracts['volume']>;
  readonly isNew: boolean;
}
/** A container that doesn't exist yet: all that can be known without changing anything. */
export interface Draft {
  readonly record: ContainerRecord;
  readonly drivers: ContainerDrivers;
  readonly image?: FoundImage;
  readonly volumes: readonly DraftVolume[];
  /** Why its files are to be given other owners on disk; see {@link idmapRefusal}. */
  readonly obstacle?: string;
  /** Files to be written into its folder. */
  readonly files: Readonly<Record<string, string>>;
}

/** What a bundle's or a user's own folder is in place of an image. */
interface Base { readonly image: ContainerRecord['image']; readonly config: ImageConfig; readonly rootfs: ImageRootfs; readonly found?: FoundImage; readonly folder?: string; readonly bundleSpec?: Spec }

async function findBase(core: Core, request: ContainerRequest): Promise<Base> {
  const layers: ImageRootfs = { kind: 'layers', layers: [] };
  if (request.bundle !== undefined) {
    const file = path.join(request.bundle, 'config.json');
    let spec: Spec;
    try {
      spec = JSON.parse(readFileSync(file, 'utf8')) as Spec;
    } catch (cause) {
      throw fail('ERR_INVALID_VALUE', `cannot read the bundle's ${file}`, { path: file, cause });
    }
    if (!spec.root?.path) throw fail('ERR_INVALID_VALUE', 'the bundle names no root.path', { path: file });
    return { image: { id: '', name: request.bundle, source: 'bundle' }, config: {}, rootfs: layers, folder: path.resolve(request.bundle, spec.root.path), bundleSpec: spec };
  }
  if (request.rootfs !== undefined) {
    const folder = path.resolve(request.rootfs);
    if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) throw fail('ERR_INVALID_VALUE', `no such folder: ${folder}`, { path: folder });
    return { image: { id: '', name: folder, source: 'rootfs' }, config: {}, rootfs: layers, folder };
  }
  const found = await findImage(core, request.image);
  const { image } = found;
  return { image: { id: image.id, name: request.image, source: image.source }, config: image.config, rootfs: image.rootfs, found };
}

async function draftVolume(core: Core, planned: PlannedVolume): Promise<DraftVolume> {
  const existing = planned.anonymous ? undefined : core.parts.state.volumes.get(planned.name);
  if (existing) {
    if (planned.driver && planned.driver !== existing.driver) throw fail('ERR_INVALID_VALUE', `volume ${planned.name} exists with driver ${existing.driver}, not ${planned.driver}`, { path: planned.name });
    return { ...planned, isNew: false, source: await volumeDriver(core.registry, existing) };
  }
  return { ...planned, isNew: true, source: await core.registry.chosen('volume', planned.driver) };
}

/** `--security-opt` must be one that somebody understands, and can honour. Errors: ERR_INVALID_VALUE, ERR_DRIVER_UNAVAILABLE: who understands it can't work here. */
async function checkSecurityOptions({ registry, parts: { machine } }: Core, request: ContainerRequest, drivers: ContainerDrivers): Promise<void> {
  const known = new Set(['no-new-privileges', 'systempaths', ...drivers.security.flatMap((d) => d.driver.option ?? [])]);
  for (const option of request.securityOptions) {
    const [key = '', value] = option.split(/[=:](.*)/s);
    const off = value === 'unconfined' || option === 'label=disable' || option === 'label:disable';
    if (known.has(key) || off) continue;
    const left = (await registry.all('security').catch(() => [])).find(({ driver }) => driver.option === key);
    if (left) throw fail('ERR_DRIVER_UNAVAILABLE', `--security-opt ${option}: security driver ${left.choice.driver} is not available: ${(await left.driver.probe(machine)).reasons.join('; ') || 'it is not among those of the configuration'}`, { operation: 'security-opt', plugin: left.choice.plugin });
    throw fail('ERR_INVALID_VALUE', `invalid --security-opt: ${option}`, { operation: 'security-opt', hint: `known are ${[...known].join(', ')}` });
  }
  for (const { driver } of drivers.security) await driver.check?.(securityRequest(request));
}

/** The container whose network is joined. Errors: ERR_NO_SUCH_CONTAINER, ERR_AMBIGUOUS. */
function networkOwner(core: Core, ref: string): ContainerRecord {
  try {
    return core.parts.state.containers.resolve(ref);
  } catch (error) {
    if (!isEngineError(error)) throw error;
    throw fail(error.code, `cannot join the network of container ${ref}: ${error.message}`, { path: ref, exitCode: 125 });
  }
}

/** Who makes the namespace: the driver of the first network, or the one that serves the mode. */
async function networkDriver({ registry, parts: { state }, designed }: Core, mode: string, [first]: readonly EndpointWish[]): Promise<ResolvedDriver<Contracts['network']>> {
  const choice = first && (state.networks.get(first.network) ?? designed.get(first.network))?.drivers.network;
  return choice ? registry.resolveDriver('network', choice.driver, choice) : registry.network(mode);
}

/** What a request means as an OCI spec is for the plugins that tap `compile` to say. Errors: ERR_PLUGIN_MISSING. */
async function compile(core: Core, facts: CompileFacts): Promise<{ spec: Spec; files: Readonly<Record<string, string>> }> {
  const { hooks } = core.parts;
  if (hooks.taps('compile').length === 0) throw fail('ERR_PLUGIN_MISSING', 'no plugin turns requests into OCI specs: none taps compile');
  const empty: Spec = { ociVersion: '1.2.0', process: { cwd: '/', user: {} }, root: { path: 'rootfs' } };
  return (await hooks.callWaterfall('compile', { facts, spec: empty, files: {} }, { trace: core.trace })).value;
}

/** A request of our own, with what it leaves to the configuration: what policies judge is what is executed. */
export function normalised(core: Core, asked: ContainerRequest): ContainerRequest {
  const request = structuredClone(asked);
  if (!request.network || request.network === 'default') request.network = core.parts.defaults.network;
  if (!request.userns && !request.uidMaps?.length && !request.gidMaps?.length && request.bundle === undefined) {
    const { userns = 'host' } = core.parts.defaults;
    if (userns !== 'host' && request.privileged) throw fail('ERR_INVALID_VALUE', 'privileged mode is incompatible with the user namespaces of the configuration', { operation: 'userns', hint: 'say which it is to be: --userns=host, or --userns=auto for privileges inside alone' });
    if (userns !== 'host') request.userns = userns;
  }
  // the first network may be said twice: as such, and with wishes
  const first = request.endpoints?.[0];
  if (first && (!first.network || first.network === 'default')) first.network = request.network;
  return request;
}

/**
 * Resolve image, drivers, volumes and names, and compile the spec. Reads only. `request` is not changed; the record holds it as it will
 * be executed. Errors: ERR_NO_SUCH_IMAGE, ERR_INVALID_VALUE, ERR_DRIVER_*, ERR_NO_SUCH_NETWORK.
 */
export async function draftContainer(core: Core, asked: ContainerRequest, id: string, name: string): Promise<Draft> {
  const { parts, registry } = core;
  await reachSources(asked);
  const base = await findBase(core, asked);
  const request = normalised(core, asked);
  let shares: ContainerRecord | undefined;
  if (request.network.startsWith('container:')) {
    shares = networkOwner(core, request.network.slice('container:'.length));
    request.network = `container:${shares.id}`;
  }
  core.phase?.('drivers');
  const wishes = wishesOf(core, request);
  const log = await registry.chosen('log', request.log.driver);
  request.log = { driver: log.choice.driver, options: { ...(request.log.driver && request.log.driver !== parts.choices.log ? {} : parts.defaults.logOptions), ...request.log.options } };
  for (const key of Object.keys(request.log.options)) if (!log.driver.options.has(key)) throw fail('ERR_INVALID_VALUE', `unknown log opt '${key}' for log driver ${log.choice.driver}`, { operation: 'log-opt', path: key });
  const drivers: ContainerDrivers = {
    ...(base.folder === undefined ? { storage: await registry.chosen('storage') } : {}),
    cgroup: await registry.chosen('cgroup'), network: await networkDriver(core, request.network, wishes), log, security: await registry.security(),
  };
  await checkSecurityOptions(core, request, drivers);
  if (base.rootfs.kind === 'host' && !drivers.storage?.driver.features.has('host-folder')) {
    throw fail('ERR_FEATURE_MISSING', `storage driver ${drivers.storage?.driver.name ?? ''} cannot make a copy of this machine's own root`, { hint: 'choose another with drivers.storage, e.g. overlay' });
  }
  parseSignal(request.stopSignal ?? base.config.StopSignal ?? 'TERM');
  const volumes = await Promise.all((base.bundleSpec ? [] : planVolumes(request, base.config, newId)).map((v) => draftVolume(core, v)));
  const network = drivers.network?.driver.namespace({ mode: request.network, hostname: '', ports: request.ports, options: {} }).kind ?? 'new';
  const cgroup = drivers.cgroup?.driver;
  const ids = base.bundleSpec ? undefined : chooseIds(parts.state, parts.machine, request);
  const facts: CompileFacts = {
    id, request, imageConfig: base.config, rootfs: base.rootfs, network, folder: core.folderOf(shares?.id ?? id), resources: [...(cgroup?.resources ?? [])],
    volumes: volumes.map((v) => ({ target: v.target, source: mountpointOf(v), readonly: v.readonly, idmap: ids !== undefined && volumeObstacle(parts.machine, mountpointOf(v), v.request?.idmap) === undefined, ...(v.request?.propagation ? { propagation: v.request.propagation } : {}) })),
    cgroupMounts: (cgroup?.mounts({ resources: {}, ownNamespace: request.cgroupns !== 'host', ...(request.cgroupParent ? { path: request.cgroupParent } : {}) }) ?? []).map((m) => ({ ...m, options: [...m.options] })),
    ...(ids && { ids: { uidMappings: ids.uidMappings, gidMappings: ids.gidMappings } }), ...(shares?.spec.hostname ? { sharedHostname: shares.spec.hostname } : {}), ...(parts.defaults.shmSize === undefined ? {} : { shmSize: parts.defaults.shmSize }),
  };
  core.phase?.('draft');
  const { spec, files } = base.bundleSpec ? { spec: base.bundleSpec, files: {} } : await compile(core, facts);
  const layers = base.rootfs.kind === 'layers' ? base.rootfs.layers.at(-1)?.chainID : undefined;
  const record: ContainerRecord = {
    id, name, created: core.now().toISOString(), request, image: base.image, imageConfig: base.config, spec,
    rootfs: base.folder !== undefined ? { path: base.folder } : base.rootfs.kind === 'host' ? { filesystems: base.rootfs.filesystems.map((f) => ({ ...f })), hide: [...base.rootfs.hide] } : layers ? { chainID: layers } : {},
    drivers: choicesOf(drivers), networks: wishes,
    volumes: volumes.map((v) => ({ name: v.name, target: v.target, driver: v.source.choice.driver, anonymous: v.anonymous, readonly: v.readonly, copyUp: v.copyUp })),
    starts: 0, ...(ids?.leased.length && { ids: ids.leased }),
  };
  const obstacle = drivers.storage && idmapRefusal(parts.machine, record, drivers.storage.driver);
  const shift = obstacle === undefined ? undefined : shiftOf(spec);
  if (shift) record.rootfs = { ...record.rootfs, shift };
  return { ...(obstacle !== undefined && { obstacle }), record, drivers, volumes, files: shares ? {} : files, ...(base.found && { image: base.found }) };
}
