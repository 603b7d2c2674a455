import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '@engine/core/errors';
import { BITS, effect, op, step, type Effect, type Step } from '@engine/core/plan';
import {
  ensureFolder, goesWithStaging, idmapWords, makeByRename, mountOf, MOUNT_ATTR, obstacleBy, removeByRename, RENAME_NOREPLACE,
  type DriverDeps, type IdmapChoice, type Machine, type Probe, type Steps,
} from '@engine/core/contracts/common';
import { attributesOf, layerName, missingLayer, readChanges, readLayers, snapshotOptions, treeUsage, type SnapshotRequest, type StorageDriver } from '@engine/core/contracts/storage';
import { onIdmapped, refuseHostShift, shiftEffects } from './idmap.ts';
import { createLayout, readChain } from './layout.ts';
import { opaqueFolders } from './opaque.ts';

export interface OverlayOptions {
  /** How to mount: `fd` (new mount API, Linux 6.8), `mount` (mount(2) with short links), `auto` by kernel. */
  readonly mount?: 'auto' | 'fd' | 'mount';
  /** Write a layer to disk before it becomes visible. Default true. */
  readonly sync?: boolean;
  /** Show files with other owners in user namespaces: see IdmapChoice. */
  readonly idmap?: IdmapChoice;
}

const PLUGIN = 'storage-overlay';
const FEATURES = ['host-folder', 'volatile', 'independent-layers', 'idmap'] as const;
/** OVL_MAX_STACK of the kernel. */
const MAX_LOWERS = 500;
/** mount(2) takes one page of options. */
const MAX_MOUNT_OPTIONS = 4095;
/** Filesystems that overlay refuses as upper: no RENAME_WHITEOUT, no xattrs, or remote. */
const NOT_UPPER = new Set(['overlay', 'aufs', '9p', 'nfs', 'nfs4', 'cifs', 'smb3', 'vfat', 'exfat', 'ntfs3', 'ecryptfs', 'fuse', 'virtiofs', 'ramfs', 'squashfs', 'erofs', 'iso9660']);

/**
 * `index=off`: one upper folder has one live mount because a run holds its container's lock; the index would make restored or copied
 * layers ESTALE, and a quick restart EBUSY while the last mount is still going away. `nfs_export` needs the index.
 * `metacopy=off,redirect_dir=nofollow`: a layer's own xattrs can then never point at a file elsewhere in the stack, and every upper
 * is a plain diff that needs no other mount to be read. `xino=auto`: one st_dev also where lower and upper are different filesystems.
 */
const OPTIONS = ['nfs_export=off', 'metacopy=off', 'redirect_dir=nofollow', 'xino=auto'] as const;

/** Is `lowerdir+` there? Documented since Linux 6.8, merged for 6.7; 6.5 and 6.6 take the new mount API without it. Before, `fsconfig` takes at most 255 bytes of `lowerdir`. */
function hasFdMount(machine: Machine): boolean {
  const [major, minor] = machine.kernel;
  return major > 6 || (major === 6 && minor >= 8);
}

export function probeOverlay(machine: Machine, way: 'auto' | 'fd' | 'mount' = 'auto', idmap: IdmapChoice = 'auto'): Probe {
  const no = (reason: string): Probe => ({ available: false, score: 0, reasons: [reason] });
  if (machine.uid !== 0 && !machine.capabilities.includes('CAP_SYS_ADMIN')) return no('needs root (CAP_SYS_ADMIN) to mount');
  if (!machine.filesystems.includes('overlay')) return no('the kernel has no overlay filesystem (/proc/filesystems)');
  const mount = mountOf(machine, machine.root);
  if (mount && NOT_UPPER.has(mount.type.replace(/^fuse\..*/, 'fuse'))) {
    return no(`${machine.root} lies on ${mount.type} (mounted at ${mount.target}), which cannot hold an upper folder: choose another root, or the driver vfs`);
  }
  if (way === 'fd' && !hasFdMount(machine)) return no(`option mount=fd needs Linux 6.8, this is ${machine.release}`);
  const byFd = way === 'fd' || (way === 'auto' && hasFdMount(machine));
  return {
    available: true,
    score: 80,
    reasons: [byFd ? `mounts by the new mount API (Linux ${machine.release})` : 'mounts by mount(2) with short links', ...(mount ? [`${machine.root} lies on ${mount.type}`] : []), idmapWords(obstacleBy(idmap, machine, [machine.root], 'layer'))],
  };
}

/** <linux/fs.h>. */
const FS_TOPDIR_FL = 0x20000;

