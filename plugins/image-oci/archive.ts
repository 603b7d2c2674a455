import { closeSync, constants, type Stats } from 'node:fs';
import { open, readdir, readFile, stat, type FileHandle } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { reach, reachOwn } from '@engine/core/contracts/common';
import { fail, isEngineError } from '@engine/core/errors';
import { decompress, detectCompression, CHUNK, peek } from './chunks.ts';
import { BrokenFeed, Feed, type MakePipe } from './feed.ts';
import { MAX_DOCUMENT, type BlobSource, type StagedBlob, type Staging } from './store.ts';
import { badArchive, BLOCK, shown, type TarEntry } from './tar/header.ts';
import { TarReader, type TarHandler } from './tar/reader.ts';

/** A file inside an image archive or folder. */
export interface Member {
  readonly name: string;
  readonly size: number;
  /** All of a small one. Errors: ERR_IMAGE_LIMIT above 8 MiB. */
  read(): Promise<Buffer>;
  /** The first bytes. */
  head(): Promise<Buffer>;
  /** As a blob in the staging folder. */
  stage(staging: Staging): Promise<StagedBlob>;
}
/** What `docker save`, skopeo and the like wrote, whichever way it came. Links between members are followed. */
export interface ImageArchive {
  get(name: string): Member | undefined;
  /** For image names, where the archive has only tags; '' for a stream. */
  readonly label: string;
}

export interface ArchiveOptions {
  readonly staging: Staging;
  readonly makePipe: MakePipe;
  readonly maxSize: number;
  readonly maxRatio: number;
  readonly signal?: AbortSignal;
  readonly progress?: (bytes: number) => void;
}
/** Most members of an outer archive, and bytes of small ones kept in memory while a stream is read. */
const MAX_MEMBERS = 100_000;
const KEEP_BELOW = 1 << 20;
const KEEP_TOTAL = 64 << 20;
const HEAD = 16;

/** Open an archive file, an OCI folder, or (path undefined) a stream. */
export async function openArchive(path: string | undefined, stream: NodeJS.ReadableStream | undefined, options: ArchiveOptions): Promise<ImageArchive> {
  if (path === undefined) {
    if (!stream) throw fail('ERR_INVALID_VALUE', 'nothing to load: neither a file nor a stream was given');
    return readStreamed(streamChunks(stream, options.signal), '', options);
  }
  let found: Stats;
  try {
    found = await reach('stat', path, () => stat(path));
  } catch (cause) {
    if (isEngineError(cause)) throw cause;
    const errno = (cause as NodeJS.ErrnoException).code;
    if (errno === 'ENOENT') throw fail('ERR_INVALID_VALUE', `no such file: ${path}`, { path });
    throw fail('ERR_INVALID_VALUE', `cannot read ${path}`, { path, cause, ...(errno ? { errno } : {}) });
  }
  const label = path.split('/').filter(Boolean).at(-1)?.replace(/(\.(tar|oci|tgz|gz|zst|zstd))+$/, '') ?? '';
  if (found.isDirectory()) return folderArchive(path, label);
  const file = found.isFile() ? await reachOwn('open', path, () => open(path, 'r'), (late) => late.close()) : await open(path, 'r');
  try {
    if (found.isFile()) {
      const head = Buffer.alloc(HEAD);
      const { bytesRead } = await file.read(head, 0, HEAD, 0);
      if (bytesRead === 0) throw badArchive(`${path} is empty`);
      if (detectCompression(head.subarray(0, bytesRead), path) === 'none') return await indexFile(file, path, label, found.size);
    }
    return await readStreamed(fileChunks(file, options.signal), label, options);
  } finally {
    await file.close();
  }
}

async function* fileChunks(file: FileHandle, signal?: AbortSignal): AsyncGenerator<Buffer> {
  for (;;) {
    signal?.throwIfAborted();
    const buffer = Buffer.allocUnsafeSlow(CHUNK);
    const { bytesRead } = await file.read(buffer, 0, CHUNK, null);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
  }
}
export async function* streamChunks(stream: NodeJS.ReadableStream, signal?: AbortSignal): AsyncGenerator<Buffer> {
  for await (const chunk of stream) {
    signal?.throwIfAborted();
    yield Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk);
  }
}

