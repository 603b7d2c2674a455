import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { isEngineError, type ErrorCode } from '../../errors/index.ts';
import { Died, type Bench, type BenchEffects, type Fault } from './suite.ts';

/** `action` must fail with this code (and errno, where given). */
export async function failsWith(code: ErrorCode, action: () => unknown, errno?: string): Promise<void> {
  await assert.rejects(async () => action(), (error: unknown) => {
    assert.ok(isEngineError(error, code), `expected ${code}, got ${String(error)}`);
    if (errno !== undefined) assert.equal(error.errno, errno);
    return true;
  });
}

/** Every path below `folder`, sorted. Marks of who made what (`.by-X`) differ from run to run and are left out. */
export function listTree(folder: string): string[] {
  const found: string[] = [];
  const walk = (at: string): void => {
    for (const entry of readdirSync(join(folder, at), { withFileTypes: true })) {
      if (entry.name.startsWith('.by-')) continue;
      const path = join(at, entry.name);
      found.push(path);
      if (entry.isDirectory()) walk(path);
    }
  };
  walk('');
  return found.sort();
}

/**
 * Cut `verb` before each of its operations in turn, by a failing operation or by the death of the engine, and `check` after the undo (or
 * after what the next engine finishes). `prepare` runs before each, `verb` runs and commits a transaction.
 */
export async function cutEverywhere(
  bench: Bench, kind: Fault['kind'],
  parts: { readonly prepare?: () => Promise<void>; readonly verb: (effects: BenchEffects) => Promise<void>; readonly check: (at: number) => Promise<void> | void },
): Promise<void> {
  for (let at = 0; ; at++) {
    assert.ok(at < 500, 'a verb of more than 500 operations');
    await parts.prepare?.();
    const effects = bench.effects({ at, kind });
    try {
      await parts.verb(effects);
      return; // there is no operation `at`: all were tried
    } catch (error) {
      if (kind === 'die' && error instanceof Died) await effects.recover();
      else if (kind === 'fail' && isEngineError(error, 'ERR_OPERATION_FAILED')) await effects.rollback();
      else throw error;
    }
    await parts.check(at);
  }
}