/** Storage on overlayfs: layers are folders, a container's root is one mount of them. */
export function createOverlayStorage(deps: DriverDeps, options: OverlayOptions = {}): StorageDriver {
  const { machine, folder } = deps;
  const layout = createLayout(folder);
  const byFd = options.mount === 'fd' || (options.mount !== 'mount' && hasFdMount(machine));
  const features: ReadonlySet<string> = new Set(FEATURES);
  /** A chainID says all that lies below it, so a chain once read stays true as long as the layer exists. */
  const chains = new Map<string, readonly string[]>();

  function chainOf(chainID: string): readonly string[] | undefined {
    const known = chains.get(chainID);
    if (known && existsSync(layout.layer(chainID))) return known;
    const chain = readChain(layout, chainID);
    if (chain) chains.set(chainID, chain);
    else chains.delete(chainID);
    return chain;
  }
  /** The chain below a snapshot, topmost first. Errors: ERR_STATE. */
  function lowersOf({ lower }: SnapshotRequest): readonly string[] {
    if (lower.chainID === undefined) return [];
    const chain = chainOf(lower.chainID);
    if (!chain) throw missingLayer(lower.chainID, PLUGIN);
    return chain;
  }
  /** Only what is missing: on the way of every start this is one stat each. */
  const folders = (...paths: readonly string[]): Effect[] => paths.filter((path) => !existsSync(path)).flatMap((path) => [ensureFolder(path), ...(path === layout.snapshots ? spread : [])]);
  /** As the core does for its containers: their folders are to lie apart on ext4, where each is made and removed in a group of inodes with its like. */
  const spread = mountOf(machine, machine.root)?.type === 'ext4' ? [effect(op.setFileFlags({ path: layout.snapshots, set: FS_TOPDIR_FL }, { optional: true }), { none: 'a mark on a folder that is kept' })] : [];

  /** The short links of mount(2), made when they are first needed; they go with their layer. */
  function linkSteps(chain: readonly string[]): Step[] {
    const kept = { none: 'shared by all containers on this layer' };
    const links = chain.filter((id) => !existsSync(join(layout.links, layout.link(id))));
    return [
      ...(existsSync(layout.links) ? [] : [step('shim.rootfs', op.mkdir({ path: layout.links, mode: 0o700, parents: 1 }), { none: 'a folder of the driver itself, kept' })]),
      ...links.map((id) => step('shim.rootfs', op.symlink({ path: join(layout.links, layout.link(id)), target: `../layers/${layerName(id)}/diff` }, { okExists: true }), kept)),
    ];
  }

  const obstacleTo = ({ lower }: SnapshotRequest): string | undefined => obstacleBy(options.idmap, machine, [folder, ...(lower.folder === undefined ? [] : [lower.folder])], 'layer');

  /** `index`: with it a file of several names stays one when it is copied up. */
  function planMount(request: SnapshotRequest & { readonly out: string; readonly readonly: boolean; readonly idmap?: string }, scratch: string, index: 'on' | 'off' = 'off'): Steps {
    const { out, readonly, idmap } = request;
    const host = request.lower.folder;
    // what cannot be seen idmapped where it is, is shown at the scratch folder
    const hostLower = idmap === undefined ? host : host && scratch;
    const mounted = (mount: Step): Step[] => (idmap === undefined ? [mount] : onIdmapped({ folder, scratch, userns: idmap, register: out, ...(host !== undefined && { host }) }, [mount]));
    const { volatile } = snapshotOptions(driver, request);
    const snapshot = layout.snapshot(request.key);
    const chain = lowersOf(request);
    if (chain.length + 1 > MAX_LOWERS) throw fail('ERR_IMAGE_LIMIT', `overlay takes at most ${MAX_LOWERS} layers, this image has ${chain.length}`, { plugin: PLUGIN });
    const flags = [`index=${index}`, ...OPTIONS, ...(volatile && !readonly ? ['volatile'] : [])];
    const attributes = readonly ? MOUNT_ATTR.rdonly : 0;
    const steps: Step[] = [];
    if (volatile && !readonly) {
      // The kernel refuses to mount a volatile upper twice; the mark is meant for crashes of the machine, and --rm does not survive those.
      steps.push(step('shim.rootfs', op.removeTree({ path: join(snapshot, 'work/work/incompat') }), { none: 'the mark of an ended run' }));
    }
    if (byFd) {
      const below = hostLower ?? (chain.length ? undefined : layout.empty);
      const layers = below === undefined ? chain.map((id) => layout.diff(id)) : [below];
      // Without an upper the snapshot's own changes are the topmost lower: whiteouts and opaque folders hold there too.
      const lowers = readonly ? [join(snapshot, 'upper'), ...layers] : layers;
      const upper = readonly ? {} : { upper: join(snapshot, 'upper'), work: join(snapshot, 'work') };
      return [...steps, ...mounted(step('init.rootfs', op.overlayByFd({ lowers, ...upper, options: flags, attributes, out })))];
    }
    const own = `../snapshots/${request.key}`;
    const below = hostLower ?? (chain.length ? undefined : '../empty');
    if (below !== undefined && /[:,\\]/.test(below)) {
      throw fail('ERR_NOT_SUPPORTED', `mount(2) cannot take the folder ${JSON.stringify(below)} as a lower layer`, { path: below, plugin: PLUGIN, hint: 'use a path without colon, comma and backslash, or Linux 6.8' });
    }
    const layers = below === undefined ? chain.map((id) => layout.link(id)) : [below];
    const lowers = readonly ? [`${own}/upper`, ...layers] : layers;
    const upper = readonly ? {} : { upper: `${own}/upper`, work: `${own}/work` };
    const length = `lowerdir=${lowers.join(':')},upperdir=${own}/upper,workdir=${own}/work,${flags.join(',')}`.length;
    if (length > MAX_MOUNT_OPTIONS) {
      throw fail('ERR_IMAGE_LIMIT', `the image has too many layers (${chain.length}) for mount(2): its options would take ${length} bytes of ${MAX_MOUNT_OPTIONS}`, { plugin: PLUGIN, hint: 'use Linux 6.8 or later, or squash the image' });
    }
    if (below === undefined) steps.push(...linkSteps(chain));
    else if (!existsSync(layout.links)) steps.push(...linkSteps([]));
    return [...steps, ...mounted(step('init.rootfs', op.overlayByMount({ base: layout.links, scratch, lowers, ...upper, options: flags, attributes, out })))];
  }

  const driver: StorageDriver = {
    name: 'overlay',
    features,
    probe: (on) => probeOverlay(on, options.mount, options.idmap),

    hasLayer: (chainID) => existsSync(layout.layer(chainID)),
    listLayers: () => readLayers(layout.layers),

    async prepareLayer(effects, { token, parent }) {
      const at = layout.staging(token);
      const diff = join(at, 'diff');
      // A layer without an entry of its own for `/` shows its parent's.
      const attributes = attributesOf(parent === undefined ? undefined : layout.diff(parent));
      await effects.run([
        ...folders(layout.layers, layout.trash),
        effect(op.removeTree({ path: at }), { none: 'what an interrupted unpack of the same token left' }),
        effect(op.mkdir({ path: at, mode: 0o700 }), op.removeTree({ path: at })),
        effect(op.mkdir({ path: diff, ...attributes }), goesWithStaging),
      ]);
      return { path: diff, whiteouts: 'overlay' };
    },

    async commitLayer(effects, { token, chainID, parent }) {
      const at = layout.staging(token);
      const below = parent === undefined ? [] : chainOf(parent);
      if (!below) throw missingLayer(parent ?? '', PLUGIN);
      await effects.run([
        effect(op.writeFile({ path: join(at, 'lower'), data: Buffer.from(below.map((id) => `${id}\n`).join('')), mode: 0o600, how: BITS.WRITE.create | BITS.WRITE.truncate }), goesWithStaging),
        ...(options.sync === false ? [] : [effect(op.syncFs({ path: at }))]),
        effect(op.rename({ from: at, to: layout.layer(chainID), flags: RENAME_NOREPLACE }, { okExists: true }), { none: 'a complete layer is valid by itself' }),
        effect(op.removeTree({ path: at }), { none: 'there only when somebody else was faster' }),
      ]);
    },

    removeLayer(chainID) {
      const none = { none: 'a removal is repeated until it is done' };
      return [
        ...removeByRename(layout.layer(chainID), layout.trash),
        effect(op.unlink({ path: join(layout.links, layout.link(chainID)) }, { okMissing: true }), none),
      ];
    },

    createSnapshot(request) {
      snapshotOptions(driver, request);
      const [top] = lowersOf(request);
      const { folder: host } = request.lower;
      if (host !== undefined && !host.startsWith('/')) throw fail('ERR_INVALID_VALUE', `not an absolute path: ${host}`, { path: host, plugin: PLUGIN });
      const attributes = attributesOf(top === undefined ? host : layout.diff(top));
      return [
        ...folders(layout.snapshots, layout.empty),
        ...makeByRename(layout.snapshot(request.key), layout.trash, (staging) => [
          effect(op.mkdir({ path: join(staging, 'upper'), ...attributes }), goesWithStaging),
          effect(op.mkdir({ path: join(staging, 'work'), mode: 0o700 }), goesWithStaging),
        ]),
      ];
    },

    removeSnapshot: (key) => removeByRename(layout.snapshot(key), layout.trash),
    planRootfs: (request, run) => planMount(request, join(run.runFolder, 'rootfs')),

    idmapObstacle: obstacleTo,
    shiftSnapshot(request, run) {
      if (request.lower.folder !== undefined) refuseHostShift(request.lower.folder, PLUGIN, obstacleTo(request));
      const out = 'storage-overlay.shift';
      return shiftEffects(planMount({ ...request, out, readonly: false }, join(run.runFolder, 'rootfs'), 'on'), out, request.shift, join(layout.snapshot(request.key), 'work/index'));
    },

    changes(request) {
      const { folder: host } = request.lower;
      const lowers = host === undefined ? lowersOf(request).map((id) => layout.diff(id)) : [host];
      const upper = join(layout.snapshot(request.key), 'upper');
      return { kind: 'upper', upper, lowers, opaque: opaqueFolders(upper), ...(request.shift && { shift: request.shift }) };
    },
    diff: (request) => readChanges(driver.changes(request)),
    usage: (key) => treeUsage(join(layout.snapshot(key), 'upper')),
  };
  return driver;
}
