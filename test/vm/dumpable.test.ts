/** Where fs.suid_dumpable is 1, a change of ids lets others of the same user look into a process (CVE-2016-9962): into none of ours before its program runs. */
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BITS, decodePlan, op, step, type Step } from '@engine/core/plan';
import { createNative } from '../../native/ts/index.ts';
import { binaryFolder } from '../../native/ts/binaries.ts';
import { Bench, bytesOf, type Container, unable } from '../../native/ts/testing.ts';

const sysctl = '/proc/sys/fs/suid_dumpable';
const testShim = join(binaryFolder(), 'engine-shim-test');
// the sysctl is the whole machine's: only in a guest
const why = process.env['VM'] ? unable ?? (existsSync(testShim) ? undefined : 'no test build of the shim') : 'not in a guest';

const environment = ['PATH=/bin'];
const folder = 0o200000;
const user = { uid: 'uid', gid: 'gid', groups: 'groups' };
const become = (part: 'init' | 'exec', root: string): Step[] => [
  step(`${part}.keyring`, op.resolveUser({ root, user: '1000:1000', ...user })),
  step(`${part}.identity`, op.identity({ ...user, effective: 0n, permitted: 0n })),
];
const indexOf = (plan: Uint8Array, part: string, name: string): number => decodePlan(plan).steps.find((one) => one.part === part && one.operation.name === name)?.index ?? -1;

describe.skipIf(why !== undefined)(`fs.suid_dumpable=1${why ? ` (skipped: ${why})` : ''}`, () => {
  let before = '';
  let bench: Bench;
  beforeAll(() => {
    before = readFileSync(sysctl, 'utf8');
    writeFileSync(sysctl, '1');
    bench = new Bench(createNative({ shimPath: testShim }));
  });
  afterAll(async () => {
    writeFileSync(sysctl, before);
    await bench.close();
  });

  const children = (): number[] => readFileSync(`/proc/${bench.shimPid()}/task/${bench.shimPid()}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  /** Who owns the files in /proc of the youngest child, once it has halted: its user if it can be looked into, else root. */
  async function ownerAt(halt: string): Promise<readonly [uid: number, user: string | undefined]> {
    await expect.poll(() => existsSync(halt) && readFileSync(halt, 'utf8').includes('\n'), { timeout: 60_000, interval: 50 }).toBe(true);
    const pid = Math.max(...children());
    return [statSync(`/proc/${pid}/status`).uid, /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]];
  }

  it('opens neither the first process nor a session', async () => {
    chmodSync(bench.folder, 0o777); // who has become another halts there too
    const container: Container = {
      argv: ['cat'], stdio: BITS.STDIO.stdin,
      extra: [step('init.pivot', op.open({ path: '/', flags: folder, out: 'own' })), ...become('init', 'own')],
    };
    const plan = bytesOf(bench.steps(container));
    const halt = join(bench.folder, 'halt');
    const one = bench.start(container, { ENGINE_HALT: `init:${indexOf(plan, 'init', 'exec')}:before`, ENGINE_HALT_FILE: halt });
    expect(await ownerAt(halt)).toEqual([0, '1000']);
    rmSync(halt);
    await one.frame('started');
    await one.send('stdinEof');
    await one.frame('gone');
    await one.connection.closed;

    const session = bytesOf([
      step('exec.join', op.joinContainer({})), step('exec.join', op.open({ path: '/', flags: folder, out: 'own' })), ...become('exec', 'own'), step('exec.terminal', op.pipes({})), step('exec.exec', op.closeFds({ from: 3 })),
      step('exec.exec', op.resolveExec({ name: 'true', env: environment, out: 'program' })), step('exec.exec', op.exec({ program: 'program', argv: ['true'], env: environment })),
    ]);
    const talk = bench.start(container, { ENGINE_HALT: `exec:${indexOf(session, 'exec', 'exec')}:before`, ENGINE_HALT_FILE: halt });
    await talk.frame('started');
    await talk.send('exec', { session: 1, argument: 0, payload: session });
    expect(await ownerAt(halt)).toEqual([0, '1000']);
    rmSync(halt);
    expect((await talk.frame('exit', 1)).argument).toBe(0);
    await talk.send('stdinEof');
    await talk.frame('gone');
  });
});
