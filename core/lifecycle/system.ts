import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { type System } from '../api/index.ts';
import { type Core } from './core.ts';
import { catchUp } from './finish.ts';
import { orphanGroups, sweepGroups } from './groups.ts';
import { idReport } from './ids.ts';
import { orphanLayers, sweepLayers } from './layers.ts';
import { type ChosenContract } from './parts.ts';
import { viewNow } from './running.ts';
import { supervise } from './supervise.ts';

export function createSystem(core: Core): System {
  const { parts, registry } = core;
  const { state, machine } = parts;
  const followed = new Set<string>();
  return {
    machine,
    plugins: () => registry.entries.map(({ manifest, builtin, source }) => ({ manifest, builtin, source })),
    needed: () => registry.instances.flatMap((made) => made.needed?.() ?? []),
    supervise: () => supervise(core, followed),
    async info() {
      await core.request('info', {});
      const states = (await Promise.all(state.containers.list().map((record) => viewNow(core, record)))).map((view) => view.state);
      const count = (wanted: string): number => states.filter((s) => s === wanted).length;
      const images = (await Promise.all((await registry.all('image')).map((s) => s.driver.list()))).flat();
      const pick = async (contract: ChosenContract): Promise<string> => registry.chosen(contract).then((d) => d.choice.driver, () => 'none');
      return {
        Containers: states.length, ContainersRunning: count('running'), ContainersPaused: count('paused'), ContainersStopped: states.length - count('running') - count('paused'),
        Images: images.length, Volumes: state.volumes.list().length, Driver: await pick('storage'), CgroupDriver: await pick('cgroup'), LoggingDriver: await pick('log'), VolumeDriver: await pick('volume'), Networks: state.networks.list().length, FirewallDriver: await pick('firewall'),
        SecurityOptions: parts.choices.security, DefaultNetwork: parts.defaults.network, ServerVersion: parts.version, KernelVersion: machine.release, Architecture: machine.architecture,
        Name: machine.hostname, NCPU: availableParallelism(), EngineRootDir: state.folders.root, EngineRunDir: state.folders.runRoot, Instance: state.folders.instance, ConfigSources: parts.config.sources, Sandboxes: core.sandboxes.info,
      };
    },
    async doctor({ fix }) {
      await core.request('doctor', { fix });
      const drivers = await registry.report();
      // a plugin that can't be loaded is in the report of drivers
      const none = (error: unknown): readonly never[] => (core.parts.log.warn({ err: error }, 'what was left behind is not known in full'), []);
      const layers = (await orphanLayers(core).catch(none)).map(({ storage, chainID }) => ({ kind: 'layer', path: `${storage.choice.driver} ${chainID}`, owner: 'no image', fixed: fix }));
      const groups = (await orphanGroups(core).catch(none)).map(({ cgroup, run }) => ({ kind: 'cgroup', path: `${cgroup.choice.driver} ${run}`, owner: 'no run', fixed: fix }));
      let before = await state.orphans();
      // what is just being undone is not left behind
      for (let i = 0; i < 20 && before.length > 0; i++) {
        await sleep(25);
        const still = new Set((await state.orphans()).map(({ path }) => path));
        before = before.filter(({ path }) => still.has(path));
      }
      if (fix) {
        await state.reconcile({ fix: true });
        await catchUp(core);
        await sweepGroups(core).catch(none);
        await sweepLayers(core);
      }
      const left = new Set(fix ? (await state.orphans()).map((o) => o.path) : before.map((o) => o.path));
      return { drivers, ids: idReport(state, machine), orphans: [...before.map((o) => ({ ...o, fixed: !left.has(o.path) })), ...groups, ...layers] };
    },
  };
}
