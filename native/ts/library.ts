import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { constants } from 'node:os';
import { fail } from '@engine/core/errors';

/**
 * Types of a library's functions:
 *
 * - `int u32 i32` numbers, `u64 i64 size` numbers, or bigints where a number would not be exact;
 * - `str` text (NUL-terminated, copied; a result of this type is copied too, and never freed);
 * - `strs` a list of text, passed as a NULL-terminated `char **`;
 * - `bytes` a Buffer or typed array, passed by address: the callee reads and writes it in place, during the call only;
 * - `pointer` an address as the library gave it, opaque; null for NULL. Whoever a library says must free it calls its free function;
 * - `koffi:…` any type in koffi's own syntax.
 */
export type CType = keyof TypeMap | `koffi:${string}`;
interface TypeMap {
  void: undefined; int: number; u32: number; i32: number; u64: number | bigint; i64: number | bigint; size: number | bigint;
  str: string; strs: readonly string[]; bytes: Uint8Array | Int32Array | null; pointer: unknown;
}
type Value<T extends CType> = T extends keyof TypeMap ? TypeMap[T] : unknown;

export interface FunctionType {
  readonly args: readonly CType[];
  readonly result: CType;
  /** It may be called on another thread too: by `later`. Arguments by address must stay as they are until then. */
  readonly later?: true;
}
/** What a call gives: its value, and errno as it was right after the call (0 is possible even for a failed call: read the library's manual). */
export interface CallResult<T> {
  readonly value: T;
  readonly errno: number;
}
type Values<A extends readonly CType[]> = { -readonly [I in keyof A]: Value<A[I]> };
/** `later` resolves to the value alone: errno belongs to a thread. */
export type LibraryFunction<F extends FunctionType> = ((...args: Values<F['args']>) => CallResult<Value<F['result']>>) &
  (F['later'] extends true ? { later(...args: Values<F['args']>): Promise<Value<F['result']>> } : unknown);
export type Library<T extends Record<string, FunctionType>> = { readonly [N in keyof T]: LibraryFunction<T[N]> };

export interface LibraryOptions<T extends Record<string, FunctionType>> {
  /** Looks at the library once it is loaded; text = why it cannot be used. */
  readonly check?: (library: Library<T>) => string | undefined;
}

interface PollHandle {
  start(options: { readable: boolean }, callback: (status: number) => void): void;
  close(): void;
}
interface Koffi {
  load(path: string): { func(name: string, result: string, args: string[]): ((...args: unknown[]) => unknown) & { async(...args: unknown[]): void } };
  errno(value?: number): number;
  node: { poll(fd: number, options: { readable: boolean }, callback: (status: number) => void): PollHandle };
  version: string;
}

const names: Record<keyof TypeMap, string> = {
  void: 'void', int: 'int', u32: 'uint32_t', i32: 'int32_t', u64: 'uint64_t', i64: 'int64_t', size: 'size_t', str: 'const char *', strs: 'const char **', bytes: 'uint8_t *', pointer: 'void *',
};
const koffiType = (type: CType): string => (type.startsWith('koffi:') ? type.slice(6) : names[type as keyof TypeMap]);

let loaded: Koffi | undefined;

/**
 * koffi's native module by itself: 0.7 ms against 7.7 ms for its package, which adds only deprecated forms. Where it isn't found where it
 * is expected, the package finds it.
 */
function koffi(): Koffi {
  if (loaded) return loaded;
  const binary = `linux_${process.arch}/koffi.node`;
  const open = (path: string): void => {
    const module = { exports: {} as Koffi };
    process.dlopen(module, path);
    if (typeof module.exports.load === 'function') loaded = module.exports;
  };
  try {
    // not joined: koffi is a link, and its neighbour is looked for where it leads to
    open(`${import.meta.dirname}/node_modules/koffi/../@koromix/koffi-linux-${process.arch}/${binary}`);
    if (loaded) return loaded;
  } catch {
    // not the bundle
  }
  const require = createRequire(import.meta.url);
  try {
    const inner = createRequire(require.resolve('koffi'));
    open(join(dirname(inner.resolve(`@koromix/koffi-linux-${process.arch}/package.json`)), binary));
  } catch {
    // another libc, another layout of the package: see below
  }
  if (!loaded) {
    try {
      loaded = require('koffi') as Koffi;
    } catch (cause) {
      throw fail('ERR_NATIVE', 'cannot load koffi', { cause, hint: 'run npm start in the checkout again' });
    }
  }
  return loaded;
}

