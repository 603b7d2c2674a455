import { closeSync, existsSync, fstatSync, readSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { defineLibrary, errnoName, type Library } from '@engine/native/library';

/** What is used of libseccomp, https://github.com/seccomp/libseccomp (LGPL, loaded at run time). */
export interface Libseccomp {
  /** Where it is, undefined when it isn't installed. Loads nothing. */
  find(): string | undefined;
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

const table = {
  seccomp_init: { args: ['u32'], result: 'pointer' },
  seccomp_release: { args: ['pointer'], result: 'void' },
  seccomp_arch_add: { args: ['pointer', 'u32'], result: 'int' },
  seccomp_arch_remove: { args: ['pointer', 'u32'], result: 'int' },
  seccomp_attr_set: { args: ['pointer', 'int', 'u32'], result: 'int' },
  seccomp_syscall_resolve_name: { args: ['str'], result: 'int' },
  seccomp_syscall_resolve_name_arch: { args: ['u32', 'str'], result: 'int' },
  seccomp_rule_add_array: { args: ['pointer', 'u32', 'int', 'u32', 'bytes'], result: 'int' },
  seccomp_export_bpf: { args: ['pointer', 'int'], result: 'int' },
} as const;
const libc = { memfd_create: { args: ['str', 'u32'], result: 'int' } } as const;
type Functions = Library<typeof table> & Library<typeof libc>;

function load(): Functions {
  try {
    return { ...defineLibrary(FILE, table), ...defineLibrary(['libc.so.6', 'libc.so'], libc) };
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
    if (result < 0) throw fail('ERR_NATIVE', `libseccomp: ${what} failed`, { operation: what, errno: errnoName(-result) });
  };
  return {
    find: () => folders.map((folder) => `${folder}/${FILE}`).find((path) => existsSync(path)),
    resolve(architecture, name) {
      const number = lib().seccomp_syscall_resolve_name_arch(architecture, name).value;
      return number < 0 ? undefined : number;
    },
    number(name) {
      const number = lib().seccomp_syscall_resolve_name(name).value;
      return number === ERROR ? undefined : number;
    },
    filter(defaultAction) {
      const context = lib().seccomp_init(defaultAction).value;
      if (!context) throw fail('ERR_NATIVE', 'libseccomp: seccomp_init failed', { operation: 'seccomp_init' });
      return {
        addArchitecture: (token) => check(lib().seccomp_arch_add(context, token).value, 'seccomp_arch_add'),
        removeArchitecture: (token) => check(lib().seccomp_arch_remove(context, token).value, 'seccomp_arch_remove'),
        setAttribute: (attribute, value) => check(lib().seccomp_attr_set(context, attribute, value).value, 'seccomp_attr_set'),
        addRule(action, syscall, args) {
          const result = lib().seccomp_rule_add_array(context, action, syscall, args.length, encodeArguments(args)).value;
          if (result < 0) throw fail('ERR_INVALID_VALUE', `libseccomp refuses a rule for system call ${syscall}`, { operation: 'seccomp_rule_add', errno: errnoName(-result) });
        },
        export() {
          // seccomp_export_bpf_mem came with libseccomp 2.6 only
          const fd = lib().memfd_create('seccomp', MFD_CLOEXEC).value;
          if (fd < 0) throw fail('ERR_NATIVE', 'memfd_create failed', { operation: 'memfd_create' });
          try {
            check(lib().seccomp_export_bpf(context, fd).value, 'seccomp_export_bpf');
            const bytes = Buffer.alloc(fstatSync(fd).size);
            if (readSync(fd, bytes, 0, bytes.length, 0) !== bytes.length) throw fail('ERR_NATIVE', 'short read of an exported filter');
            return bytes;
          } finally {
            closeSync(fd);
          }
        },
        release: () => void lib().seccomp_release(context),
      };
    },
  };
}
