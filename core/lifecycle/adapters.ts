import { posix } from 'node:path';
import { addSteps, onBehalf, type Hooks, type RunHookContext } from '../hooks/index.ts';
import { fail } from '../errors/index.ts';
import { ownsNamespace, type Spec } from '../spec/index.ts';
import { op } from '../plan/index.ts';
import { REGISTER, type RunContext } from '../contracts/common/index.ts';
import { type ContainerRecord } from '../api/index.ts';
import { type GroupRequest } from '../contracts/cgroup/index.ts';
import { type EndpointRequest } from '../contracts/network/index.ts';
import { type SecurityRequest } from '../contracts/security/index.ts';
import { type State } from '../state/index.ts';
import { bundleDevices } from './bundles/devices.ts';
import { driversOf, need, type ContainerDrivers } from './drivers.ts';
import { type Registry } from './parts.ts';
import { namesOf, openNetwork, type OpenNetwork } from './endpoints.ts';
import { holdPorts } from './ports.ts';
import { shiftOf } from './owners.ts';
import { attachRootfs, rootfsSteps } from './rootfs.ts';

/** Says of the spec of a session that it is `exec --privileged`. By value: what taps get is a frozen copy. */
const PRIVILEGED_EXEC = 'engine.internal/privileged-exec';
export function markPrivileged(spec: Spec): Spec {
  return { ...spec, annotations: { ...spec.annotations, [PRIVILEGED_EXEC]: '1' } };
}

const isInUserNamespace = (spec: Spec | undefined): boolean => spec?.linux?.namespaces?.some(({ type }) => type === 'user') ?? false;

/** By the rules of the runtime spec (config-linux, cgroup ownership), of who has a user namespace: undefined where the group stays the host's. */
function groupOwner(spec: Spec | undefined): number | undefined {
  const isWritable = spec?.mounts?.some(({ source, destination, options = [] }) => source === 'cgroup' && posix.normalize(destination) === '/sys/fs/cgroup' && !options.includes('ro')) ?? false;
  if (!ownsNamespace(spec, 'cgroup') || !ownsNamespace(spec, 'user') || !isWritable) return undefined;
  const uid = spec?.process?.user.uid ?? 0;
  const map = spec?.linux?.uidMappings?.find(({ containerID, size }) => uid >= containerID && uid < containerID + size);
  return map && map.hostID + uid - map.containerID;
}

/** `run.bundle`: whoever made the bundle says which group it is, not where. */
export function groupRequest(record: Pick<ContainerRecord, 'request'>, spec: Spec | undefined, run?: Pick<RunContext, 'bundle'>): GroupRequest {
  const path = spec?.linux?.cgroupsPath ?? record.request.cgroupParent;
  const ownNamespace = (spec?.linux?.namespaces ?? []).some((n) => n.type === 'cgroup');
  const resources = spec?.linux?.resources ?? {};
  const owner = run?.bundle ? groupOwner(spec) : undefined;
  return { resources: record.request.bundle === undefined ? resources : { ...resources, devices: bundleDevices(resources.devices) }, ownNamespace, ...(owner !== undefined && { owner }), ...(path ? { path, ...(run?.bundle && { exact: true, ...(spec?.annotations && { annotations: spec.annotations }) }) } : {}), ...(isInUserNamespace(spec) ? { join: 'stage' as const } : {}) };
}

export function securityRequest(request: ContainerRecord['request']): SecurityRequest {
  return { privileged: request.privileged, capAdd: request.capAdd, capDrop: request.capDrop, options: request.securityOptions };
}

/** For `container:ID`: init of the target, alive now. Errors: ERR_NOT_RUNNING. */
function networkTarget(state: State, container: string, explain: boolean): EndpointRequest['target'] {
  const record = state.containers.resolve(container);
  const view = state.runs.find(record.id);
  if (view?.alive && view.started && !view.exit) return { container: record.id, pid: view.started.pid, startTime: view.started.startTime };
  if (explain) return undefined;
  throw fail('ERR_NOT_RUNNING', `cannot join the network of container ${record.name}: it is not running`, { path: record.name, exitCode: 125 });
}

/** What a network driver is told of a container. */
export function endpointRequest(state: State, drivers: ContainerDrivers, record: ContainerRecord, hostname: string, explain: boolean, spec?: Spec): EndpointRequest {
  const { network: mode, ports } = record.request;
  const base = { mode, hostname, ports, options: {}, ...(isInUserNamespace(spec) ? { join: 'stage' as const } : {}) };
  const kind = drivers.network?.driver.namespace(base);
  const target = kind?.kind === 'container' ? networkTarget(state, kind.container, explain) : undefined;
  return target ? { ...base, target } : base;
}

