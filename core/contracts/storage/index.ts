import { type Driver, type Effects, type RunContext, type Steps } from '../common/index.ts';
import { type Effect } from '../../plan/types.ts';

/**
 * What the root filesystem of a container is made of.
 *
 * Model: a *layer* is a read-only filesystem tree, named by its chainID, standing on a parent layer or on nothing; it is derived from
 * the content store and can be thrown away and rebuilt. A *snapshot* is a writable tree on top of a layer, named by a key (the
 * container's id); it is not derived and stays with the driver that made it.
 *
 * Lifecycle of a layer: `prepareLayer` (a tree to unpack into, not yet visible) → the core unpacks with the `unpack` operation into
 * `target.path` → `commitLayer` (renamed into place). Of a snapshot: `createSnapshot` → any number of runs, each with
 * `planRootfs` → `removeSnapshot`.
 *
 * Example (overlay): prepareLayer makes `layers/tmp-X/diff`; commitLayer renames `layers/tmp-X` to `layers/<chainID>`;
 * createSnapshot makes `snapshots/<key>/{upper,work}`; planRootfs is one `overlayByFd` into `out`.
 *
 * Features: `host-folder` (createSnapshot accepts `lower: {folder}`), `quota` (option `size`), `volatile` (option `volatile: 'true'`:
 * the snapshot need not survive a power failure; the core sets it for `--rm`), `reflink` (copies share blocks), `independent-layers` (a
 * layer's tree does not contain its parents: prepareLayer does not ask for the parent, so that layers are unpacked in parallel;
 * commitLayer does), `idmap` (planRootfs applies `idmap` itself, below its own filesystem; for others the core applies it to the mount in `out`).
 *
 * In a user namespace the core moves the steps of `init.rootfs` to `stage.mounts`, where the mounts are still made by the host's root. What
 * lies on disk keeps plain ids (root is 0), layers always: the mount shows them with others. Where that cannot be (`idmapObstacle`), the
 * snapshot alone is given other owners on disk when it is made (`shiftSnapshot`), and carries `shift` from then on.
 */
export interface StorageDriver extends Driver {
  /** **read** Is the layer there, complete? */
  hasLayer(chainID: string): boolean | Promise<boolean>;
  /**
   * **act** A fresh tree to unpack a layer into, on top of `parent` (a chainID that hasLayer). Repeated with the same token:
   * the left-over is replaced. Errors: ERR_STATE when the parent is missing (not with `independent-layers`).
   */
  prepareLayer(effects: Effects, request: { readonly token: string; readonly parent?: string }): Promise<LayerTarget>;
  /**
   * **act** Make it visible as `chainID`, durably. Somebody else's equal layer being there already is success. Not undone: a complete layer
   * is valid by itself, and another engine may stand on it a moment later. Errors: ERR_STATE when the parent is missing.
   */
  commitLayer(effects: Effects, request: { readonly token: string; readonly chainID: string; readonly parent?: string }): Promise<void>;
  /** **act** Remove a layer. Missing is success; in use by another layer or snapshot is the caller's error (the core checks). */
  removeLayer(chainID: string): readonly Effect[];
  /** **read** The chainIDs present. */
  listLayers(): readonly string[] | Promise<readonly string[]>;

  /** **act** as data: what makes the writable snapshot `key`. Set-up fails on a duplicate key (EEXIST). */
  createSnapshot(request: SnapshotRequest): readonly Effect[] | Promise<readonly Effect[]>;
  /** **act** as data: what removes it; missing is success. Renames first, then deletes. */
  removeSnapshot(key: string): readonly Effect[];
  /**
   * **plan** Steps in `init.rootfs` (and `shim.rootfs` where host-side work is needed) that leave a detached mount in register `out`.
   * `readonly`: the snapshot as it is, and nothing can be written, mount points included; it may be mounted so beside a running container.
   */
  planRootfs(request: SnapshotRequest & { readonly out: string; readonly readonly: boolean; /** Register with the user namespace by which ids are mapped. */ readonly idmap?: string }, run: RunContext): Steps | Promise<Steps>;
  /**
   * **read** as data: where the differences of snapshot `key` against its lower layers can be read. `kind: 'upper'`: a folder in overlay
   * form (whiteouts as char 0:0, opaque xattrs); `kind: 'trees'`: two full trees to compare.
   */
  changes(request: SnapshotRequest): SnapshotChanges;
  /** **read** The differences themselves, also while it is in use; `readChanges` makes them of `changes`. */
  diff(request: SnapshotRequest): readonly Change[] | Promise<readonly Change[]>;
  /** **read** Why `planRootfs` cannot take `idmap` for this snapshot, in words; undefined: it can. Without this method: what holds for the filesystem of the driver's folder. */
  idmapObstacle?(request: SnapshotRequest): string | undefined;
  /**
   * **act** as data, in the same helper as createSnapshot and right after it: all its files to the owners that `shift` makes of theirs (operation
   * `shiftTree`), the layers untouched. Undone by removing the snapshot. `run.runFolder` is the container's folder, with an empty `rootfs` in it.
   */
  shiftSnapshot?(request: SnapshotRequest & { readonly shift: IdShift }, run: RunContext): readonly Effect[] | Promise<readonly Effect[]>;
  /** **read** Bytes and inodes used by the writable part of `key`. */
  usage(key: string): Promise<{ readonly bytes: number; readonly inodes: number }>;
}

export interface LayerTarget {
  /** Host folder that `unpack` writes into. */
  readonly path: string;
  /** How whiteouts are to be written there. */
  readonly whiteouts: 'overlay' | 'apply';
}
/** Lines of uid_map and gid_map: inside, outside, count. */
export interface IdShift { readonly uidMap: string; readonly gidMap: string }
export interface SnapshotRequest {
  readonly key: string;
  /** What lies below: layers (topmost chainID), nothing (`{}`), or a host folder (feature `host-folder`). */
  readonly lower: { readonly chainID?: string; readonly folder?: string };
  /** `--storage-opt` and the like. */
  readonly options?: Readonly<Record<string, string>>;
  /** Its files have these owners on disk (`shiftSnapshot`); `changes` and `diff` do not count that as a change. */
  readonly shift?: IdShift;
}
export type SnapshotChanges = { /** As of the request. */ readonly shift?: IdShift } & (
  /** `opaque`: folders of `upper` (`/a/b`) that hide what the lower ones have at their place. */
  | { readonly kind: 'upper'; readonly upper: string; readonly lowers: readonly string[]; readonly opaque: readonly string[] }
  | { readonly kind: 'trees'; readonly lower?: string; readonly tree: string }
);

/** A added, C changed, D deleted. `path`: absolute, in the snapshot. */
export interface Change { readonly kind: 'A' | 'C' | 'D'; readonly path: string }

export { readChanges } from './changes.ts';
export * from './folders.ts';
export * from './names.ts';
