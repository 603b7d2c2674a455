import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { afterEach, expect, it } from 'vitest';
import { isLastChild } from './parent.ts';

const started: ChildProcess[] = [];
afterEach(() => started.splice(0).forEach((child) => child.kill('SIGKILL')));
/** A shell that waits for so many children, whose pids it says. */
async function parentOf(count: number): Promise<{ parent: number; children: number[] }> {
  const shell = spawn('sh', ['-c', `${'sleep 60 & echo $!; '.repeat(count)} echo; wait`], { detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
  started.push(shell);
  let said = '';
  while (!said.endsWith('\n\n') && said !== '\n') said += String((await once(shell.stdout as NodeJS.ReadableStream, 'data'))[0]);
  const children = said.trim().split('\n').map(Number);
  return { parent: shell.pid ?? 0, children };
}

it.skipIf(!existsSync('/proc/self/task/self/children') && !existsSync(`/proc/self/task/${process.pid}/children`))('knows whether its parent has nobody else', async () => {
  const alone = await parentOf(1);
  expect(isLastChild(alone.children[0], alone.parent)).toBe(true);
  expect(isLastChild(process.pid, alone.parent)).toBe(false);
  const many = await parentOf(2);
  expect(isLastChild(many.children[0], many.parent)).toBe(false);
  for (const pid of [...alone.children, ...many.children]) process.kill(pid, 'SIGKILL');
});
it('never leaves init, or a parent that is gone', () => {
  expect(isLastChild(process.pid, 1)).toBe(false);
  expect(isLastChild(process.pid, 0x7fffffff)).toBe(false);
});