/**
 * Load a shared library and bind its functions, all at once: a missing one is an error here, not in the middle of something.
 * `name`: a path, a soname, or several, of which the first that loads is taken. Calls are synchronous and on the main thread, but for `later`.
 *
 * Errors: ERR_NATIVE (with the library in `path`).
 */
export function defineLibrary<const T extends Record<string, FunctionType>>(name: string | readonly string[], table: T, options: LibraryOptions<T> = {}): Library<T> {
  const native = koffi();
  const candidates = typeof name === 'string' ? [name] : name;
  const failures: unknown[] = [];
  for (const path of candidates) {
    let library: ReturnType<Koffi['load']>;
    try {
      library = native.load(path);
    } catch (error) {
      failures.push(error);
      continue;
    }
    const bound: Record<string, unknown> = {};
    for (const [symbol, type] of Object.entries(table)) {
      let call: ReturnType<typeof library.func>;
      try {
        call = library.func(symbol, koffiType(type.result), type.args.map(koffiType));
      } catch (cause) {
        throw fail('ERR_NATIVE', `library ${path} has no function ${symbol}`, { path, cause });
      }
      const lists = type.args.flatMap((arg, i) => (arg === 'strs' ? [i] : []));
      const end = (args: unknown[]): unknown[] => {
        for (const i of lists) args[i] = [...(args[i] as readonly string[]), null];
        return args;
      };
      const bind = (...args: unknown[]): CallResult<unknown> => {
        end(args);
        native.errno(0);
        const value = call(...args);
        return { value, errno: native.errno() };
      };
      const later = (...args: unknown[]): Promise<unknown> =>
        new Promise((resolve, reject) => call.async(...end(args), (error: Error | null, value: unknown) => {
          void args; // what was passed by address lives until here
          if (error) reject(error);
          else resolve(value);
        }));
      bound[symbol] = type.later ? Object.assign(bind, { later }) : bind;
    }
    const complaint = options.check?.(bound as Library<T>);
    if (complaint !== undefined) throw fail('ERR_NATIVE', `library ${path} cannot be used: ${complaint}`, { path });
    return bound as Library<T>;
  }
  throw fail('ERR_NATIVE', `cannot load library ${candidates.join(' or ')}`, { path: candidates[0] ?? '', cause: failures[0] });
}

/**
 * Call `onReadable` from the event loop whenever `fd` (a socket that node:net knows nothing of) has something to read or an error to tell, as long as it has; it keeps
 * the process alive until `close`, to be called before the fd is closed.
 */
export function watchReadable(fd: number, onReadable: () => void): { close(): void } {
  let open = true;
  const listen = (status: number): void => {
    onReadable();
    // libuv gives up a socket that has an error; here it is one that reading has cleared
    if (open && status < 0) handle.start({ readable: true }, listen);
  };
  const handle = koffi().node.poll(fd, { readable: true }, listen);
  return {
    close() {
      open = false;
      handle.close();
    },
  };
}

const byNumber = new Map<number, string>(Object.entries(constants.errno).map(([key, value]) => [value, key]));
byNumber.set(11, 'EAGAIN').set(95, 'ENOTSUP').set(116, 'ESTALE').set(117, 'EUCLEAN').set(121, 'EREMOTEIO').set(122, 'EDQUOT').set(129, 'EKEYREJECTED');
/** The name of a (positive) errno, `E<number>` for one that has none here. */
export function errnoName(errno: number): string {
  return byNumber.get(errno) ?? `E${errno}`;
}
