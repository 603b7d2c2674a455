import { existsSync, mkdirSync, openSync, closeSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { ReadStream } from 'node:tty';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasBusybox, hasScript, OciRuntime, runc } from '../helpers/oci.ts';
import { until } from '../helpers/wait.ts';
import { createSyscalls } from '@engine/native';

/** A socket to which somebody sends a file descriptor, once. */
async function oneFd(path: string): Promise<{ readonly path: string; readonly fd: Promise<number> }> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    const { fd: own } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle;
    // it may still be on its way
    until('the file descriptor', () => createSyscalls().receive(own, new Uint8Array(4096))?.fd).then(resolve, reject).finally(() => {
      socket.destroy();
      server.close();
    });
  }).listen(path);
  await until('the socket', () => existsSync(path));
  return { path, fd: promise };
}

/** Phrases of runc that ours must have in it; the rest of our words says more. */
const phrase = (text: string): string => text.replace(/^time="[^"]*" level=error msg=/, '').trim().replace(/^"|"$/g, '').replaceAll('\\"', '"').replace(/^(?:runc|engine-oci) (create|run) failed: /, '$1 failed: ');

describe.skipIf(!hasBusybox).each(['off', 'auto'] as const)('engine-oci, resident: %s', (resident) => {
  let oci: OciRuntime;
  beforeAll(async () => {
    oci = new OciRuntime({ resident });
    await oci.ok('list');
    if (resident === 'auto') await oci.engine.startEngined();
  });
  afterAll(async () => expect(await oci.close()).toEqual([]));

  it('goes through the whole life of a container', async () => {
    const bundle = oci.bundle((spec) => (spec.annotations = { 'org.example': 'x' }), ['sleep', '1000']);
    const pidFile = join(oci.folder, 'life.pid');
    expect(await oci.call(['create', '--bundle', bundle, '--pid-file', pidFile, 'life'])).toMatchObject({ code: 0, stdout: '', stderr: '' });
    const pid = Number(readFileSync(pidFile, 'utf8'));
    expect(await oci.state('life')).toMatchObject({ id: 'life', status: 'created', pid, bundle, rootfs: join(bundle, 'rootfs'), annotations: { 'org.example': 'x' } });
    // its caller is to wait for it
    expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^State:\s+S/m);
    await oci.ok('start', 'life');
    expect(await oci.state('life')).toMatchObject({ status: 'running', pid });
    expect(await oci.ids()).toContain('life');
    expect(JSON.parse(await oci.ok('ps', '--format', 'json', 'life'))).toEqual([pid]);
    expect(await oci.ok('ps', 'life')).toMatch(new RegExp(`^UID[^\\n]*\\n\\S+ +${pid} .*sleep 1000\\n$`));
    await oci.ok('pause', 'life');
    expect(await oci.state('life')).toMatchObject({ status: 'paused' });
    await oci.ok('resume', 'life');
    await oci.ok('update', '--memory', '32m', '--pids-limit', '9', 'life');
    const stats = JSON.parse(await oci.ok('events', '--stats', 'life')) as { type: string; data: { memory: { usage: { limit: number } }; pids: object } };
    expect(stats).toMatchObject({ type: 'stats', id: 'life', data: { memory: { usage: { limit: 32 << 20 } }, pids: { current: 1, limit: 9 } } });
    await oci.ok('kill', 'life', 'KILL');
    await oci.untilStatus('life', 'stopped');
    expect(await oci.state('life')).toMatchObject({ pid: 0 });
    await oci.ok('delete', 'life');
    expect(await oci.ids()).not.toContain('life');
  });

  it('run has the exit code of its program, and passes its streams', async () => {
    expect(await oci.call(['run', '-b', oci.bundle(undefined, ['sh', '-c', 'read a; echo out $a; echo error >&2; exit 7']), 'codes'], { input: 'word\n' })).toMatchObject({ code: 7, stdout: 'out word\n', stderr: 'error\n' });
    expect(await oci.call(['run', '-b', oci.bundle(undefined, ['sh', '-c', 'kill -9 $$']), 'codes'])).toMatchObject({ code: 0 }); // init of a namespace cannot kill itself
    const killed = oci.start(['run', '-b', oci.bundle(undefined, ['sleep', '1000']), 'codes']);
    await until('codes to run', async () => (await oci.call(['state', 'codes'])).stdout.includes('"running"'));
    await oci.ok('kill', 'codes', '9');
    expect(await killed.answer).toMatchObject({ code: 137 });
    expect(await oci.ids()).not.toContain('codes');
    expect(await oci.call(['run', '--keep', '-b', oci.bundle(), 'kept'])).toMatchObject({ code: 0 });
    expect(await oci.state('kept')).toMatchObject({ status: 'stopped' });
    await oci.ok('delete', 'kept');
  });

  it('passes signals on to the program of run', async () => {
    const started = oci.start(['run', '-b', oci.bundle(undefined, ['sh', '-c', 'trap "exit 3" TERM; echo ready; while :; do sleep 0.01; done']), 'signals']);
    await until('the trap', () => started.output().includes('ready'));
    started.child.kill('SIGTERM');
    expect(await started.answer).toMatchObject({ code: 3 });
  });

  it('exec', async () => {
    await oci.ok('run', '-d', '-b', oci.bundle((spec) => {
      spec.process.env?.push('OWN=1');
      spec.process.user = { uid: 0, gid: 0, additionalGids: [9] };
    }, ['sleep', '1000']), 'execs');
    const exec = (...args: string[]) => oci.call(['exec', ...args]);
    expect(await exec('execs', 'sh', '-c', 'echo $OWN; exit 4')).toMatchObject({ code: 4, stdout: '1\n' });
    expect(await exec('execs', 'sh', '-c', 'kill -9 $$')).toMatchObject({ code: 137 });
    expect(await exec('-e', 'MORE=2', '--cwd', '/etc', '-u', '1000:5', '-g', '7', 'execs', 'sh', '-c', 'echo $OWN$MORE $PWD $(id -u):$(id -g) $(grep Groups /proc/self/status)')).toMatchObject({ code: 0, stdout: '12 /etc 1000:5 Groups: 7 9\n' });
    expect(await exec('--no-new-privs', 'execs', 'grep', 'NoNewPrivs', '/proc/self/status')).toMatchObject({ stdout: expect.stringMatching(/\t1\n/) });
    expect((await exec('--cap', 'CAP_SYS_TIME', 'execs', 'grep', 'CapEff', '/proc/self/status')).stdout.trim()).toBe('CapEff:\t0000000022000420');
    writeFileSync(join(oci.folder, 'process.json'), JSON.stringify({ args: ['sh', '-c', 'echo $X; exit 6'], cwd: '/', env: ['PATH=/bin', 'X=y'], user: { uid: 0, gid: 0 } }));
    expect(await exec('--process', 'process.json', 'execs')).toMatchObject({ code: 6, stdout: 'y\n' });
    expect(await exec('-d', '--pid-file', 'exec.pid', 'execs', 'sleep', '1000')).toMatchObject({ code: 0 });
    const pid = Number(readFileSync(join(oci.folder, 'exec.pid'), 'utf8'));
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toBe('sleep\x001000\0');
    expect(JSON.parse(await oci.ok('ps', '-f', 'json', 'execs'))).toContain(pid);
    const { pid: init } = JSON.parse(await oci.ok('state', 'execs')) as { pid: number };
    const group = (of: number, controller: string): string => readFileSync(`/proc/${of}/cgroup`, 'utf8').split('\n').find((line) => line.split(':')[1] === controller)?.split(':')[2] ?? '';
    const [controller, top] = existsSync('/sys/fs/cgroup/cgroup.controllers') ? ['', '/sys/fs/cgroup'] : ['pids', '/sys/fs/cgroup/pids'];
    mkdirSync(join(top, group(init, controller), 'sub'));
    const asked = controller === '' ? 'sub' : `${controller}:sub`;
    expect(await exec('-d', '--pid-file', 'sub.pid', '--cgroup', asked, 'execs', 'sleep', '1000')).toMatchObject({ code: 0 });
    expect(group(Number(readFileSync(join(oci.folder, 'sub.pid'), 'utf8')), controller)).toBe(join(group(init, controller), 'sub'));
    expect(await exec('--cgroup', asked.replace('sub', 'none'), 'execs', 'true')).toMatchObject({ code: 255, stderr: expect.stringContaining('none') });
    expect(await exec('--cgroup', asked.replace('sub', '../x'), 'execs', 'true')).toMatchObject({ code: 255, stderr: expect.stringContaining('invalid --cgroup argument') });
    const before = (JSON.parse(await oci.ok('ps', '-f', 'json', 'execs')) as number[]).length;
    await oci.ok('pause', 'execs');
    expect(await exec('execs', 'true')).toMatchObject({ code: 255, stderr: expect.stringContaining('cannot exec in a paused container') });
    const frozen = oci.start(['exec', '--ignore-paused', 'execs', 'sh', '-c', 'echo thawed']);
    await until('the session in the group', async () => (JSON.parse(await oci.ok('ps', '-f', 'json', 'execs')) as number[]).length > before);
    expect(frozen.output()).toBe('');
    await oci.ok('resume', 'execs');
    expect(await frozen.answer).toMatchObject({ code: 0, stdout: 'thawed\n' });
    await oci.ok('kill', '--all', 'execs', 'KILL');
    await oci.ok('delete', '--force', 'execs');
  });

  it('names the field of an update that the kernel refuses, and leaves nothing of it', async () => {
    await oci.ok('run', '-d', '-b', oci.bundle(undefined, ['sleep', '1000']), 'changed');
    const refused = async (...flags: string[]): Promise<string> => {
      const { code, stderr } = await oci.call(['update', ...flags, 'changed']);
      return `${code} ${stderr}`;
    };
    const inFlight = join(oci.engine.root, 'inflight');
    expect(await refused('--cpuset-cpus', '1023')).toMatch(/^1 .*cpu\.cpus: writeFile \S+\/cpuset\.cpus failed/);
    expect(await refused('--memory', '1000')).toMatch(/memory\.limit: 1000 bytes are too few for a process to live in/);
    await oci.ok('update', '--cpu-idle', '1', 'changed');
    expect(await refused('--cpu-share', '500')).toMatch(/^1 .*cpu\.shares: the container is idle/);
    await oci.ok('update', '--cpu-idle', '0', '--cpu-share', '500', 'changed');
    expect(existsSync(inFlight) ? readdirSync(inFlight) : []).toEqual([]);
    await oci.ok('delete', '--force', 'changed');
  });

  it('tells of kills for want of memory when they come, and ends with the container', async () => {
    const greedy = 'for i in 1 2; do until [ -e /dev/shm/$i ]; do sleep 0.05; done; sh -c "a=xxxxxxxxxxxxxxxx; while :; do a=\\$a\\$a; done"; done; sleep 1000';
    const bundle = oci.bundle((spec) => (spec.linux = { ...spec.linux, resources: { ...spec.linux?.resources, memory: { limit: 24 << 20 } } }), ['sh', '-c', greedy]);
    await oci.ok('run', '-d', '-b', bundle, 'greedy');
    const { child, output } = oci.start(['events', '--interval', '1h', 'greedy']);
    for (const kills of [1, 2]) {
      await oci.ok('exec', 'greedy', 'sh', '-c', `echo >/dev/shm/${kills}`);
      await until(`${kills} kills`, () => output().split('\n').length > kills);
    }
    await oci.ok('kill', 'greedy', 'KILL');
    await until('the end of events', () => child.exitCode !== null);
    expect([child.exitCode, output()]).toEqual([0, '{"type":"oom","id":"greedy"}\n'.repeat(2)]);
    await oci.ok('delete', 'greedy');
  });

  it('passes preserved fds on', async () => {
    const file = join(oci.folder, 'preserved');
    writeFileSync(file, 'from outside\n');
    const fds = [openSync(file, 'r'), openSync(file, 'r')];
    expect(await oci.call(['run', '--preserve-fds', '2', '-b', oci.bundle(undefined, ['sh', '-c', 'cat <&4; ls /proc/self/fd | wc -l']), 'fds'], { fds })).toMatchObject({ code: 0, stdout: expect.stringContaining('from outside\n') });
    await oci.ok('run', '-d', '-b', oci.bundle(undefined, ['sleep', '1000']), 'more');
    expect(await oci.call(['exec', '--preserve-fds', '2', 'more', 'sh', '-c', 'cat <&3; ls /proc/self/fd | wc -l'], { fds: [...fds] })).toMatchObject({ code: 0, stdout: 'from outside\n6\n' });
    await oci.ok('delete', '-f', 'more');
    for (const fd of fds) closeSync(fd);
  });

  it('hands a terminal to a console socket', async () => {
    const console = await oneFd(join(oci.folder, 'console.sock'));
    await oci.ok('create', '--console-socket', console.path, '-b', oci.bundle((spec) => Object.assign(spec.process, { terminal: true, consoleSize: { height: 11, width: 33 } }), ['sh', '-c', 'tty; stty size']), 'terminal');
    const master = new ReadStream(await console.fd);
    let said = '';
    master.on('data', (data) => (said += String(data))).on('error', () => {});
    await oci.ok('start', 'terminal');
    await until(() => `its words: ${said}`, () => said === '/dev/pts/0\r\n11 33\r\n');
    master.destroy();
    await oci.ok('delete', '--force', 'terminal');
  });

  it('hands its first process to a pidfd socket', async () => {
    const socket = await oneFd(join(oci.folder, 'pidfd.sock'));
    await oci.ok('create', '--pidfd-socket', socket.path, '-b', oci.bundle(), 'pidfd');
    const fd = await socket.fd;
    expect(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).toMatch(new RegExp(`^Pid:\\s+${(await oci.state('pidfd')).pid}$`, 'm'));
    closeSync(fd);
    await oci.ok('delete', '--force', 'pidfd');
    expect(await oci.call(['run', '--pidfd-socket', join(oci.folder, 'none.sock'), '-b', oci.bundle(), 'pidfd'])).toMatchObject({ code: 1, stderr: expect.stringContaining('no such file or directory') });
    expect(await oci.ids()).not.toContain('pidfd');
  });

  it('has all that is to be warned of in the log', async () => {
    const log = join(oci.folder, 'warnings.json');
    const bundle = oci.bundle((spec) => (spec.process.capabilities = { ...spec.process.capabilities, bounding: ['CAP_KILL', 'CAP_NOPE'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'] }));
    expect(await oci.call(['--log', log, '--log-format', 'json', 'run', '-b', bundle, 'warned'])).toMatchObject({ code: 0, stderr: '' });
    expect(readFileSync(log, 'utf8').trim().split('\n').map((line) => JSON.parse(line) as object)).toMatchObject([{ level: 'warning', msg: expect.stringContaining('CAP_NOPE') as string }]);
    expect(await oci.call(['run', '-b', bundle, 'warned'])).toMatchObject({ code: 0, stderr: expect.stringMatching(/^time="[^"]+" level=warning msg=".*CAP_NOPE.*"\n$/) as string });
  });

  it.skipIf(!hasScript)('relays the terminal of whoever waits', async () => {
    const looks = 'tty; stty size; read a; echo got $a; exit';
    const bundle = oci.bundle((spec) => {
      spec.process.terminal = true;
      spec.process.args = ['sh', '-c', `${looks} 9`];
    });
    expect(await oci.terminal(['run', '-b', bundle, 'looks'], 'hello\n')).toMatch(/^\/dev\/pts\/0\r\n24 80\r\nhello\r\ngot hello\r\ncode 9\r\n$/);
    await oci.ok('run', '-d', '-b', oci.bundle(undefined, ['sleep', '1000']), 'looks');
    expect(await oci.terminal(['exec', '--tty', 'looks', 'sh', '-c', `${looks} 8`], 'hello\n')).toMatch(/24 80\r\nhello\r\ngot hello\r\ncode 8\r\n$/);
    await oci.ok('delete', '-f', 'looks');
  });

  it('makes one container of many attempts at once', async () => {
    const bundle = oci.bundle(undefined, ['sleep', '1000']);
    const answers = await Promise.all(Array.from({ length: 4 }, () => oci.call(['create', '-b', bundle, 'once'])));
    expect(answers.map(({ code }) => code).sort()).toEqual([0, 1, 1, 1]);
    for (const { code, stderr } of answers) if (code !== 0) expect(stderr).toContain('container with given ID already exists');
    await oci.ok('delete', 'once');
  });

  it('is cleaned up after whoever was killed on the way', { timeout: 240_000 }, async () => {
    for (let at = 0; at < 12; at++) {
      const { child, answer } = oci.start(['create', '-b', oci.bundle(undefined, ['sleep', '1000']), 'killed']);
      await new Promise((resolve) => setTimeout(resolve, resident === 'auto' ? at : at * 25));
      child.kill('SIGKILL');
      await answer;
      // engined may be at it still, until it learns that nobody is there any more
      await until('delete --force', async () => (await oci.call(['delete', '--force', 'killed'])).code === 0 && !(await oci.ids()).includes('killed'));
    }
  });

  it('leaves nothing after many cycles', { timeout: 240_000 }, async () => {
    const bundle = oci.bundle();
    for (let i = 0; i < (resident === 'auto' ? 50 : 3); i++) {
      await oci.ok('create', '-b', bundle, `cycle${i}`);
      await oci.ok('start', `cycle${i}`);
      await oci.ok('delete', '--force', `cycle${i}`);
    }
    expect(await oci.ids()).toEqual([]);
  });
});

describe.skipIf(!hasBusybox || runc === undefined)('engine-oci and runc', () => {
  let ours: OciRuntime;
  let theirs: OciRuntime;
  beforeAll(() => {
    ours = new OciRuntime({ resident: 'auto' });
    theirs = new OciRuntime({ program: runc ?? '' });
  });
  afterAll(async () => expect([...(await ours.close()), ...(await theirs.close())]).toEqual([]));

  it('fail with the same exit codes, and have the same phrases', { timeout: 120_000 }, async () => {
    const differing: unknown[] = [];
    const compare = async (args: (runtime: OciRuntime) => readonly string[], own?: string): Promise<void> => {
      const [a, b] = [await ours.call(args(ours)), await theirs.call(args(theirs))];
      const wanted = own ?? phrase(b.stderr).replace(/^(create|run|exec) failed: /, '');
      if (a.code !== b.code || !phrase(a.stderr).includes(wanted)) differing.push({ args: args(ours), ours: [a.code, phrase(a.stderr)], runc: [b.code, wanted] });
    };
    const both = async (...args: string[]): Promise<void> => void (await Promise.all([ours, theirs].map((runtime) => runtime.ok(...args.map((word) => (word === 'SLEEP' ? runtime.bundle(undefined, ['sleep', '1000']) : word))))));
    const bundle = (program: readonly string[]) => (runtime: OciRuntime): string[] => ['create', '-b', runtime.bundle(undefined, program), 'bad'];
    for (const verb of ['state', 'start', 'kill', 'delete', 'pause', 'resume', 'ps']) await compare(() => [verb, 'nobody']);
    await compare(() => ['delete', '--force', 'nobody']);
    await compare(() => ['exec', 'nobody', 'true']);
    await compare(bundle(['nope']));
    await compare(bundle(['/nope']));
    await compare(bundle(['/etc/plain']));
    await compare((runtime) => ['create', '-b', runtime.bundle((spec) => (spec.process.terminal = true)), 'bad'], 'cannot allocate tty if');
    await compare((runtime) => ['create', '--console-socket', '/nope', '-b', runtime.bundle(), 'bad'], 'cannot use console socket if');
    await compare(() => ['create', '-b', '/nonexistent', 'bad'], 'no such file or directory');
    await both('run', '-d', '-b', 'SLEEP', 'there');
    await compare((runtime) => ['create', '-b', runtime.bundle(), 'there']);
    await compare(() => ['start', 'there']);
    await compare(() => ['resume', 'there']);
    await compare(() => ['delete', 'there']);
    await compare(() => ['kill', 'there', 'FOO']);
    await compare(() => ['exec', 'there', 'nope']);
    await compare(() => ['exec', 'there', '/etc/plain']);
    await compare(() => ['exec', 'there', '/etc'], 'permission denied');
    await compare(() => ['exec', 'there']);
    await compare(() => ['ps', 'there', '-o', 'comm']);
    await compare(() => ['list', '-f', 'foo'], 'invalid format option');
    await both('pause', 'there');
    await compare(() => ['pause', 'there']);
    await compare(() => ['exec', 'there', 'true']);
    await compare(() => ['start', 'there']);
    await both('resume', 'there');
    await both('kill', 'there', 'KILL');
    await Promise.all([ours, theirs].map((runtime) => runtime.untilStatus('there', 'stopped')));
    for (const verb of ['kill', 'start', 'pause', 'resume', 'events']) await compare(() => [verb, 'there']);
    await compare(() => ['kill', '--all', 'there', '9']);
    await compare(() => ['exec', 'there', 'true']);
    await both('delete', 'there');
    expect(differing).toEqual([]);
  });

  it('answer in the same layout', async () => {
    const shape = (value: unknown): unknown => (Array.isArray(value) ? value.slice(0, 1).map(shape) : typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value).map(([key, child]) => [key, shape(child)])) : typeof value);
    for (const runtime of [ours, theirs]) await runtime.ok('create', '-b', runtime.bundle((spec) => (spec.annotations = { a: 'b' }), ['sleep', '1000']), 'same');
    const asked = async (...args: string[]): Promise<[string, string]> => [await ours.ok(...args), await theirs.ok(...args)];
    const [state, stateOfRunc] = await asked('state', 'same');
    expect(Object.keys(JSON.parse(state) as object)).toEqual(Object.keys(JSON.parse(stateOfRunc) as object));
    expect(shape(JSON.parse(state))).toEqual(shape(JSON.parse(stateOfRunc)));
    const [list, listOfRunc] = await asked('list', '-f', 'json');
    expect(shape(JSON.parse(list))).toEqual(shape(JSON.parse(listOfRunc)));
    const [table, tableOfRunc] = await asked('list');
    expect(table.split('\n')[0]?.replaceAll(/ +/g, ' ')).toBe(tableOfRunc.split('\n')[0]?.replaceAll(/ +/g, ' '));
    for (const runtime of [ours, theirs]) await runtime.ok('start', 'same');
    const [stats, statsOfRunc] = (await asked('events', '--stats', 'same')).map((text) => JSON.parse(text) as { data: Record<string, Record<string, object>> });
    // what Go leaves out at 0 is not there at the same moments, and interfaces are told whoever made them
    for (const one of [stats, statsOfRunc]) for (const key of ['network_interfaces', 'blkio', 'hugetlb']) delete one?.data[key];
    for (const one of [stats, statsOfRunc]) for (const at of [one?.data['memory'], one?.data['cpu']]) for (const key of ['cache', 'throttling']) delete at?.[key];
    for (const one of [stats, statsOfRunc]) for (const at of Object.values(one?.data['memory'] ?? {})) for (const key of ['usage', 'max']) delete (at as Record<string, unknown>)[key];
    expect(shape(stats)).toEqual(shape(statsOfRunc));
    await Promise.all([ours.ok('delete', '-f', 'same'), theirs.ok('delete', '-f', 'same')]);
  });

  it('write the same config.json, but for names and versions', async () => {
    for (const runtime of [ours, theirs]) await runtime.ok('spec', '-b', runtime.folder);
    const read = (runtime: OciRuntime): { mounts: unknown; root: unknown; linux: { namespaces: { type: string }[]; [key: string]: unknown }; process: { capabilities: object; [key: string]: unknown } } => JSON.parse(readFileSync(join(runtime.folder, 'config.json'), 'utf8')) as never;
    const [a, b] = [read(ours), read(theirs)];
    // runc 1.1 names ambient capabilities that cannot be had, and a cgroup namespace with cgroup v2 only
    for (const spec of [a, b]) {
      delete (spec.process.capabilities as { ambient?: unknown }).ambient;
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'cgroup');
    }
    expect([a.mounts, a.root, a.linux, a.process]).toEqual([b.mounts, b.root, b.linux, b.process]);
  });
});
