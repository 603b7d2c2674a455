import * as fs from 'node:fs';
import { constants } from 'node:os';
import { dirname, join, normalize, sep } from 'node:path';
import { type DecodedStep } from '../plan/decode.ts';
import { BITS } from '../plan/table.ts';
import { errno, readFd, unpackEntries } from './fake-entries.ts';

type Args = Record<string, unknown>;
const str = (args: Args, name: string): string => String(args[name] ?? '');
const num = (args: Args, name: string): number => Number(args[name] ?? 0);

/** What stands in for an ioctl on the open file or folder `path`; `patch`: the path behind the register that is patched into `arg`. */
export type FakeIoctl = (call: { readonly path: string; readonly request: number; readonly arg: Uint8Array; readonly patch?: string }) => void;

/**
 * Does the file operations of a plan with node:fs on paths below `prefix`; everything else only gets recorded by the caller.
 * Owners are not changed: it runs without root.
 */
export class FakeFiles {
  /** Registers that hold a folder or file below the prefix, or an fd of `streams`. */
  readonly #paths = new Map<string, string>();
  readonly #fds = new Map<string, number>();
  readonly #prefix: string;
  readonly #ioctl: FakeIoctl | undefined;

  constructor(prefix: string, streams: readonly number[], ioctl?: FakeIoctl) {
    this.#prefix = prefix;
    this.#ioctl = ioctl;
    streams.forEach((fd, i) => this.#fds.set(`fd${i}`, fd));
  }

  /** The path meant, undefined when it lies outside the prefix. */
  #path(args: Args, field = 'path', rootField = 'root'): string | undefined {
    const root = args[rootField];
    if (root !== undefined) {
      const base = this.#paths.get(String(root));
      return base === undefined ? undefined : join(base, normalize(`/${str(args, field)}`));
    }
    const path = normalize(str(args, field));
    return path === this.#prefix || path.startsWith(this.#prefix + sep) ? path : undefined;
  }
  #stream(args: Args): number {
    const fd = this.#fds.get(str(args, 'stream'));
    if (fd === undefined) throw errno('EBADF', `register ${str(args, 'stream')}`);
    return fd;
  }

  /** Errors are node:fs errors with a `code`. */
  async run(step: DecodedStep): Promise<void> {
    const { name } = step.operation;
    const args = step.operation.args as Args;
    const path = this.#path(args);
    const mode = num(args, 'mode');
    switch (name) {
      case 'mkdir':
        if (path === undefined) return;
        if (num(args, 'parents') === 1) fs.mkdirSync(dirname(path), { recursive: true });
        if (num(args, 'parents') === 1 && fs.existsSync(path)) return;
        fs.mkdirSync(path);
        return fs.chmodSync(path, mode & 0o7777);
      case 'rmdir':
        return path === undefined ? undefined : fs.rmdirSync(path);
      case 'writeFile':
        return path === undefined ? undefined : this.#writeFile(path, args);
      case 'unlink':
        return path === undefined ? undefined : fs.unlinkSync(path);
      case 'removeTree':
        return path === undefined ? undefined : fs.rmSync(path, { recursive: true, force: true });
      case 'rename':
        return this.#rename(args);
      case 'symlink':
        return path === undefined ? undefined : fs.symlinkSync(str(args, 'target'), path);
      case 'link': {
        const target = this.#path(args, 'target');
        return path === undefined || target === undefined ? undefined : fs.linkSync(target, path);
      }
      case 'mknod':
        return path === undefined ? undefined : fs.closeSync(fs.openSync(path, 'wx', mode & 0o7777));
      case 'setAttributes': {
        if (path === undefined) return;
        const what = num(args, 'what');
        if (what & BITS.ATTR.mode) fs.chmodSync(path, mode & 0o7777);
        if (what & BITS.ATTR.mtime) fs.lutimesSync(path, Number(args['mtime'] ?? 0n) / 1e9, Number(args['mtime'] ?? 0n) / 1e9);
        return;
      }
      case 'copyTree':
      case 'copyUp': {
        const from = this.#path(args, 'from', 'fromRoot');
        const to = this.#path(args, 'to', 'toRoot');
        if (from === undefined || to === undefined) return;
        if (name === 'copyUp' && (!fs.existsSync(from) || fs.readdirSync(to).length > 0)) return;
        if (!fs.statSync(to).isDirectory()) throw errno('ENOTDIR', to);
        for (const entry of fs.readdirSync(from)) fs.cpSync(join(from, entry), join(to, entry), { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
        return;
      }
      case 'open':
        if (path === undefined) return;
        fs.lstatSync(path);
        return void this.#paths.set(str(args, 'out'), path);
      case 'close':
        return void this.#paths.delete(str(args, 'fd'));
      case 'ioctl': {
        const [at, patch] = [args['fd'], args['patch']].map((register) => this.#paths.get(String(register)));
        if (at !== undefined) this.#ioctl?.({ path: at, request: num(args, 'request'), arg: args['arg'] as Uint8Array, ...(patch !== undefined && { patch }) });
        return;
      }
      case 'unpack':
        return path === undefined ? undefined : unpackEntries(path, readFd(this.#stream(args)), num(args, 'whiteouts'));
      case 'writeStream':
        return path === undefined ? undefined : this.#writeStream(path, args);
      default:
    }
  }

  #writeFile(path: string, args: Args): void {
    const how = num(args, 'how');
    const data = (args['data'] as Uint8Array | undefined) ?? new Uint8Array(0);
    const { create, exclusive, truncate, append, atomic } = BITS.WRITE;
    const at = how & atomic ? `${path}.fake-tmp` : path;
    let flags = fs.constants.O_WRONLY;
    if (how & (create | atomic | exclusive)) flags |= fs.constants.O_CREAT;
    if (how & exclusive) flags |= fs.constants.O_EXCL;
    if (how & (truncate | atomic)) flags |= fs.constants.O_TRUNC;
    if (how & append) flags |= fs.constants.O_APPEND;
    if (how & atomic && how & exclusive && fs.existsSync(path)) throw errno('EEXIST', path);
    const fd = fs.openSync(at, flags, 0o600);
    fs.writeSync(fd, data);
    if (how & (create | atomic | exclusive)) fs.fchmodSync(fd, num(args, 'mode') & 0o7777);
    fs.closeSync(fd);
    if (at !== path) fs.renameSync(at, path);
  }

  #rename(args: Args): void {
    if (this.#path(args, 'from') === undefined || this.#path(args, 'to') === undefined) return;
    // as given: `path/mark/../../name` means something only where `path/mark` is
    const [from, to] = [str(args, 'from'), str(args, 'to')];
    const flags = num(args, 'flags');
    if (flags & 1 && fs.lstatSync(to, { throwIfNoEntry: false })) throw errno('EEXIST', to);
    if (!(flags & 2)) return fs.renameSync(from, to);
    const middle = `${to}.fake-exchange`;
    fs.renameSync(to, middle);
    fs.renameSync(from, to);
    fs.renameSync(middle, from);
  }

  async #writeStream(path: string, args: Args): Promise<void> {
    const length = Number(args['length'] ?? 0n);
    const limit = Number(args['limit'] ?? 0n);
    const skip = Math.max(0, Number(args['offset'] ?? 0n));
    const chunks: Buffer[] = [];
    for await (const chunk of readFd(this.#stream(args))) chunks.push(chunk);
    let data = Buffer.concat(chunks).subarray(skip);
    if (length > 0 && data.length < length) throw errno('EPIPE', path);
    if (length > 0) data = data.subarray(0, length);
    if (limit > 0 && data.length > limit) throw errno('EFBIG', path);
    const fd = fs.openSync(path, 'wx', 0o600);
    fs.writeSync(fd, data);
    fs.fchmodSync(fd, num(args, 'mode') & 0o7777);
    fs.closeSync(fd);
  }
}

/** 2 for `ENOENT`. */
export function errnoNumber(code: string): number {
  return (constants.errno as Record<string, number>)[code] ?? constants.errno.EIO;
}
