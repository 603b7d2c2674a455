import { accessSync, constants } from 'node:fs';
import { PROGRAM_FDS, type CheckpointDriver, type CheckpointOptions, type Conversation, type DumpRequest, type GroupsMode, type Occasion, type RestoreRequest, type Turn } from '@engine/core/contracts/checkpoint';
import { fail } from '@engine/core/errors';
import { decode, encode, TYPE, type Options } from './rpc.ts';

const NAME = 'criu';
const PLACES = ['/usr/sbin/criu', '/usr/local/sbin/criu', '/usr/bin/criu', '/usr/local/bin/criu'];
/** The oldest that knows all that is asked of it: a newer field is not heard, and nobody would know. */
const OLDEST = [3, 16] as const;
/** Debug, as runc has it: the log is for who looks for a reason. */
const LOG_LEVEL = 4;
const CLONE_NEWNET = 0x4000_0000;
/** enum criu_cg_mode */
const GROUPS: Readonly<Record<GroupsMode, number>> = { ignore: 0, soft: 3, full: 4, strict: 5 };
/** Kinds of the OCI spec, as criu names them. */
const KINDS: Readonly<Record<string, string>> = { network: 'net', mount: 'mnt' };
const kindOf = (type: string): string => KINDS[type] ?? type;
/** Annotation with a file of criu's own options, as runc, crun and podman have it. */
const SETTINGS = 'org.criu.config';
const OCCASIONS: Readonly<Record<string, Occasion>> = { 'setup-namespaces': 'namespaces', 'post-restore': 'restored', 'orphan-pts-master': 'terminal', 'status-ready': 'ready' };
const HINT = 'install criu (apt-get install criu), or name it with options.checkpoint-criu.program in .enginerc';

function find(program: string | undefined): string | undefined {
  return (program === undefined ? PLACES : [program]).find((place) => {
    try {
      accessSync(place, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** What both are told. */
function common(request: (DumpRequest | RestoreRequest) & CheckpointOptions, logFile: string): Options {
  const { images, work, root, annotations, tcpEstablished, externalSockets, shellJob, fileLocks, lazyPages, autoDedup, groupsMode, emptyNetwork } = request;
  const settings = annotations[SETTINGS];
  return {
    imagesDirFd: images, ...(work !== undefined && { workDirFd: work }), logLevel: LOG_LEVEL, logFile, root, notifyScripts: true, orphanPtsMaster: true, manageCgroups: true, manageCgroupsMode: GROUPS[groupsMode],
    tcpEstablished, extUnixSk: externalSockets, shellJob, fileLocks, lazyPages, autoDedup, ...(emptyNetwork && { emptyNs: CLONE_NEWNET }), ...(settings !== undefined && { configFile: settings }),
  };
}
const pairs = (mounts: Readonly<Record<string, string>>): { key: string; val: string }[] => Object.entries(mounts).map(([key, val]) => ({ key, val }));

function dumpOptions(request: DumpRequest): Options {
  const { pid, leaveRunning, preDump, parent, pageServer, mounts, namespaces, freezer } = request;
  return {
    ...common(request, 'dump.log'), pid, leaveRunning, ...(preDump || parent !== undefined ? { trackMem: true } : {}), ...(parent !== undefined && { parentImg: parent }), ...(pageServer && { ps: pageServer }),
    ...(freezer !== undefined && { freezeCgroup: freezer }), external: namespaces.map(({ type, inode, name }) => `${kindOf(type)}[${inode}]:${name}`), extMnt: preDump ? [] : pairs(mounts),
  };
}
function restoreOptions(request: RestoreRequest): Options {
  const { mounts, namespaces, join, streams, groups, securityProfile, mountContext } = request;
  return {
    ...common(request, 'restore.log'), rstSibling: true, evasiveDevices: true, extMnt: pairs(mounts), cgRoot: groups.map(({ controller, path }) => ({ ctrl: controller, path })),
    inheritFd: [...namespaces, ...streams].map(({ name, fd }) => ({ key: name, fd })), joinNs: join.map(({ type, path }) => ({ ns: kindOf(type), nsFile: path })),
    ...(securityProfile !== undefined && { lsmProfile: securityProfile }), ...(mountContext !== undefined && { lsmMountContext: mountContext }),
  };
}

/** Lines that say what went wrong; the last are of what failed for it. */
const MAX_REASONS = 2;
function explain(log: string): ReturnType<Conversation['explain']> {
  const reasons = [...log.matchAll(/^\([\d.]+\)\s*(?:\d+: )?Error \(([^)]*)\):\s*(.*)$/gm)].map(([, , text = '']) => text.trim()).filter((text) => !/^(Dumping|Restoring) FAILED/.test(text));
  const isOld = /Unexpected rt vDSO area bounds/.test(log);
  return { reasons: reasons.slice(0, MAX_REASONS), ...(isOld && { hint: 'this criu is too old for this kernel, whose vDSO it cannot read: Linux 6.13 and later need a newer one than 3.17' }) };
}

/** First the version, on the same connection; then what is wanted. */
function converse(program: string, type: number, options: Options): Conversation {
  const answer = (bytes: Uint8Array): Turn => {
    const { type: kind, success, notify, version, crErrno = 0, crErrmsg = '' } = decode(bytes);
    if (kind === TYPE.notify) {
      const { script = '', pid } = notify ?? {};
      return { occasion: OCCASIONS[script] ?? 'other', ...(pid !== undefined && { pid }), reply: encode({ type: TYPE.notify, notifySuccess: true }) };
    }
    if (!success) return { failed: `criu failed${crErrmsg ? `: ${crErrmsg}` : ''}${crErrno ? ` (errno ${crErrno})` : ''}` };
    if (kind === type) return { done: true };
    if (kind !== TYPE.version) return { failed: `criu answered something else than what it was asked (${kind})` };
    const { major, minor } = version ?? { major: 0, minor: 0 };
    if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) return { failed: `criu ${major}.${minor} is too old: ${OLDEST.join('.')} or later is needed` };
    return { occasion: 'other', reply: encode({ type, opts: options }) };
  };
  return { program, argv: [NAME, 'swrk', String(PROGRAM_FDS.socket)], log: String(options['logFile']), begin: () => encode({ type: TYPE.version, keepOpen: true }), hear: answer, explain };
}

export function createCriu({ program }: { readonly program?: string } = {}): CheckpointDriver {
  const there = (): string => {
    const found = find(program);
    if (found === undefined) throw fail('ERR_NOT_SUPPORTED', `${program ?? NAME} is not installed`, { operation: NAME, ...(program !== undefined && { path: program }), hint: HINT });
    return found;
  };
  return {
    name: NAME,
    features: new Set(),
    probe() {
      const found = find(program);
      return found === undefined ? { available: false, score: 0, reasons: [`${program ?? NAME} is not installed: ${HINT}`] } : { available: true, score: 10, reasons: [found] };
    },
    dump: (request) => converse(there(), request.preDump ? TYPE.preDump : TYPE.dump, dumpOptions(request)),
    restore: (request) => converse(there(), TYPE.restore, restoreOptions(request)),
  };
}
