import { type Containers, type Engine } from '../api/index.ts';
import { type LogLine, type ReadLogOptions } from '../contracts/log/index.ts';
import { breathe } from '../hooks/index.ts';
import { tapAdapters } from './adapters.ts';
import { closingClient } from './clients.ts';
import { createBundles } from './bundles/index.ts';
import { createCore, withTrace, type Core } from './core.ts';
import { createContainer } from './create.ts';
import { diffContainer } from './diff.ts';
import { draftContainer, normalised } from './draft.ts';
import { claimEndpoints } from './endpoints.ts';
import { driversOf, need } from './drivers.ts';
import { prepareContainer, runContainer } from './ephemeral.ts';
import { execInContainer } from './exec.ts';
import { catchUp, isGoing, settled } from './finish.ts';
import { createImages } from './images.ts';
import { inspectContainer } from './inspect.ts';
import { sweepContainers, sweepingAfterFailure, sweepLayers } from './layers.ts';
import { newId, newRunId } from './names.ts';
import { type EngineParts } from './parts.ts';
import { planRun } from './plan-run.ts';
import { pauseContainer, unpauseContainer } from './pause.ts';
import { restartContainer } from './restart.ts';
import { createRegistry } from './registry.ts';
import { attachContainer, killContainer, removeContainer, stopContainer, viewContainer, viewNow, waitContainer } from './running.ts';
import { runContext, startContainer } from './start.ts';
import { createNetworks, ensurePredefined } from './networks.ts';
import { processesOf, readStats } from './stats.ts';
import { createSystem } from './system.ts';
import { updateContainer } from './update.ts';
import { createVolumes } from './volumes.ts';

async function* readLogs(core: Core, ref: string, options: ReadLogOptions): AsyncGenerator<LogLine> {
  const record = core.parts.state.containers.resolve(ref);
  await core.request('logs', { container: record.id });
  const { driver } = need((await driversOf(core.registry, record, ['log'])).log, 'log', record);
  yield* driver.read({
    container: record.id, folder: `${core.folderOf(record.id)}/log`, options: record.request.log.options,
    ended: () => !['running', 'creating', 'paused'].includes(viewContainer(core, record).state), ...options,
  });
}

function createContainers(core: Core): Containers {
  const { state, native } = core.parts;
  return {
    create: (request, options) => createContainer(core, request, options),
    run: (request, options) => closingClient(native, options, withTrace(core, options?.trace, (own) => runContainer(own, request, options))),
    prepare: (request, options) => prepareContainer(core, request, options),
    async release({ idle = 0, tag } = {}) {
      await core.sandboxes.release((one) => performance.now() - one.at >= idle && one.tag === (tag ?? one.tag));
      return { ready: core.sandboxes.ready };
    },
    start: (ref, options) => closingClient(native, options, withTrace(core, options?.trace, (own) => startContainer(own, ref, options))),
    async explain(asked) {
      // a network that is only designed is for this call alone
      const own = Object.assign(Object.create(core) as Core, { designed: new Map() });
      const request = normalised(own, asked);
      await own.request('explain', { request });
      await ensurePredefined(own, request, { explain: true });
      const { record } = await draftContainer(own, request, newId(), request.name ?? 'explained');
      const run = newRunId();
      const endpoints = await claimEndpoints(own, record, run, { explain: true });
      const { steps, bytes } = await planRun(own, record, runContext(own, record.id, run, true), { attach: request.attach, endpoints });
      return { steps, bytes };
    },
    attach: (ref, streams, options) => closingClient(native, options, attachContainer(core, ref, streams, options)),
    exec: (ref, request) => closingClient(native, request, execInContainer(core, ref, request)),
    stop: (ref, options) => stopContainer(core, ref, options),
    restart: (ref, options) => restartContainer(core, ref, options),
    pause: (ref) => pauseContainer(core, ref),
    unpause: (ref) => unpauseContainer(core, ref),
    update: (ref, changes) => updateContainer(core, ref, changes),
    stats: (ref) => readStats(core, ref),
    top: (ref) => processesOf(core, ref),
    kill: (ref, signal) => killContainer(core, ref, signal),
    remove: (ref, options) => removeContainer(core, ref, options),
    wait: (ref, condition, signal) => waitContainer(core, ref, condition, signal),
    resolve: async (ref) => viewNow(core, await settled(core, ref)),
    async list({ all }) {
      await core.request('list', { all });
      const views = [];
      let patience: Promise<false> | undefined;
      const aMoment = (): Promise<false> => (patience ??= new Promise((resolve) => { setTimeout(() => resolve(false), 500).unref(); }));
      for (const id of state.containers.ids()) {
        await breathe();
        const record = state.containers.get(id);
        if (record && !(await isGoing(core, record, aMoment))) views.push(await viewNow(core, record));
      }
      return all ? views : views.filter((v) => v.state === 'running' || v.state === 'paused' || v.restarts?.next);
    },
    logs: (ref, options) => readLogs(core, ref, options),
    async diff(ref) {
      const record = await settled(core, ref);
      await core.request('diff', { container: record.id });
      // of one that goes meanwhile nothing was to be read, or half of it
      return diffContainer(core, record).finally(() => settled(core, ref));
    },
    async inspect(ref, options) {
      const record = await settled(core, ref);
      await core.request('inspect', { container: record.id });
      return inspectContainer(core, record, options);
    },
  };
}

/**
 * The engine: plugins that tap are loaded, the hooks sealed, and whatever an earlier engine left is undone or finished.
 * Errors: ERR_PLUGIN_*, ERR_HOOK_*, ERR_STATE.
 */
export async function createEngine(parts: EngineParts): Promise<Engine> {
  const { hooks, state, log } = parts;
  const registry = createRegistry(parts);
  const core = createCore(parts, registry);
  tapAdapters(hooks, registry, state);
  await registry.start();
  await hooks.call('configResolved', { config: parts.config.result });
  await hooks.call('pluginsReady', {});
  hooks.seal();
  if (!parts.explainOnly) {
    const undone = [...(await state.reconcile()), ...(await catchUp(core)), ...(await sweepContainers(core))];
    // a load that was killed may have left layers
    if (undone.some((line) => line.startsWith('undone: '))) undone.push(...(await sweepLayers(core)));
    for (const line of undone) log.info(line);
    await hooks.call('reconcile', { undone });
  }
  return {
    containers: createContainers(core),
    images: sweepingAfterFailure(core, createImages(core)),
    volumes: createVolumes(core),
    networks: createNetworks(core),
    system: createSystem(core),
    bundles: createBundles(core),
    async close() {
      if (core.closing) return;
      core.closing = true;
      await hooks.call('shutdown', {});
      await core.sandboxes.release();
      for (const connection of core.connections) connection.close();
      for (const lock of core.provisional.values()) lock.release();
      await core.settled();
      await registry.stop();
      state.close();
    },
  };
}
