import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { isAbsolute, resolve } from 'node:path';
import { type ContainerRequest } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { parseLimits } from './limit-flags.ts';
import { parseMount, parseTmpfs, parseVolume, refuseDuplicates } from './mounts.ts';
import { networkRequest } from './network-flag.ts';
import { type Values } from './parse.ts';
import { parseExpose, parsePublish } from './ports.ts';
import { restartRequest } from './restart-flag.ts';
import { type runFlags } from './run-flags.ts';
import { invalid, parseBytes, parseInteger, parsePairs, splitOnce } from './units.ts';
import { usernsRequest } from './userns-flags.ts';

type RunValues = Partial<Values<typeof runFlags>>;
interface Surroundings {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cpus?: number;
}

function readText(flag: string, path: string, cwd: string): string {
  try {
    return readFileSync(resolve(cwd, path), 'utf8');
  } catch (cause) {
    throw fail('ERR_INVALID_VALUE', `cannot read ${path} for ${flag}`, { operation: flag, path, cause });
  }
}

/** Lines `NAME=VALUE` or `NAME` of a file; `#` starts a comment, values are taken as they stand. */
function fileLines(flag: string, path: string, cwd: string): string[] {
  const lines = readText(flag, path, cwd).replace(/^\uFEFF/, '').split('\n').map((line) => line.replace(/\r$/, '').trimStart());
  return lines.filter((line) => line !== '' && !line.startsWith('#')).map((line) => {
    const [name] = splitOnce(line, '=');
    if (name === '' || /\s/.test(name)) throw invalid(flag, line, `a variable name in ${path} is malformed`);
    return line;
  });
}

/** `-e` and `--env-file`: later over earlier, files first; a bare name is passed on when it is set here. */
export function environment(files: readonly string[], items: readonly string[], env: Surroundings['env'], cwd: string): string[] {
  const result = new Map<string, string>();
  for (const item of [...files.flatMap((path) => fileLines('--env-file', path, cwd)), ...items]) {
    const [name, value] = splitOnce(item, '=');
    if (name === '') throw invalid('-e', item, 'a name is missing');
    const text = value ?? env[name];
    if (text === undefined) result.delete(name);
    else result.set(name, text);
  }
  return [...result].map(([name, value]) => `${name}=${value}`);
}

function device(text: string): ContainerRequest['devices'][number] {
  const parts = text.split(':');
  const [source = '', second, third] = parts;
  const isAccess = (part: string | undefined): boolean => part !== undefined && /^[rwm]{1,3}$/.test(part);
  const shortForm = parts.length === 2 && isAccess(second);
  const access = shortForm ? second : third;
  const target = shortForm || second === undefined ? source : second;
  if (parts.length > 3 || !isAbsolute(source) || !isAbsolute(target) || (access !== undefined && !isAccess(access))) throw invalid('--device', text, 'SOURCE[:TARGET[:rwm]] with absolute paths is expected');
  return { source, target, access: access ?? 'rwm' };
}

const LIMITS = ['core', 'cpu', 'data', 'fsize', 'locks', 'memlock', 'msgqueue', 'nice', 'nofile', 'nproc', 'rss', 'rtprio', 'rttime', 'sigpending', 'stack'];

function ulimit(text: string): ContainerRequest['rlimits'][number] {
  const [name, values] = splitOnce(text, '=');
  if (!LIMITS.includes(name) || values === undefined) throw invalid('--ulimit', text, `NAME=SOFT[:HARD] is expected, NAME one of ${LIMITS.join(' ')}`);
  const [softText, hardText] = splitOnce(values, ':');
  const number = (t: string): number => (t === 'unlimited' ? -1 : parseInteger('--ulimit', t, -1));
  const soft = number(softText);
  const hard = hardText === undefined ? soft : number(hardText);
  if (hard !== -1 && (soft === -1 || soft > hard)) throw invalid('--ulimit', text, 'the soft limit is above the hard one');
  return { name, soft, hard };
}

function addHost(text: string): string {
  const [host, address] = splitOnce(text.includes('=') ? text.replace('=', ':') : text, ':');
  const bare = address?.replace(/^\[(.*)\]$/, '$1');
  if (host === '' || bare === undefined || (isIP(bare) === 0 && bare !== 'host-gateway')) throw invalid('--add-host', text, 'HOST:IP is expected');
  return `${host}:${bare}`;
}

function attachStreams(flags: RunValues): ContainerRequest['attach'] {
  const names = (flags.attach ?? []).map((name) => name.toLowerCase());
  for (const name of names) if (!['stdin', 'stdout', 'stderr'].includes(name)) throw invalid('-a', name, 'stdin, stdout or stderr is expected');
  if (flags.detach) {
    if (names.length > 0) throw fail('ERR_USAGE', '-a and -d exclude each other', { hint: 'leave one of them out' });
    return { stdin: false, stdout: false, stderr: false };
  }
  if (names.length === 0) return { stdin: flags.interactive ?? false, stdout: true, stderr: true };
  return { stdin: names.includes('stdin') || (flags.interactive ?? false), stdout: names.includes('stdout'), stderr: names.includes('stderr') };
}

function namespaceMode(flag: string, text: string | undefined, allowed: readonly string[]): string | undefined {
  if (text === undefined || text === '') return undefined;
  if (allowed.includes(text) || (allowed.includes('container:') && /^container:.+/.test(text))) return text;
  throw invalid(`--${flag}`, text, `${allowed.join(', ')} is expected`);
}