/** Names inside an archive, `./` and doubled slashes gone. */
function clean(name: string): string {
  return posix.normalize(`/${name}`).slice(1).replace(/\/$/, '');
}
function tooLong(name: string, size: number): Error {
  return fail('ERR_IMAGE_LIMIT', `${shown(name)} has ${size} bytes; a manifest or config has at most ${MAX_DOCUMENT}`, { path: shown(name) });
}

/** Members and the links between them: `docker save` writes a shared layer once and links to it. */
class Members implements ImageArchive {
  readonly label: string;
  readonly #members = new Map<string, Member>();
  readonly #links = new Map<string, string>();
  constructor(label: string) {
    this.label = label;
  }
  add(entry: TarEntry, member: (name: string) => Member): void {
    const name = clean(entry.path);
    if (entry.kind === 'file') this.#members.set(name, member(name));
    else if (entry.kind === 'symlink') this.#links.set(name, clean(posix.join(posix.dirname(`/${name}`), entry.linkPath)));
    else if (entry.kind === 'hardlink') this.#links.set(name, clean(entry.linkPath));
  }
  get(name: string): Member | undefined {
    let at = clean(name);
    for (let hops = 0; hops < 10; hops++) {
      const next = this.#links.get(at);
      if (next === undefined) return this.#members.get(at);
      at = next;
    }
    return undefined;
  }
}

/** A plain file: read the headers, pass over the contents. */
async function indexFile(file: FileHandle, path: string, label: string, total: number): Promise<ImageArchive> {
  const members = new Members(label);
  const reader = new TarReader({
    entry: (entry) => members.add(entry, (name) => fileMember(path, name, entry.offset, entry.size)),
    data: () => {},
    hole: () => { throw badArchive('an image archive has no sparse files'); },
  }, { maxEntries: MAX_MEMBERS });
  const buffer = Buffer.alloc(BLOCK);
  let position = 0;
  while (!reader.ended) {
    const skip = reader.skippable;
    if (skip > 0) {
      if (position + skip > total + BLOCK) throw badArchive(`${path} is cut off`);
      reader.skip(skip);
      position += skip;
      continue;
    }
    const { bytesRead } = await file.read(buffer, 0, BLOCK, position);
    if (bytesRead === 0) break;
    position += bytesRead;
    reader.write(buffer.subarray(0, bytesRead));
  }
  if (position > total) throw badArchive(`${path} is cut off`);
  reader.end();
  return members;
}

function fileMember(path: string, name: string, offset: number, size: number, follow = true): Member {
  const part = async (length: number): Promise<Buffer> => {
    const file = await open(path, follow ? 'r' : constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const buffer = Buffer.alloc(length);
      const { bytesRead } = await file.read(buffer, 0, length, offset);
      if (bytesRead < length) throw badArchive(`${shown(name)} is cut off`);
      return buffer;
    } finally {
      await file.close();
    }
  };
  return {
    name, size,
    read: async () => {
      if (size > MAX_DOCUMENT) throw tooLong(name, size);
      return part(size);
    },
    head: () => part(Math.min(size, HEAD)),
    stage: (staging) => staging.write({ kind: 'file', path, offset, size }),
  };
}

/** An OCI folder. Only names that the layout knows are ever asked for, and links are not followed. */
async function folderArchive(path: string, label: string): Promise<ImageArchive> {
  const sizes = new Map<string, number>();
  const look = async (name: string): Promise<void> => {
    const found = await stat(join(path, name)).catch(() => undefined);
    if (found?.isFile()) sizes.set(name, found.size);
  };
  await Promise.all(['index.json', 'oci-layout', 'manifest.json'].map(look));
  const blobs = join(path, 'blobs/sha256');
  for (const name of await readdir(blobs).catch(() => [])) await look(`blobs/sha256/${name}`);
  return {
    label,
    get(name) {
      const size = sizes.get(clean(name));
      return size === undefined ? undefined : fileMember(join(path, clean(name)), clean(name), 0, size, false);
    },
  };
}

