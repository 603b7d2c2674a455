import { readdirSync } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '../../errors/index.ts';
import { type SnapshotRequest } from './index.ts';

const CHAIN_ID = /^sha256:([0-9a-f]{64})$/;
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}$/;

/** The hex part of a chainID: the name of the layer's folder. Errors: ERR_INVALID_VALUE. */
export function layerName(chainID: string): string {
  const hex = CHAIN_ID.exec(chainID)?.[1];
  if (!hex) throw fail('ERR_INVALID_VALUE', `not a chainID: ${JSON.stringify(chainID)}`, { path: chainID });
  return hex;
}

/** A snapshot's key or a layer's token, safe as a name of a folder. Errors: ERR_INVALID_VALUE. */
export function checkName(what: 'key' | 'token', name: string): string {
  if (!NAME.test(name)) throw fail('ERR_INVALID_VALUE', `not a ${what}: ${JSON.stringify(name)}`, { path: name });
  return name;
}

/** The chainIDs of the layer folders in `folder`; an absent folder has none. */
export function readLayers(folder: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw fail('ERR_STATE', `cannot read ${folder}`, { operation: 'readdir', path: folder, errno: String((cause as NodeJS.ErrnoException).code), cause });
  }
  return names.filter((name) => /^[0-9a-f]{64}$/.test(name)).map((name) => `sha256:${name}`);
}

/** The error for a layer that should be there. */
export function missingLayer(chainID: string, plugin: string): Error {
  return fail('ERR_STATE', `layer ${chainID} is missing`, { path: chainID, plugin, hint: 'it is unpacked again when the image is used' });
}

/**
 * The options of a snapshot, checked: unknown ones are ERR_INVALID_VALUE, those of a feature (`size`, `volatile`) that the driver lacks
 * ERR_FEATURE_MISSING. `size` in bytes.
 */
export function snapshotOptions(driver: { readonly name: string; readonly features: ReadonlySet<string> }, request: SnapshotRequest): { readonly size?: bigint; readonly volatile: boolean } {
  let size: bigint | undefined;
  let volatile = false;
  for (const [name, value] of Object.entries(request.options ?? {})) {
    const feature = { size: 'quota', volatile: 'volatile' }[name];
    if (!feature) throw fail('ERR_INVALID_VALUE', `storage driver ${driver.name} has no option ${JSON.stringify(name)}`, { path: name });
    if (!driver.features.has(feature)) {
      throw fail('ERR_FEATURE_MISSING', `storage driver ${driver.name} cannot do option ${name}`, { path: name, hint: `leave the option out, or choose a driver with the feature ${feature}` });
    }
    if (name === 'size') size = parseSize('storage option size', value);
    else if (value === 'true' || value === 'false') volatile = value === 'true';
    else throw fail('ERR_INVALID_VALUE', `storage option ${name} must be true or false, not ${JSON.stringify(value)}`, { path: name });
  }
  if (request.lower.folder !== undefined && !driver.features.has('host-folder')) {
    throw fail('ERR_FEATURE_MISSING', `storage driver ${driver.name} cannot stand on a host folder`, { path: request.lower.folder, hint: 'use a driver with the feature host-folder, e.g. overlay' });
  }
  return { volatile, ...(size === undefined ? {} : { size }) };
}

/** `10m`, `1g`, `1.5G`, `4096`, `10MiB`: bytes, powers of 1024 as Docker's. Errors: ERR_INVALID_VALUE names `what`. */
export function parseSize(what: string, text: string): bigint {
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?$/i.exec(text.trim()) ?? [];
  const scale = 1024 ** Math.max(0, 'bkmgtp'.indexOf((unit ?? '').toLowerCase() || 'b'));
  const bytes = Math.floor(Number(number) * scale);
  if (number === undefined || !Number.isSafeInteger(bytes) || bytes <= 0) throw fail('ERR_INVALID_VALUE', `${what}: not a size: ${JSON.stringify(text)}`, { path: text, hint: 'write it like 10m or 1g' });
  return BigInt(bytes);
}

/** Bytes (blocks, hardlinks once) and inodes below `root`, without `root` itself. `counts`: false leaves an entry out. */
export async function treeUsage(root: string, counts: (path: string) => Promise<boolean> = () => Promise.resolve(true)): Promise<{ bytes: number; inodes: number }> {
  const seen = new Set<string>();
  let bytes = 0;
  let inodes = 0;
  const walk = async (folder: string): Promise<void> => {
    for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
      const path = join(folder, entry.name);
      // A running container may remove what was just listed.
      const stat = await lstat(join(root, path), { bigint: true }).catch(() => undefined);
      if (!stat) continue;
      if (await counts(path)) {
        const id = `${stat.dev}:${stat.ino}`;
        if (stat.nlink < 2n || stat.isDirectory() || !seen.has(id)) {
          seen.add(id);
          bytes += Number(stat.blocks) * 512;
          inodes++;
        }
      }
      if (entry.isDirectory()) await walk(path).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      });
    }
  };
  await walk('');
  return { bytes, inodes };
}
