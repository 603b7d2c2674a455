import { closeSync, existsSync, fstatSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fail } from '@engine/core/errors';

/** What is used of libseccomp, https://github.com/seccomp/libseccomp (LGPL, loaded at run time). */
export interface Libseccomp {
  /** Where it is, undefined when it isn't installed. Loads nothing. */
  find(): string | undefined;
  version(): readonly [number, number, number];
  /** A new, empty filter. */
  filter(defaultAction: number): Filter;
  /** Number of a call by name on `architecture` (a token); undefined when this version doesn't know it or the architecture lacks it. */
  resolve(architecture: number, name: string): number | undefined;
  /** What a rule names the call by: its number here, or a negative pseudo number for one that only other architectures have; undefined when unknown. */
  number(name: string): number | undefined;
}
export interface Filter {
  addArchitecture(token: number): void;
  removeArchitecture(token: number): void;
  setAttribute(attribute: number, value: number): void;
  /** Errors: ERR_INVALID_VALUE with libseccomp's errno. */
  addRule(action: number, syscall: number, args: readonly Comparison[]): void;
  /** As an array of struct sock_filter. */
  export(): Uint8Array;
  release(): void;
}
export interface Comparison { readonly index: number; readonly operator: number; readonly a: bigint; readonly b: bigint }

const FILE = 'libseccomp.so.2';
const folders = ['/lib', '/usr/lib', '/lib64', '/usr/lib64', '/usr/local/lib', ...['x86_64', 'aarch64', 'riscv64'].flatMap((cpu) => [`/lib/${cpu}-linux-gnu`, `/usr/lib/${cpu}-linux-gnu`])];

interface Functions {
  version(): unknown;
  init(action: number): unknown;
  release(context: unknown): void;
  archAdd(context: unknown, token: number): number;
  archRemove(context: unknown, token: number): number;
  attrSet(context: unknown, attribute: number, value: number): number;
  resolveName(token: number, name: string): number;
  resolveHere(name: string): number;
  ruleAdd(context: unknown, action: number, syscall: number, count: number, args: Uint8Array | null): number;
  exportBpf(context: unknown, fd: number): number;
  memfdCreate(name: string, flags: number): number;
  decode(pointer: unknown, type: string[] | string): unknown;
}

function load(): Functions {
  // koffi takes 8 ms to load, which a run that finds its filter in the cache does not spend
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi').default;
  try {
    const library = koffi.load(FILE);
    const libc = koffi.load(null);
    return {
      version: library.func('void *seccomp_version()'),
      init: library.func('void *seccomp_init(uint32_t action)'),
      release: library.func('void seccomp_release(void *context)'),
      archAdd: library.func('int seccomp_arch_add(void *context, uint32_t token)'),
      archRemove: library.func('int seccomp_arch_remove(void *context, uint32_t token)'),
      attrSet: library.func('int seccomp_attr_set(void *context, int attribute, uint32_t value)'),
      resolveName: library.func('int seccomp_syscall_resolve_name_arch(uint32_t token, const char *name)'),
      resolveHere: library.func('int seccomp_syscall_resolve_name(const char *name)'),
      ruleAdd: library.func('int seccomp_rule_add_array(void *context, uint32_t action, int syscall, unsigned int count, void *args)'),
      exportBpf: library.func('int seccomp_export_bpf(void *context, int fd)'),
      memfdCreate: libc.func('int memfd_create(const char *name, unsigned int flags)'),
      decode: (pointer, type) => koffi.decode(pointer, type as never),
    };
  } catch (cause) {
    throw fail('ERR_DRIVER_UNAVAILABLE', `${FILE} cannot be loaded`, { cause, path: FILE, hint: 'install libseccomp2, or run with --security-opt seccomp=unconfined' });
  }
}

/** __NR_SCMP_ERROR */
const ERROR = -1;
const MFD_CLOEXEC = 1;
/** struct scmp_arg_cmp: unsigned arg; enum op; uint64 datum_a, datum_b */
function encodeArguments(args: readonly Comparison[]): Uint8Array | null {
  if (args.length === 0) return null;
  const bytes = Buffer.alloc(args.length * 24);
  args.forEach(({ index, operator, a, b }, i) => {
    bytes.writeUInt32LE(index, i * 24);
    bytes.writeUInt32LE(operator, i * 24 + 4);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, a), i * 24 + 8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, b), i * 24 + 16);
  });
  return bytes;
}

/** Nothing is loaded before the first filter is made. */
export function createLibseccomp(): Libseccomp {
  let loaded: Functions | undefined;
  const lib = (): Functions => (loaded ??= load());
  const check = (result: number, what: string): void => {
    if (result < 0) throw fail('ERR_NATIVE', `libseccomp: ${what} failed`, { operation: what, errno: `errno ${-result}` });
  };
  return {
    find: () => folders.map((folder) => `${folder}/${FILE}`).find((path) => existsSync(path)),
    version: () => lib().decode(lib().version(), ['uint32_t', '3'] as never) as unknown as readonly [number, number, number],
    resolve(architecture, name) {
      const number = lib().resolveName(architecture, name);
      return number < 0 ? undefined : number;
    },
    number(name) {
      const number = lib().resolveHere(name);
      return number === ERROR ? undefined : number;
    },
    filter(defaultAction) {
      const context = lib().init(defaultAction);
      if (!context) throw fail('ERR_NATIVE', 'libseccomp: seccomp_init failed', { operation: 'seccomp_init' });
      return {
        addArchitecture: (token) => check(lib().archAdd(context, token), 'seccomp_arch_add'),
        removeArchitecture: (token) => check(lib().archRemove(context, token), 'seccomp_arch_remove'),
        setAttribute: (attribute, value) => check(lib().attrSet(context, attribute, value), 'seccomp_attr_set'),
        addRule(action, syscall, args) {
          const result = lib().ruleAdd(context, action, syscall, args.length, encodeArguments(args));
          if (result < 0) throw fail('ERR_INVALID_VALUE', `libseccomp refuses a rule for system call ${syscall}`, { operation: 'seccomp_rule_add', errno: `errno ${-result}` });
        },
        export() {
          // seccomp_export_bpf_mem came with libseccomp 2.6 only
          const fd = lib().memfdCreate('seccomp', MFD_CLOEXEC);
          if (fd < 0) throw fail('ERR_NATIVE', 'memfd_create failed', { operation: 'memfd_create' });
          try {
            check(lib().exportBpf(context, fd), 'seccomp_export_bpf');
            const bytes = Buffer.alloc(fstatSync(fd).size);
            if (readSync(fd, bytes, 0, bytes.length, 0) !== bytes.length) throw fail('ERR_NATIVE', 'short read of an exported filter');
            return bytes;
          } finally {
            closeSync(fd);
          }
        },
        release: () => lib().release(context),
      };
    },
  };
}
