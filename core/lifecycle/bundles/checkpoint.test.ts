import fs from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { until } from '../../../test/helpers/wait.ts';
import { type BundleCheckpoint, type BundleRestore } from '../../api/index.ts';
import { type CheckpointDriver, type Conversation, type DumpRequest, type RestoreRequest, type Turn } from '../../contracts/checkpoint/index.ts';
import { type ProgramConnection, type StartProgram } from '../../native/index.ts';
import { type Spec } from '../../spec/index.ts';
import { readStarted } from '../../state/run-files.ts';
import { type PluginEntry } from '../parts.ts';
import { type TestOptions } from '../engine.fixture.ts';
import { networkIsMade } from './checkpoint.ts';
import { bundleWorld, caller, closeWorlds, config, type World } from './bundles.fixture.ts';

/** What the program says, one after the other; a function is called first. */
type Word = Turn | 'nothing' | 'noise' | (() => unknown);
interface Played { readonly world: World; readonly asked: (DumpRequest | RestoreRequest)[]; readonly started: StartProgram[]; readonly heard: string[]; say: readonly Word[]; terminals: number[]; fds: number[] }

const open: World[] = [];
afterEach(() => closeWorlds(open));

/** A world with a driver whose program says what the test has it say, turns as JSON. */
async function play(options: TestOptions = {}): Promise<Played> {
  const asked: Played['asked'][number][] = [];
  const talk = (log: string) => (request: DumpRequest | RestoreRequest): Conversation => {
    asked.push(request);
    return {
      program: '/bin/criu', argv: ['criu', 'swrk', '3'], log, begin: () => Buffer.from('hello'), hear: (message) => JSON.parse(Buffer.from(message).toString()) as Turn,
      explain: (text) => ({ reasons: text.split('\n').filter((line) => line.startsWith('Error')), ...(text.includes('old') && { hint: 'a newer one' }) }),
    };
  };
  const driver: CheckpointDriver = { name: 'fake', features: new Set(), probe: () => ({ available: true, score: 1, reasons: [] }), dump: talk('dump.log'), restore: talk('restore.log') };
  const entry: PluginEntry = { manifest: { name: 'criu', version: '1.0.0', main: './x.ts', provides: [{ contract: 'checkpoint', driver: 'fake' }] }, builtin: false, source: 'criu', optionsDigest: 'd', eager: false, load: async () => ({ drivers: [driver] }) };
  const world = await bundleWorld({ ...options, extra: (hooks) => [entry, ...(options.extra?.(hooks) ?? [])] });
  open.push(world);
  const played: Played = { world, asked, started: [], heard: [], say: [], terminals: [], fds: [] };
  world.native.speaker = async (request) => {
    played.started.push(request);
    await request.by.spawn({ program: 0, argv: [...request.argv], env: [...request.env], fds: [], callerFds: request.callerFds });
    const words = [...played.say];
    const program: ProgramConnection = {
      pid: 1,
      send: (message) => void played.heard.push(Buffer.from(message).toString()),
      async next() {
        const word = words.shift();
        if (typeof word === 'function') await word();
        if (typeof word === 'function') return program.next();
        if (word === undefined || word === 'nothing') return undefined;
        const fd = typeof word === 'object' && 'occasion' in word && word.occasion === 'terminal' ? fs.openSync('/dev/null', 'r') : undefined;
        if (fd !== undefined) played.fds.push(fd);
        return { message: Buffer.from(word === 'noise' ? word : JSON.stringify(word)), ...(fd !== undefined && { fd }) };
      },
      sendTerminal: (fd) => void played.terminals.push(fd),
      close: () => void played.heard.push('(closed)'),
    };
    return program;
  };
  return played;
}

const none = { tcpEstablished: false, externalSockets: false, shellJob: false, fileLocks: false, lazyPages: false, autoDedup: false, groupsMode: 'soft', emptyNetwork: false } as const;
const dump = ({ root }: World, over: Partial<BundleCheckpoint> = {}): BundleCheckpoint => ({ ...none, spawner: caller(), images: `${root}-images`, leaveRunning: false, preDump: false, ...over });
const back = (world: World, id: string, { spec, ...over }: Partial<BundleRestore> & { readonly spec?: unknown } = {}): BundleRestore => ({ ...world.request(id, spec === undefined ? {} : { spec }), ...none, images: `${world.root}-images`, ...over });
const statusOf = async ({ bundles, ref }: World, id = 'one'): Promise<string> => (await bundles.state(ref(id))).status;
/** The program kills what it has written. */
const kill = (world: World, id = 'one') => async (): Promise<void> => world.native.processOf((await world.bundles.state(world.ref(id))).pid)?.signal(9);

