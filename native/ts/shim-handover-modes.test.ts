import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, constants, existsSync, fstatSync, mkdirSync, openSync, readFileSync, readlinkSync, readSync, rmdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { BITS, op, step, type Step } from '@engine/core/plan';
import { CLONE_NEWPID, CLONE_NEWUSER } from './constants.ts';
import { decodeFailure } from './frames.ts';
import { HandOver, statusOf } from './handover-testing.ts';
import { createNative } from './index.ts';
import { bytesOf, namespaces, unable } from './testing.ts';

const native = createNative();
const freezer = '/sys/fs/cgroup/freezer';
const unified = existsSync('/sys/fs/cgroup/cgroup.procs') ? '/sys/fs/cgroup' : '/sys/fs/cgroup/unified';
const noUnified = unable ?? (existsSync(`${unified}/cgroup.procs`) ? undefined : 'no cgroup v2');
const noFreezer = unable ?? (existsSync(`${freezer}/tasks`) ? undefined : 'no freezer of cgroup v1');

describe.skipIf(unable !== undefined)(`a hand-over${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: HandOver[] = [];
  const helpers: ChildProcess[] = [];
  const bench = (): HandOver => {
    const made = new HandOver(native);
    benches.push(made);
    return made;
  };
  afterEach(async () => {
    for (const one of benches.splice(0)) await one.close();
    for (const one of helpers.splice(0)) one.kill('SIGKILL');
  });
  const file = (b: HandOver, name: string): number => b.keep(openSync(join(b.folder, name), 'w+'));
  const text = (b: HandOver, name: string): string => readFileSync(join(b.folder, name), 'utf8');

  /** A receiver of terminals, and a socket that is connected to it. */
  const receiver = async (b: HandOver): Promise<{ socket: number; lines: () => string; close(): void }> => {
    const path = join(b.folder, 'console.sock');
    const child = spawn('python3', [join(import.meta.dirname, 'handover-console.py'), path], { stdio: ['ignore', 'pipe', 'inherit'] });
    helpers.push(child);
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    await once(child.stdout, 'data');
    const socket = connect(path);
    await once(socket, 'connect');
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    return { socket: fd, lines: () => said, close: () => void socket.destroy() };
  };

  it('gives the terminal to whoever has the socket, with its size', async () => {
    const b = bench();
    const to = await receiver(b);
    const pid = await b.create({ argv: ['sh', '-c', 'read x; echo "got $x"; tty; stty size; echo end; exec sleep 100'], stdio: BITS.STDIO.terminal }, { console: to.socket });
    to.close();
    expect(await b.begin()).toBe('');
    await expect.poll(to.lines).toBe('ready\n/dev/ptmx 1 0 0 24 80\nhello|got hello|/dev/pts/0|24 80|end|\n');
    expect(statusOf(pid, 'Name')).toBe('sleep');
    const again = await receiver(bench());
    const plan = bytesOf([
      step('shim.stdio', op.stdio({ flags: BITS.STDIO.terminal, rows: 7, cols: 9 })),
      step('exec.join', op.joinContainer({})),
      step('exec.terminal', op.open({ path: '/dev/pts', flags: 0o200000, out: 'pts' })),
      step('exec.terminal', op.terminal({ devpts: 'pts' })),
      step('exec.exec', op.closeFds({ from: 3 })),
      step('exec.exec', op.resolveExec({ name: 'sh', env: ['PATH=/bin'], out: 'program' })),
      step('exec.exec', op.exec({ program: 'program', argv: ['sh', '-c', 'read x; stty size; echo end'], env: ['PATH=/bin'] })),
    ]);
    const talk = b.spawn('exec', plan, { console: again.socket });
    await talk.frame('started');
    again.close();
    await expect.poll(again.lines).toBe('ready\n/dev/ptmx 1 0 0 7 9\nhello|7 9|end|\n');
  });

  it('fails when nobody takes the terminal', async () => {
    const b = bench();
    const [socket, receiving] = native.socketPair();
    native.close(receiving);
    b.keep(socket);
    const talk = b.spawn('run', bytesOf(b.handedSteps({ argv: ['true'], stdio: BITS.STDIO.terminal })), { console: socket });
    expect(decodeFailure((await talk.frame('failed')).payload)).toMatchObject({ errno: 32, detail: 'nobody takes the terminal' });
    await talk.frame('gone');
  });

  const hookStep = (slot: 'shim.attach' | 'init.mounts' | 'init.exec', script: string, pid?: string): Step => step(slot, op.hook({
    path: '/bin/sh', argv: ['sh', '-c', script], env: ['PATH=/usr/bin:/bin'], timeout: 5000, stateHead: '{"pid":', stateTail: '}', ...(pid === undefined ? {} : { pid }),
  }));

  it('runs hooks where the spec has them: beside the container, in it before the pivot, in it before the program', async () => {
    const b = bench();
    const out = file(b, 'out');
    const preserved = [file(b, 'kept')];
    const ns = 'readlink /proc/self/ns/mnt /proc/self/ns/uts';
    const steps = b.handedSteps({ argv: ['sleep', '100'] });
    const at = steps.findIndex(({ operation }) => operation.name === 'awaitStart');
    const plan = bytesOf([
      ...steps.slice(0, at + 1),
      hookStep('init.exec', 'cat >/tmp/start; ls / >/tmp/root; ls /proc/self/fd >/tmp/fds'), ...steps.slice(at + 1),
      hookStep('shim.attach', `cat >${b.folder}/runtime; ${ns} >>${b.folder}/runtime; ls /proc/self/fd | wc -l >${b.folder}/fds`, 'pid'),
      hookStep('init.mounts', `cat >${b.folder}/container; ${ns} >>${b.folder}/container`),
    ]);
    for (const applet of ['ls']) if (!existsSync(join(b.root, 'bin', applet))) writeFileSync(join(b.root, 'bin', applet), '#!/bin/busybox sh\nexec busybox ls "$@"\n', { mode: 0o755 });
    chmodSync(join(b.root, 'tmp'), 0o777);
    const talk = b.spawn('run', plan, { stdio: ['ignore', out, out], preserved });
    const pid = (await talk.frame('started')).argument;
    const [state, ...runtime] = text(b, 'runtime').replace('}', '}\n').split('\n').filter(Boolean);
    expect(state).toBe(`{"pid":${pid}}`);
    expect(runtime).toEqual(['mnt', 'uts'].map((type) => readlinkSync(`/proc/self/ns/${type}`)));
    const [inside, ...container] = text(b, 'container').replace('}', '}\n').split('\n').filter(Boolean);
    expect(inside).toBe('{"pid":1}');
    expect(container.some((link) => runtime.includes(link))).toBe(false);
    expect(Number(text(b, 'fds'))).toBe(4);
    expect(existsSync(join(b.root, 'tmp/start'))).toBe(false);
    expect(await b.begin()).toBe('');
    expect(readFileSync(join(b.root, 'tmp/start'), 'utf8')).toBe('{"pid":1}');
    expect(readFileSync(join(b.root, 'tmp/root'), 'utf8')).toBe('bin\ndev\nproc\ntmp\n');
    expect(readFileSync(join(b.root, 'tmp/fds'), 'utf8').trim().split('\n').length).toBe(4);
    await expect.poll(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('sleep');
  });

  it('says which hook failed, before the start and after it', async () => {
    const b = bench();
    const early = b.spawn('run', bytesOf([...b.handedSteps({ argv: ['true'] }), hookStep('shim.attach', 'echo why >&2; exit 4', 'pid')]));
    expect(decodeFailure((await early.frame('failed')).payload)).toMatchObject({ part: 0, errno: 121, detail: '/bin/sh exited with 4: why\n' });
    await early.frame('gone');
    const late = bench();
    const steps = late.handedSteps({ argv: ['true'] });
    const at = steps.findIndex(({ operation }) => operation.name === 'awaitStart');
    const talk = late.spawn('run', bytesOf([...steps.slice(0, at + 1), hookStep('init.exec', 'exit 5'), ...steps.slice(at + 1)]));
    await talk.frame('started');
    expect(JSON.parse(await late.begin())).toMatchObject({ part: 'init', errno: 121, detail: '/bin/sh exited with 5' });
  });

  it('does not lose an init that ends while a hook runs', async () => {
    const b = bench();
    const talk = b.spawn('run', bytesOf([...b.handedSteps({ argv: ['true'] }), hookStep('shim.attach', `cat >${b.folder}/state; kill -9 $(tr -dc 0-9 <${b.folder}/state); sleep 0.2`, 'pid')]));
    expect((await talk.frame('failed')).payload.toString()).toContain('init was killed by signal 9');
    await talk.frame('gone');
    expect(existsSync(b.marker)).toBe(false);
  });

  it('works in a user namespace, where pipes of the caller become the user\'s', async () => {
    const b = bench();
    const { read, write } = native.pipe();
    b.keep(read);
    b.keep(write);
    chmodSync(b.folder, 0o755);
    chmodSync(b.run, 0o755);
    const steps = b.handedSteps({ argv: ['sh', '-c', 'id -u; echo again >/proc/self/fd/1; exec sleep 100'], flags: namespaces | CLONE_NEWUSER })
      .filter(({ operation }) => !(operation.name === 'moveMount' && operation.args['target'] === '/dev/pts') && !(operation.name === 'mountFs' && operation.args['type'] === 'devpts'))
      .map((one): Step => (one.operation.name === 'pipes' ? step('init.terminal', op.pipes({ uid: 'uid' })) : one));
    const at = steps.findIndex(({ operation }) => operation.name === 'setPropagation');
    const pipes = steps.findIndex(({ operation }) => operation.name === 'pipes');
    const plan = bytesOf([
      ...steps.slice(0, at), step('init.namespaces', op.becomeRoot({})), ...steps.slice(at, pipes),
      step('init.terminal', op.resolveUser({ root: 'root', user: '1000:1000', uid: 'uid', gid: 'gid', groups: 'groups' })), ...steps.slice(pipes),
      step('init.identity', op.identity({ uid: 'uid', gid: 'gid', groups: 'groups', effective: 0n, permitted: 0n })),
      step('stage.maps', op.writeIdMap({ pid: 'pid', kind: 1, map: '0 200000 65536\n' })),
      step('stage.maps', op.writeIdMap({ pid: 'pid', kind: 0, map: '0 100000 65536\n' })),
    ]);
    const talk = b.spawn('run', plan, { stdio: ['ignore', write, write] });
    await talk.frame('started');
    expect(await b.begin()).toBe('');
    expect(fstatSync(write).uid).toBe(101_000);
    const reader = b.keep(openSync(`/proc/self/fd/${read}`, constants.O_RDONLY | constants.O_NONBLOCK));
    const got = Buffer.alloc(100);
    let said = '';
    await expect.poll(() => {
      try {
        said += got.toString('utf8', 0, readSync(reader, got));
      } catch {
        // nothing yet
      }
      return said;
    }).toContain('again');
    expect(said).toBe('1000\nagain\n');
  });

  it('runs a helper part in the caller\'s mount namespace (mode host)', async () => {
    const b = bench();
    const seen = (mode: 'host' | 'helper') => {
      const operation = op.execHost({ argv: ['/bin/sh', '-c', `readlink /proc/self/ns/mnt >${b.folder}/${mode}`], deadline: 5000 });
      const plan = bytesOf([step('helper.main', operation, { none: 'a test' })]);
      return mode === 'host' ? b.spawn('host', plan) : b.other('helper', plan);
    };
    for (const mode of ['host', 'helper'] as const) await seen(mode).frame('ok');
    expect(text(b, 'host').trim()).toBe(readlinkSync('/proc/self/ns/mnt'));
    expect(text(b, 'helper').trim()).not.toBe(readlinkSync('/proc/self/ns/mnt'));
  });

  it('lets a hook of mode host run to its end when its engine goes', async () => {
    const b = bench();
    const hook = hookStep('shim.attach', `sleep 0.3; echo done >${b.folder}/late`);
    const talk = b.spawn('host', bytesOf([step('helper.main', hook.operation)]));
    await sleep(100);
    talk.connection.close();
    await expect.poll(() => existsSync(join(b.folder, 'late')), { timeout: 5000 }).toBe(true);
    await expect.poll(() => b.children[0]?.exitCode, { timeout: 5000 }).toBe(0);
  });

  it.skipIf(noFreezer !== undefined)(`joins the groups of init, or one below, and not while it is paused${noFreezer ? ` (skipped: ${noFreezer})` : ''}`, async () => {
    const b = bench();
    const group = `${freezer}/engine-handover-${process.pid}`;
    mkdirSync(`${group}/below`, { recursive: true });
    try {
      const pid = (await b.spawn('run', bytesOf([
        ...b.handedSteps({ argv: ['sleep', '100'] }),
        step('shim.cgroup', op.open({ path: `${group}/tasks`, flags: 1, out: 'tasks' })),
        step('init.cgroup', op.writeFd({ fd: 'tasks', data: Buffer.from('0') })),
      ])).frame('started')).argument;
      expect(await b.begin()).toBe('');
      const groupOf = (of: number): string => /:freezer:(.*)/.exec(readFileSync(`/proc/${of}/cgroup`, 'utf8'))?.[1] ?? '';
      expect(groupOf(pid)).toBe(group.slice(freezer.length));
      const below = bytesOf([
        step('shim.cgroup', op.open({ path: `${group}/below/tasks`, flags: 1, out: 'tasks' })),
        step('shim.cgroup', op.setAffinity({ mask: new Uint8Array([1]) })),
        step('exec.join', op.joinContainer({})),
        step('exec.join', op.writeFd({ fd: 'tasks', data: Buffer.from('0') })),
        step('exec.terminal', op.pipes({})),
        step('exec.exec', op.closeFds({ from: 3 })),
        step('exec.exec', op.resolveExec({ name: 'sleep', env: ['PATH=/bin'], out: 'program' })),
        step('exec.exec', op.exec({ program: 'program', argv: ['sleep', '99'], env: [] })),
      ]);
      const lower = (await b.spawn('exec', below).frame('started')).argument;
      expect(groupOf(lower)).toBe(`${groupOf(pid)}/below`);
      expect(statusOf(lower, 'Cpus_allowed_list')).toBe('0');
      const beside = (await b.spawn('exec', b.session(['sleep', '98'])).frame('started')).argument;
      expect(groupOf(beside)).toBe(groupOf(pid));
      writeFileSync(`${group}/freezer.state`, 'FROZEN');
      const refused = b.spawn('exec', b.session(['true']));
      expect(decodeFailure((await refused.frame('failed')).payload)).toMatchObject({ errno: 16, detail: 'the container is paused' });
      const patient = b.spawn('exec', b.session(['sleep', '97']), { options: ['ignore-paused'] });
      await sleep(100);
      expect(patient.frames).toEqual([]);
      writeFileSync(`${group}/freezer.state`, 'THAWED');
      const thawed = (await patient.frame('started')).argument;
      for (const one of [lower, beside, thawed, pid]) process.kill(one, 'SIGKILL');
    } finally {
      writeFileSync(`${group}/freezer.state`, 'THAWED');
      await expect.poll(() => readFileSync(`${group}/tasks`, 'utf8') + readFileSync(`${group}/below/tasks`, 'utf8'), { timeout: 10_000 }).toBe('');
      rmdirSync(`${group}/below`);
      rmdirSync(group);
    }
  });

  it('works in the pid namespace of the host too', async () => {
    const b = bench();
    const pid = await b.create({ argv: ['sleep', '100'], flags: namespaces & ~CLONE_NEWPID });
    expect(statusOf(pid, 'NSpid')).toBe(String(pid));
    const waiting = (await b.spawn('exec', b.session(['sleep', '99'])).frame('started')).argument;
    expect(readlinkSync(`/proc/${waiting}/ns/mnt`)).toBe(readlinkSync(`/proc/${pid}/ns/mnt`));
    expect(await b.begin()).toBe('');
    process.kill(waiting, 'SIGKILL');
    const other = bench();
    const second = await other.create({ argv: ['sleep', '100'], flags: namespaces & ~CLONE_NEWPID });
    process.kill(second, 'SIGTERM');
    await expect.poll(() => statusOf(second, 'Name'), { timeout: 5000 }).toBe(undefined);
  });

  it.skipIf(noUnified !== undefined)(`is born in groups of cgroup v2, init's or one below${noUnified ? ` (skipped: ${noUnified})` : ''}`, async () => {
    const b = bench();
    const group = `${unified}/engine-handover-${process.pid}`;
    mkdirSync(`${group}/below`, { recursive: true });
    try {
      const born = (path: string): Step[] => [step('shim.cgroup', op.open({ path, flags: 0o200000, out: 'group' })), step('shim.cgroup', op.cloneInto({ cgroup: 'group' }))];
      const pid = (await b.spawn('run', bytesOf([...born(group), ...b.handedSteps({ argv: ['sleep', '100'] })])).frame('started')).argument;
      expect(await b.begin()).toBe('');
      const groupOf = (of: number): string => /^0::(.*)/m.exec(readFileSync(`/proc/${of}/cgroup`, 'utf8'))?.[1] ?? '';
      expect(groupOf(pid)).toBe(group.slice(unified.length));
      const session = [
        step('exec.join', op.joinContainer({})), step('exec.terminal', op.pipes({})), step('exec.exec', op.closeFds({ from: 3 })),
        step('exec.exec', op.resolveExec({ name: 'sleep', env: ['PATH=/bin'], out: 'program' })), step('exec.exec', op.exec({ program: 'program', argv: ['sleep', '99'], env: [] })),
      ];
      const beside = (await b.spawn('exec', bytesOf(session)).frame('started')).argument;
      const lower = (await b.spawn('exec', bytesOf([...born(`${group}/below`), ...session])).frame('started')).argument;
      expect([groupOf(beside), groupOf(lower)]).toEqual([groupOf(pid), `${groupOf(pid)}/below`]);
      for (const one of [beside, lower, pid]) process.kill(one, 'SIGKILL');
    } finally {
      await expect.poll(() => readFileSync(`${group}/cgroup.events`, 'utf8'), { timeout: 10_000 }).toContain('populated 0');
      rmdirSync(`${group}/below`);
      rmdirSync(group);
    }
  });
});
