import { fail } from '../errors/index.ts';
import { type ContainerRequest } from '../api/types.ts';
import { type ImageConfig, type ImageRootfs } from '../contracts/image/index.ts';
import { type Machine } from '../contracts/common/index.ts';
import { type Linux, type Mount, type Spec } from '../spec/index.ts';
import { type HostView } from './host-view.ts';
import { checkHostname } from './names.ts';
import { checkSysctls } from './spec-sysctl.ts';
import { compileDevices } from './spec-devices.ts';
import { compileResources } from './spec-limits.ts';
import { defaultMounts, hostImageMounts, mergeMounts, userMounts, type PlannedVolume } from './spec-mounts.ts';
import { processArgs, processEnv, processRlimits, workingDir } from './spec-process.ts';

/** What the OCI spec has no word for. Neither images nor users can set this namespace of annotations. */
export const ANNOTATION = { init: 'engine.internal/init', groupAdd: 'engine.internal/group-add' } as const;
const DEFAULT_SHM_SIZE = 64 << 20;

/** Docker's lists (moby oci/defaults.go). */
export const maskedPaths: readonly string[] = [
  '/proc/asound', '/proc/acpi', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug', '/proc/scsi',
  '/sys/firmware', '/sys/devices/virtual/powercap',
];
export const readonlyPaths: readonly string[] = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

export interface CompileInput {
  readonly id: string;
  readonly request: ContainerRequest;
  readonly imageConfig: ImageConfig;
  readonly rootfs: ImageRootfs;
  readonly machine: Machine;
  readonly host: HostView;
  readonly volumes: readonly PlannedVolume[];
  volumeFolder(volume: PlannedVolume): string;
  /** What the network driver says the network namespace is. */
  readonly network: 'new' | 'host' | 'container';
  /** For `container:`: the hostname that goes with the shared network. */
  readonly sharedHostname?: string;
  /** Host files for /etc/resolv.conf, /etc/hostname, /etc/hosts. */
  readonly files: { readonly resolvConf: string; readonly hostname: string; readonly hosts: string };
  readonly cgroupMounts: readonly Mount[];
  /** Fields of `linux.resources` that the cgroup driver can limit. */
  readonly honours: (field: string) => boolean;
  readonly shmSize?: number;
}

/** `--network container:` and host modes decide what may be named. Errors: ERR_INVALID_VALUE. */
export function containerHostname(input: Pick<CompileInput, 'id' | 'request' | 'machine' | 'network' | 'sharedHostname'>): string {
  const { request, network, machine } = input;
  if (request.hostname && network === 'container') throw fail('ERR_INVALID_VALUE', 'conflicting options: hostname and the network mode');
  if (request.hostname && request.uts === 'host') throw fail('ERR_INVALID_VALUE', 'conflicting options: hostname and the UTS mode');
  if (request.hostname) checkHostname(request.hostname);
  if (request.domainname) checkHostname(request.domainname);
  return request.hostname ?? input.sharedHostname ?? (network === 'host' || request.uts === 'host' ? machine.hostname : input.id.slice(0, 12));
}

function namespaceMode(kind: 'ipc' | 'pid' | 'uts' | 'cgroupns' | 'userns', mode: string | undefined, known: readonly string[]): string {
  if (!mode) return 'private';
  if (known.includes(mode)) return mode;
  if (mode.startsWith('container:') && (kind === 'ipc' || kind === 'pid')) throw fail('ERR_NOT_SUPPORTED', `--${kind} ${mode}: another container's ${kind} namespace cannot be joined yet`);
  throw fail('ERR_INVALID_VALUE', `--${kind}: invalid mode ${mode}`, { operation: kind });
}

function namespaces(request: ContainerRequest, network: CompileInput['network']): NonNullable<Linux['namespaces']> {
  const types: NonNullable<Linux['namespaces']>[number]['type'][] = ['mount'];
  if (namespaceMode('pid', request.pid, ['host', 'private']) !== 'host') types.push('pid');
  if (namespaceMode('ipc', request.ipc, ['host', 'private', 'shareable', 'none']) !== 'host') types.push('ipc');
  if (namespaceMode('uts', request.uts, ['host', 'private']) !== 'host') types.push('uts');
  if (namespaceMode('cgroupns', request.cgroupns, ['host', 'private']) !== 'host') types.push('cgroup');
  namespaceMode('userns', request.userns, ['host']);
  if (network === 'new') types.push('network');
  return types.map((type) => ({ type }));
}

