/** Runs encoded plans by the interpreter's test driver (native/src/test/interpret.c), as root, in folders of the test's own. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodePlan, ENTRY, type EntryKind, type Operation, type Slot } from '@engine/core/plan';

const source = join(import.meta.dirname, '..', '..', 'src');
const output = join(import.meta.dirname, '..', '..', '..', 'dist', 'test');
const modules = ['plan', 'interpreter', 'resolve', 'files', 'stream', 'inodes', 'remove', 'copy', 'entries', 'pack', 'unpack', 'mounts', 'idmap', 'shift', 'namespaces', 'freeze', 'bpf', 'cgroups', 'netlink', 'link', 'conntrack', 'users', 'identity', 'exec', 'reaper', 'terminal', 'exechost', 'hook'];

const has = (program: string): boolean => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
export const isRoot = process.getuid?.() === 0;
/** These tests need root and a C compiler. */
export const canRun = isRoot && (has('gcc') || has('musl-gcc'));

/** Compiles `native/src/test/<name>.c` with the interpreter, once per state of the sources; the path of the program. */
export function build(name: string, flags: readonly string[] = [], only: readonly string[] = modules): string {
  const known = built.get(name);
  if (known) return known;
  const target = compile(name, flags, only);
  built.set(name, target);
  return target;
}

