import { closeSync, openSync, writeSync } from 'node:fs';
import { type BundleCheckpoint, type BundleRestore, type CheckpointFolders } from '@engine/core/api';
import { type CheckpointOptions, type GroupsMode } from '@engine/core/contracts/checkpoint';
import { fail } from '@engine/core/errors';
import { callerOf, command, type CommandContext } from '../command.ts';
import { reachable } from '../files.ts';
import { readInteger, type Values } from '../parse.ts';
import { bundleFlags, created, ended, requestOf, whenLost } from './create.ts';

const MODES: readonly GroupsMode[] = ['soft', 'full', 'strict', 'ignore'];
const MAX_FD = 1 << 20;
const MAX_PORT = 65_535;

const criuFlags = {
  'image-path': { type: 'string', value: 'DIR', help: 'folder of the image (default: checkpoint, where you are)' },
  'work-path': { type: 'string', value: 'DIR', help: "folder of criu's log and other files (default: that of the image)" },
  'tcp-established': { type: 'boolean', help: 'with open TCP connections' },
  'ext-unix-sk': { type: 'boolean', help: 'with unix sockets whose other end is outside' },
  'shell-job': { type: 'boolean', help: 'with a terminal that is outside' },
  'file-locks': { type: 'boolean', help: 'with file locks' },
  'lazy-pages': { type: 'boolean', help: 'bring pages of memory when they are touched (userfaultfd)' },
  'manage-cgroups-mode': { type: 'string', value: 'MODE', help: 'what criu does about cgroups: soft, full, strict or ignore (default soft)' },
  'empty-ns': { type: 'list', value: 'NAMESPACE', help: 'make this namespace, but restore nothing of it: network' },
  'auto-dedup': { type: 'boolean', help: 'free pages of parent images that are stored again' },
} as const;

const usage = (verb: string, message: string, hint = ''): Error => fail('ERR_USAGE', message, { operation: verb, exitCode: 1, hint });

/** Flags that both have. Errors: ERR_USAGE. */
function chosen({ invocation }: CommandContext, verb: string, flags: Values<typeof criuFlags>): CheckpointOptions & CheckpointFolders {
  const mode = flags['manage-cgroups-mode'] || 'soft';
  const groupsMode = MODES.find((name) => name === mode);
  if (!groupsMode) throw usage(verb, `invalid manage-cgroups-mode "${mode}"`, `one of ${MODES.join(', ')}`);
  for (const name of flags['empty-ns']) if (name !== 'network') throw usage(verb, `namespace "${name}" is not supported by --empty-ns`, 'only: network');
  return {
    images: reachable(invocation, flags['image-path'] || 'checkpoint'), ...(flags['work-path'] && { work: reachable(invocation, flags['work-path']) }),
    tcpEstablished: flags['tcp-established'], externalSockets: flags['ext-unix-sk'], shellJob: flags['shell-job'], fileLocks: flags['file-locks'], lazyPages: flags['lazy-pages'], autoDedup: flags['auto-dedup'],
    groupsMode, emptyNetwork: flags['empty-ns'].length > 0,
  };
}

function pageServerOf(text: string | undefined): BundleCheckpoint['pageServer'] {
  if (!text) return undefined;
  const [, bare, inner, port = ''] = /^(?:([^:[\]]+)|\[([^\]]+)\]):(\d+)$/.exec(text) ?? [];
  const address = bare ?? inner;
  if (address === undefined || Number(port) < 1 || Number(port) > MAX_PORT) throw usage('checkpoint', `invalid page server "${text}"`, 'ADDRESS:PORT, an IPv6 address in brackets');
  return { address, port: Number(port) };
}

/** A byte of zero to one of the caller's files. */
function tellReady(context: CommandContext, text: string): () => void {
  const fd = readInteger('checkpoint', 'status-fd', text, 0, MAX_FD);
  const path = callerOf(context, 'checkpoint').path(`/dev/fd/${fd}`);
  return () => {
    const file = openSync(path, 'a');
    try {
      writeSync(file, new Uint8Array(1));
    } finally {
      closeSync(file);
    }
  };
}

export const checkpointCommand = command({
  name: 'checkpoint', usage: '<container-id>', summary: 'write the state of a running container to files', prefix: 'engine-oci checkpoint failed: ',
  description: 'The container has ended then, unless --leave-running or --pre-dump is given. Needs criu, see docs/checkpoint.md.',
  flags: {
    ...criuFlags,
    'parent-path': { type: 'string', value: 'DIR', help: 'folder of an earlier image, relative to --image-path, of which only differences are kept' },
    'leave-running': { type: 'boolean', help: 'let the container go on' },
    'pre-dump': { type: 'boolean', help: 'memory only, and let the container go on' },
    'status-fd': { type: 'string', value: 'N', help: 'a zero byte is written to it when lazy pages are ready' },
    'page-server': { type: 'string', value: 'ADDRESS:PORT', help: 'send the memory to a page server' },
  },
  args: [1, 1],
  async run(context, flags, [id = '']) {
    const options = chosen(context, 'checkpoint', flags);
    const parent = flags['parent-path'];
    if (parent?.startsWith('/')) throw usage('checkpoint', '--parent-path is relative to --image-path', '');
    const pageServer = pageServerOf(flags['page-server']);
    const onReady = flags['status-fd'] === undefined ? undefined : tellReady(context, flags['status-fd']);
    await (await context.bundles()).checkpoint(context.ref(id), {
      ...options, spawner: callerOf(context, 'checkpoint'), leaveRunning: flags['leave-running'], preDump: flags['pre-dump'], ...(parent && { parent }), ...(pageServer && { pageServer }), ...(onReady && { onReady }),
    });
    return 0;
  },
});

const { 'preserve-fds': _preserved, ...restoreFlags } = bundleFlags;
export const restoreCommand = command({
  name: 'restore', usage: '<container-id>', summary: 'make a container of what checkpoint wrote', prefix: 'engine-oci restore failed: ',
  description: 'Without --detach it ends with the program, whose exit code it has (128 + n for signals), and the container is deleted. Needs criu, see docs/checkpoint.md.',
  flags: {
    ...restoreFlags, ...criuFlags,
    detach: { type: 'boolean', short: 'd', help: 'do not wait for the program' },
    'lsm-profile': { type: 'string', value: 'TYPE:NAME', help: 'another security profile: apparmor or selinux' },
    'lsm-mount-context': { type: 'string', value: 'LABEL', help: 'another label for mounts' },
  },
  args: [1, 1],
  async run(context, flags, [id = '']) {
    const all = { ...flags, 'preserve-fds': undefined };
    const request: BundleRestore = {
      ...requestOf(context, 'restore', id, all, flags.detach), ...chosen(context, 'restore', flags),
      ...(flags['lsm-profile'] && { securityProfile: flags['lsm-profile'] }), ...(flags['lsm-mount-context'] && { mountContext: flags['lsm-mount-context'] }),
    };
    const caller = callerOf(context, 'restore');
    if (!flags.detach) caller.adopt();
    const pid = await created(context, request, all, (bundles) => bundles.restore(request));
    if (flags.detach) return 0;
    const waiting = caller.wait(pid, whenLost(context, id, false));
    caller.begun();
    return ended(context, request, waiting, false);
  },
});
