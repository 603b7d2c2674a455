import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '@engine/core/errors';
import { layerName, storageFolders, type StorageFolders } from '@engine/core/contracts/storage';

/**
 * What lies where below the driver's folder:
 *
 *     layers/<hex of chainID>/diff     the layer's own files, in overlay form
 *     layers/<hex of chainID>/lower    the chainIDs below it, nearest first, one per line; complete, so that one read gives the chain
 *     layers/tmp-<token>/              being unpacked
 *     l/<22 characters>                link to ../layers/<hex>/diff: 127 of them fit into mount(2)'s one page of options
 *                                     (made only where the kernel is too old for the new mount API)
 *     snapshots/<key>/{upper,work}
 *     empty/                           the lower folder of a container that stands on nothing
 *     trash/                           being deleted
 */
export interface Layout extends StorageFolders {
  readonly links: string;
  readonly empty: string;
  diff(chainID: string): string;
  /** Name of the layer's link in `l`: 128 bits of the chainID, so that nobody can make two layers share one. */
  link(chainID: string): string;
}

export function createLayout(folder: string): Layout {
  const folders = storageFolders(folder);
  return {
    ...folders,
    links: join(folder, 'l'),
    empty: join(folder, 'empty'),
    diff: (chainID) => join(folders.layer(chainID), 'diff'),
    link: (chainID) => Buffer.from(layerName(chainID).slice(0, 32), 'hex').toString('base64url'),
  };
}

/** The chain of `chainID`, topmost first, itself included. Undefined when the layer is not there. Errors: ERR_STATE. */
export function readChain(layout: Layout, chainID: string): readonly string[] | undefined {
  const path = join(layout.layer(chainID), 'lower');
  try {
    return [chainID, ...readFileSync(path, 'utf8').split('\n').filter(Boolean)];
  } catch (cause) {
    const errno = String((cause as NodeJS.ErrnoException).code);
    if (errno === 'ENOENT') return undefined;
    throw fail('ERR_STATE', `cannot read ${path}`, { operation: 'read', path, errno, plugin: 'storage-overlay', cause });
  }
}
