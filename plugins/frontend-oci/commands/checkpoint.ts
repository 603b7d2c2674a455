import { fail } from '@engine/core/errors';
import { command } from '../command.ts';
import { bundleFlags } from './create.ts';

const criuFlags = {
  'image-path': { type: 'string', value: 'DIR', help: 'folder of the image (default: checkpoint, where you are)' },
  'work-path': { type: 'string', value: 'DIR', help: "folder of criu's log and other files" },
  'tcp-established': { type: 'boolean', help: 'with open TCP connections' },
  'ext-unix-sk': { type: 'boolean', help: 'with unix sockets whose other end is outside' },
  'shell-job': { type: 'boolean', help: 'with a terminal that is outside' },
  'file-locks': { type: 'boolean', help: 'with file locks' },
  'lazy-pages': { type: 'boolean', help: 'bring pages of memory when they are touched (userfaultfd)' },
  'manage-cgroups-mode': { type: 'string', value: 'MODE', help: 'what criu does about cgroups: soft, full, strict or ignore (default soft)' },
  'empty-ns': { type: 'list', value: 'NAMESPACE', help: 'make this namespace, but restore nothing of it: network' },
  'auto-dedup': { type: 'boolean', help: 'free pages of parent images that are stored again' },
} as const;

/** The flags are taken and checked, so that callers hear why, not that a flag is unknown. */
const without = (verb: string, hint: string): Error => fail('ERR_NOT_SUPPORTED', `${verb} is not implemented in this version`, { operation: verb, hint });

export const checkpointCommand = command({
  name: 'checkpoint', usage: '<container-id>', summary: 'write the state of a running container to files (not implemented: refused)',
  flags: {
    ...criuFlags,
    'parent-path': { type: 'string', value: 'DIR', help: 'folder of an earlier image, relative to --image-path, of which only differences are kept' },
    'leave-running': { type: 'boolean', help: 'let the container go on' },
    'pre-dump': { type: 'boolean', help: 'memory only, and let the container go on' },
    'status-fd': { type: 'string', value: 'N', help: 'criu writes a zero byte to it when lazy pages are ready' },
    'page-server': { type: 'string', value: 'ADDRESS:PORT', help: 'send the memory to a page server' },
  },
  args: [1, 1],
  run: () => Promise.reject(without('checkpoint', 'the container is as it was')),
});

export const restoreCommand = command({
  name: 'restore', usage: '<container-id>', summary: 'make a container of what checkpoint wrote (not implemented: refused)', prefix: 'engine-oci restore failed: ',
  flags: {
    ...bundleFlags, ...criuFlags,
    detach: { type: 'boolean', short: 'd', help: 'do not wait for the program' },
    'lsm-profile': { type: 'string', value: 'TYPE:NAME', help: 'another security profile: apparmor or selinux' },
    'lsm-mount-context': { type: 'string', value: 'LABEL', help: 'another label for mounts' },
  },
  args: [1, 1],
  run: () => Promise.reject(without('restore', 'make the container anew with create')),
});
