/**
 * Frames between the launcher (`bin/engine` and `bin/engine-oci`, C) and the resident engine, over `engined.sock`, or a process of the launcher's own, over the socket that this is born with (fd SERVE_FD); their form is that of core/plan/protocol.ts:
 *
 *     u32 payloadLength, u16 type, u16 session (0), u32 argument, payload      (little-endian, 12 bytes of head)
 *
 * One connection serves one invocation. The launcher speaks first (`request`); the engine ends with `done` or `local`.
 */
export const LAUNCH = {
  // launcher -> engine
  /** payload: see LaunchRequest in launch-request.ts. argument: LAUNCH_VERSION. */
  request: 1,
  /** payload: bytes of standard input, at most what `want` allowed. */
  input: 2,
  /** Standard input has ended. */
  inputEnd: 3,
  /** argument: a signal that the launcher got while no relay passes signals on. */
  signal: 4,
  /** payload: u16 rows, u16 columns: the terminal has changed. */
  resize: 5,
  /** The relay has ended. argument: 0 its session has exited, 1 detached by the keys, 2 its connection was lost, 3 the caller's output is gone (EPIPE), 4 cut off. */
  relayed: 6,
  /** Answer to `spawn`, in the same order. argument: the pid; or payload: u32 errno, str what failed. */
  spawned: 7,
  /** Answer to `wait`. argument: the exit code, 128 + n for signals; or payload: u32 errno (ECHILD: it never was its child). */
  exited: 8,
  /** Answer to `pidfd`. argument: 0 or errno. */
  pidfdSent: 9,

  // engine -> launcher
  /** payload: bytes for standard output, and for standard error. */
  output: 64,
  error: 65,
  /** argument: so many more bytes of standard input may be sent. Nothing is read from it before. */
  want: 66,
  /** A connected socket to the shim comes along (SCM_RIGHTS). argument: RELAY bits; payload: u32 session, u32 length + the detach keys' bytes. */
  relay: 67,
  /** argument: the exit code. The last frame; a relay that has not ended is brought to its end first (all its output written). */
  done: 68,
  /** The launcher is to run this itself, in a process of its own. payload: the reason in words (ENGINE_LOG_LEVEL=debug shows it). */
  local: 69,
  /** argument: 1 raw, 0 as it was: the caller's terminal. */
  raw: 70,
  /** The session of a relay with RELAY.early runs, if the launcher does not know yet; or what it `wait`s for has begun. */
  begun: 71,
  /**
   * Start a child: vfork + execveat. By SCM_RIGHTS in one message: the program, then its fds from 3 on. argument: SPAWN bits; payload: u32 preserve, str console socket, strs argv, strs env, u32 count + a
   * byte for each fd from 3 on: 0 closed, 1 the next one that came along. Fds 0 to 2 are the launcher's own. Answered by `spawned`.
   */
  spawn: 72,
  /**
   * Wait for the process with pid `argument`, which was orphaned to the launcher (SPAWN.adopt), pass signals on to it (all but KILL, STOP, CHLD, PIPE, URG, WINCH and those of faults), relay its terminal. Answered by `exited`.
   * payload: empty, or strs: if the engine ends meanwhile, a process that has not `begun` is killed, and after its end these words (none: nothing) are a command that another process of the engine serves; the exit code stays the process's.
   */
  wait: 73,
  /** Send a pidfd of process `argument` to the unix socket whose path is the payload. Answered by `pidfdSent`. */
  pidfd: 74,
} as const;
export const LAUNCH_VERSION = 2;

/** Which frontend serves a request: by the launcher's own name. */
export const FRONTEND = { cli: 0, oci: 1 } as const;

/** Fd of the connection that a process serves with the word --serve-one. */
export const SERVE_FD = 3;

export const SPAWN = {
  /** Become a subreaper first: what the child leaves behind is ours to wait for. */
  adopt: 1,
  /** After its fds the child gets one that takes the terminal's master: connected to the payload's console socket, or, when that is empty, to us, who relay it. */
  console: 2,
} as const;

export const RELAY = {
  /** The session has a terminal: raw mode on the caller's, detach keys, window sizes. */
  terminal: 1,
  /** Standard input goes to the session. */
  stdin: 2,
  /** Its end is the end of the session's input. */
  endInput: 4,
  /** Signals that the launcher gets go to the session. */
  signals: 8,
  /** The exit code of the session is the answer when nothing else is to be said (no OOM kill): the launcher ends without waiting for `done`. */
  final: 16,
  /**
   * The session has not begun: until the first frame of it comes (`started`, or output) or the engine says `begun`, standard input is not read, the terminal stays as it is, and signals go to
   * the engine (LAUNCH.signal).
   */
  early: 32,
} as const;

/** Bits of the request's `terminals`: which of fds 0, 1, 2 is one. */
export const TERMINALS = { stdin: 1, stdout: 2, stderr: 4 } as const;

/**
 * Fds that engined is born with, when the launcher or systemd started it. Socket activation as sd_listen_fds(3): LISTEN_FDS=1 and LISTEN_PID are set,
 * fd 3 listens. The lock is flock'ed on `engined.lock` beside the socket for as long as the process lives (fd 4; absent with systemd, then it takes it itself).
 */
export const ENGINED_FD = { listen: 3, lock: 4 } as const;

/** Files beside `engined.sock`. */
export const ENGINED_FILES = {
  socket: 'engined.sock',
  lock: 'engined.lock',
  /** JSON {pid, reason, plugin?, time}: why the last one was ended by its watchdog; read by the launchers whose calls that cut short (older ones they know by the file's time; it stays). Plain text in `reason`. */
  died: 'engined.died',
  /** What it says on its standard error, kept short. */
  log: 'engined.log',
} as const;

/** Files of the keeper in runRoot: one small process that runs the services of plugins, see config/keeper. Fd 4 is its lock, unless it is to replace another. */
export const KEEPER_FILES = {
  /** flock'ed for as long as it lives; JSON, see config/keeper/place.ts. */
  lock: 'keeper.lock',
  /** What it is to run. */
  work: 'keeper.json',
  /** What it and its services say, at most a megabyte. */
  log: 'keeper.log',
} as const;
