import { type Driver, type Effects } from '../common/index.ts';
import { type StorageDriver } from '../storage/index.ts';

/**
 * An *image source*: where images come from and what is known of them. The content store keeps manifests, configs and layers by digest;
 * a storage driver unpacks layers on demand.
 * Features: `load`, `import`, `history`, `builtin` (its images cannot be removed), `host-root` (rootfs of kind `host`).
 *
 * Model: an *image* is a config, named by its digest (`id`), and layers, each a blob (`digest`, as stored) of a tar (`diffID`); the *chainID* names
 * a layer with all below it, and is how a storage driver knows it. *Names* point at ids and move. Nothing of an image counts before the
 * transaction it came with has been committed; content that several images share goes with the last of them.
 *
 * Example: `load` stages the blobs, verifies each while it is unpacked into `storage`, and sets record and names by `effects.setState`;
 * `resolve("busybox")` then finds it, and `unpack` brings its layers into another storage driver.
 */
export interface ImageSource extends Driver {
  /** **read** Find by name, digest or id prefix; undefined when it isn't here. Errors: ERR_AMBIGUOUS. */
  resolve(reference: string): Promise<ImageInfo | undefined>;
  list(): Promise<readonly ImageInfo[]>;
  /** **act** Unpack what `storage` lacks of the image's layers, bottom up, in parallel where the driver allows. */
  unpack?(effects: Effects, image: ImageInfo, storage: StorageDriver, options: { readonly signal?: AbortSignal; readonly progress?: Progress }): Promise<void>;
  /** **act** `load`: docker-archive, oci-archive, OCI folder; every digest and diffID verified while streaming. Returns what was named. */
  load?(effects: Effects, request: LoadRequest): Promise<readonly ImageInfo[]>;
  /** **act** `import`: a rootfs tar becomes a one-layer image. */
  importRootfs?(effects: Effects, request: ImportRequest): Promise<ImageInfo>;
  /** **act** */
  tag?(image: ImageInfo, reference: string): Promise<void>;
  /** **act** Remove a name, and with the last name the content that nothing else needs. Returns lines as Docker prints them (`Untagged: …`, `Deleted: …`). */
  remove?(effects: Effects, reference: string, options: { readonly force: boolean; readonly usedBy: readonly string[]; readonly storages: readonly StorageDriver[] }): Promise<readonly string[]>;
  history?(image: ImageInfo): Promise<readonly HistoryEntry[]>;
}

export interface ImageInfo {
  /** `sha256:…` of the config; for built-in images `builtin:<name>`. */
  readonly id: string;
  /** The source (driver name) that it came from. */
  readonly source: string;
  readonly digest?: string;
  /** `name:tag`, normalised as Docker shows it. */
  readonly names: readonly string[];
  readonly created?: string;
  readonly size: number;
  readonly config: ImageConfig;
  readonly rootfs: ImageRootfs;
}
export type ImageRootfs =
  | { readonly kind: 'layers'; readonly layers: readonly ImageLayer[] }
  /** This machine's own root: one writable overlay per real filesystem, at its mount point (`/` first). */
  | { readonly kind: 'host'; readonly filesystems: readonly { readonly target: string; readonly type: string }[]; readonly hide: readonly string[] };
export interface ImageLayer { readonly digest: string; readonly mediaType: string; readonly size: number; readonly diffID: string; readonly chainID: string }
/** The `config` object of an OCI image config, Docker's extensions included. */
export interface ImageConfig {
  readonly User?: string; readonly Env?: readonly string[]; readonly Entrypoint?: readonly string[]; readonly Cmd?: readonly string[];
  readonly WorkingDir?: string; readonly Volumes?: Readonly<Record<string, object>>; readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly Labels?: Readonly<Record<string, string>>; readonly StopSignal?: string; readonly Healthcheck?: unknown;
}
export interface HistoryEntry { readonly id: string; readonly created?: string; readonly createdBy: string; readonly size: number; readonly comment: string }
export type Progress = (event: { readonly what: string; readonly done: number; readonly total?: number; readonly finished?: boolean }) => void;
export interface LoadRequest { readonly path?: string; readonly stream?: NodeJS.ReadableStream; readonly storage: StorageDriver; readonly progress?: Progress; readonly signal?: AbortSignal }
export interface ImportRequest extends LoadRequest { readonly reference?: string; readonly changes: readonly string[]; readonly message?: string }
