import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { ENTRY } from '../plan/entries.ts';

const heads = new Set<number>([ENTRY.folder, ENTRY.file, ENTRY.symlink, ENTRY.hardlink, ENTRY.character, ENTRY.block, ENTRY.fifo, ENTRY.whiteout, ENTRY.opaque]);

/** A file system error with a code, as node:fs throws them. */
export function errno(code: string, detail = ''): Error {
  return Object.assign(new Error(detail || code), { code });
}

/** The bytes of a non-blocking or regular fd. */
export async function* readFd(fd: number): AsyncGenerator<Buffer> {
  for (;;) {
    const chunk = Buffer.alloc(65536);
    let n: number;
    try {
      n = fs.readSync(fd, chunk, 0, chunk.length, null);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    if (n === 0) return;
    yield chunk.subarray(0, n);
  }
}

async function* frames(stream: AsyncIterable<Buffer>): AsyncGenerator<{ kind: number; body: Buffer }> {
  let rest = Buffer.alloc(0);
  for await (const chunk of stream) {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 8) {
      const length = rest.readUInt32LE(4);
      if (rest.length < 8 + length) break;
      yield { kind: rest.readUInt8(0), body: Buffer.from(rest.subarray(8, 8 + length)) };
      rest = rest.subarray(8 + length);
    }
  }
  if (rest.length > 0) throw errno('EPIPE', 'the stream ends inside a frame');
}

function readHead(body: Buffer): { mode: number; mtime: bigint; size: bigint; path: string; link: string } {
  let at = 40;
  const text = (): string => {
    const length = body.readUInt32LE(at);
    at += 4 + length;
    return body.toString('utf8', at - length, at);
  };
  return { mode: body.readUInt32LE(0), mtime: body.readBigInt64LE(16), size: body.readBigUInt64LE(24), path: text(), link: text() };
}

/**
 * The stand-in for `unpack`: owners, xattrs and nodes are left out (a node is an empty file), an overlay whiteout is an empty file of
 * mode 0.
 */
export async function unpackEntries(folder: string, stream: AsyncIterable<Buffer>, whiteouts: number): Promise<void> {
  const times: [string, bigint][] = [];
  let open: { fd: number; path: string; mtime: bigint } | undefined;
  const close = (): void => {
    if (!open) return;
    fs.closeSync(open.fd);
    times.push([open.path, open.mtime]);
    open = undefined;
  };
  let done = false;
  for await (const { kind, body } of frames(stream)) {
    if (kind === ENTRY.data || kind === ENTRY.hole) {
      if (!open) throw errno('EINVAL', 'data without a file');
      fs.writeSync(open.fd, kind === ENTRY.data ? body : Buffer.alloc(Number(body.readBigUInt64LE(0))));
      continue;
    }
    close();
    if (kind === ENTRY.end) {
      done = true;
      continue;
    }
    if (!heads.has(kind)) throw errno('EINVAL', `unknown entry kind ${kind}`);
    const head = readHead(body);
    if (head.path === '.') head.path = ''; // the layer's root itself
    const parts = head.path.split('/');
    if (kind !== ENTRY.folder && head.path === '' && kind !== ENTRY.opaque) throw errno('EINVAL', 'an entry without a path');
    if (head.path !== '' && head.path !== '.' && parts.some((part) => part === '' || part === '.' || part === '..')) throw errno('EINVAL', head.path);
    const path = join(folder, head.path);
    const replace = (): void => fs.rmSync(path, { recursive: true, force: true });
    if (kind !== ENTRY.folder || head.path !== '') fs.mkdirSync(dirname(path), { recursive: true });
    if (kind === ENTRY.folder) {
      if (fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) {
        replace();
        fs.mkdirSync(path);
      }
      fs.chmodSync(path, head.mode & 0o7777);
      times.push([path, head.mtime]);
    } else if (kind === ENTRY.symlink) {
      replace();
      fs.symlinkSync(head.link, path);
    } else if (kind === ENTRY.hardlink) {
      replace();
      fs.linkSync(join(folder, head.link), path);
    } else if (kind === ENTRY.opaque) {
      if (whiteouts === 0 && fs.existsSync(path)) for (const name of fs.readdirSync(path)) fs.rmSync(join(path, name), { recursive: true, force: true });
    } else if (kind === ENTRY.whiteout) {
      replace();
      if (whiteouts === 1) fs.closeSync(fs.openSync(path, 'w', 0));
    } else {
      replace();
      const fd = fs.openSync(path, 'wx', 0o600);
      fs.fchmodSync(fd, head.mode & 0o7777);
      open = { fd, path, mtime: head.mtime };
    }
  }
  close();
  if (!done) throw errno('EPIPE', 'the stream ends too early');
  for (const [path, mtime] of times.reverse()) fs.utimesSync(path, Number(mtime) / 1e9, Number(mtime) / 1e9);
}
