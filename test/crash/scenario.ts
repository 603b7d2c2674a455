import { type ContainerRequest, type Engine } from '@engine/core/api';

/** What the matrix does, in the victim's process or in the test's own. `before` must bring the state that `verb` starts from. */
export interface Scenario {
  before(engine: Engine, files: Files): Promise<void>;
  verb(engine: Engine, files: Files): Promise<void>;
  /** Is the state the one before or the one after? Throws when it is neither; brings back what `before` needs. */
  check(engine: Engine, files: Files): Promise<void>;
}
/** Paths of what a scenario loads. */
export interface Files {
  readonly archive: string;
  /** Of the host, nobody else's: engines that work at the same time share one network namespace. */
  readonly port: number;
}

export const request = (over: Partial<ContainerRequest>): ContainerRequest => ({
  image: 'base', name: 'cc', env: [], labels: {}, addHosts: [], terminal: false, openStdin: false, stdinOnce: false, attach: { stdin: false, stdout: false, stderr: false }, detached: true,
  autoRemove: false, network: 'none', ports: [], mounts: [], tmpfs: [], readonlyRootfs: false, init: false, privileged: false, capAdd: [], capDrop: [], securityOptions: [], devices: [],
  deviceCgroupRules: [], rlimits: [], sysctls: {}, groupAdd: [], log: { options: {} }, storageOptions: {}, limits: { memory: 64 << 20 }, ...over,
});

const exists = async (engine: Engine): Promise<boolean> => (await engine.containers.list({ all: true })).length > 0;
const clear = async (engine: Engine): Promise<void> => {
  if (await exists(engine)) await engine.containers.remove('cc', { force: true, volumes: true });
};
const ensure = async (engine: Engine, command: string[]): Promise<void> => {
  if (!(await exists(engine))) await engine.containers.create(request({ command }));
};
/** Start `c` and let go; its shim goes on. */
const run = async (engine: Engine): Promise<void> => (await engine.containers.start('cc')).detach();
const SLEEP = ['sleep', '1000'];

async function volumes(engine: Engine): Promise<string[]> {
  return (await engine.volumes.list()).map(({ name }) => name);
}
function agree(condition: boolean, what: string): void {
  if (!condition) throw new Error(`neither the state before nor the state after: ${what}`);
}

/** Undefined: it does not run. */
async function paused(engine: Engine): Promise<boolean | undefined> {
  const { state } = await engine.containers.resolve('cc');
  return state === 'paused' ? true : state === 'running' ? false : undefined;
}
/** Paused or not, and nothing in between: what runs serves a session, what is paused refuses it and goes on when it is let go. */
async function pausable(engine: Engine): Promise<void> {
  const streams = { stdin: false, stdout: false, stderr: false };
  const session = (): Promise<number> => engine.containers.exec('cc', { args: ['true'], env: [], terminal: false, openStdin: false, attach: streams, privileged: false, detached: false }).then((s) => s.exit).then(({ code }) => code);
  const is = await paused(engine);
  if (is === undefined) return agree((await engine.containers.resolve('cc')).record.lastExit?.code === 137, 'killed with its shim');
  if (is) {
    agree(await session().then(() => false, (error: { code?: string }) => error.code === 'ERR_PAUSED'), 'what is paused serves no session');
    await engine.containers.unpause('cc');
  }
  agree((await session()) === 0, 'what runs serves sessions');
}

