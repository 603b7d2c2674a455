import { createHash } from 'node:crypto';
import { fail } from '@engine/core/errors';
import { type PluginState } from '@engine/core/contracts/common';
import { type ImageConfig, type ImageInfo, type ImageLayer } from '@engine/core/contracts/image';
import { canonicalName, familiarName, parseReference, type Reference } from './reference.ts';

/** What is kept of an image, under `image/<id>`. Names are kept apart, under `name/<canonical name>`. */
export interface ImageRecord {
  readonly id: string;
  /** Digest of the manifest. */
  readonly manifest: string;
  readonly created?: string;
  /** Bytes of file content of all layers. */
  readonly size: number;
  readonly architecture: string;
  readonly config: ImageConfig;
  readonly layers: readonly (ImageLayer & { readonly bytes: number })[];
}
const IMAGE = 'image/';
const NAME = 'name/';

export const imageKey = (id: string): string => IMAGE + id;
export const nameKey = (canonical: string): string => NAME + canonical;

/** The chainIDs of a list of diffIDs, bottom up. */
export function chainIDs(diffIDs: readonly string[]): string[] {
  const out: string[] = [];
  for (const diffID of diffIDs) {
    const below = out.at(-1);
    out.push(below === undefined ? diffID : `sha256:${createHash('sha256').update(`${below} ${diffID}`).digest('hex')}`);
  }
  return out;
}

/** Looks images up in the plugin's state. */
export interface Images {
  record(id: string): ImageRecord | undefined;
  records(): readonly ImageRecord[];
  /** Canonical names of an image, sorted. */
  names(id: string): readonly string[];
  byName(canonical: string): string | undefined;
  /** By name, `name@digest`, id or prefix of one. Errors: ERR_AMBIGUOUS. */
  find(reference: string): { readonly record: ImageRecord; readonly name?: string } | undefined;
  info(record: ImageRecord, names?: readonly string[]): ImageInfo;
}

export function createImages(state: PluginState, source: string): Images {
  const record = (id: string): ImageRecord | undefined => state.get(imageKey(id)) as ImageRecord | undefined;
  const records = (): readonly ImageRecord[] => state.list(IMAGE).map(({ value }) => value as ImageRecord);
  const names = (id: string): readonly string[] => state.list(NAME).filter(({ value }) => value === id).map(({ key }) => key.slice(NAME.length)).toSorted();
  const byName = (canonical: string): string | undefined => state.get(nameKey(canonical)) as string | undefined;

  function findByReference({ repository, tag, digest }: Reference): { record: ImageRecord; name?: string } | undefined {
    if (digest === undefined) {
      const name = canonicalName({ repository, ...(tag === undefined ? {} : { tag }) });
      const found = record(byName(name) ?? '');
      return found && { record: found, name };
    }
    // with a digest the tag says nothing: any name in that repository will do
    for (const candidate of records()) {
      if (candidate.manifest !== digest && candidate.id !== digest) continue;
      const name = names(candidate.id).find((item) => item.startsWith(`${repository}:`) || item.startsWith(`${repository}@`));
      if (name !== undefined) return { record: candidate, name };
    }
    return undefined;
  }

  return {
    record, records, names, byName,
    find(reference) {
      const hex = reference.startsWith('sha256:') ? reference.slice('sha256:'.length) : reference;
      if (/^[0-9a-f]{64}$/.test(hex)) {
        const found = record(`sha256:${hex}`) ?? records().find(({ manifest }) => manifest === `sha256:${hex}`);
        return found && { record: found };
      }
      let parsed: Reference | undefined;
      try {
        parsed = parseReference(reference);
      } catch {
        // no name, perhaps the beginning of an id
      }
      const named = parsed && findByReference(parsed);
      if (named) return named;
      if (!/^[0-9a-f]{1,63}$/.test(hex)) return undefined;
      const matching = records().filter(({ id }) => id.startsWith(`sha256:${hex}`));
      if (matching.length > 1) throw fail('ERR_AMBIGUOUS', `${matching.length} images begin with ${hex}`, { path: reference, data: { matches: matching.map(({ id }) => id) } });
      return matching[0] && { record: matching[0] };
    },
    info(found, given) {
      const { id, manifest, created, size, config, layers } = found;
      return {
        id, source, digest: manifest, size, config,
        names: (given ?? names(id)).map(familiarName),
        ...(created === undefined ? {} : { created }),
        rootfs: { kind: 'layers', layers: layers.map(({ digest, mediaType, size: blobSize, diffID, chainID }) => ({ digest, mediaType, size: blobSize, diffID, chainID })) },
      };
    },
  };
}