const built = new Map<string, string>();
function compile(name: string, flags: readonly string[], only: readonly string[]): string {
  execFileSync(process.execPath, ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, '..', 'generate.ts')]);
  const hash = createHash('sha256').update(JSON.stringify([flags, only]));
  const files = [join('test', `${name}.c`), ...only.map((module) => `${module}.c`)];
  for (const file of [...files, ...readdirSync(source).filter((f) => f.endsWith('.h')), 'gen/operations.h']) hash.update(readFileSync(join(source, file)));
  const target = join(output, `${name}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(target)) return target;
  mkdirSync(output, { recursive: true });
  for (const old of readdirSync(output)) if (old.startsWith(`${name}-`) && !old.includes('.new')) rmSync(join(output, old), { force: true });
  const temporary = `${target}.new${process.pid}`;
  const sanitized = flags.some((flag) => flag.startsWith('-fsanitize'));
  const musl = !sanitized && has('musl-gcc');
  const headers = musl ? ['-idirafter', '/usr/include', '-idirafter', `/usr/include/${execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim()}`] : [];
  // one compiler at a time: the test files start together
  const command = [musl ? 'musl-gcc' : 'gcc', '-std=gnu11', '-O1', '-g', '-Wall', '-Wextra', '-D_GNU_SOURCE', '-DENGINE_TEST', ...flags, ...headers, ...(sanitized ? [] : ['-static']), ...files.map((file) => join(source, file)), '-o', temporary];
  const done = spawnSync('flock', [join(output, '.lock'), 'sh', '-c', 'target=$0 temporary=$1; shift; [ -f "$target" ] || { "$@" && mv "$temporary" "$target"; }', target, temporary, ...command], { encoding: 'utf8' });
  if (done.status !== 0) throw new Error(`cannot build ${name}: ${done.signal ?? done.status} ${done.stderr}`);
  return target;
}

export interface Failure { readonly part: string; readonly index: number; readonly code: number; readonly errno: number; readonly detail: string }
export interface Result {
  /** errno of the first failure, 0. */
  readonly result: number;
  readonly failures: readonly Failure[];
  readonly warnings: readonly Failure[];
  /** Exit code of init when the plan spawned one, else -1. */
  readonly exit: number;
  readonly terminal: string;
  /** Set when the plan itself was refused. */
  readonly refused?: number;
  readonly detail?: string;
  /** What the driver and init wrote to stderr. */
  readonly output: string;
}
export interface RunOptions { readonly private?: boolean; readonly fds?: readonly number[]; readonly env?: Readonly<Record<string, string>>; readonly timeout?: number }

/** Runs bytes that may or may not be a plan. */
export function runBytes(part: string, bytes: Uint8Array, options: RunOptions = {}): Result {
  const driver = build('interpret');
  const folder = mkdtempSync(join(tmpdir(), 'engine-plan-'));
  try {
    writeFileSync(join(folder, 'plan'), bytes);
    const fds = options.fds ?? [];
    const args = [...(options.private ? ['--private'] : []), ...(fds.length ? ['--fds', fds.map((_, i) => 3 + i).join(',')] : []), part, join(folder, 'plan')];
    const done = spawnSync(driver, args, { stdio: ['ignore', 'pipe', 'pipe', ...fds], env: { ...options.env }, encoding: 'utf8', timeout: options.timeout ?? 15_000, maxBuffer: 1 << 26 });
    if (done.status !== 0) throw new Error(`driver: status ${done.status} signal ${done.signal} ${done.stderr}`);
    return { ...(JSON.parse(done.stdout) as Omit<Result, 'output'>), output: done.stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export const origin = { plugin: 'test', hook: 'test' };
export type Placed = readonly [Slot, Operation];
/** Encodes operations at their slots, in the order given. */
export const encode = (steps: readonly Placed[]): Uint8Array => encodePlan({ steps: steps.map(([slot, operation]) => ({ slot, operation, undo: [], origin })) });
/** Runs operations as a helper plan. */
export const run = (operations: readonly Operation[], options?: RunOptions): Result => runBytes('helper', encode(operations.map((operation) => ['helper.main', operation] as const)), options);

/** Runs `body` with a temporary folder that is removed afterwards. */
export function inFolder<T>(body: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'engine-interpret-'));
  try {
    return body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export interface TestEntry {
  readonly kind: EntryKind;
  readonly path?: string;
  readonly target?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: bigint;
  readonly size?: number;
  readonly major?: number;
  readonly minor?: number;
  readonly xattrs?: Readonly<Record<string, string | Uint8Array>>;
  /** Data frames that follow; a number is a hole. */
  readonly data?: readonly (string | Uint8Array | number)[];
}

const u32 = (value: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(value);
  return b;
};
const u64 = (value: bigint): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt.asUintN(64, value));
  return b;
};
const span = (value: string | Uint8Array): Buffer => {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([u32(bytes.length), bytes]);
};
const frame = (kind: number, body: Uint8Array): Buffer => Buffer.concat([Buffer.from([kind, 0, 0, 0]), u32(body.length), body]);

/** A stream of entries as `unpack` reads it. */
export function entryStream(entries: readonly TestEntry[], end = true): Buffer {
  const out: Buffer[] = [];
  for (const e of entries) {
    const xattrs = Object.entries(e.xattrs ?? {});
    const size = e.size ?? (e.data ?? []).reduce<number>((sum, d) => sum + (typeof d === 'number' ? d : Buffer.from(d as string).length), 0);
    out.push(frame(ENTRY[e.kind], Buffer.concat([
      u32(e.mode ?? (e.kind === 'folder' ? 0o755 : 0o644)), u32(e.uid ?? 0), u32(e.gid ?? 0), u32(xattrs.length), u64(e.mtime ?? 1_600_000_000_123_456_789n), u64(BigInt(size)),
      u32(e.major ?? 0), u32(e.minor ?? 0), span(e.path ?? ''), span(e.target ?? ''), ...xattrs.flatMap(([name, value]) => [span(name), span(value)]),
    ])));
    for (const d of e.data ?? []) out.push(typeof d === 'number' ? frame(ENTRY.hole, u64(BigInt(d))) : frame(ENTRY.data, Buffer.from(d as string)));
  }
  if (end) out.push(frame(ENTRY.end, Buffer.alloc(0)));
  return Buffer.concat(out);
}

/** Calls `body` with an fd from which `bytes` can be read. */
export function withStream<T>(bytes: Uint8Array, body: (fd: number) => T): T {
  return inFolder((folder) => {
    const path = join(folder, 'stream');
    writeFileSync(path, bytes);
    const fd = openSync(path, 'r');
    try {
      return body(fd);
    } finally {
      closeSync(fd);
    }
  });
}

export interface ReadEntry { readonly kind: string; readonly path: string; readonly target: string; readonly mode: number; readonly uid: number; readonly gid: number; readonly mtime: bigint; readonly size: number; readonly xattrs: Record<string, string>; data: string }
/** Reads what `pack` wrote. Holes appear in `data` as `[n]`. */
export function readEntries(bytes: Buffer): ReadEntry[] {
  const names = new Map<number, string>(Object.entries(ENTRY).map(([name, number]) => [number, name]));
  const out: ReadEntry[] = [];
  let at = 0;
  const n32 = (): number => bytes.readUInt32LE((at += 4) - 4);
  const n64 = (): bigint => bytes.readBigUInt64LE((at += 8) - 8);
  const text = (): string => {
    const n = n32();
    return bytes.toString('utf8', at, (at += n));
  };
  while (at < bytes.length) {
    const kind = names.get(bytes[at] ?? 0) ?? '?';
    at += 4;
    const end = n32() + at;
    if (kind === 'end') return out;
    const last = out.at(-1);
    if (kind === 'data' && last) last.data += bytes.toString('latin1', at, end);
    else if (kind === 'hole' && last) last.data += `[${bytes.readBigUInt64LE(at)}]`;
    else {
      const [mode, uid, gid, count] = [n32(), n32(), n32(), n32()];
      const [mtime, size] = [n64(), Number(n64())];
      at += 8;
      const [path, target] = [text(), text()];
      out.push({ kind, mode, uid, gid, mtime, size, path, target, data: '', xattrs: Object.fromEntries(Array.from({ length: count }, () => [text(), text()])) });
    }
    at = end;
  }
  throw new Error('no end frame');
}

/** Runs `body` while another process exchanges folder `a` below `folder` for a link `b` to `target`, again and again. */
export function whileExchanging(folder: string, a: string, b: string, target: string, body: () => void): void {
  const script = `import ctypes,os\nl=ctypes.CDLL(None)\nos.chdir('${folder}')\nos.symlink('${target}','${b}')\nprint(os.getpid(),flush=True)\nos.close(1)\nwhile True: l.renameat2(-100,b'${a}',-100,b'${b}',2)\n`;
  // the command is over when the loop has begun
  const racer = execFileSync('sh', ['-c', 'python3 -c "$0" 2>/dev/null &', script], { encoding: 'utf8' }).trim();
  try {
    body();
  } finally {
    // it goes on for a moment
    execFileSync('sh', ['-c', `kill -9 ${racer}; while readlink /proc/${racer}/cwd >/dev/null; do sleep 0.01; done`]);
  }
}