async function running(played: Played, spec: unknown = config(), id = 'one'): Promise<number> {
  const { world } = played;
  const { pid } = await world.create(id, spec);
  await world.bundles.start(world.ref(id));
  return pid;
}
/** Of a container that was written and is gone. */
async function written(played: Played, spec: unknown = config()): Promise<void> {
  const { world } = played;
  await running(played, spec);
  played.say = [kill(world), { done: true }];
  await world.bundles.checkpoint(world.ref('one'), dump(world));
  await world.bundles.delete(world.ref('one'));
  played.asked.length = 0;
  played.heard.length = 0;
  played.started.length = 0;
}

describe('checkpoint', () => {
  it('asks for all that the driver has to know, and ends with the container', async () => {
    const called: string[] = [];
    const played = await play({ extra: (hooks) => (hooks.tapFor('spy')('checkpoint', (_, { container }) => void called.push(container.id)), []) });
    const { world } = played;
    world.native.mountinfo = [
      '1 0 8:1 /b/rootfs / rw - ext4 /dev/sda rw', '2 1 0:5 / /proc rw - proc proc rw', '3 1 8:1 /data /data rw - ext4 /dev/sda rw', '4 3 0:9 / /data/sub rw - tmpfs t rw', '5 2 0:6 /null /proc/kcore rw - devtmpfs d rw',
      '6 1 0:6 /fuse /dev/fuse rw - devtmpfs d rw', '7 2 0:5 /sys /proc/sys ro - proc proc rw', '8 1 0:20 / /run rw - tmpfs t rw',
    ].join('\n');
    const pid = await running(played, config({ mounts: [{ destination: '/data', type: 'bind', source: '/srv', options: ['rbind'] }], linux: { namespaces: [{ type: 'mount' }, { type: 'network', path: '/proc/self/ns/net' }], maskedPaths: ['/proc/kcore'] } as never, annotations: { 'org.criu.config': '/c' } }));
    played.say = [{ occasion: 'other', reply: 'x' as never }, kill(world), { done: true }];
    await world.bundles.checkpoint(world.ref('one'), dump(world, { work: `${world.root}-work`, tcpEstablished: true, parent: '../before', pageServer: { address: '::1', port: 9 } }));
    expect(played.asked).toEqual([{
      ...none, tcpEstablished: true, leaveRunning: false, preDump: false, parent: '../before', pageServer: { address: '::1', port: 9 }, pid, root: expect.stringMatching(/rootfs$/), annotations: { 'org.criu.config': '/c' }, images: expect.any(Number), work: expect.any(Number),
      mounts: { '/data': '/data', '/data/sub': '/data/sub', '/proc/kcore': '/dev/null', '/dev/fuse': '/dev/fuse' }, namespaces: [{ type: 'network', inode: fs.statSync('/proc/self/ns/net').ino, name: 'extRootNetNS' }],
    }]);
    expect(played.heard).toEqual(['hello', 'x', '(closed)']);
    expect(played.started).toMatchObject([{ path: '/bin/criu', argv: ['criu', 'swrk', '3'], fds: [], callerFds: { preserve: 0 } }]);
    expect(JSON.parse(fs.readFileSync(`${world.root}-images/descriptors.json`, 'utf8'))).toEqual(['/dev/null', `pipe:[${pid}]`, '/out']);
    expect([called, await statusOf(world)]).toEqual([['one'], 'stopped']);
  });

  it('leaves the container as it was when it fails, with what the log says', async () => {
    const played = await play();
    const { world } = played;
    await running(played);
    const log = `${world.root}-images/dump.log`;
    const failing = (say: Played['say']): Promise<unknown> => ((played.say = say), world.bundles.checkpoint(world.ref('one'), dump(world)).catch((error: unknown) => error));
    const write = (): void => fs.writeFileSync(log, 'all fine\nError: too old a thing\n');
    expect(await failing([write, { failed: 'it failed' }])).toMatchObject({ code: 'ERR_OPERATION_FAILED', message: 'checkpoint: it failed: Error: too old a thing', path: log, plugin: 'criu', hint: 'a newer one' });
    // a log of an earlier one is not taken for this one's
    expect(await failing([])).toMatchObject({ message: 'checkpoint: /bin/criu ended without an answer', hint: `the log is ${log}` });
    expect(await failing(['noise'])).toMatchObject({ code: 'ERR_OPERATION_FAILED', message: 'checkpoint: /bin/criu said what is no message', cause: expect.any(SyntaxError) });
    expect(await statusOf(world)).toBe('running');
    world.native.speaker = undefined;
    expect(await failing([])).toMatchObject({ code: 'ERR_NATIVE', errno: 'ENOENT' });
    expect(await statusOf(world)).toBe('running');
  });

  it('lets it go on when it is told to, and tells when pages can be asked for', async () => {
    const played = await play();
    const { world } = played;
    await running(played);
    let ready = 0;
    played.say = [{ occasion: 'ready' }, { done: true }];
    await world.bundles.checkpoint(world.ref('one'), dump(world, { leaveRunning: true, onReady: () => void ready++ }));
    fs.rmSync(`${world.root}-images`, { recursive: true });
    await world.bundles.checkpoint(world.ref('one'), dump(world, { preDump: true }));
    expect([ready, await statusOf(world), fs.existsSync(`${world.root}-images/descriptors.json`)]).toEqual([1, 'running', false]);
  });

  it('leaves out what hooks make in a net namespace of its own', () => {
    const spec = (namespaces: { type: 'network' | 'ipc'; path?: string }[], hooks: object): Spec => config({ linux: { namespaces }, hooks });
    const [own, hook] = [[{ type: 'network' as const }], [{ path: '/x' }]];
    expect([{ prestart: hook }, { createRuntime: hook }, { poststart: hook }, { prestart: [] }].map((hooks) => networkIsMade(spec(own, hooks)))).toEqual([true, true, false, false]);
    expect([[{ type: 'network' as const, path: '/n' }], [{ type: 'ipc' as const }]].map((namespaces) => networkIsMade(spec(namespaces, { prestart: hook })))).toEqual([false, false]);
  });

  it('is for what runs, with folders that can be had, and a driver', async () => {
    const played = await play();
    const { world } = played;
    const refused = (over: Partial<BundleCheckpoint> = {}): Promise<unknown> => world.bundles.checkpoint(world.ref('one'), dump(world, over)).catch((error: unknown) => error);
    expect(await refused()).toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER' });
    await world.create('one');
    expect(await refused()).toMatchObject({ code: 'ERR_NOT_RUNNING', message: 'cannot checkpoint: container one is not running' });
    await world.bundles.start(world.ref('one'));
    fs.writeFileSync(`${world.root}-file`, '');
    expect(await refused({ images: `${world.root}-file/x` })).toMatchObject({ code: 'ERR_INVALID_VALUE', operation: 'image-path', errno: 'ENOTDIR' });
    expect(await refused({ work: `${world.root}-file` })).toMatchObject({ code: 'ERR_INVALID_VALUE', operation: 'work-path', errno: 'EEXIST' });
    await kill(world)();
    expect(await refused()).toMatchObject({ code: 'ERR_NOT_RUNNING' });
    expect(played.started).toEqual([]);
    const without = await bundleWorld();
    open.push(without);
    await without.create('two');
    await without.bundles.start(without.ref('two'));
    await expect(without.bundles.checkpoint(without.ref('two'), dump(without))).rejects.toMatchObject({ code: 'ERR_DRIVER_UNAVAILABLE' });
    await expect(without.bundles.restore({ ...back(without, 'three'), images: without.root })).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', message: expect.stringContaining('descriptors.json') });
    fs.writeFileSync(`${without.root}/descriptors.json`, '[]');
    await expect(without.bundles.restore({ ...back(without, 'three'), images: without.root })).rejects.toMatchObject({ code: 'ERR_DRIVER_UNAVAILABLE' });
    expect(without.left()).toEqual(['descriptors.json', 'two']);
  });
});

