import path from 'node:path';
import { type ContainerRecord, type ContainerView, type DeviceRate } from '@engine/core/api';
import { type InspectFacts, type Inspected } from '@engine/core/hooks';
import { exposedPorts, networkJson, networkSettings, portBindings } from './inspect-network.ts';

type Json = Record<string, unknown>;
type Facts<K extends InspectFacts['kind']> = Extract<InspectFacts, { readonly kind: K }>;

const NEVER = '0001-01-01T00:00:00Z';

function stateOf(view: ContainerView): Json {
  const exit = view.record.lastExit;
  const waiting = view.restarts?.next !== undefined;
  const running = view.state === 'running' || view.state === 'paused';
  const status = { creating: 'created', created: 'created', running: 'running', paused: 'paused', stopped: 'exited' }[view.state];
  return {
    Status: waiting ? 'restarting' : status, Running: running || waiting, Paused: view.state === 'paused', Restarting: waiting, Dead: false, Pid: view.run?.pid ?? 0,
    OOMKilled: !running && (exit?.oom?.killed ?? false), ExitCode: running ? 0 : (exit?.code ?? 0), Error: running ? '' : (view.restarts?.error ?? exit?.error ?? ''),
    StartedAt: view.run?.startedAt ?? exit?.startedAt ?? NEVER, FinishedAt: exit?.finishedAt ?? NEVER,
  };
}

function mountsOf(record: ContainerRecord): Json[] {
  const source = (target: string): string => record.spec.mounts?.find((m) => m.destination === target)?.source ?? '';
  const clean = (target: string): string => path.posix.normalize(target).replace(/(.)\/$/, '$1');
  const binds = record.request.mounts.filter((m) => m.type === 'bind');
  return [
    ...record.volumes.map((v) => ({ Type: 'volume', Name: v.name, Source: source(v.target), Destination: v.target, Driver: v.driver, Mode: '', RW: !v.readonly, Propagation: '' })),
    ...binds.map((m) => ({ Type: 'bind', Source: m.source ?? '', Destination: clean(m.target), Mode: m.readonly ? 'ro' : '', RW: !m.readonly, Propagation: m.propagation ?? 'rprivate' })),
    ...[...record.request.tmpfs, ...record.request.mounts.filter((m) => m.type === 'tmpfs')].map((m) => ({ Type: 'tmpfs', Source: '', Destination: clean(m.target), Mode: '', RW: true, Propagation: '' })),
  ];
}

/** Docker says null where nothing was asked for. */
const listed = (list: readonly string[]): readonly string[] | null => (list.length ? list : null);
const capability = (name: string): string => (/^(ALL|CAP_.*)$/i.test(name) ? name : `CAP_${name}`).toUpperCase();

const rates = (list: readonly DeviceRate[] = []): readonly Json[] => list.map(({ path: Path, rate: Rate }) => ({ Path, Rate }));

function hostConfig(record: ContainerRecord): Json {
  const { request: r, spec } = record;
  const { limits } = r;
  return {
    Binds: listed(r.mounts.filter((m) => m.type === 'bind' || (m.type === 'volume' && m.source)).map((m) => `${m.source}:${m.target}${m.readonly ? ':ro' : ''}`)),
    LogConfig: { Type: r.log.driver ?? '', Config: r.log.options }, NetworkMode: r.network,
    PortBindings: portBindings(r), PublishAllPorts: r.publishAll ?? false, Links: null,
    RestartPolicy: { Name: r.restart?.policy ?? 'no', MaximumRetryCount: r.restart?.maximum ?? 0 }, AutoRemove: r.autoRemove, CapAdd: listed(r.capAdd.map(capability)), CapDrop: listed(r.capDrop.map(capability)), CgroupnsMode: r.cgroupns || 'private',
    Dns: r.dns ?? [], DnsOptions: r.dnsOptions ?? [], DnsSearch: r.dnsSearch ?? [], ExtraHosts: r.addHosts, GroupAdd: r.groupAdd,
    IpcMode: r.ipc || 'private', PidMode: r.pid ?? '', UTSMode: r.uts ?? '', UsernsMode: r.userns ?? '', OomScoreAdj: r.oomScoreAdj ?? 0, Privileged: r.privileged,
    ReadonlyRootfs: r.readonlyRootfs, SecurityOpt: r.securityOptions, StorageOpt: r.storageOptions, ShmSize: r.shmSize ?? 64 << 20, Sysctls: r.sysctls, Init: r.init,
    Tmpfs: Object.fromEntries(r.tmpfs.map((t) => [t.target, t.options.join(',')])),
    Memory: limits.memory ?? 0, MemorySwap: spec.linux?.resources?.memory?.swap ?? limits.memorySwap ?? 0, MemoryReservation: limits.memoryReservation ?? 0, MemorySwappiness: limits.memorySwappiness ?? null,
    NanoCpus: limits.nanoCpus ?? 0, CpuShares: limits.cpuShares ?? 0, CpuPeriod: limits.cpuPeriod ?? 0, CpuQuota: limits.cpuQuota ?? 0, CpusetCpus: limits.cpusetCpus ?? '', CpusetMems: limits.cpusetMems ?? '',
    PidsLimit: limits.pids ?? null, CpuRealtimePeriod: limits.cpuRealtimePeriod ?? 0, CpuRealtimeRuntime: limits.cpuRealtimeRuntime ?? 0, KernelMemory: 0, KernelMemoryTCP: 0,
    BlkioWeight: limits.blkioWeight ?? 0, BlkioWeightDevice: (limits.blkioWeightDevice ?? []).map(({ path: Path, weight: Weight }) => ({ Path, Weight })),
    BlkioDeviceReadBps: rates(limits.deviceReadBps), BlkioDeviceWriteBps: rates(limits.deviceWriteBps), BlkioDeviceReadIOps: rates(limits.deviceReadIops), BlkioDeviceWriteIOps: rates(limits.deviceWriteIops), CgroupConf: limits.unified ?? null,
    OomKillDisable: limits.oomKillDisable ?? false, CgroupParent: r.cgroupParent ?? '',
    Devices: r.devices.map((d) => ({ PathOnHost: d.source, PathInContainer: d.target, CgroupPermissions: d.access })), DeviceCgroupRules: r.deviceCgroupRules,
    Ulimits: r.rlimits.map((l) => ({ Name: l.name, Soft: l.soft, Hard: l.hard })),
    MaskedPaths: spec.linux?.maskedPaths ?? [], ReadonlyPaths: spec.linux?.readonlyPaths ?? [],
  };
}

