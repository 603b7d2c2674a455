import { closeSync, existsSync, openSync, readFileSync, statSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fail } from '@engine/core/errors';
import { effect, op } from '@engine/core/plan';
import { ensureFolder, goesWithStaging, uniqueName, type Effects } from '@engine/core/contracts/common';

const keptForEver = { none: 'committed content is never taken back' };
/** Longest manifest, index or config, bytes. */
export const MAX_DOCUMENT = 8 << 20;
const WRITE_NEW = 1 | 2;

/** The content store: `FOLDER/blobs/sha256/<hex>`, each file named by the digest of its bytes. */
export interface Store {
  readonly folder: string;
  blob(digest: string): string;
  has(digest: string): boolean;
  /** Size in bytes, undefined when it isn't here. */
  size(digest: string): number | undefined;
  /** A small blob, verified. Errors: ERR_STATE when it is missing, ERR_DIGEST_MISMATCH when it was changed. */
  read(digest: string): Buffer;
}
export function createStore(folder: string): Store {
  const blob = (digest: string): string => join(folder, 'blobs/sha256', digest.slice('sha256:'.length));
  return {
    folder,
    blob,
    has: (digest) => existsSync(blob(digest)),
    size: (digest) => statSync(blob(digest), { throwIfNoEntry: false })?.size,
    read(digest) {
      let data: Buffer;
      try {
        data = readFileSync(blob(digest));
      } catch (cause) {
        throw fail('ERR_STATE', `the content store lacks ${digest}`, { path: blob(digest), cause, hint: 'load the image again' });
      }
      verifyDigest(data, digest, blob(digest));
      return data;
    },
  };
}

export function digestOf(data: Uint8Array): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}
export function verifyDigest(data: Uint8Array, digest: string, what: string): void {
  const actual = digestOf(data);
  if (actual !== digest) throw fail('ERR_DIGEST_MISMATCH', `${what} has digest ${actual}, not ${digest}`, { path: what });
}

/** Where the bytes of a blob come from. */
export type BlobSource =
  | { readonly kind: 'bytes'; readonly data: Uint8Array }
  /** Part of a regular file, opened anew for every use because the helper moves its position. */
  | { readonly kind: 'file'; readonly path: string; readonly offset: number; readonly size: number }
  /** Anything that can only be read once, to its end; the fd belongs to the caller. */
  | { readonly kind: 'stream'; readonly fd: number; readonly size?: number; readonly limit: number };

/** A blob on its way: its file grows until `written` resolves. */
export interface StagedBlob {
  readonly path: string;
  readonly size?: number;
  readonly written: Promise<void>;
}

/**
 * What one load or import writes, in a folder of its own. Nothing reaches `blobs/` before the transaction commits, so an undo never
 * takes away what somebody else may rely on; verified blobs are renamed into place by the commit.
 */
export interface Staging {
  write(source: BlobSource): Promise<StagedBlob>;
  /** Small blobs, written and kept. Returns their digests. */
  documents(list: readonly Uint8Array[]): Promise<string[]>;
  /** Call once for each blob that was verified: from now on {@link find} knows it, and the commit keeps it. */
  keep(blob: StagedBlob, digest: string): void;
  /**
   * Blobs of the store that the new image stands on too: linked into the staging folder, so that a removal that commits meanwhile
   * does not take them away. Returns those that are here.
   */
  hold(digests: readonly string[]): Promise<ReadonlySet<string>>;
  /** Path of a blob that is kept or held here. */
  find(digest: string): string | undefined;
  /** Registers what the commit does. Nothing may be kept afterwards. */
  finish(): void;
}

export async function createStaging(store: Store, effects: Effects, signal?: AbortSignal): Promise<Staging> {
  const folder = join(store.folder, 'staging', uniqueName());
  const blobs = join(store.folder, 'blobs/sha256');
  const kept = new Map<string, string>();
  let count = 0;
  await effects.run([
    ...[join(store.folder, 'staging'), blobs].filter((path) => !existsSync(path)).map((path) => ensureFolder(path)),
    effect(op.mkdir({ path: folder, mode: 0o700 }), op.removeTree({ path: folder })),
  ]);
  const staging: Staging = {
    async write(source) {
      const path = join(folder, String(count++));
      if (source.kind === 'bytes') {
        await effects.run([effect(op.writeFile({ path, data: source.data, mode: 0o600, how: WRITE_NEW }), goesWithStaging)]);
        return { path, size: source.data.byteLength, written: Promise.resolve() };
      }
      const options = signal ? { signal } : {};
      if (source.kind === 'stream') {
        const args = { path, stream: 'fd0', offset: -1n, length: BigInt(source.size ?? 0), limit: BigInt(source.limit), mode: 0o600 };
        const written = effects.run([effect(op.writeStream(args), goesWithStaging)], { ...options, streams: [source.fd] });
        written.catch(() => {});
        return { path, ...(source.size === undefined ? {} : { size: source.size }), written };
      }
      if (source.size === 0) return staging.write({ kind: 'bytes', data: new Uint8Array(0) });
      const fd = openSync(source.path, 'r');
      const args = { path, stream: 'fd0', offset: BigInt(source.offset), length: BigInt(source.size), mode: 0o600 };
      const written = effects.run([effect(op.writeStream(args), goesWithStaging)], { ...options, streams: [fd] }).finally(() => closeSync(fd));
      written.catch(() => {});
      return { path, size: source.size, written };
    },
    async documents(list) {
      const added = list.map((data) => ({ data, digest: digestOf(data), path: join(folder, String(count++)) })).filter(({ digest }) => !kept.has(digest));
      if (added.length > 0) await effects.run(added.map(({ data, path }) => effect(op.writeFile({ path, data, mode: 0o600, how: WRITE_NEW }), goesWithStaging)));
      for (const { digest, path } of added) kept.set(digest, path);
      return list.map(digestOf);
    },
    async hold(digests) {
      const wanted = [...new Set(digests)].filter((digest) => !kept.has(digest) && store.has(digest));
      const links = wanted.map((digest) => ({ digest, path: join(folder, String(count++)) }));
      if (links.length > 0) await effects.run(links.map(({ digest, path }) => effect(op.link({ path, target: store.blob(digest) }, { okMissing: true }), goesWithStaging)));
      for (const { digest, path } of links) if (existsSync(path)) kept.set(digest, path);
      return new Set(digests.filter((digest) => kept.has(digest)));
    },
    keep: (blob, digest) => void (kept.has(digest) || kept.set(digest, blob.path)),
    find: (digest) => kept.get(digest),
    finish() {
      effects.onCommit([
        ...[...kept].map(([digest, path]) => effect(op.rename({ from: path, to: store.blob(digest) }, { okMissing: true }), keptForEver)),
        ...(kept.size > 0 ? [effect(op.syncFs({ path: blobs }))] : []),
        effect(op.removeTree({ path: folder }), keptForEver),
      ]);
    },
  };
  return staging;
}
