import { type CallerStreams } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { type Invocation } from '@engine/core/contracts/frontend';
import { callerOf, type CommandContext } from './command.ts';
import { reachable } from './files.ts';
import { readInteger } from './parse.ts';

/** Flags of all verbs that start a process for the caller. */
export const streamFlags = {
  'console-socket': { type: 'string', value: 'PATH', help: 'unix socket that gets the master of the terminal' },
  'pid-file': { type: 'string', value: 'FILE', help: "file that gets the process's id" },
  'pidfd-socket': { type: 'string', value: 'PATH', help: 'unix socket that gets a pidfd of the process' },
  'preserve-fds': { type: 'string', value: 'N', help: 'pass N more file descriptors on: fds 3 and up, after those of LISTEN_FDS' },
} as const;

export interface StreamFlags {
  readonly 'console-socket': string | undefined;
  readonly 'pid-file': string | undefined;
  readonly 'pidfd-socket': string | undefined;
  readonly 'preserve-fds': string | undefined;
}

/** Most fds that a message between processes can carry. */
const MAX_FDS = 200;

/** Sockets that the caller was activated with, as sd_listen_fds(3) counts them. */
export function listenFds({ env, caller }: Pick<Invocation, 'env' | 'caller'>): number {
  const count = Number(/^\d+$/.exec(env['LISTEN_FDS'] ?? '')?.[0] ?? 0);
  if (count === 0) return 0;
  const pid = env['LISTEN_PID'];
  return pid !== undefined && (!caller || caller.path('/proc/self') === `/proc/${pid}`) ? count : 0;
}

export interface Streams {
  readonly streams: CallerStreams;
  /** LISTEN_FDS and LISTEN_PID of the program. */
  readonly env: readonly string[];
}

/** `detached`: nobody relays a terminal. Errors: ERR_USAGE, ERR_INVALID_VALUE. */
export function streamsOf(context: CommandContext, verb: string, flags: StreamFlags, detached: boolean): Streams {
  const { invocation, report } = context;
  const socket = flags['console-socket'] || undefined;
  const refuse = (why: string): Error => fail('ERR_INVALID_VALUE', why, { operation: verb, hint: '', exitCode: 1 });
  if (socket !== undefined && !detached) throw refuse('cannot use console socket if the runtime will not detach or allocate tty');
  const listen = listenFds(invocation);
  const preserveFds = listen + readInteger(verb, 'preserve-fds', flags['preserve-fds'] ?? '0', 0, MAX_FDS);
  if (preserveFds > MAX_FDS) throw refuse(`LISTEN_FDS and --preserve-fds ask for ${preserveFds} file descriptors: more than ${MAX_FDS}`);
  return {
    env: listen > 0 ? [`LISTEN_FDS=${listen}`, 'LISTEN_PID=1'] : [],
    streams: { spawner: callerOf(context, verb), preserveFds, detached, onWarning: (text) => report.warn(text), ...(socket !== undefined && { consoleSocket: reachable(invocation, socket) }) },
  };
}
