import fs from 'node:fs';
import path from 'node:path';
import { fail } from '../errors/index.ts';
import { BITS, effect, op, step } from '../plan/index.ts';
import { createHooks, type Hooks } from '../hooks/index.ts';
import { type ContainerRequest, type Engine } from '../api/index.ts';
import { type Driver, type Machine } from '../contracts/common/index.ts';
import { type CgroupDriver } from '../contracts/cgroup/index.ts';
import { type ImageConfig, type ImageInfo, type ImageSource } from '../contracts/image/index.ts';
import { type LogDriver } from '../contracts/log/index.ts';
import { type NetworkDriver } from '../contracts/network/index.ts';
import { type SecurityDriver } from '../contracts/security/index.ts';
import { readChanges, type StorageDriver } from '../contracts/storage/index.ts';
import { type VolumeDriver } from '../contracts/volume/index.ts';
import { type Spec } from '../spec/index.ts';
import { type ContractName, type PluginInstance, type PluginManifest } from '../plugin/index.ts';
import { type FakeNative } from '../native/fake.ts';
import { createFixture, silent, type Fixture } from '../state/state.fixture.ts';
import { type State } from '../state/index.ts';
import { createEngine } from './engine.ts';
import { type EngineParts, type PluginEntry } from './parts.ts';

const available = () => ({ available: true, score: 10, reasons: [] });
const gone = { none: 'removed for good' } as const;

export const machine: Machine = {
  kernel: [6, 12], release: '6.12.0', architecture: 'x64', hostname: 'host1', uid: 0, capabilities: [], filesystems: [], mounts: [], namespaces: [], idMaps: [], root: '/r', runRoot: '/rr', read: () => undefined,
};
export const request = (over: Partial<ContainerRequest> = {}): ContainerRequest => ({
  image: 'test', env: [], labels: {}, addHosts: [], terminal: false, openStdin: false, stdinOnce: false, attach: { stdin: false, stdout: true, stderr: true }, detached: false, autoRemove: false,
  network: 'none', ports: [], mounts: [], tmpfs: [], readonlyRootfs: false, init: false, privileged: false, capAdd: [], capDrop: [], securityOptions: [], devices: [], deviceCgroupRules: [], rlimits: [],
  sysctls: {}, groupAdd: [], log: { options: {} }, storageOptions: {}, limits: {}, ...over,
});

export interface Calls { readonly list: string[] }

