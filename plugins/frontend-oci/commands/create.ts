import { resolve } from 'node:path';
import { type BundleRef, type BundleRequest, type Bundles, type BundleState } from '@engine/core/api';
import { isEngineError } from '@engine/core/errors';
import { callerOf, command, type CommandContext } from '../command.ts';
import { claimPidFile, reachable } from '../files.ts';
import { messageOf } from '../phrases.ts';
import { streamFlags, streamsOf, type StreamFlags } from '../streams.ts';

export const bundleFlags = {
  bundle: { type: 'string', short: 'b', value: 'DIR', help: 'folder of config.json and the root filesystem (default: where you are)' },
  config: { type: 'string', short: 'f', value: 'FILE', help: 'another file than config.json, relative to the bundle' },
  ...streamFlags,
  'no-pivot': { type: 'boolean', help: 'do not use pivot_root: for a root filesystem on a ramdisk' },
  'no-new-keyring': { type: 'boolean', help: "keep the caller's session keyring" },
  'no-subreaper': { type: 'boolean', help: 'accepted: nothing of ours stays that could reap' },
} as const;
export type BundleFlags = StreamFlags & { readonly bundle: string | undefined; readonly config: string | undefined; readonly 'no-pivot': boolean; readonly 'no-new-keyring': boolean };

export function requestOf(context: CommandContext, verb: string, id: string, flags: BundleFlags, detached: boolean): BundleRequest {
  const { invocation, globals } = context;
  const bundle = reachable(invocation, flags.bundle || '.');
  const { streams, env } = streamsOf(context, verb, flags, detached);
  return { ...context.ref(id), ...streams, bundle, ...(flags.config && { config: resolve(bundle, flags.config) }), env, cgroupDriver: globals.cgroupDriver, noPivot: flags['no-pivot'], noNewKeyring: flags['no-new-keyring'] };
}

/** Made, with its pid told to whoever asked; nothing is left when that fails. */
export async function created(context: CommandContext, request: BundleRequest, flags: BundleFlags, make = (bundles: Bundles): Promise<BundleState> => bundles.create(request)): Promise<number> {
  const { invocation } = context;
  const pidFile = claimPidFile(invocation, flags['pid-file']);
  try {
    const bundles = await context.bundles();
    const { pid } = await make(bundles);
    try {
      pidFile?.write(pid);
      if (flags['pidfd-socket']) await callerOf(context, 'pidfd-socket').sendPidfd(pid, reachable(invocation, flags['pidfd-socket']));
    } catch (error) {
      await bundles.delete(request, { force: true, onWarning: (text) => context.report.warn(text) });
      throw error;
    }
    return pid;
  } finally {
    pidFile?.abandon();
  }
}

const MORE = 'The id must not be in use below --root. The bundle is a folder with config.json, as the OCI runtime spec has it\n(https://github.com/opencontainers/runtime-spec), and the root filesystem that it names.';

export const createCommand = command({
  name: 'create', usage: '<container-id>', summary: 'make a container whose program waits for start', description: MORE, prefix: 'engine-oci create failed: ', flags: bundleFlags, args: [1, 1],
  async run(context, flags, [id = '']) {
    await created(context, requestOf(context, 'create', id, flags, true), flags);
    return 0;
  },
});

export const runCommand = command({
  name: 'run', usage: '<container-id>', summary: 'make a container and start it', description: `${MORE}\nWithout --detach it ends with the program, whose exit code it has (128 + n for signals), and the container is deleted.`, prefix: 'engine-oci run failed: ',
  flags: {
    ...bundleFlags,
    detach: { type: 'boolean', short: 'd', help: 'do not wait for the program' },
    keep: { type: 'boolean', help: 'do not delete the container after its end' },
  },
  args: [1, 1],
  async run(context, flags, [id = '']) {
    const request = requestOf(context, 'run', id, flags, flags.detach);
    const caller = callerOf(context, 'run');
    const bundles = await context.bundles();
    const onWarning = (text: string): void => context.report.warn(text);
    if (!flags.detach) caller.adopt();
    const pid = await created(context, request, flags);
    let waiting: Promise<number> | undefined;
    try {
      if (!flags.detach) waiting = caller.wait(pid, whenLost(context, id, flags.keep));
      waiting?.catch(() => {}); // told below
      await bundles.start(request, { onWarning });
      if (waiting) caller.begun();
    } catch (error) {
      await bundles.delete(request, { force: true, onWarning });
      throw error;
    }
    return waiting ? ended(context, request, waiting, flags.keep) : 0;
  },
});

/** Words for who sees to the end of an attached container when this process no longer can. */
export function whenLost({ globals: { flags }, ref }: CommandContext, id: string, keep: boolean): readonly string[] {
  if (keep) return [];
  const log = [...(flags.log ? ['--log', flags.log] : []), ...(flags['log-format'] ? ['--log-format', flags['log-format']] : [])];
  return ['--root', ref(id).root, ...log, 'delete', '--force', '--', id];
}

/** The end of an attached container: its exit code. */
export async function ended({ report, bundles }: CommandContext, ref: BundleRef, waiting: Promise<number>, keep: boolean): Promise<number> {
  report.settle();
  const code = await waiting;
  const onWarning = (text: string): void => report.warn(text);
  // its own exit code says more than ours would
  if (!keep) await (await bundles()).delete(ref, { force: true, onWarning }).catch((error: unknown) => {
    if (!isEngineError(error, 'ERR_NO_SUCH_CONTAINER')) onWarning(messageOf(error));
  });
  return code;
}
