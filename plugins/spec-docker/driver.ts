import { join } from 'node:path';
import { fail } from '@engine/core/errors';
import { type ContainerRequest } from '@engine/core/api';
import { type Machine } from '@engine/core/contracts/common';
import { type CompileFacts, type Compiled } from '@engine/core/hooks';
import { type Linux, type Mount, type Spec } from '@engine/core/spec';
import { compileDevices } from './devices.ts';
import { type HostView } from './host-view.ts';
import { hostsFile, resolvConf } from './hosts-files.ts';
import { compileResources, limitsMachine } from './limits.ts';
import { defaultMounts, hostImageMounts, mergeMounts, userMounts } from './mounts.ts';
import { checkNetworkOptions } from './network.ts';
import { processArgs, processEnv, processRlimits, workingDir } from './process.ts';
import { checkSysctls } from './sysctl.ts';

/** What the OCI spec has no word for. Neither images nor users can set this namespace of annotations. */
export const ANNOTATION = { init: 'engine.internal/init', groupAdd: 'engine.internal/group-add' } as const;
const DEFAULT_SHM_SIZE = 64 << 20;

/** Docker's lists (moby oci/defaults.go). */
export const maskedPaths: readonly string[] = [
  '/proc/asound', '/proc/acpi', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug', '/proc/scsi',
  '/sys/firmware', '/sys/devices/virtual/powercap',
];
export const readonlyPaths: readonly string[] = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** What is read of this machine while compiling. */
export interface DockerSpecDeps { readonly machine: Pick<Machine, 'hostname'>; readonly host: HostView }

/** Errors: ERR_INVALID_VALUE. */
function checkHostname(name: string): void {
  if (!/^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/.test(name)) throw fail('ERR_INVALID_VALUE', `invalid hostname: ${name}`, { path: name });
}

/** `--network container:` and host modes decide what may be named. Errors: ERR_INVALID_VALUE. */
function containerHostname(facts: CompileFacts, machine: DockerSpecDeps['machine']): string {
  const { request, network } = facts;
  if (request.hostname && network === 'container') throw fail('ERR_INVALID_VALUE', 'conflicting options: hostname and the network mode');
  if (request.hostname && request.uts === 'host') throw fail('ERR_INVALID_VALUE', 'conflicting options: hostname and the UTS mode');
  if (request.hostname) checkHostname(request.hostname);
  if (request.domainname) checkHostname(request.domainname);
  return request.hostname ?? facts.sharedHostname ?? (network === 'host' || request.uts === 'host' ? machine.hostname : facts.id.slice(0, 12));
}

function namespaceMode(kind: 'ipc' | 'pid' | 'uts' | 'cgroupns', mode: string | undefined, known: readonly string[]): string {
  if (!mode) return 'private';
  if (known.includes(mode)) return mode;
  if (mode.startsWith('container:') && (kind === 'ipc' || kind === 'pid')) throw fail('ERR_NOT_SUPPORTED', `--${kind} ${mode}: another container's ${kind} namespace cannot be joined yet`);
  throw fail('ERR_INVALID_VALUE', `--${kind}: invalid mode ${mode}`, { operation: kind });
}

function namespaces({ request, network, ids }: CompileFacts): NonNullable<Linux['namespaces']> {
  const types: NonNullable<Linux['namespaces']>[number]['type'][] = ['mount'];
  if (namespaceMode('pid', request.pid, ['host', 'private']) !== 'host') types.push('pid');
  if (namespaceMode('ipc', request.ipc, ['host', 'private', 'shareable', 'none']) !== 'host') types.push('ipc');
  if (namespaceMode('uts', request.uts, ['host', 'private']) !== 'host') types.push('uts');
  if (namespaceMode('cgroupns', request.cgroupns, ['host', 'private']) !== 'host') types.push('cgroup');
  if (ids) types.push('user');
  if (request.timeOffsets) types.push('time');
  if (network === 'new') types.push('network');
  return types.map((type) => ({ type }));
}

/** The last group of those that follow on 0 without a hole: the kernel takes a range only when both of its ends are mapped. */
function lastGroup(mappings: NonNullable<CompileFacts['ids']>['gidMappings'] | undefined): number {
  if (!mappings) return 2_147_483_647;
  return [...mappings].sort((a, b) => a.containerID - b.containerID).reduce((end, { containerID, size }) => (containerID === end ? end + size : end), 0) - 1;
}

