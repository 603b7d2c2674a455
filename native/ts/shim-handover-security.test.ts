import { spawn } from 'node:child_process';
import { existsSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { op, step, type Operation, type Slot, type Step } from '@engine/core/plan';
import { decodeFailure } from './frames.ts';
import { HandOver, statusOf } from './handover-testing.ts';
import { createNative } from './index.ts';
import { bytesOf, unable } from './testing.ts';

const native = createNative();
const x64 = process.arch === 'x64';
const why = unable ?? (x64 ? undefined : 'numbers of system calls of x86-64');

const [LOAD, EQUAL, RETURN] = [0x20, 0x15, 0x06];
const [ALLOW, NOTIFY, EPERM] = [0x7fff0000, 0x7fc00000, 0x00050001];
const instruction = (code: number, k: number, jt = 0, jf = 0): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt8(jt, 2);
  bytes.writeUInt8(jf, 3);
  bytes.writeUInt32LE(k, 4);
  return bytes;
};
/** `then` for these calls, `otherwise` for all others. */
const filterOf = (calls: readonly number[], then: number, otherwise: number): Uint8Array =>
  Buffer.concat([instruction(LOAD, 0), ...calls.flatMap((call) => [instruction(EQUAL, call, 0, 1), instruction(RETURN, then)]), instruction(RETURN, otherwise)]);
const notifyAll = Buffer.concat([instruction(RETURN, NOTIFY)]);