/** Docker's, for a network namespace of the container's own: any port may be bound, anybody may ping. */
function defaultSysctls(network: CompileInput['network'], host: HostView): Record<string, string> {
  if (network !== 'new') return {};
  const wanted = { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' };
  return Object.fromEntries(Object.entries(wanted).filter(([key]) => host.kind(`/proc/sys/${key.replaceAll('.', '/')}`) !== undefined));
}

function networkFiles(input: CompileInput): Mount[] {
  const taken = new Set(input.request.mounts.map((m) => m.target));
  const { files } = input;
  return ([['/etc/resolv.conf', files.resolvConf], ['/etc/hostname', files.hostname], ['/etc/hosts', files.hosts]] as const)
    .filter(([destination]) => !taken.has(destination))
    .map(([destination, source]) => ({ destination, type: 'bind', source, options: ['rbind', 'rprivate'] }));
}

/** Does `--security-opt` say so: `KEY`, `KEY=VALUE` or `KEY:VALUE`? */
export function securityOption(request: ContainerRequest, key: string): string | undefined {
  const found = request.securityOptions.findLast((o) => o === key || o.startsWith(`${key}=`) || o.startsWith(`${key}:`));
  return found === undefined ? undefined : found.slice(key.length + 1);
}

/**
 * The OCI spec of a container, before `configure`: everything but what security drivers add. What an image says is taken from its
 * config alone, and never from its labels (CVE-2026-53488). Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED.
 */
export function compileSpec(input: CompileInput): Spec {
  const { request, imageConfig, rootfs, host } = input;
  const hostname = containerHostname(input);
  const { args } = processArgs(request, imageConfig);
  const { devices, rules } = compileDevices(request, host);
  const shmSize = request.shmSize ?? input.shmSize ?? DEFAULT_SHM_SIZE;
  if (!Number.isSafeInteger(shmSize) || shmSize < 0) throw fail('ERR_INVALID_VALUE', 'SHM size can not be less than 0', { operation: 'shm-size' });
  if (request.oomScoreAdj !== undefined && Math.abs(request.oomScoreAdj) > 1000) throw fail('ERR_INVALID_VALUE', `invalid value ${request.oomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  const base = [...defaultMounts(request, shmSize, input.cgroupMounts), ...hostImageMounts(rootfs), ...networkFiles(input)];
  const open = request.privileged || securityOption(request, 'systempaths') === 'unconfined';
  const throttles = open ? [] : host.list('/sys/devices/system/cpu').filter((name) => /^cpu\d+$/.test(name)).map((name) => `/sys/devices/system/cpu/${name}/thermal_throttle`).filter((p) => host.kind(p));
  const noNewPrivileges = securityOption(request, 'no-new-privileges');
  const sysctl = { ...defaultSysctls(input.network, host), ...request.sysctls };
  const ownUts = request.uts !== 'host';
  const annotations = { ...(request.init ? { [ANNOTATION.init]: '1' } : {}), ...(request.groupAdd.length ? { [ANNOTATION.groupAdd]: JSON.stringify(request.groupAdd) } : {}) };
  const spec: Spec = {
    ociVersion: '1.2.0',
    process: {
      terminal: request.terminal,
      ...(request.windowSize ? { consoleSize: { height: request.windowSize.rows, width: request.windowSize.cols } } : {}),
      cwd: workingDir(request.workdir, imageConfig.WorkingDir),
      env: processEnv(request, imageConfig, hostname),
      args,
      user: { username: request.user || imageConfig.User || '0' },
      ...(request.rlimits.length ? { rlimits: processRlimits(request.rlimits) } : {}),
      ...(noNewPrivileges !== undefined && noNewPrivileges !== 'false' ? { noNewPrivileges: true } : {}),
      ...(request.oomScoreAdj === undefined ? {} : { oomScoreAdj: request.oomScoreAdj }),
    },
    root: { path: 'rootfs', ...(request.readonlyRootfs ? { readonly: true } : {}) },
    ...(ownUts ? { hostname } : {}),
    ...(ownUts && request.domainname ? { domainname: request.domainname } : {}),
    mounts: mergeMounts(base, userMounts(request, input.volumes, input.volumeFolder), request.readonlyRootfs),
    linux: {
      namespaces: namespaces(request, input.network),
      devices,
      resources: compileResources(request, { cpus: host.cpus, honours: input.honours }, rules),
      maskedPaths: [...(open ? [] : [...maskedPaths, ...throttles]), ...(rootfs.kind === 'host' ? rootfs.hide : [])],
      readonlyPaths: open ? [] : [...readonlyPaths],
      ...(Object.keys(sysctl).length ? { sysctl } : {}),
      ...(request.cgroupParent ? { cgroupsPath: request.cgroupParent } : {}),
    },
    ...(Object.keys(annotations).length ? { annotations } : {}),
  };
  checkSysctls(spec);
  return spec;
}
