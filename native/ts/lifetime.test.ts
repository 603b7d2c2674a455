import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { BITS, decodePlan, FRAME, parts } from '@engine/core/plan';
import { createNative } from './index.ts';
import { Bench, unable, type Talk } from './testing.ts';

const outputs = BITS.STDIO.attachStdout | BITS.STDIO.attachStderr;
const native = createNative();

const alive = (pid: number): boolean => native.processStartTime(pid) !== undefined && !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

interface Entry { readonly part: string; readonly index: number; readonly begin: bigint; readonly end: bigint }
const traced = (talk: Talk): Entry[][] => talk.frames.filter(({ type }) => type === FRAME.trace).map(({ payload }) => Array.from({ length: payload.length / 24 }, (_, i) => ({
  part: parts[payload.readUInt32LE(i * 24)] ?? '?', index: payload.readUInt32LE(i * 24 + 4), begin: payload.readBigUInt64LE(i * 24 + 8), end: payload.readBigUInt64LE(i * 24 + 16),
})));

describe.skipIf(unable !== undefined)(`the life of a shim${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: Bench[] = [];
  const bench = (): Bench => {
    const made = new Bench(native);
    benches.push(made);
    return made;
  };
  afterEach(async () => {
    for (const one of benches.splice(0)) await one.close();
  });

  it('tells when each operation began and ended, of all processes', async () => {
    const b = bench();
    const before = process.hrtime.bigint();
    const talk = b.start({ argv: ['true'], stdio: outputs }, undefined, { trace: true });
    await talk.frame('gone');
    const [start = [], undo = []] = traced(talk);
    const { steps } = decodePlan(readFileSync(join(b.run, 'plan')));
    const of = (part: string): number[] => steps.filter((one) => one.part === part).map(({ index }) => index);
    for (const part of ['shim', 'init']) expect(start.filter((entry) => entry.part === part).map(({ index }) => index)).toEqual(of(part));
    expect(new Set(undo.map(({ index }) => index))).toEqual(new Set(of('after')));
    for (const { begin, end } of [...start, ...undo]) {
      expect(begin).toBeGreaterThan(before);
      expect(end).toBeGreaterThanOrEqual(begin);
      expect(end).toBeLessThan(process.hrtime.bigint());
    }
    const order = talk.frames.map(({ type }) => type);
    expect([order.indexOf(FRAME.trace) < order.indexOf(FRAME.started), order.lastIndexOf(FRAME.trace) < order.indexOf(FRAME.gone)]).toEqual([true, true]);
  });

  it('tells it of a start that failed, and of a session; says nothing unasked', async () => {
    const b = bench();
    const failing = b.start({ argv: ['no-such-program'] }, undefined, { trace: true });
    await failing.frame('gone');
    // the shim may begin something meanwhile
    expect(traced(failing)[0]?.filter(({ part }) => part === 'init').length).toBeGreaterThan(0);
    const other = bench();
    const talk = other.start({ argv: ['sleep', '100'] }, undefined, { trace: true });
    await talk.frame('started');
    await talk.send('exec', { session: 4, argument: outputs, payload: other.session(['true']) });
    await talk.frame('exit', 4);
    expect(traced(talk).at(-1)?.map(({ part }) => part)).toEqual(expect.arrayContaining(['exec']));
    const silent = bench().start({ argv: ['true'] });
    await silent.frame('gone');
    expect(traced(silent)).toEqual([]);
  });

  it.each([['nobody was there to see it', true], ['an engine was there', false]])('starts an engine at its end only when %s', async (_, leave) => {
    const b = bench();
    const proof = join(b.folder, 'woken');
    const script = `exec 9>${proof}.new; { id -u; ls /proc/self/fd | wc -l; env; ps -o sid=,pid= -p $$ | awk '{print ($1 == $2)}'; grep SigIgn /proc/self/status; umask; } >&9; mv ${proof}.new ${proof}`;
    const talk = b.start({ argv: ['sleep', '0.2'], stdio: outputs }, { SECRET: 'x' }, { wake: ['/bin/sh', '-c', script] });
    await talk.frame('started');
    const shim = b.shimPid();
    if (leave) talk.connection.close();
    else await talk.frame('gone');
    await expect.poll(() => alive(shim)).toBe(false);
    if (!leave) {
      await sleep(50);
      expect(existsSync(`${proof}.new`) || existsSync(proof)).toBe(false);
      return;
    }
    await expect.poll(() => existsSync(proof), { timeout: 5000 }).toBe(true);
    const said = readFileSync(proof, 'utf8');
    expect(said).toMatch(/^0\n/);
    expect(said).toContain('\nPATH=/usr/local/sbin:');
    expect(said).not.toContain('SECRET');
    expect(said).toMatch(/\n1\nSigIgn:\t0{16}\n0022\n$/);
    expect(native.tryLock(join(b.run, 'lock'), { create: false })).toBeDefined();
  });

  it('says what it cannot take back', async () => {
    const program = join(bench().folder, 'start.ts');
    writeFileSync(program, `
      import { Bench } from ${JSON.stringify(join(import.meta.dirname, 'testing.ts'))};
      import { createNative } from ${JSON.stringify(join(import.meta.dirname, 'index.ts'))};
      const b = new Bench(createNative());
      const talk = b.start({ argv: ['true'] });
      console.log((await talk.frame('warning')).payload.subarray(16).toString());
      await talk.frame('gone');
      await b.close();
    `);
    const said = execFileSync('setpriv', ['--no-new-privs', process.execPath, '--disable-warning=ExperimentalWarning', program], { encoding: 'utf8', cwd: import.meta.dirname });
    expect(said).toContain('no-new-privs');
  });

  it('is small while its container is idle', async () => {
    const b = bench();
    await b.start({ argv: ['sleep', '100'], stdio: outputs }).frame('started');
    const pss = (): number => Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${b.shimPid()}/smaps_rollup`, 'utf8'))?.[1]);
    await expect.poll(pss).toBeLessThanOrEqual(100);
  });

  it('inherits nothing from who started it', async () => {
    // what a process can see of itself, without what differs from run to run
    const script = `cat /proc/self/limits /proc/self/oom_score_adj /proc/self/timerslack_ns /proc/self/personality; umask;
      grep -E "^(Cpus_allowed|Cap|Sig|NoNewPrivs|Seccomp|Mems_allowed_list)" /proc/self/status | grep -v SigQ; cut -d" " -f 18-19,40-41 /proc/self/stat; cat /proc/1/cgroup`;
    const program = join(bench().folder, 'start.ts');
    writeFileSync(program, `
      import { Bench } from ${JSON.stringify(join(import.meta.dirname, 'testing.ts'))};
      import { createNative } from ${JSON.stringify(join(import.meta.dirname, 'index.ts'))};
      const b = new Bench(createNative());
      const { symlinkSync } = await import('node:fs');
      for (const name of ['grep', 'cut']) symlinkSync('busybox', b.root + '/bin/' + name);
      const talk = b.start({ argv: ['sh', '-c', ${JSON.stringify(script)}], stdio: ${outputs} });
      await talk.frame('gone');
      process.stdout.write(talk.output(1) + talk.output(2));
      await b.close();
    `);
    const node = [process.execPath, '--disable-warning=ExperimentalWarning', program];
    const under = async (command: readonly string[]): Promise<string> => {
      const child = spawn(command[0] as string, command.slice(1), { stdio: ['ignore', 'pipe', 'inherit'], cwd: import.meta.dirname });
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      const [code] = (await once(child, 'close')) as [number];
      expect(code).toBe(0);
      return text;
    };
    const plain = await under(node);
    expect(plain).toContain('Max open files');
    const odd = 'ulimit -n 200; ulimit -Sc 0; ulimit -s 4096; umask 077; trap "" TERM HUP USR1 USR2 PIPE; echo 500 >/proc/self/oom_score_adj; exec taskset 1 nice -n 5 ionice -c 3 setarch -R "$@"';
    const strange = await under(['sh', '-c', odd, 'sh', ...node]);
    // without CAP_SYS_RESOURCE a hard limit that was lowered stays lowered
    const comparable = (text: string): string[] => text.split('\n').filter((line) => line !== '').map((line) => line.replace(/^(Max (?:open files|stack size)).*/, '$1'));
    expect(comparable(strange)).toEqual(comparable(plain));
    expect(plain).toContain('Cpus_allowed_list:\t0-');
  });
});
