import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Arena } from './arena.ts';
import { type Report } from './outcome.ts';

const bench = join(import.meta.dirname, 'bench.ts');

/** Run this bench again in namespaces of its own, to the end; signals go on to it. Resolves with its exit code. */
export function unshared(flags: readonly string[], env: Readonly<Record<string, string>>, args: readonly string[] = [], output: 'inherit' | 'ignore' = 'inherit'): Promise<number> {
  const child = spawn('unshare', [...flags, '--propagation', 'private', process.execPath, '--disable-warning=ExperimentalWarning', bench, ...args], { stdio: ['ignore', output, 'inherit'], env: { ...process.env, BENCH_NAMESPACE: '1', ...env } });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, forward);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.removeListener(signal, forward);
      resolve(code ?? 130);
    });
  });
}

/** The same contestants in namespaces of their own, with their own roots and daemons; a third of the rounds. */
export async function inNamespace(arena: Arena, flags: readonly string[], env: Readonly<Record<string, string>>): Promise<Report> {
  const json = join(arena.folder, 'inside.json');
  rmSync(json, { force: true });
  const { rounds, pause, peers } = arena.settings;
  const code = await unshared(flags, { ...env, BENCH_ROUNDS: String(Math.max(1, Math.round(rounds / 3))), BENCH_PAUSE: String(pause), BENCH_PEERS: peers.join(','), BENCH_JSON: json }, ['--no-docs'], 'ignore');
  if (code !== 0 || !existsSync(json)) throw new Error(`the bench in its own namespace ended with ${code}`);
  return JSON.parse(readFileSync(json, 'utf8')) as Report;
}