export const scenarios: Readonly<Record<string, Scenario>> = {
  /** With an anonymous volume that is filled from the image, and a bind source that is made. */
  create: {
    before: async () => {},
    verb: async (engine) => void (await engine.containers.create(request({ image: 'vol', command: ['cat', '/var/data/file'] }))),
    async check(engine) {
      const there = await exists(engine);
      agree((await volumes(engine)).length === (there ? 1 : 0), 'a container and its volume come together');
      if (!there) return;
      const session = await engine.containers.start('cc');
      agree((await session.exit).code === 0, 'a container that is there works, its volume filled');
      await session.gone;
      await clear(engine);
    },
  },
  run: {
    before: (engine) => ensure(engine, ['true']),
    async verb(engine) {
      const session = await engine.containers.start('cc');
      await session.exit;
      await session.gone;
    },
    async check(engine) {
      const { state, record } = await engine.containers.resolve('cc');
      agree(state !== 'running' || (await engine.containers.wait('cc')).code === 0, 'it runs to its end');
      agree(record.lastExit === undefined || [0, 125, 126, 127, 137].includes(record.lastExit.code), `exit ${record.lastExit?.code ?? ''}`);
      // it can be started again at once: nothing of the run that was cut off is in the way
      const session = await engine.containers.start('cc');
      agree((await session.exit).code === 0, 'the next run is whole');
      await session.gone;
    },
  },
  /** Made and run: its ids are its own as long as it is there, and nobody's when it is not. */
  userns: {
    before: async () => {},
    async verb(engine) {
      await engine.containers.create(request({ command: ['true'], userns: 'auto' }));
      const session = await engine.containers.start('cc');
      await session.exit;
      await session.gone;
    },
    async check(engine) {
      const there = await exists(engine);
      const { ids } = await engine.system.doctor({ fix: false });
      agree(ids.every(({ leased }) => leased === (there ? 65536 : 0)), `${there ? 'a' : 'no'} container, and ${JSON.stringify(ids)}`);
      if (!there) return;
      const session = await engine.containers.start('cc');
      agree((await session.exit).code === 0, 'the next run is whole');
      await session.gone;
      await clear(engine);
    },
  },
  exec: {
    async before(engine) {
      await ensure(engine, SLEEP);
      if ((await engine.containers.resolve('cc')).state !== 'running') await run(engine);
    },
    async verb(engine) {
      const session = await engine.containers.exec('cc', { args: ['true'], env: [], terminal: false, openStdin: false, attach: { stdin: false, stdout: false, stderr: false }, privileged: false, detached: false });
      await session.exit;
    },
    async check(engine) {
      const { state, record } = await engine.containers.resolve('cc');
      if (state === 'running') {
        const again = await engine.containers.exec('cc', { args: ['true'], env: [], terminal: false, openStdin: false, attach: { stdin: false, stdout: false, stderr: false }, privileged: false, detached: false });
        agree((await again.exit).code === 0, 'the container still serves sessions');
      } else agree(record.lastExit?.code === 137, 'killed with its shim');
    },
  },
  stop: {
    async before(engine) {
      await ensure(engine, SLEEP);
      if ((await engine.containers.resolve('cc')).state !== 'running') await run(engine);
    },
    verb: (engine) => engine.containers.stop('cc', { timeout: 0 }),
    async check(engine) {
      const { state, record } = await engine.containers.resolve('cc');
      agree(state === 'running' || record.lastExit?.code === 137 || record.lastExit?.code === 143, `${state} ${record.lastExit?.code ?? ''}`);
    },
  },
  pause: {
    async before(engine) {
      await ensure(engine, SLEEP);
      if ((await paused(engine)) === undefined) await run(engine);
      if (await paused(engine)) await engine.containers.unpause('cc');
    },
    verb: (engine) => engine.containers.pause('cc'),
    check: (engine) => pausable(engine),
  },
  unpause: {
    async before(engine) {
      await ensure(engine, SLEEP);
      if ((await paused(engine)) === undefined) await run(engine);
      if (!(await paused(engine))) await engine.containers.pause('cc');
    },
    verb: (engine) => engine.containers.unpause('cc'),
    check: (engine) => pausable(engine),
  },
  'stop of a paused one': {
    async before(engine) {
      await ensure(engine, SLEEP);
      if ((await paused(engine)) === undefined) await run(engine);
      if (!(await paused(engine))) await engine.containers.pause('cc');
    },
    verb: (engine) => engine.containers.stop('cc', { timeout: 0 }),
    async check(engine) {
      const { state, record } = await engine.containers.resolve('cc');
      agree(state === 'running' || state === 'paused' || record.lastExit?.code === 137 || record.lastExit?.code === 143, `${state} ${record.lastExit?.code ?? ''}`);
    },
  },
  /** The row and the group say the same, whichever of the two limits it is. */
  update: {
    async before(engine) {
      await ensure(engine, SLEEP);
      if ((await engine.containers.resolve('cc')).state !== 'running') await run(engine);
      await engine.containers.update('cc', { limits: { memory: 64 << 20, memorySwap: -1, pids: 50 } });
    },
    verb: (engine) => engine.containers.update('cc', { limits: { memory: 96 << 20, pids: 60 }, restart: { policy: 'on-failure', maximum: 1 } }),
    async check(engine) {
      const { state, record: { request: { limits, restart }, spec, lastExit } } = await engine.containers.resolve('cc');
      const after = restart?.policy === 'on-failure';
      agree(limits.memory === (after ? 96 : 64) << 20 && limits.pids === (after ? 60 : 50), `the row in part: ${JSON.stringify(limits)}`);
      agree(spec.linux?.resources?.memory?.limit === limits.memory, 'the spec is that of the request');
      if (state === 'running') {
        const { group } = await engine.containers.stats('cc');
        agree(group.memoryLimitBytes === limits.memory && group.pidsLimit === limits.pids, `the group has ${group.memoryLimitBytes ?? ''} and ${group.pidsLimit ?? ''}, the row ${JSON.stringify(limits)}`);
      } else agree(lastExit?.code === 137, 'killed with its shim');
      await engine.containers.update('cc', { restart: { policy: 'no', maximum: 0 } });
    },
  },
  rm: {
    before: (engine) => exists(engine).then(async (there) => void (there || (await engine.containers.create(request({ image: 'vol' }))))),
    verb: (engine) => engine.containers.remove('cc', { force: false, volumes: true }),
    async check(engine) {
      const there = await exists(engine);
      agree((await volumes(engine)).length === (there ? 1 : 0), 'a container and its volume go together');
      if (there) await engine.containers.start('cc').then((s) => s.gone);
    },
  },
  load: {
    before: async () => {},
    verb: async (engine, { archive }) => void (await engine.images.load({ path: archive })),
    async check(engine, { archive }) {
      const loaded = (await engine.images.list()).some(({ names }) => names.some((name) => name.startsWith('loaded')));
      if (!loaded) await engine.images.load({ path: archive });
      const record = await engine.containers.create(request({ image: 'loaded', command: ['cat', '/etc/passwd'] }));
      const session = await engine.containers.start(record.id);
      agree((await session.exit).code === 0, 'an image that is there is whole');
      await session.gone;
      await clear(engine);
      await engine.images.remove('loaded', { force: true });
    },
  },
  volume: {
    before: async () => {},
    verb: async (engine) => {
      await engine.volumes.create({ name: 'vv', labels: {}, options: {} });
      await engine.volumes.remove('vv', { force: false });
    },
    async check(engine) {
      if ((await volumes(engine)).includes('vv')) await engine.volumes.remove('vv', { force: false });
    },
  },
};
