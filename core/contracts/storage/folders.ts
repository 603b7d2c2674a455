import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { checkName, layerName } from './names.ts';

/** Where a storage driver that keeps plain folders has what, below its own folder. */
export interface StorageFolders {
  readonly layers: string;
  readonly snapshots: string;
  /** What is being deleted. */
  readonly trash: string;
  /** `layers/<hex of chainID>`. Errors: ERR_INVALID_VALUE. */
  layer(chainID: string): string;
  /** `layers/tmp-<token>`: being unpacked. */
  staging(token: string): string;
  /** `snapshots/<key>`. */
  snapshot(key: string): string;
}

export function storageFolders(folder: string): StorageFolders {
  const layers = join(folder, 'layers');
  const snapshots = join(folder, 'snapshots');
  return {
    layers,
    snapshots,
    trash: join(folder, 'trash'),
    layer: (chainID) => join(layers, layerName(chainID)),
    staging: (token) => join(layers, `tmp-${checkName('token', token)}`),
    snapshot: (key) => join(snapshots, checkName('key', key)),
  };
}

/** Mode and owner of a folder, for one that is to stand in its place; 0755 and root when there is none. */
export function attributesOf(path: string | undefined): { readonly mode: number; readonly uid: number; readonly gid: number } {
  const stat = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
  return stat ? { mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid } : { mode: 0o755, uid: 0, gid: 0 };
}

/** A small file's text, undefined when it can't be read. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
