import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'vitest';

const script = (text: string): string => `import { endProcess } from '${join(import.meta.dirname, 'end.ts')}'; ${text}`;
const run = (text: string) => spawnSync(process.execPath, ['--input-type=module', '-e', script(text)], { encoding: 'utf8' });

it('a process ends with its status, its listeners called, and not by Node\'s own way, which joins threads', () => {
  const never = "process.exit = () => { process.stdout.write('joined'); process.reallyExit(99); };";
  const { status, stdout } = run(`${never} process.on('exit', (code) => process.stdout.write('left ' + code)); endProcess(7);`);
  assert.equal(status, 7);
  assert.equal(stdout, 'left 7');
  assert.equal(run(`${never} process.exitCode = 3; endProcess();`).status, 3);
  assert.equal(run(`${never} endProcess();`).status, 0);
});