describe('restore', () => {
  it('makes a container whose first process is the one that came back', async () => {
    const played = await play();
    const { world } = played;
    const { bundles, ref, native } = world;
    world.native.mountinfo = '1 0 8:1 /b/rootfs / rw - ext4 /dev/sda rw\n3 1 8:1 /data /data rw - ext4 /dev/sda rw\n';
    const spec = config({ mounts: [{ destination: '/data', type: 'bind', source: '/srv', options: ['rbind'] }], linux: { namespaces: [{ type: 'mount' }, { type: 'ipc', path: '/proc/self/ns/ipc' }, { type: 'network', path: '/proc/self/ns/net' }] } });
    await written(played, spec);
    const pid = native.newPid();
    let holder = 0;
    played.say = [
      { occasion: 'namespaces', pid, reply: 'go' as never },
      async () => void (holder = readStarted(path.join(world.root, 'one'))?.pid ?? 0),
      async () => expect(await bundles.state(ref('one'))).toMatchObject({ status: 'creating', pid: 0 }),
      { occasion: 'restored', pid, reply: 'go' as never }, { done: true },
    ];
    const spawner = caller();
    expect(await bundles.restore(back(world, 'one', { spec, spawner, preserveFds: 2, securityProfile: 'apparmor:x' }))).toMatchObject({ id: 'one', status: 'running', pid });
    expect(await bundles.state(ref('one'))).toMatchObject({ status: 'running', pid });
    expect([native.processOf(holder)?.isAlive, readStarted(path.join(world.root, 'one'))?.pid]).toEqual([false, pid]);
    expect(played.asked).toMatchObject([{
      root: path.join(world.root, 'one/restore-root'), mounts: { '/data': '/srv' }, join: [{ type: 'ipc', path: '/proc/self/ns/ipc' }], namespaces: [{ name: 'extRootNetNS', fd: 4 }], streams: [{ name: expect.stringMatching(/^pipe:/), fd: 1 }],
      groups: [{ controller: 'cpu,cpuacct', path: `/g/${holder}` }, { controller: '', path: '/g' }], securityProfile: 'apparmor:x',
    }]);
    // the shim's stand-in, and the program: neither has the fds of its caller
    expect(spawner.asked).toEqual([{ preserve: 0 }, { preserve: 0 }]);
    expect(played.started[0]?.fds).toHaveLength(1);
    const names = native.operations.map(({ name }) => name);
    expect(names.filter((name) => ['moveMount', 'unmount'].includes(name)).slice(-2)).toEqual(['moveMount', 'unmount']);
    await expect(bundles.start(ref('one'))).rejects.toMatchObject({ code: 'ERR_ALREADY_RUNNING' });
    await bundles.delete(ref('one'), { force: true });
    expect(world.left()).toEqual([]);
  });

  it('hands a terminal on, and gives none to the stand-in', async () => {
    const played = await play();
    const { world } = played;
    const spec = config({ process: { cwd: '/', user: {}, args: ['sleep'], terminal: true } });
    const ask = back(world, 'one', { spec, consoleSocket: '/s' });
    await written(played);
    const pid = world.native.newPid();
    played.say = [{ occasion: 'terminal' }, { occasion: 'restored', pid }, { done: true }];
    await world.bundles.restore(ask);
    expect(played.started[0]?.callerFds).toEqual({ preserve: 0, console: { socket: '/s' } });
    expect(played.terminals).toEqual(played.fds);
    expect(() => fs.fstatSync(played.fds[0] ?? -1)).toThrow('EBADF');
    expect((await world.bundles.state(world.ref('one'))).process.terminal).toBe(true);
    await expect(world.bundles.restore({ ...ask, id: 'two', consoleSocket: undefined as never, detached: true })).rejects.toMatchObject({ message: expect.stringContaining('cannot allocate tty') });
  });

  it('leaves nothing when it fails, whenever', async () => {
    const played = await play();
    const { world } = played;
    await written(played);
    const pid = world.native.newPid();
    for (const say of [[], [{ failed: 'no' }], [{ occasion: 'namespaces', pid }], [{ occasion: 'restored', pid }, 'nothing'], [{ done: true }], [{ occasion: 'restored', pid: 3 }]] as Played['say'][]) {
      played.say = say;
      await expect(world.bundles.restore(back(world, 'one'))).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED' });
      expect(world.left()).toEqual([]);
    }
    await expect(world.bundles.restore(back(world, 'one', { images: `${world.root}-none` }))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', operation: 'image-path', errno: 'ENOENT' });
    const foreign = config({ linux: { namespaces: [{ type: 'mount' }, { type: 'network', path: '/proc/self/ns/net' }, { type: 'cgroup', path: '/proc/self/ns/cgroup' }] } });
    await expect(world.bundles.restore(back(world, 'one', { spec: foreign }))).rejects.toMatchObject({ code: 'ERR_NOT_SUPPORTED', operation: 'linux.namespaces' });
    expect(world.left()).toEqual([]);
    await world.create('one');
    await expect(world.bundles.restore(back(world, 'one'))).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN' });
  });

  it('leaves what nobody can start when the engine dies, and what the next one can delete', async () => {
    const played = await play();
    const { world } = played;
    await written(played);
    const gate = Promise.withResolvers<void>();
    played.say = [() => gate.promise];
    const cut = world.bundles.restore(back(world, 'one')).catch(() => {});
    await until('the stand-in', () => readStarted(path.join(world.root, 'one')) !== undefined && played.started.length > 0);
    const next = await world.next();
    open.push(next);
    expect(await statusOf(next)).toBe('stopped');
    await expect(next.bundles.start(next.ref('one'))).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
    await next.bundles.delete(next.ref('one'));
    expect(next.left()).toEqual([]);
    gate.resolve();
    await cut;
  });
});