function configOf(record: ContainerRecord): Json {
  const { request: r, imageConfig, spec } = record;
  const env = new Map([...(imageConfig.Env ?? []), ...r.env].map((pair) => [pair.split('=', 1)[0], pair]));
  const entrypoint = r.bundle === undefined ? (r.entrypoint?.filter(Boolean) ?? imageConfig.Entrypoint ?? []) : [];
  const command = (spec.process?.args ?? []).slice(entrypoint.length);
  return {
    Hostname: spec.hostname ?? '', Domainname: r.domainname ?? '', User: r.user ?? imageConfig.User ?? '', AttachStdin: r.attach.stdin, AttachStdout: r.attach.stdout, AttachStderr: r.attach.stderr,
    Tty: r.terminal, OpenStdin: r.openStdin, StdinOnce: r.stdinOnce, Env: r.bundle === undefined ? [...env.values()] : (spec.process?.env ?? []), Cmd: command.length ? command : null, Image: record.image.name,
    Volumes: record.volumes.length ? Object.fromEntries(record.volumes.map((v) => [v.target, {}])) : null, WorkingDir: r.bundle === undefined ? (r.workdir ?? imageConfig.WorkingDir ?? '') : (spec.process?.cwd ?? ''), Entrypoint: entrypoint.length ? entrypoint : null,
    ExposedPorts: Object.fromEntries(exposedPorts(record).map((port) => [port, {}])), Labels: { ...imageConfig.Labels, ...r.labels }, StopSignal: r.stopSignal ?? imageConfig.StopSignal ?? 'SIGTERM', ...(r.stopTimeout === undefined ? {} : { StopTimeout: r.stopTimeout }),
  };
}

function containerJson({ view, networks, folder, size }: Facts<'container'>): Json {
  const { record } = view;
  const [command, ...args] = record.spec.process?.args ?? [];
  const file = (name: string): string => path.join(folder, name);
  return {
    Id: record.id, Created: record.created, Path: command ?? '', Args: args, State: stateOf(view), Image: record.image.id,
    ResolvConfPath: file('resolv.conf'), HostnamePath: file('hostname'), HostsPath: file('hosts'), LogPath: file('log/container.log'), Name: `/${record.name}`, RestartCount: view.restarts?.count ?? 0,
    Driver: record.drivers.storage?.driver ?? '', Platform: 'linux', MountLabel: '', ProcessLabel: '', AppArmorProfile: record.apparmorProfile ?? record.spec.process?.apparmorProfile ?? '', ExecIDs: null,
    HostConfig: hostConfig(record), GraphDriver: { Name: record.drivers.storage?.driver ?? '', Data: {} }, ...(size !== undefined && { SizeRw: size }), Mounts: mountsOf(record), Config: configOf(record),
    NetworkSettings: networkSettings({ view, networks }),
  };
}

/** In the words of images: an image is loaded for this machine's platform. */
const platform = (machine: string): string => ({ x86_64: 'amd64', x64: 'amd64', aarch64: 'arm64' })[machine] ?? machine;

function imageJson({ image, architecture }: Facts<'image'>): Json {
  const layers = image.rootfs.kind === 'layers' ? image.rootfs.layers.map((l) => l.diffID) : [];
  return {
    Id: image.id, RepoTags: image.names, RepoDigests: image.digest ? image.names.map((n) => `${n.replace(/:[^:/]*$/, '')}@${image.digest}`) : [], ...(image.created !== undefined && { Created: image.created }),
    Size: image.size, Os: 'linux', Architecture: platform(architecture), Config: image.config, RootFS: { Type: image.rootfs.kind, Layers: layers },
  };
}

function objectJson(facts: InspectFacts): Json {
  switch (facts.kind) {
    case 'container': return containerJson(facts);
    case 'network': return networkJson(facts);
    case 'image': return imageJson(facts);
  }
}

/** Docker's JSON of a container, a network or an image, before what was there. */
export function dockerJson({ facts, json }: Inspected): Inspected {
  return { facts, json: { ...objectJson(facts), ...json } };
}