/**
 * One adapter per contract: a tap in the core's name that asks the driver which the container's record names, and blames its steps
 * on that driver's plugin. A driver that wasn't chosen is never called.
 */
export function tapAdapters(hooks: Hooks, registry: Registry, state: State): void {
  const tap = hooks.tapFor('core');
  const of = (context: RunHookContext): Promise<ContainerDrivers> => driversOf(registry, context.container);

  tap('configure', async (context, spec) => {
    let result = spec;
    for (const { driver, choice } of (await driversOf(registry, context.container, ['security'])).security) {
      result = await onBehalf(context, choice.plugin, () => driver.configure(result, securityRequest(context.container.request)));
    }
    return result;
  }, { name: 'security' });

  tap('prepareRootfs', async (context) => {
    const { container, run, spec } = context;
    const { storage } = await of(context);
    const maps = shiftOf(spec);
    if (maps) context.plan.at('/linux/uidMappings').add('stage.mounts', op.makeUserNamespace({ ...maps, out: REGISTER.userns }));
    // writable in any case: mount points are still to be made in it; whoever compiles root.readonly sets that last
    if (container.rootfs.path === undefined) {
      const { driver, choice } = need(storage, 'storage', container);
      await onBehalf(context, choice.plugin, async (own) => addSteps(own.plan, await rootfsSteps(container, driver, run, false, maps && REGISTER.userns)));
    }
    addSteps(context.plan.at('/root'), attachRootfs(container, `${run.runFolder}/rootfs`, isInUserNamespace(spec)));
  }, { name: 'storage' });

  tap('applyLimits', async (context) => {
    const { cgroup } = await of(context);
    if (!cgroup) return;
    await onBehalf(context, cgroup.choice.plugin, async ({ plan, container, spec, run }) => addSteps(plan.at('/linux/resources'), await cgroup.driver.planGroup(groupRequest(container, spec, run), run)));
  }, { name: 'cgroup' });

  tap('applyLimits', async (context) => {
    for (const { driver, choice } of (await of(context)).security) {
      await onBehalf(context, choice.plugin, async ({ plan, spec, run }) =>
        addSteps(plan, await driver.planProcess(spec, { part: 'init', noNewPrivileges: spec.process?.noNewPrivileges ?? false, privilegedExec: false }, run)));
    }
  }, { name: 'security' });

  tap('attachNetwork', async (context, { endpoints, networks }) => {
    const drivers = await of(context);
    const { network } = drivers;
    if (!network) return;
    await onBehalf(context, network.choice.plugin, async ({ plan, container, spec, run }) =>
      addSteps(plan, await network.driver.planEndpoint(endpointRequest(state, drivers, container, spec.hostname ?? container.id.slice(0, 12), run.explain, spec), run)));
    const open = await Promise.all(networks.map((record) => openNetwork({ registry }, record)));
    for (const [i, endpoint] of endpoints.entries()) {
      const { record, network: maker, firewall, managed, wall } = open[i] as OpenNetwork;
      await onBehalf(context, maker.choice.plugin, ({ plan, run }) => addSteps(plan, managed.planAttach(endpoint, record, run)));
      if (endpoint.ports.length === 0) continue;
      addSteps(context.plan, holdPorts(endpoint));
      await onBehalf(context, firewall.choice.plugin, ({ plan, run }) => addSteps(plan, firewall.driver.planPorts(endpoint, wall, run)));
    }
    for (const { dns: { driver, choice }, names } of namesOf(context.container, endpoints, open)) {
      await onBehalf(context, choice.plugin, ({ plan, run }) => addSteps(plan, driver.planNames(names, run)));
    }
  }, { name: 'network' });

  tap('exec', async (context) => {
    const { cgroup, security } = await driversOf(registry, context.container, ['cgroup', 'security']);
    const { container, spec, run } = context;
    const execGroups = run.bundle?.execCgroups;
    if (execGroups && !cgroup?.driver.features.has('exec-groups')) throw fail('ERR_FEATURE_MISSING', 'a session cannot be put into a group of its own here', { operation: 'exec', path: execGroups[0] ?? '', hint: 'leave out --cgroup' });
    if (cgroup?.driver.planExec) {
      const { driver } = cgroup;
      await onBehalf(context, cgroup.choice.plugin, ({ plan }) => addSteps(plan, driver.planExec?.({ ...groupRequest(container, spec, run), ...(execGroups && { execGroups }) }, run) ?? []));
    }
    for (const { driver, choice } of security) {
      await onBehalf(context, choice.plugin, async ({ plan }) =>
        addSteps(plan, await driver.planProcess(spec, { part: 'exec', noNewPrivileges: spec.process?.noNewPrivileges ?? false, privilegedExec: spec.annotations?.[PRIVILEGED_EXEC] === '1' }, run)));
    }
  }, { name: 'drivers' });
}
