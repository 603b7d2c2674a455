import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const source = join(import.meta.dirname, 'programs', 'old-kernel.c');

/** What to put before a command so that it, and all that it starts, finds Linux 5.14 (see programs/old-kernel.c): compiled once per machine. */
export function oldKernel(release = '5.14.0-old'): readonly string[] {
  const path = join(tmpdir(), `engine-test-old-kernel-${createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 8)}`);
  if (!existsSync(path)) {
    execFileSync('gcc', ['-std=gnu11', '-static', '-O2', '-Wall', '-Wextra', '-o', `${path}.${process.pid}`, source]);
    renameSync(`${path}.${process.pid}`, path);
  }
  return [path, '-r', release];
}