/** `--security-opt seccomp=FILE`: the profile itself goes into the request, so that it doesn't depend on where the file is later. */
function securityOption(text: string, cwd: string): string {
  const match = /^seccomp[=:](.*)$/.exec(text);
  const value = match?.[1];
  if (value === undefined || value === 'unconfined' || value === 'default' || value === 'builtin' || value.trimStart().startsWith('{')) return text;
  const content = readText('--security-opt', value, cwd);
  try {
    return `seccomp=${JSON.stringify(JSON.parse(content))}`;
  } catch (cause) {
    throw fail('ERR_INVALID_VALUE', `${value} is not a seccomp profile in JSON`, { operation: '--security-opt', path: value, cause });
  }
}

const optional = <K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } => (value === undefined ? {} : ({ [key]: value } as { [P in K]?: V }));

/** What the flags ask for, checked as far as that is possible without looking at images or the machine. Errors: ERR_USAGE, ERR_INVALID_VALUE. */
export function buildRequest(flags: RunValues, args: readonly string[], around: Surroundings): ContainerRequest {
  const [image = '', ...command] = flags.bundle === undefined && flags.rootfs === undefined ? args : ['', ...args];
  const mounts = [...(flags.volume ?? []).map((text) => parseVolume(text, around.cwd)), ...(flags.mount ?? []).map((text) => parseMount(text, around.cwd))];
  const tmpfs = (flags.tmpfs ?? []).map(parseTmpfs);
  refuseDuplicates([...mounts, ...tmpfs].map((mount) => mount.target));
  const expose = [...new Set((flags.expose ?? []).flatMap(parseExpose))];
  const interactive = flags.interactive ?? false;
  const attach = attachStreams(flags);
  if (flags.workdir !== undefined && !isAbsolute(flags.workdir)) throw invalid('-w', flags.workdir, 'an absolute path is expected');
  return {
    image, env: environment(flags['env-file'] ?? [], flags.env ?? [], around.env, around.cwd),
    ...optional('name', flags.name), ...(command.length ? { command } : {}),
    ...(flags.entrypoint === undefined ? {} : { entrypoint: [flags.entrypoint] }),
    labels: parsePairs('-l', [...(flags['label-file'] ?? []).flatMap((path) => fileLines('--label-file', path, around.cwd)), ...(flags.label ?? [])]),
    ...optional('user', flags.user), ...optional('workdir', flags.workdir), ...optional('hostname', flags.hostname), ...optional('domainname', flags.domainname),
    addHosts: (flags['add-host'] ?? []).map(addHost),
    ...(flags.dns?.length ? { dns: flags.dns } : {}), ...(flags['dns-search']?.length ? { dnsSearch: flags['dns-search'] } : {}), ...(flags['dns-option']?.length ? { dnsOptions: flags['dns-option'] } : {}),
    terminal: flags.tty ?? false, openStdin: interactive, stdinOnce: interactive && attach.stdin, attach, detached: flags.detach ?? false, autoRemove: flags.rm ?? false,
    ...networkRequest(flags), ports: (flags.publish ?? []).flatMap(parsePublish), ...optional('expose', expose.length ? expose : undefined), ...(flags['publish-all'] ? { publishAll: true } : {}), mounts, tmpfs,
    readonlyRootfs: flags['read-only'] ?? false, init: flags.init ?? false, privileged: flags.privileged ?? false,
    capAdd: flags['cap-add'] ?? [], capDrop: flags['cap-drop'] ?? [], securityOptions: (flags['security-opt'] ?? []).map((text) => securityOption(text, around.cwd)),
    devices: (flags.device ?? []).map(device), deviceCgroupRules: flags['device-cgroup-rule'] ?? [], rlimits: (flags.ulimit ?? []).map(ulimit),
    sysctls: parsePairs('--sysctl', flags.sysctl ?? []), ...(flags['shm-size'] === undefined ? {} : { shmSize: parseBytes('--shm-size', flags['shm-size']) }),
    ...optional('stopSignal', flags['stop-signal']), ...(flags['stop-timeout'] === undefined ? {} : { stopTimeout: parseInteger('--stop-timeout', flags['stop-timeout'], -1) }),
    ...restartRequest(flags.restart, flags.rm ?? false),
    ...optional('ipc', namespaceMode('ipc', flags.ipc, ['private', 'shareable', 'host', 'none', 'container:'])), ...optional('pid', namespaceMode('pid', flags.pid, ['private', 'host', 'container:'])),
    ...optional('uts', namespaceMode('uts', flags.uts, ['private', 'host'])), ...optional('cgroupns', namespaceMode('cgroupns', flags.cgroupns, ['private', 'host'])),
    ...usernsRequest(flags), ...optional('cgroupParent', flags['cgroup-parent']), groupAdd: flags['group-add'] ?? [],
    ...(flags['oom-score-adj'] === undefined ? {} : { oomScoreAdj: parseInteger('--oom-score-adj', flags['oom-score-adj'], -1000, 1000) }),
    log: { ...optional('driver', flags['log-driver']), options: parsePairs('--log-opt', flags['log-opt'] ?? []) },
    storageOptions: parsePairs('--storage-opt', flags['storage-opt'] ?? []), limits: parseLimits(flags, around.cpus),
    ...optional('bundle', flags.bundle), ...optional('rootfs', flags.rootfs),
  };
}