function fakeStorage(folder: string, calls: Calls, name = 'plain'): StorageDriver {
  const at = (key: string): string => path.join(folder, key);
  return {
    name, features: new Set(), probe: available, hasLayer: () => true, listLayers: () => [], removeLayer: () => [], usage: async () => ({ bytes: 1, inodes: 1 }),
    prepareLayer: async () => ({ path: folder, whiteouts: 'apply' }), commitLayer: async () => {},
    createSnapshot: ({ key }) => {
      calls.list.push(`${name}.createSnapshot`);
      return [effect(op.mkdir({ path: folder, mode: 0o700, parents: 1 }), gone), effect(op.mkdir({ path: at(key), mode: 0o755 }), op.removeTree({ path: at(key) }))];
    },
    removeSnapshot: (key) => [effect(op.removeTree({ path: at(key) }), gone)],
    planRootfs: ({ key, out }) => {
      calls.list.push(`${name}.planRootfs`);
      return [step('init.rootfs', op.openTree({ source: at(key), out }))];
    },
    changes: ({ key }) => ({ kind: 'trees', tree: at(key) }),
    diff: ({ key }) => readChanges({ kind: 'trees', tree: at(key) }),
  };
}
/** Frozen groups and changed limits are files in `folder`, by their run. */
function fakeCgroup(folder: string): CgroupDriver {
  const at = ({ run }: { run: string }, what: string): string => path.join(folder, `${run}.${what}`);
  const made = effect(op.mkdir({ path: folder, mode: 0o700, parents: 1 }), gone);
  const write = (file: string, text: string) => op.writeFile({ path: file, data: Buffer.from(text), mode: 0o600, how: BITS.WRITE.atomic });
  return {
    freeze: (group, frozen) => [made, frozen ? effect(write(at(group, 'frozen'), ''), op.unlink({ path: at(group, 'frozen') }, { okMissing: true })) : effect(op.unlink({ path: at(group, 'frozen') }, { okMissing: true }), gone)],
    isFrozen: (group) => fs.existsSync(at(group, 'frozen')),
    update(group, resources) {
      if (resources.memory?.limit === 7 << 20) throw fail('ERR_INVALID_VALUE', 'it uses more already');
      return [made, effect(write(at(group, 'limits'), JSON.stringify(resources)), op.unlink({ path: at(group, 'limits') }, { okMissing: true }))];
    },
    name: 'fake', features: new Set(['freeze', 'update']), probe: available, resources: new Set(['memory', 'cpu', 'pids', 'devices']), list: () => [], removeGroup: () => [], stats: () => ({ pids: 2, memoryBytes: 4096 }), mounts: () => [{ destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid'] }],
    planGroup: (_, run) => [
      step('shim.cgroup', op.mkdir({ path: `${run.runFolder}/group`, mode: 0o755 }), [op.cgroupKill({ path: `${run.runFolder}/group`, deadline: 1 }), op.cgroupRemove({ path: `${run.runFolder}/group`, deadline: 1 })]),
    ],
  };
}
function fakeNetwork(name: string): NetworkDriver {
  return {
    name, features: new Set(), probe: available, serves: (mode) => mode === name || mode.startsWith(`${name}:`),
    namespace: ({ mode }) => (mode.startsWith('container:') ? { kind: 'container', container: mode.slice(10) } : { kind: name === 'host' ? 'host' : 'new' }),
    planEndpoint: (_, run) => (name === 'bridge' ? [step('shim.links', op.writeFile({ path: `${run.runFolder}/link`, data: Buffer.from('x'), how: 3, mode: 0o600 }), op.unlink({ path: `${run.runFolder}/link` })), step('shim.attach', op.netlink({ protocol: 0, messages: Buffer.alloc(4) }), { none: 'goes with the link' })] : []),
  };
}
const fakeLog: LogDriver = {
  name: 'fake', features: new Set(), options: new Set(['max-size']), probe: available, planLog: ({ folder }) => ({ logDir: folder, maxSize: 0n, maxFiles: 1, ring: 0 }), remove: () => [],
  async *read() { yield { time: '2026-01-01T00:00:00.000000000Z', stream: 'stdout', text: Buffer.from('line\n') }; },
};
const fakeSecurity: SecurityDriver = {
  name: 'caps', option: 'caps', features: new Set(), probe: available,
  configure: (spec) => ({ ...spec, process: { ...spec.process, cwd: spec.process?.cwd ?? '/', user: spec.process?.user ?? {}, capabilities: { bounding: ['CAP_CHOWN'] } } }),
  planProcess: (_, { part }) => [step(`${part}.bounds`, op.capabilityBounds({ bounding: 1n }))],
};
function fakeVolume(folder: string): VolumeDriver {
  const at = (name: string): string => path.join(folder, name);
  return {
    name: 'local', features: new Set(), probe: available, list: () => [], mountpoint: at,
    create: (name) => [effect(op.mkdir({ path: folder, mode: 0o700, parents: 1 }), gone), effect(op.mkdir({ path: at(name), mode: 0o755 }), op.removeTree({ path: at(name) }))],
    remove: (name) => [effect(op.removeTree({ path: at(name) }), gone)],
  };
}
export const layer = { digest: 'sha256:1', mediaType: 'x', size: 1, diffID: 'sha256:2', chainID: 'sha256:2' };
function fakeImages(config: ImageConfig): ImageSource {
  const image: ImageInfo = { id: 'sha256:abc', source: 'fake', names: ['test:latest'], size: 1, config, rootfs: { kind: 'layers', layers: [layer] } };
  return { name: 'fake', features: new Set(), probe: available, resolve: async (ref) => (ref.startsWith('test') ? image : undefined), list: async () => [image], remove: async () => ['Deleted: sha256:abc'] };
}

function entry(name: string, provides: { contract: ContractName; driver: Driver }[], over: Partial<PluginEntry> = {}, manifest: Partial<PluginManifest> = {}): PluginEntry {
  return {
    manifest: { name, version: '1.0.0', main: './x.ts', provides: provides.map((p) => ({ contract: p.contract, driver: p.driver.name })), ...manifest }, builtin: false, source: name, optionsDigest: 'd', eager: false,
    load: async () => ({ drivers: provides.map((p) => p.driver) }), ...over,
  };
}
/** Compiles what the core leaves to plugins, into the least that a run needs. */
export function fakeBase(hooks: Hooks): PluginEntry {
  return entry('base', [], {
    eager: true,
    load: async (): Promise<PluginInstance> => {
      const tap = hooks.tapFor('base');
      tap('compile', (_, { facts, files }) => {
        const { request: r, imageConfig } = facts;
        const binds = r.mounts.filter((m) => m.type === 'bind').map((m) => ({ destination: m.target, type: 'bind', source: m.source ?? '', options: ['rbind', ...(m.readonly ? ['ro'] : [])] }));
        const volumes = facts.volumes.map((v) => ({ destination: v.target, type: 'bind', source: v.source, options: ['rbind'] }));
        const spec: Spec = {
          ociVersion: '1.2.0', root: { path: 'rootfs' }, process: { cwd: '/', user: {}, args: r.command ?? [...(imageConfig.Cmd ?? [])], env: r.env }, mounts: [{ destination: '/etc/hosts', type: 'bind', source: `${facts.folder}/hosts` }, ...volumes, ...binds],
          linux: { namespaces: [{ type: 'mount' }, { type: 'pid' }] },
        };
        return { facts, spec, files: { ...files, hosts: '127.0.0.1 localhost\n' } };
      });
      tap('compileExec', (_, value) => ({ ...value, process: { ...value.process, env: [...(value.own.env ?? []), ...value.request.env] } }));
      tap('compileUpdate', (_, value) => ({ ...value, resources: { ...value.resources, ...(value.limits.memory !== undefined && { memory: { limit: value.limits.memory } }), ...(value.limits.pids !== undefined && { pids: { limit: value.limits.pids } }) } }));
      tap('inspect', (_, { facts, json }) => ({ facts, json: { ...json, facts } }));
      tap('applyLimits', ({ plan, spec }) => {
        plan.at('/process/args').add('init.exec', op.resolveExec({ name: spec.process?.args?.[0] ?? '', env: [], out: 'base.program' }));
        plan.at('/process/args').add('init.exec', op.exec({ program: 'base.program', argv: spec.process?.args ?? [], env: spec.process?.env ?? [] }));
      });
      tap('exec', ({ plan, spec }) => plan.add('exec.exec', op.exec({ program: 'base.program', argv: spec.process?.args ?? [], env: spec.process?.env ?? [] })));
      return {};
    },
  }, { sections: ['process', 'hostname', 'domainname', 'mounts', 'linux.devices', 'linux.maskedPaths', 'linux.readonlyPaths', 'linux.sysctl'] });
}

export interface TestEngine { readonly engine: Engine; readonly fixture: Fixture; readonly state: State; readonly calls: Calls; readonly hooks: Hooks; readonly events: string[] }
export interface TestOptions { readonly image?: ImageConfig; readonly fixture?: Fixture; readonly without?: readonly string[]; readonly extra?: (hooks: Hooks) => readonly PluginEntry[]; readonly native?: FakeNative; readonly parts?: Partial<EngineParts>; readonly map?: (entry: PluginEntry) => PluginEntry }

/** A whole engine on a fake machine: third-party drivers only, no root. */
export async function testEngine(options: TestOptions = {}): Promise<TestEngine> {
  const fixture = options.fixture ?? createFixture();
  const native = options.native ?? fixture.native;
  const state = await fixture.open(native);
  const hooks = createHooks({ log: silent });
  const calls: Calls = { list: [] };
  const events: string[] = [];
  const data = path.join(fixture.folder, 'data');
  const plugins = [
    entry('store', [{ contract: 'storage', driver: fakeStorage(path.join(data, 'snapshots'), calls) }]),
    entry('store2', [{ contract: 'storage', driver: { ...fakeStorage(path.join(data, 'other'), calls, 'other'), probe: () => ({ available: true, score: 1, reasons: [] }) } }]),
    entry('groups', [{ contract: 'cgroup', driver: fakeCgroup(path.join(data, 'groups')) }], {}, { sections: ['linux.resources'] }),
    entry('nets', ['none', 'host', 'container', 'bridge'].map((name) => ({ contract: 'network' as const, driver: fakeNetwork(name) }))),
    entry('logs', [{ contract: 'log', driver: fakeLog }]),
    entry('caps', [{ contract: 'security', driver: fakeSecurity }], {}, { sections: ['process.capabilities'] }),
    entry('vols', [{ contract: 'volume', driver: fakeVolume(path.join(data, 'volumes')) }]),
    entry('imgs', [{ contract: 'image', driver: fakeImages(options.image ?? { Cmd: ['/bin/true'] }) }]),
    fakeBase(hooks),
    ...(options.extra?.(hooks) ?? []),
  ].filter((p) => !options.without?.includes(p.manifest.name)).map(options.map ?? ((p) => p));
  hooks.tapFor('watcher')('event', (_, event) => void events.push(`${event.type} ${event.action}`));
  const engine = await createEngine({
    state, hooks, native, machine, log: silent, plugins, choices: { storage: 'auto', cgroup: 'auto', log: 'fake', volume: 'auto', ipam: 'auto', firewall: 'auto', dns: 'auto', checkpoint: 'auto', security: ['caps'] },
    defaults: { network: 'none', logOptions: {} }, config: { sources: [], result: {} }, version: '0', ...options.parts,
  });
  return { engine, fixture, state, calls, hooks, events };
}

/** What starts engines for the tests of a file: they are closed and their folders removed after each, by the runner's `afterEach`. */
export function startEngines(afterEach: (close: () => Promise<void>) => void): (options?: TestOptions) => Promise<TestEngine> {
  const open: TestEngine[] = [];
  afterEach(async () => {
    for (const { engine, fixture } of open.splice(0)) {
      await engine.close();
      fixture.remove();
    }
  });
  return async (options) => {
    const made = await testEngine(options);
    open.push(made);
    return made;
  };
}
