import * as fs from 'node:fs';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { fail } from '../errors/index.ts';
import { type Lock, type Native } from '../native/index.ts';

const errnoNames = new Map(Object.entries(constants.errno).filter(([name]) => name !== 'EWOULDBLOCK' && name !== 'EOPNOTSUPP').map(([name, number]) => [number, name]));
// Node has no name for it
errnoNames.set(121, 'EREMOTEIO');
/** `ENOENT` for 2 or -2. */
export function errnoName(errno: number): string {
  return errnoNames.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`;
}
/** The errno name of a node:fs error. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
/** Undefined instead of an error when the thing isn't there. */
export function ifPresent<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}
export const names = (folder: string): string[] => ifPresent(() => fs.readdirSync(folder)) ?? [];
export const randomName = (): string => randomBytes(6).toString('hex');
/** Milliseconds of a clock that nobody sets. `performance` would load a module for it. */
export const clock = (): number => process.uptime() * 1000;
export const sleep = (ms: number): Promise<void> => new Promise((resolve) => (ms === 0 ? setImmediate(resolve) : setTimeout(resolve, ms)));

/** A folder below the engine's own: 0700 and ours, or ERR_STATE. */
export function ensurePrivateFolder(path: string): void {
  try {
    fs.mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw cannotMake(path, error);
  }
  if ((checkOwner(path).mode & 0o077) !== 0) fs.chmodSync(path, 0o700);
}

/**
 * One of the two folders a user names. It is made with its parents, or it is ours already (`isOurs` judges by what lies in it), or it is
 * an empty folder that nobody else can enter. Any other is refused and left as it is: a slip like `--run-root /run` must not close a
 * folder that the rest of the machine lives by. Errors: ERR_STATE.
 */
export function claimFolder(path: string, isOurs: (content: readonly string[]) => boolean): void {
  try {
    fs.mkdirSync(dirname(path), { recursive: true });
    fs.mkdirSync(path, { mode: 0o700 });
    return;
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw cannotMake(path, error);
  }
  const { mode } = checkOwner(path);
  const open = (mode & 0o077) !== 0;
  const content = names(path);
  if (!isOurs(content)) throw fail('ERR_STATE', `folder ${path} is not empty and was not made by the engine`, { path, hint: 'name a folder that is not there yet' });
  if (!open) return;
  if (content.length === 0) throw fail('ERR_STATE', `folder ${path} can be entered by others (mode ${(mode & 0o7777).toString(8)})`, { path, hint: `name a folder that is not there yet, or: chmod 700 ${path}` });
  fs.chmodSync(path, 0o700);
}

function cannotMake(path: string, error: unknown): Error {
  return fail('ERR_STATE', `cannot make folder ${path}`, { operation: 'mkdir', path, errno: errorCode(error) ?? 'EIO', cause: error });
}
function checkOwner(path: string): fs.Stats {
  const stat = fs.statSync(path);
  const uid = process.geteuid?.() ?? 0;
  if (!stat.isDirectory()) throw fail('ERR_STATE', `${path} is not a folder`, { path, errno: 'ENOTDIR' });
  if (stat.uid !== uid) throw fail('ERR_STATE', `folder ${path} belongs to uid ${stat.uid}, not to ${uid}`, { path, hint: `choose another root or chown ${path}` });
  return stat;
}

/** Write a file under a temporary name in the same folder and rename it into place; its fd is `then`'s to close. */
function writeRenamed<T>(path: string, data: string | Uint8Array, then: (fd: number) => T): T {
  const temporary = `${path}.tmp-${randomName()}`;
  let fd: number | undefined;
  try {
    fd = fs.openSync(temporary, 'wx', 0o600);
    fs.writeFileSync(fd, data);
    fs.renameSync(temporary, path);
  } catch (error) {
    if (fd !== undefined) fs.closeSync(fd);
    ifPresent(() => fs.unlinkSync(temporary));
    throw cannotWrite(path, error);
  }
  return then(fd);
}
const cannotWrite = (path: string, cause: unknown): Error => fail('ERR_STATE', `cannot write ${path}`, { operation: 'write', path, errno: errorCode(cause) ?? 'EIO', cause });
export const writeAtomic = (path: string, data: string | Uint8Array): void => writeRenamed(path, data, fs.closeSync);

/**
 * The same, and it resolves when the file is on the disk: fsynced (on another thread), after the rename: on ext4, xfs and btrfs that
 * makes the new name durable together with the data, for one fsync instead of two (a reader that finds the file cut short after a
 * power loss knows that the writer had not gone on).
 */
export async function writeDurable(path: string, data: string | Uint8Array): Promise<void> {
  const fd = writeRenamed(path, data, (open) => open);
  try {
    await promisify(fs.fsync)(fd);
  } catch (error) {
    throw cannotWrite(path, error);
  } finally {
    fs.closeSync(fd);
  }
}

/** JSON of a file, undefined when it is missing or not JSON. */
export function readJson(path: string): unknown {
  try {
    return JSON.parse(fs.readFileSync(path, 'utf8')) as unknown;
  } catch {
    return undefined;
  }
}

/** A lock that may be released more than once: a second close(2) could hit a file opened since. */
export function once(lock: Lock, path = lock.path): Lock {
  let released = false;
  return {
    fd: lock.fd,
    path,
    release() {
      if (!released) lock.release();
      released = true;
    },
  };
}

/** The lock of `folder`, undefined when somebody else has it or the folder went away. */
export function lockFolder(native: Native, folder: string, options: { create?: boolean } = {}): Lock | undefined {
  const path = join(folder, 'lock');
  const isFolder = (): boolean => fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true;
  if (!isFolder()) return undefined;
  let lock: Lock | undefined;
  try {
    lock = native.tryLock(path, { create: options.create ?? false });
  } catch (error) {
    if (!isFolder()) return undefined;
    throw error;
  }
  return lock && once(lock);
}

/** Rename into `trash`, from where it can only be deleted. False when it was gone already. */
export function moveToTrash(path: string, trash: string): string | undefined {
  const target = join(trash, `${basename(path)}-${randomName()}`);
  return ifPresent(() => (fs.renameSync(path, target), target));
}

/**
 * Delete a folder of our own records: files, and folders at most two levels down. Never goes into `rootfs` (an empty folder to mount
 * on: were something mounted there, its content is not ours). Best effort: what stays is found again at the next start.
 */
export function removeRecords(path: string, levels = 2): boolean {
  try {
    for (const entry of fs.readdirSync(path, { withFileTypes: true })) {
      const child = join(path, entry.name);
      if (!entry.isDirectory()) ifPresent(() => fs.unlinkSync(child));
      else if (entry.name === 'rootfs' || levels === 0) ifPresent(() => fs.rmdirSync(child));
      else removeRecords(child, levels - 1);
    }
    ifPresent(() => fs.rmdirSync(path));
    return true;
  } catch (error) {
    return errorCode(error) === 'ENOENT';
  }
}
