import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { busyboxRootfs } from './busybox.ts';
import { type TestEngine } from './engine.ts';

const source = join(import.meta.dirname, 'programs', 'net.c');
let version: string | undefined;
/** Of the program and of what is made with it. */
const name = (): string => `engine-test-net-${(version ??= createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 8))}-${process.getuid?.() ?? 0}`;

/** programs/net.c, compiled once per machine: static, for every namespace and image. */
export function netProgram(): string {
  const path = join(tmpdir(), name());
  if (existsSync(path)) return path;
  execFileSync('gcc', ['-std=gnu11', '-static', '-O2', '-Wall', '-Wextra', '-o', `${path}.${process.pid}`, source]);
  renameSync(`${path}.${process.pid}`, path);
  return path;
}

/** A tar of busybox's root filesystem with `net` in /bin, made once per machine. */
export function netTar(): string {
  const tar = join(tmpdir(), `${name()}.tar`);
  if (existsSync(tar)) return tar;
  const work = mkdtempSync(join(tmpdir(), 'engine-test-rootfs-'));
  try {
    mkdirSync(join(work, 'rootfs'));
    busyboxRootfs(join(work, 'rootfs'));
    copyFileSync(netProgram(), join(work, 'rootfs/bin/net'));
    execFileSync('tar', ['--numeric-owner', '-C', join(work, 'rootfs'), '-cf', `${tar}.${process.pid}`, '.']);
    renameSync(`${tar}.${process.pid}`, tar);
  } finally {
    rmSync(work, { recursive: true });
  }
  return tar;
}

/** Import it as `net`: without a command it sleeps. */
export function importNet(engine: TestEngine, image = 'net', changes: readonly string[] = []): Promise<string> {
  return engine.ok('import', ...['CMD ["sleep", "100000"]', 'ENV PATH=/bin', ...changes].flatMap((change) => ['-c', change]), netTar(), image);
}
