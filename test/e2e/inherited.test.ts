import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine();
  await importBusybox(engine);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

it('gives a container nothing of the world that the command was typed in', () => {
  const bin = join(import.meta.dirname, '..', '..', 'bin', 'engine');
  const look = 'cat /proc/self/oom_score_adj /proc/self/timerslack_ns /proc/self/personality /proc/self/limits; umask; grep -E "^(Cpus_allowed|Cap|Sig[BIC]|NoNewPrivs)" /proc/self/status; cut -d" " -f 18,19,40,41 /proc/self/stat';
  const run = (...prefix: string[]): string => {
    const [command, ...rest] = [...prefix, bin, 'run', '--rm', '--network', 'none', 'busybox', 'sh', '-c', look];
    const { status, stdout, stderr } = spawnSync(command, rest, { env: engine.env, encoding: 'utf8', cwd: '/' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    // where CAP_SYS_RESOURCE is missing, a hard limit that was lowered stays so
    return stdout.replace(/^(Max (?:open files|stack size)).*/gm, '$1');
  };
  const odd = 'ulimit -n 4096; ulimit -s 4096; ulimit -Sc 0; umask 077; trap "" TERM HUP USR1 PIPE; echo 500 >/proc/self/oom_score_adj; exec taskset 1 nice -n 5 ionice -c 3 setarch -R "$@"';
  const plain = run();
  expect(plain).toContain('0022');
  expect(run('sh', '-c', odd, 'sh')).toBe(plain);
});
