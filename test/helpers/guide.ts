import { execFile } from 'node:child_process';
import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type TestEngine } from './engine.ts';

const repository = join(import.meta.dirname, '..', '..');

export interface Outcome { readonly out: string; readonly err: string; readonly code: number }
/** What a block of commands begins with, what is expected of it, and its exit code (0). */
export type Expected = readonly [begins: string, check: (outcome: Outcome) => void, code?: number];

/** The text of a page of docs/guide. */
export const guideText = (page: string): string => readFileSync(join(repository, 'docs/guide', page), 'utf8');

/** Does what a guide says from top to bottom, as it stands there: each block of commands in its order, and no other. */
export async function followGuide(engine: TestEngine, text: string, expected: readonly Expected[]): Promise<void> {
  const blocks = [...text.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, block = '']) => block);
  const cwd = join(engine.folder, 'cwd');
  symlinkSync(join(repository, 'bin'), join(cwd, 'bin'));
  expect(blocks.map((block, i) => block.startsWith(expected[i]?.[0] ?? '?'))).toEqual(expected.map(() => true));
  for (const [i, [begins, check, wanted = 0]] of expected.entries()) {
    const outcome = await new Promise<Outcome>((resolve) => {
      execFile('sh', ['-ec', blocks[i] ?? ''], { cwd, env: engine.env }, (error, out, err) => resolve({ out, err, code: error ? Number(error.code ?? -1) : 0 }));
    });
    expect(outcome.code, `${begins}: ${outcome.err}${outcome.out}`).toBe(wanted);
    check(outcome);
  }
}
