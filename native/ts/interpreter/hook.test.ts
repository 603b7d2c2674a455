import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { op } from '@engine/core/plan';
import { canRun, inFolder, run } from './harness.ts';

const hook = (script: string, more: Partial<Parameters<typeof op.hook>[0]> = {}) =>
  op.hook({ path: '/bin/sh', argv: ['sh', '-c', script], env: [], timeout: 5000, stateHead: '{"id":"x","pid":', stateTail: '}', ...more });

describe.skipIf(!canRun)('a hook', () => {
  it('gets the state, its environment and folder, and nothing of ours', () => {
    inFolder((folder) => {
      const script = `cat >${folder}/state; env | sort >${folder}/env; pwd >${folder}/cwd; ls /proc/self/fd | wc -l >${folder}/fds; grep ^Sig /proc/self/status | grep -v SigQ >${folder}/signals; [ $(ps -o sid= -p $$) = $$ ] || exit 9`;
      const { failures } = run([op.open({ path: '/etc/hostname', flags: 0, out: 'left' }), hook(script, { env: ['A=b', 'PATH=/usr/bin:/bin'], cwd: folder })], { env: { SECRET: '1' } });
      expect(failures).toEqual([]);
      const state = JSON.parse(readFileSync(join(folder, 'state'), 'utf8')) as { id: string; pid: number };
      expect(state).toEqual({ id: 'x', pid: expect.any(Number) as number });
      expect(readFileSync(join(folder, 'env'), 'utf8')).toBe(`A=b\nPATH=/usr/bin:/bin\nPWD=${folder}\n`);
      expect(readFileSync(join(folder, 'cwd'), 'utf8')).toBe(`${folder}\n`);
      // 0 to 2, and the folder that ls reads
      expect(Number(readFileSync(join(folder, 'fds'), 'utf8'))).toBe(4);
      expect(readFileSync(join(folder, 'signals'), 'utf8')).toMatch(/^SigPnd:\t0+\nSigBlk:\t0{16}\nSigIgn:\t0{16}\nSigCgt:\t/);
    });
  });

  it('is told a state that is whole as it is', () => {
    inFolder((folder) => {
      expect(run([hook(`cat >${folder}/state`, { stateHead: '{"pid":7}', stateTail: '' })]).failures).toEqual([]);
      expect(readFileSync(join(folder, 'state'), 'utf8')).toBe('{"pid":7}');
    });
  });

  it('need not read what it is told, however much it is', () => {
    expect(run([hook('exit 0', { stateHead: `{"annotations":"${'x'.repeat(1 << 20)}","pid":` })]).failures).toEqual([]);
  });

  it('fails with its status and its last words', () => {
    expect(run([hook('seq 1 10000 >&2; echo last words >&2; exit 3')]).failures[0]).toMatchObject({ errno: 121, detail: expect.stringMatching(/^\/bin\/sh exited with 3: [\s\S]{50,250}last words\n$/) as string });
    expect(run([hook('kill -9 $$')]).failures[0]).toMatchObject({ errno: 121, detail: '/bin/sh was killed by signal 9' });
    expect(run([hook('', { path: '/nowhere' })]).failures[0]).toMatchObject({ errno: 2, detail: 'cannot execute /nowhere' });
    expect(run([hook('', { path: 'sh' })]).failures[0]).toMatchObject({ errno: 22, detail: 'not an absolute path: sh' });
    expect(run([hook('', { cwd: '/nowhere' })]).failures[0]).toMatchObject({ errno: 2 });
  });

  it('is killed with its group when it takes too long', () => {
    inFolder((folder) => {
      const { failures } = run([hook(`sleep 600 & echo $! >${folder}/pid; wait`, { timeout: 300 })]);
      expect(failures[0]).toMatchObject({ errno: 110, detail: '/bin/sh did not end within 300 ms' });
      const pid = readFileSync(join(folder, 'pid'), 'utf8').trim();
      const state = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : ' Z ';
      expect(state).toContain(' Z ');
    });
  });

  it('is not waited for longer than it runs, whoever keeps its streams', () => {
    inFolder((folder) => {
      const begun = Date.now();
      expect(run([hook(`sleep 30 & echo $! >${folder}/pid`)]).failures).toEqual([]);
      expect(Date.now() - begun).toBeLessThan(10_000);
      process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')));
    });
  });

  it('runs in the order of the plan, and what follows a failed one is not done', () => {
    inFolder((folder) => {
      const file = join(folder, 'order');
      writeFileSync(file, '');
      expect(run([hook(`echo 1 >>${file}`), hook(`echo 2 >>${file}; exit 1`), hook(`echo 3 >>${file}`)]).failures[0]).toMatchObject({ index: 1 });
      expect(readFileSync(file, 'utf8')).toBe('1\n2\n');
    });
  });
});

describe.skipIf(!canRun)('scheduling', () => {
  const seen = (operations: Parameters<typeof run>[0], what: string): string =>
    inFolder((folder) => {
      const { failures } = run([...operations, hook(`${what} >${folder}/seen`)]);
      return failures[0] ? `${failures[0].errno} ${failures[0].detail}` : readFileSync(join(folder, 'seen'), 'utf8').trim();
    });

  it('is set with all that the kernel knows', () => {
    const policy = 'cut -d" " -f 19,40,41 /proc/self/stat';
    expect(seen([op.setScheduler({ policy: 3, nice: 7 })], policy)).toBe('7 0 3');
    expect(seen([op.setScheduler({ policy: 5 })], policy)).toMatch(/ 0 5$/);
    expect(seen([op.setScheduler({ policy: 99 })], policy)).toBe('22 scheduling policy 99');
    // a process of that policy may not fork, so that nobody can be asked in it
    expect(run([op.setScheduler({ policy: 6, runtime: 10_000_000n, deadline: 20_000_000n, period: 20_000_000n })]).failures.map(({ errno }) => errno)).toEqual([]);
    expect(run([op.setScheduler({ policy: 6, runtime: 30_000_000n, deadline: 20_000_000n, period: 20_000_000n })]).failures).toMatchObject([{ errno: 22 }]);
  });

  it('is bound to CPUs', () => {
    const cpus = 'grep Cpus_allowed_list /proc/self/status | cut -f 2';
    expect(seen([op.setAffinity({ mask: new Uint8Array([1]) })], cpus)).toBe('0');
    expect(seen([op.setAffinity({ mask: new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128]) })], cpus)).toBe('22 none of these CPUs may be used');
    expect(seen([op.setAffinity({ mask: new Uint8Array(9000) })], cpus)).toBe('22 a CPU mask of 9000 bytes');
  });
});

describe.skipIf(!canRun)('a label of SELinux', () => {
  it('is written for the next exec, or said to be refused', () => {
    const { failures } = run([op.open({ path: '/proc', flags: 0o10000000 | 0o200000, out: 'proc' }), op.execLabel({ proc: 'proc', label: 'no:such:label:s0' })]);
    expect(failures).toMatchObject([{ index: 1, detail: 'SELinux label no:such:label:s0' }]);
  });
});