/** A stream: small members stay in memory, large ones go to the staging folder as they come. */
async function readStreamed(chunks: AsyncGenerator<Buffer>, label: string, options: ArchiveOptions): Promise<ImageArchive> {
  const { staging, makePipe, maxSize, maxRatio } = options;
  const members = new Members(label);
  let kept = 0;
  let total = 0;
  let current: { write(chunk: Buffer): void; readonly feed?: Feed } | undefined;
  const pending: Promise<unknown>[] = [];
  const handler: TarHandler = {
    entry(entry) {
      current = undefined;
      if (entry.kind !== 'file') {
        members.add(entry, () => { throw badArchive('not a file'); });
        return;
      }
      if (entry.size <= KEEP_BELOW && kept + entry.size <= KEEP_TOTAL) {
        kept += entry.size;
        const parts: Buffer[] = [];
        current = { write: (chunk) => void parts.push(Buffer.from(chunk)) };
        members.add(entry, (name) => memoryMember(name, entry.size, parts));
        return;
      }
      const pipe = makePipe();
      const feed = new Feed(pipe.write);
      const staged = staging.write({ kind: 'stream', fd: pipe.read, size: entry.size, limit: entry.size });
      const ended = staged.then(({ written }) => written).finally(() => {
        feed.close();
        closeSync(pipe.read);
      });
      ended.catch(() => {});
      pending.push(ended);
      let left = entry.size;
      current = {
        feed,
        write(chunk) {
          feed.push([chunk]);
          left -= chunk.length;
          if (left === 0) feed.end().catch(() => {});
        },
      };
      members.add(entry, (name) => stagedMember(name, entry.size, staged));
    },
    data: (chunk) => current?.write(chunk),
    hole() { throw badArchive('an image archive has no sparse files'); },
  };
  const reader = new TarReader(handler, { maxEntries: MAX_MEMBERS });
  const { head, all } = await peek(chunks);
  if (head.length === 0) throw badArchive('it is empty');
  try {
    for await (const chunk of decompress(all, detectCompression(head, 'the archive'), 'the archive', maxRatio)) {
      total += chunk.length;
      options.progress?.(chunk.length);
      if (total > maxSize) throw fail('ERR_IMAGE_LIMIT', `the archive has more than ${maxSize} bytes`, { hint: 'raise options.image-oci.maxSize if it is meant to' });
      reader.write(chunk);
      if (current?.feed && !current.feed.ended) await current.feed.room();
    }
    reader.end();
  } catch (error) {
    current?.feed?.close();
    const results = await Promise.allSettled(pending);
    const cause = results.find((result) => result.status === 'rejected');
    // a sink breaks because the helper at its other end failed: that error says more
    throw error instanceof BrokenFeed && cause ? cause.reason : error;
  } finally {
    await chunks.return(undefined);
  }
  return members;
}

function memoryMember(name: string, size: number, parts: readonly Buffer[]): Member {
  const data = (): Buffer => Buffer.concat(parts);
  return {
    name, size,
    read: () => Promise.resolve(data()),
    head: () => Promise.resolve(data().subarray(0, HEAD)),
    stage: (staging) => staging.write({ kind: 'bytes', data: data() } satisfies BlobSource),
  };
}
function stagedMember(name: string, size: number, staged: Promise<StagedBlob>): Member {
  return {
    name, size,
    async read() {
      if (size > MAX_DOCUMENT) throw tooLong(name, size);
      const { path, written } = await staged;
      await written;
      return readFile(path);
    },
    async head() {
      const { path, written } = await staged;
      await written;
      return fileMember(path, name, 0, size).head();
    },
    stage: () => staged,
  };
}
