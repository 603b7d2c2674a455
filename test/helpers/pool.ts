import { readFileSync } from 'node:fs';
import { type RunOptions, type TestEngine } from './engine.ts';
import { until } from './wait.ts';

export interface Pool {
  readonly Ready: number;
  readonly Made: number;
  readonly Used: number;
  /** Of their inits. */
  readonly Pids: readonly number[];
}
/** What waits in the engine's pool. */
export async function pool(engine: TestEngine): Promise<Pool> {
  return (JSON.parse(await engine.ok('info', '-f', 'json')) as { Sandboxes: Pool }).Sandboxes;
}
/** Run this until it is served by a sandbox, and another one waits for it. */
export async function ready(engine: TestEngine, words: readonly string[], options: RunOptions = {}): Promise<Pool> {
  const before = await until(`a sandbox for ${words.join(' ')}`, async () => {
    const { Used } = await pool(engine);
    await engine.run(words, options);
    const now = await pool(engine);
    if (now.Used > Used) return now;
    // who came twice is prepared for in a quiet moment
    await new Promise((resolve) => setTimeout(resolve, 100));
    return undefined;
  });
  return until('the next one', async () => {
    const now = await pool(engine);
    return now.Ready > 0 && (now.Made > before.Made || now.Ready >= 2) ? now : undefined;
  });
}
export function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]);
}