describe.skipIf(why !== undefined)(`a run that is handed over with a filter${why ? ` (skipped: ${why})` : ''}`, () => {
  const benches: HandOver[] = [];
  const agents: ReturnType<typeof spawn>[] = [];
  const bench = (): HandOver => {
    const made = new HandOver(native);
    benches.push(made);
    return made;
  };
  afterEach(async () => {
    for (const one of benches.splice(0)) await one.close();
    for (const one of agents.splice(0)) one.kill('SIGKILL');
  });
  const agent = async (b: HandOver): Promise<{ socket: string; state: string; calls: string }> => {
    const paths = { socket: join(b.folder, 'agent.sock'), state: join(b.folder, 'state'), calls: join(b.folder, 'calls') };
    const child = spawn('python3', [join(import.meta.dirname, 'handover-agent.py'), paths.socket, paths.state, paths.calls], { stdio: ['ignore', 'pipe', 'inherit'] });
    agents.push(child);
    await new Promise((resolve) => child.stdout.once('data', resolve));
    return paths;
  };
  /** Steps with these before the program is looked for. */
  const filtered = (b: HandOver, argv: readonly string[], ...operations: readonly Operation[]): Step[] => {
    const steps = b.handedSteps({ argv });
    const at = steps.findIndex(({ operation }) => operation.name === 'closeFds');
    return [...steps.slice(0, at), ...operations.map((operation) => step('init.seccomp' as Slot, operation)), ...steps.slice(at)];
  };
  const notify = (filter: Uint8Array, socket: string): Operation =>
    op.seccompNotify({ filter, socket, stateHead: '{"fds":["seccompFd"],"pid":', stateMiddle: ',"state":{"pid":', stateTail: `},"metadata":"${'m'.repeat(100_000)}"}` });

  it('needs nothing but read, write and what the program takes once it is loaded', async () => {
    const b = bench();
    const out = b.keep(openSync(join(b.folder, 'out'), 'w+'));
    // read, write, close, stat, close_range, faccessat2, execve, rt_sigaction, rt_sigprocmask, and what busybox needs for echo
    const calls = [0, 1, 3, 4, 5, 6, 262, 436, 439, 59, 13, 14, 12, 158, 218, 231, 60, 9, 10, 11, 28, 102, 105, 106, 107, 104, 108, 63, 157, 21, 16, 20, 334, 273, 302, 318];
    // prctl (157) is the program's, not ours: it may be left out for a program that takes none
    const talk = b.spawn('run', bytesOf(filtered(b, ['echo', 'runs'], op.noNewPrivileges({}), op.seccomp({ filter: filterOf(calls, ALLOW, EPERM) }))), { stdio: ['ignore', out, out] });
    await talk.frame('started');
    expect(await b.begin()).toBe('');
    await expect.poll(() => readFileSync(join(b.folder, 'out'), 'utf8')).toBe('runs\n');
    const strict = bench();
    const lost = strict.spawn('run', bytesOf(filtered(strict, ['echo', 'runs'], op.noNewPrivileges({}), op.seccomp({ filter: filterOf([157, 7, 271, 45, 47, 46], EPERM, ALLOW) }))));
    // without prctl, poll, ppoll, recvfrom, recvmsg and sendmsg
    await lost.frame('started');
    expect(await strict.begin()).toBe('');
  });

  it.each([['with no-new-privs', true], ['without', false]])('sends the listener to its agent, even when it is asked of every call (%s)', async (_name, noNewPrivileges) => {
    const b = bench();
    const { socket, state, calls } = await agent(b);
    const out = b.keep(openSync(join(b.folder, 'out'), 'w+'));
    const talk = b.spawn('run', bytesOf(filtered(b, ['sh', '-c', 'echo runs; exec sleep 100'], ...(noNewPrivileges ? [op.noNewPrivileges({})] : []), notify(notifyAll, socket))), { stdio: ['ignore', out, out] });
    const pid = (await talk.frame('started')).argument;
    const told = JSON.parse(readFileSync(state, 'utf8')) as { pid: number; metadata: string };
    expect(told).toMatchObject({ fds: ['seccompFd'], pid, state: { pid } });
    expect(told.metadata.length).toBe(100_000);
    // the agent alone has it: when it goes, nobody waits for it for ever
    const held = (): string[] => readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    expect(held()).toContain(join(b.run, 'go'));
    // its last close is asked for, too
    await expect.poll(() => held().filter((link) => /seccomp|socket/.test(link))).toEqual([]);
    expect(await b.begin()).toBe('');
    await expect.poll(() => readFileSync(join(b.folder, 'out'), 'utf8')).toBe('runs\n');
    await expect.poll(() => readFileSync(calls, 'utf8').split(' ')).toEqual(expect.arrayContaining(['0', '1', '3', '59']));
    await expect.poll(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('sleep');
    expect(readdirSync(`/proc/${pid}/fd`).sort()).toEqual(['0', '1', '2']);
  });

  it('sends that of a session too', async () => {
    const b = bench();
    const { socket, state } = await agent(b);
    const pid = await b.create({ argv: ['sleep', '100'] });
    expect(await b.begin()).toBe('');
    const plan = bytesOf([
      step('exec.join', op.joinContainer({})),
      step('exec.terminal', op.pipes({})),
      step('exec.seccomp', notify(notifyAll, socket)),
      step('exec.exec', op.closeFds({ from: 3 })),
      step('exec.exec', op.resolveExec({ name: 'sleep', env: ['PATH=/bin'], out: 'program' })),
      step('exec.exec', op.exec({ program: 'program', argv: ['sleep', '99'], env: [] })),
    ]);
    const session = (await b.spawn('exec', plan).frame('started')).argument;
    expect(JSON.parse(readFileSync(state, 'utf8'))).toMatchObject({ pid: session, state: { pid } });
    process.kill(session, 'SIGKILL');
  });

  it('says what stands in the way of a listener', async () => {
    const b = bench();
    const nobody = b.spawn('run', bytesOf(filtered(b, ['true'], notify(notifyAll, join(b.folder, 'nobody')))));
    expect(decodeFailure((await nobody.frame('failed')).payload)).toMatchObject({ errno: 2, detail: expect.stringContaining('nobody does not take the listener') as string });
    await nobody.frame('gone');
    expect(existsSync(b.marker)).toBe(false);
    const twice = bench();
    const { socket } = await agent(twice);
    const some = filterOf([0xffff], NOTIFY, ALLOW);
    const second = twice.spawn('run', bytesOf(filtered(twice, ['true'], notify(some, socket), notify(some, socket))));
    expect(decodeFailure((await second.frame('failed')).payload)).toMatchObject({ errno: 16, detail: 'this process has a listener already' });
    const bad = bench();
    const broken = bad.spawn('run', bytesOf(filtered(bad, ['true'], notify(new Uint8Array(7), socket))));
    expect(decodeFailure((await broken.frame('failed')).payload)).toMatchObject({ errno: 22, detail: 'a filter of 7 bytes' });
  });

  it('gives ambient capabilities to a user, but none that is not inheritable', async () => {
    const b = bench();
    const steps = b.handedSteps({ argv: ['sleep', '100'] });
    const kill = 1n << 5n;
    const user = (inheritable: bigint): Step[] => [
      step('init.identity', op.resolveUser({ root: 'root', user: '1234', uid: 'uid', gid: 'gid', groups: 'groups' })),
      step('init.identity', op.identity({ uid: 'uid', gid: 'gid', groups: 'groups', effective: kill | 1n, permitted: kill | 1n, inheritable, ambient: kill })),
    ];
    const at = steps.findIndex(({ operation }) => operation.name === 'pipes');
    const planOf = (inheritable: bigint): Uint8Array => bytesOf([...steps.slice(0, at), ...user(inheritable).slice(0, 1), ...steps.slice(at), ...user(inheritable).slice(1)]);
    const pid = (await b.spawn('run', planOf(kill)).frame('started')).argument;
    expect(await b.begin()).toBe('');
    await expect.poll(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('sleep');
    expect(['CapInh', 'CapPrm', 'CapEff', 'CapAmb'].map((set) => statusOf(pid, set))).toEqual(Array.from({ length: 4 }, () => '0000000000000020'));
    const without = bench();
    const none = without.handedSteps({ argv: ['sleep', '100'] });
    const talk = without.spawn('run', bytesOf([...none.slice(0, at), ...user(0n).slice(0, 1), ...none.slice(at), ...user(0n).slice(1)]));
    const other = (await talk.frame('started')).argument;
    expect(await without.begin()).toBe('');
    await expect.poll(() => readFileSync(`/proc/${other}/cmdline`, 'utf8')).toContain('sleep');
    expect(['CapInh', 'CapPrm', 'CapEff', 'CapAmb'].map((set) => statusOf(other, set))).toEqual(Array.from({ length: 4 }, () => '0000000000000000'));
  });
});
