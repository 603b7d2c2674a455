import { fail } from '@engine/core/errors';
import { effect, op } from '@engine/core/plan';
import { type Effects } from '@engine/core/contracts/common';
import { type HistoryEntry } from '@engine/core/contracts/image';
import { type StorageDriver } from '@engine/core/contracts/storage';
import { imageKey, nameKey, type ImageRecord, type Images } from './images.ts';
import { parseConfig } from './manifest.ts';
import { familiarName } from './reference.ts';
import { type Store } from './store.ts';

export interface RemoveOptions { readonly force: boolean; readonly usedBy: readonly string[]; readonly storages: readonly StorageDriver[] }

/**
 * Take a name from an image; with its last name (or by id) the image itself: record, blobs and layers that no other image has.
 * Returns the lines Docker prints. Errors: ERR_NO_SUCH_IMAGE, ERR_IN_USE.
 */
export function removeImage(store: Store, images: Images, effects: Effects, reference: string, options: RemoveOptions): readonly string[] {
  const found = images.find(reference);
  if (!found) throw fail('ERR_NO_SUCH_IMAGE', `no such image: ${reference}`, { path: reference });
  const { record, name } = found;
  const names = images.names(record.id);
  const { force, usedBy } = options;
  const going = name === undefined ? names : [name];
  if (name === undefined && names.length > 1 && !force) {
    throw fail('ERR_IN_USE', `image ${shortId(record.id)} has ${names.length} names: ${names.map(familiarName).join(', ')}`, { path: reference, hint: 'remove them one by one, or use --force' });
  }
  const last = going.length === names.length;
  if (last && usedBy.length > 0 && !force) {
    throw fail('ERR_IN_USE', `image ${reference} is used by container ${usedBy.join(', ')}`, { path: reference, hint: 'remove the container first, or use --force' });
  }
  for (const item of going) effects.setState(nameKey(item), undefined);
  const lines = going.map((item) => `Untagged: ${familiarName(item)}`);
  // a container stands on the layers: by force the image loses its names, its content goes when it is removed again without the container
  if (!last || usedBy.length > 0) return lines;
  effects.setState(imageKey(record.id), undefined);
  return [...lines, `Deleted: ${record.id}`, ...dropContent(store, images, effects, record, options.storages)];
}

function dropContent(store: Store, images: Images, effects: Effects, record: ImageRecord, storages: readonly StorageDriver[]): string[] {
  const others = images.records().filter(({ id }) => id !== record.id);
  const blobs = new Set(others.flatMap(({ id, manifest, layers }) => [id, manifest, ...layers.map(({ digest }) => digest)]));
  const chains = new Set(others.flatMap(({ layers }) => layers.map(({ chainID }) => chainID)));
  // topmost first: no layer goes before those that stand on it
  const layers = record.layers.map(({ chainID }) => chainID).filter((chainID) => !chains.has(chainID)).toReversed();
  effects.onCommit([
    ...layers.flatMap((chainID) => storages.flatMap((storage) => storage.removeLayer(chainID))),
    ...[...new Set([record.manifest, record.id, ...record.layers.map(({ digest }) => digest)])]
      .filter((digest) => !blobs.has(digest))
      .map((digest) => effect(op.unlink({ path: store.blob(digest) }, { okMissing: true }), { none: 'a removal is repeated until it is done' })),
  ]);
  return layers.map((chainID) => `Deleted: ${chainID}`);
}

/** Newest first, as `docker history` has it: only the top entry has the image's id. */
export function historyOf(store: Store, record: ImageRecord): HistoryEntry[] {
  const { history } = parseConfig(store.read(record.id), record.id);
  let layer = 0;
  const entries = history.map(({ created, created_by: createdBy, comment, empty_layer: empty }): HistoryEntry => ({
    id: '<missing>',
    createdBy: createdBy ?? '',
    comment: comment ?? '',
    size: empty === true ? 0 : (record.layers[layer++]?.bytes ?? 0),
    ...(created === undefined ? {} : { created }),
  }));
  for (; layer < record.layers.length; layer++) entries.push({ id: '<missing>', createdBy: '', comment: '', size: record.layers[layer]?.bytes ?? 0 });
  const [top, ...below] = entries.toReversed();
  return top ? [{ ...top, id: record.id }, ...below] : [];
}
export function shortId(id: string): string {
  return id.slice('sha256:'.length, 'sha256:'.length + 12);
}
