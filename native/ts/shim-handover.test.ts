import { existsSync, fstatSync, openSync, readFileSync, readdirSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { BITS, op, parts, step, type Part, type Step } from '@engine/core/plan';
import { decodeFailure } from './frames.ts';
import { HandOver, statusOf } from './handover-testing.ts';
import { createNative } from './index.ts';
import { bytesOf, unable } from './testing.ts';

const native = createNative();
const partNumber = (part: Part): number => parts.indexOf(part);

describe.skipIf(unable !== undefined)(`a run that is handed over${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: HandOver[] = [];
  const bench = (): HandOver => {
    const made = new HandOver(native);
    benches.push(made);
    return made;
  };
  afterEach(async () => {
    for (const one of benches.splice(0)) await one.close();
  });
  const file = (b: HandOver, name: string, flags = 'w+'): number => b.keep(openSync(join(b.folder, name), flags));
  const text = (b: HandOver, name: string): string => readFileSync(join(b.folder, name), 'utf8');

  it('waits to be started, without its shim', async () => {
    const b = bench();
    const out = file(b, 'out');
    const pid = await b.create({ argv: ['sh', '-c', 'echo $$ >&2; exec sleep 100'] }, { stdio: ['ignore', out, out] });
    expect(b.shims()).toEqual([]);
    expect(native.tryLock(join(b.run, 'lock'), { create: false })).toBeDefined();
    expect(JSON.parse(b.file('started'))).toMatchObject({ pid });
    expect(existsSync(join(b.run, 'shim.sock'))).toBe(false);
    expect(readdirSync(b.run).sort()).toEqual(['go', 'lock', 'plan', 'rootfs', 'started', 'status']);
    expect(text(b, 'out')).toBe('');
    // nothing of the host's is there to be found while it waits
    const held = (): string[] => readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`)).sort();
    await expect.poll(held).toEqual(['/dev/null', join(b.folder, 'out'), join(b.folder, 'out'), join(b.run, 'go'), join(b.run, 'status')]);
    expect(await b.begin()).toBe('');
    await expect.poll(() => text(b, 'out')).toMatch(/^1\n/);
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('sleep');
    expect(readdirSync(`/proc/${pid}/fd`).sort()).toEqual(['0', '1', '2']);
    expect(statusOf(pid, 'PPid')).not.toBe('0');
  });

  it('says why the program cannot be run, after the start', async () => {
    const b = bench();
    writeFileSync(join(b.root, 'bin/odd'), 'no program', { mode: 0o755 });
    const pid = await b.create({ argv: ['/bin/odd'] });
    expect(JSON.parse(await b.begin())).toMatchObject({ part: 'init', errno: 8, detail: expect.stringContaining('/bin/odd') as string });
    await expect.poll(() => statusOf(pid, 'Name'), { timeout: 10_000 }).toBe(undefined);
  });

  it('says at once that there is no such program, and undoes all', async () => {
    const b = bench();
    const talk = b.spawn('run', bytesOf(b.handedSteps({ argv: ['missing'] })));
    expect(decodeFailure((await talk.frame('failed')).payload)).toMatchObject({ part: partNumber('init'), errno: 2 });
    await talk.frame('gone');
    await talk.connection.closed;
    expect(existsSync(b.marker)).toBe(false);
    expect(b.processes()).toEqual([]);
    expect(readdirSync(b.run)).toEqual(expect.arrayContaining(['failed', 'undone']));
  });

  it('passes on preserved fds, and no others', async () => {
    const b = bench();
    const out = file(b, 'out');
    const preserved = Array.from({ length: 9 }, (_, i) => file(b, `kept${i}`));
    const script = 'for i in 3 4 5 6 7 8 9; do eval "echo fd $i >&$i"; done; echo ten >&10 && echo eleven >&11; exec sleep 100';
    const pid = await b.create({ argv: ['sh', '-c', script] }, { stdio: ['ignore', out, out], preserved });
    expect(await b.begin()).toBe('');
    await expect.poll(() => text(b, 'kept8')).toBe('eleven\n');
    expect(Array.from({ length: 7 }, (_, i) => text(b, `kept${i}`))).toEqual(Array.from({ length: 7 }, (_, i) => `fd ${i + 3}\n`));
    expect(readdirSync(`/proc/${pid}/fd`).map(Number).sort((x, y) => x - y)).toEqual(Array.from({ length: 12 }, (_, i) => i));
  });

  it('runs further programs by processes of their own', async () => {
    const b = bench();
    const out = file(b, 'out');
    const pid = await b.create({ argv: ['sleep', '100'] });
    const exec = async (argv: readonly string[]): Promise<number> => {
      const talk = b.spawn('exec', b.session(argv), { stdio: ['ignore', out, out] });
      const { argument } = await talk.frame('started');
      await talk.connection.closed;
      return argument;
    };
    // runc's exec works before the start as well
    await exec(['sh', '-c', 'echo created']);
    await expect.poll(() => text(b, 'out')).toBe('created\n');
    expect(await b.begin()).toBe('');
    const session = await exec(['sh', '-c', 'echo again; exec sleep 99']);
    await expect.poll(() => text(b, 'out')).toBe('created\nagain\n');
    expect(readFileSync(`/proc/${session}/cgroup`, 'utf8')).toBe(readFileSync(`/proc/${pid}/cgroup`, 'utf8'));
    expect(readdirSync(`/proc/${session}/fd`).sort()).toEqual(['0', '1', '2']);
    process.kill(session, 'SIGKILL');
    const missing = b.spawn('exec', b.session(['missing']));
    expect(decodeFailure((await missing.frame('failed')).payload)).toMatchObject({ part: partNumber('exec'), errno: 2 });
    process.kill(pid, 'SIGKILL');
    await expect.poll(() => statusOf(pid, 'Name'), { timeout: 10_000 }).toBe(undefined);
    const late = b.spawn('exec', b.session(['true']));
    expect(decodeFailure((await late.frame('failed')).payload)).toMatchObject({ part: partNumber('exec'), errno: 3, detail: 'the container is not running' });
  });

  it('is its caller\'s child, who gets its exit status', async () => {
    const b = bench();
    const caller = `
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
shim = os.fork()
if shim == 0: os.execv(sys.argv[2], sys.argv[2:])
os.closerange(3, 64)
while True:
    try: pid, status = os.wait()
    except ChildProcessError: break
    with open(sys.argv[1], 'a') as f: f.write(('shim' if pid == shim else str(pid)) + ' ' + str(os.waitstatus_to_exitcode(status)) + chr(10))
`;
    const pid = await b.create({ argv: ['sh', '-c', 'exit 42'] }, { before: ['python3', '-c', caller, join(b.folder, 'ends')] });
    await expect.poll(() => text(b, 'ends')).toBe('shim 0\n');
    expect(Number(statusOf(pid, 'PPid'))).toBe(b.children[0]?.pid);
    expect(await b.begin()).toBe('');
    await expect.poll(() => text(b, 'ends')).toBe(`shim 0\n${pid} 42\n`);
  });

  it('ends by signals while it waits, as runc has it, and leads a session of its own', async () => {
    for (const [signal, lives] of [['SIGUSR1', true], ['SIGALRM', true], ['SIGTERM', false]] as const) {
      const b = bench();
      const pid = await b.create({ argv: ['sleep', '100'] });
      expect(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ').slice(2, 4)).toEqual([`${pid}`, `${pid}`]);
      process.kill(pid, signal);
      if (!lives) await expect.poll(() => statusOf(pid, 'Name'), { timeout: 5000 }).toBe(undefined);
      else expect(await b.begin()).toBe('');
      if (lives) expect([statusOf(pid, 'SigIgn'), statusOf(pid, 'SigCgt')]).toEqual(['0000000000000000', '0000000000000000']);
    }
  });

  it('keeps the caller\'s limits, scheduling and keys, and closed streams are /dev/null', async () => {
    const b = bench();
    const odd = 'ulimit -n 333; echo 500 >/proc/self/oom_score_adj; exec 0<&- 2>&-; exec taskset 1 nice -n 5 "$@"';
    const out = file(b, 'out');
    await b.create({ argv: ['sh', '-c', 'ulimit -n; cat /proc/self/oom_score_adj; [ -c /proc/self/fd/0 -a -c /proc/self/fd/2 ] && echo null; exec sleep 100'] }, { stdio: ['ignore', out, 'ignore'], before: ['sh', '-c', odd, 'sh'] });
    expect(await b.begin()).toBe('');
    await expect.poll(() => text(b, 'out')).toBe('333\n500\nnull\n');
    const { pid } = JSON.parse(b.file('started')) as { pid: number };
    expect(statusOf(pid, 'Cpus_allowed_list')).toBe('0');
    expect(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[16]).toBe('5');
  });

  it('gives the caller\'s streams to the container\'s user, but not /dev/null', async () => {
    const b = bench();
    const [out, nulls] = [file(b, 'out'), statSync('/dev/null')];
    const steps = b.handedSteps({ argv: ['sh', '-c', 'id -u; exec sleep 100'] }).map((one): Step =>
      one.operation.name === 'pipes' ? step('init.terminal', op.pipes({ uid: 'uid' })) : one);
    const user = [
      step('init.terminal', op.resolveUser({ root: 'root', user: '1234:5', uid: 'uid', gid: 'gid', groups: 'groups' })),
      step('init.identity', op.identity({ uid: 'uid', gid: 'gid', groups: 'groups', effective: 0n, permitted: 0n })),
    ];
    const at = steps.findIndex(({ operation }) => operation.name === 'pipes');
    const talk = b.spawn('run', bytesOf([...steps.slice(0, at), ...user.slice(0, 1), ...steps.slice(at), ...user.slice(1)]), { stdio: ['ignore', out, 'ignore'] });
    await talk.frame('started');
    expect(await b.begin()).toBe('');
    await expect.poll(() => text(b, 'out')).toBe('1234\n');
    expect([fstatSync(out).uid, fstatSync(out).gid]).toEqual([1234, 0]);
    expect(statSync('/dev/null')).toMatchObject({ uid: nulls.uid, gid: nulls.gid });
  });

  it('refuses what its caller does not have', async () => {
    const b = bench();
    const plain = b.spawn('run', bytesOf(b.handedSteps({ argv: ['true'] })), { options: ['preserve=3'] });
    expect(decodeFailure((await plain.frame('failed')).payload)).toMatchObject({ errno: 9, detail: 'file descriptor 3 of the caller is not open' });
    const terminal = bench();
    const talk = terminal.spawn('run', bytesOf(terminal.handedSteps({ argv: ['true'], stdio: BITS.STDIO.terminal })));
    expect(decodeFailure((await talk.frame('failed')).payload)).toMatchObject({ errno: 22, detail: expect.stringContaining('socket') as string });
    const never = bench();
    const unready = never.spawn('run', bytesOf(never.steps({ argv: ['true'], stdio: BITS.STDIO.inherit, log: false })));
    expect(decodeFailure((await unready.frame('failed')).payload)).toMatchObject({ detail: 'a plan that is handed over needs awaitStart' });
  });
});