/** Docker's, for a network namespace of the container's own: any port may be bound, anybody may ping. */
function defaultSysctls({ network, ids }: CompileFacts, host: HostView): Record<string, string> {
  if (network !== 'new') return {};
  const wanted = { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': `0 ${lastGroup(ids?.gidMappings)}` };
  return Object.fromEntries(Object.entries(wanted).filter(([key]) => host.kind(`/proc/sys/${key.replaceAll('.', '/')}`) !== undefined));
}

function networkFiles({ request, folder }: CompileFacts): Mount[] {
  const taken = new Set(request.mounts.map((m) => m.target));
  return ['resolv.conf', 'hostname', 'hosts']
    .filter((name) => !taken.has(`/etc/${name}`))
    .map((name) => ({ destination: `/etc/${name}`, type: 'bind', source: join(folder, name), options: ['rbind', 'rprivate'] }));
}

/** Does `--security-opt` say so: `KEY`, `KEY=VALUE` or `KEY:VALUE`? */
export function securityOption(request: ContainerRequest, key: string): string | undefined {
  const found = request.securityOptions.findLast((o) => o === key || o.startsWith(`${key}=`) || o.startsWith(`${key}:`));
  return found === undefined ? undefined : found.slice(key.length + 1);
}

/** A user by name is known only inside. Errors: ERR_INVALID_VALUE. */
function checkUser(user: string, { ids }: CompileFacts): void {
  if (!ids) return;
  const [uid = '', gid = ''] = user.split(':');
  for (const [kind, text, mappings] of [['user', uid, ids.uidMappings], ['group', gid, ids.gidMappings]] as const) {
    if (!/^\d+$/.test(text) || mappings.some(({ containerID, size }) => Number(text) >= containerID && Number(text) < containerID + size)) continue;
    throw fail('ERR_INVALID_VALUE', `${kind} ${text} is not mapped in the user namespace of the container`, { operation: 'user', path: text, hint: 'give it more ids, e.g. --userns=auto:size=N' });
  }
}

/** The spec of a container, with everything but what security drivers add. */
function compileSpec(facts: CompileFacts, hostname: string, host: HostView): Spec {
  const { request, imageConfig, rootfs } = facts;
  const { args } = processArgs(request, imageConfig);
  checkUser(request.user || imageConfig.User || '0', facts);
  const { devices, rules } = compileDevices(request, host);
  const shmSize = request.shmSize ?? facts.shmSize ?? DEFAULT_SHM_SIZE;
  if (!Number.isSafeInteger(shmSize) || shmSize < 0) throw fail('ERR_INVALID_VALUE', 'SHM size can not be less than 0', { operation: 'shm-size' });
  if (request.oomScoreAdj !== undefined && Math.abs(request.oomScoreAdj) > 1000) throw fail('ERR_INVALID_VALUE', `invalid value ${request.oomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  const base = [...defaultMounts(request, shmSize, facts.cgroupMounts), ...hostImageMounts(rootfs), ...networkFiles(facts)];
  const open = request.privileged || securityOption(request, 'systempaths') === 'unconfined';
  const throttles = open ? [] : host.list('/sys/devices/system/cpu').filter((name) => /^cpu\d+$/.test(name)).map((name) => `/sys/devices/system/cpu/${name}/thermal_throttle`).filter((p) => host.kind(p));
  const noNewPrivileges = securityOption(request, 'no-new-privileges');
  const sysctl = { ...defaultSysctls(facts, host), ...request.sysctls };
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
    mounts: mergeMounts(base, userMounts(request, facts.volumes), request.readonlyRootfs),
    linux: {
      namespaces: namespaces(facts),
      ...(request.timeOffsets ? { timeOffsets: request.timeOffsets } : {}),
      ...(facts.ids ? { uidMappings: [...facts.ids.uidMappings], gidMappings: [...facts.ids.gidMappings] } : {}),
      devices,
      resources: compileResources(request, limitsMachine(host, facts.resources), rules),
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

/** Requests as Docker understands them, for the hook `compile`. */
export interface DockerSpec {
  /**
   * The spec and the files of a container. What an image says is taken from its config alone, and never from its labels
   * (CVE-2026-53488). Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED.
   */
  compile(value: Compiled): Compiled;
}

export function createDockerSpec({ machine, host }: DockerSpecDeps): DockerSpec {
  return {
    compile({ facts, files }) {
      const hostname = containerHostname(facts, machine);
      checkNetworkOptions(facts.request, facts.network);
      const shares = facts.network === 'host';
      return {
        facts, spec: compileSpec(facts, hostname, host),
        files: { ...files, hostname: `${hostname}\n`, hosts: hostsFile(facts.request, shares, host), 'resolv.conf': resolvConf(facts.request, shares, host) },
      };
    },
  };
}
