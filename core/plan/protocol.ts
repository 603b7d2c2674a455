/**
 * Frames between the engine (or another client) and a shim, over the control socket it is born with and over `shim.sock`.
 *
 *     u32 payloadLength, u16 type, u16 session, u32 argument, payload      (little-endian, 12 bytes of head)
 *
 * Session 0 is the container's init; exec sessions are numbered by the client that starts them (1..65535, refused when in use).
 */
export const FRAME = {
  // client -> shim
  /** argument: attach bits of BITS.STDIO; output from now on goes to this client too. */
  attach: 1,
  /** payload: bytes for stdin. */
  stdin: 2,
  stdinEof: 3,
  /** payload: u16 rows, u16 columns. */
  resize: 4,
  /** argument: signal number, to the session's process. */
  signal: 5,
  /** argument: BITS.STDIO; payload: a plan with an `exec` part. Answered by started or failed, later exit. */
  exec: 6,
  /** answered by exit as soon as the session has ended, at once when it has. */
  wait: 7,
  /** the after part was replaced on disk (`plan` renamed into place): use the new one. Answered by ok. */
  amend: 8,
  /** argument: 0 go on, else errno; payload: a plan whose init part is run at the next release. */
  barrierReply: 9,
  /** answered by state. */
  state: 10,
  /** stop sending output of this session to this client. */
  detach: 11,
  /** With SCM_RIGHTS, a connected socket: it becomes a client, and gets (instead of this one) the streams of what this connection attaches, execs or resumes from now on. */
  adopt: 12,
  /** To a shim of mode `pool` that is prepared: payload: the plan to go on with, see SpawnShim.pool. Answered as a start is. */
  resume: 13,

  // shim -> client
  /** argument: pid on the host; payload: u64 start time (field 22 of /proc/PID/stat). The program has been exec'd. */
  started: 64,
  /** payload: u32 part, u32 index of the operation, i32 errno, u32 length, detail text. The run is being undone. */
  failed: 65,
  /** the same payload; the plan goes on. */
  warning: 66,
  /** argument: 1 stdout, 2 stderr. */
  output: 67,
  /** argument: exit code as Docker's (128+n for signals); payload: the JSON of the run's `exit` file. Sent before any teardown, after all output. */
  exit: 68,
  /** argument: operations of the undo that failed. The last frame for session 0; the shim ends. */
  gone: 69,
  /** payload: u32 index of the operation, u32 pid of init (0 before spawn), u32 length + handler, u32 length + input. */
  barrier: 70,
  /** payload: JSON {pid, startTime, paused, sessions: [{session, pid}], dropped: bytes}. */
  state_: 71,
  ok: 72,
  /** argument: errno; payload: text. */
  error: 73,
  /** this client did not read for too long: nothing more is sent to it. */
  cutOff: 74,
  /** Mode `pool`: all that is common is done; waiting for `resume`. argument: pid of init. */
  prepared: 75,
  /** With SpawnShim.trace, before `started`, `failed`, `gone` and the last word of a helper or undo: payload: entries of u32 part, u32 index, u64 begin, u64 end (CLOCK_MONOTONIC, ns) since the last one. */
  trace: 76,
} as const;

/**
 * How the shim is called: `engine-shim MODE [OPTION...]`, options being `client` (fd 7 is a connected client, which gets the streams instead of the control
 * connection; extra fds follow), `pool=N` (mode run only: after N operations of part init, init and shim wait for `resume`), `trace`,
 * `hand-over` (with `console`, `preserve=N` and, for mode exec, `ignore-paused`: see below), and last
 * `wake PROGRAM ARG...`: run when the shim ends while nobody holds its control connection, detached and with a clean environment. `wake-always PROGRAM ARG...`:
 * also when somebody does, as that one will not live on.
 *
 * Fds the shim is born with. How it is started: `run` (a container), `undo` (the after part of fd 6, with the run's folder and lock), `helper` (the helper
 * part, in a private mount namespace; extra fds 7.. are preset in registers `fd0`.. which the encoder numbers 0..7), `host` (as `helper`, but in the caller's mount
 * namespace, and going on to its end when the control connection ends: hooks of the OCI spec), `exec` (only with `hand-over`: see below). In `undo`, `helper` and `host` the control socket carries warning/failed frames and
 * a last `ok` or `error`.
 *
 * `hand-over` (modes `run`, `exec`): the shim is a child of the caller's own process, and what it starts is to become that one's: an orphan that goes to the caller
 * or to the subreaper above it. Fds 0 to 2 are the caller's and kept for the program (BITS.STDIO.inherit; only their owner is changed, to the container's user; a
 * closed one becomes /dev/null), unless it gets a terminal. Then fd 7 is a connected unix socket that gets the terminal's master by SCM_RIGHTS with the text `/dev/ptmx`
 * and is shut down for writing (option `console`; BITS.STDIO.terminal must be set exactly then), and the next N fds (at most 1024) are the program's from 3 on
 * (`preserve=N`; one that is not open is EBADF). No other fd reaches the program. The shim is no subreaper, makes no `shim.sock`, and leaves cgroups, limits, scheduling, keyring
 * and oom_score_adj as the caller has them: so has the container what its plan does not set.
 *
 * `run`, handed over: the plan has `awaitStart` in part `init`. The shim makes the fifos `go` and `status` in the run's folder. When init waits, it writes
 * `started`, tells init to live without it, sends the frame `started` and ends without an undo: folder and plan stay, the lock is free when the
 * connection ends. A failure before that, or the end of the control connection, is undone as ever (`failed`, `gone`). Where the connection ends
 * without `started` and without `gone`, the shim was killed: take the lock, and run the undo, which kills the init that `started` names.
 * From then on: whoever starts it opens `status` for reading and then `go` for writing (both O_NONBLOCK; ENXIO of `go`: nobody waits any more), writes one byte, and reads
 * `status` to its end: nothing when the program was exec'd (or init was killed), else JSON as in the file `failed`, written at once, and init has ended with 1. Nobody but the reader
 * keeps that text. While it waits, init ends by TERM, HUP, INT and QUIT with 128+n, also as pid 1, and lives through USR1, USR2 and ALRM, as runc's.
 *
 * `exec`: a session in the container whose run folder is fd 5 (its init by `started`, checked by its start time; ESRCH when that is gone); fd 4 is not needed. Fd 6 is a plan
 * with a part `exec`, and, before it, a part `shim` with nothing but what needs the host: `stdio` (else as the options say, without a window size), `open` of files that
 * the exec part then uses (`writeFd` to the `tasks` of a v1 group), `cloneInto` (the session is born in this v2 group instead of init's), `setAffinity`. Answered by
 * `started` (pid and start time; the program has been exec'd) or `failed`, both of session 0; then the shim ends. Refused with EBUSY while the container is paused, unless
 * `ignore-paused`. When the control connection ends first, the session is killed.
 */
export const SHIM_FD = { control: 3, lock: 4, runFolder: 5, plan: 6, firstExtra: 7 } as const;

/** Files of a run's folder (0700), besides `rootfs/`, an empty folder to mount on. */
export const RUN_FILES = {
  /** JSON written by the engine before the shim starts: {run, container, instance, boot, created}. */
  record: 'record.json',
  /** The encoded plan. */
  plan: 'plan',
  /** flock'ed for the life of the run by the shim; taken by the engine before the folder becomes visible. */
  lock: 'lock',
  socket: 'shim.sock',
  /** Written by the shim: {"pid":1,"startTime":1,"startedAt":"ns since the epoch"}. */
  started: 'started',
  /** Written by the shim: {"code":0,"signal":0,"coreDumped":false,"oom":{"killed":false,"limit":"memory"},"finishedAt":"ns","dropped":0}. */
  exit: 'exit',
  /** Written by the shim: {"part":"init","index":1,"errno":2,"detail":"..."} when the plan failed. */
  failed: 'failed',
  /** Written by whoever ran the undo: {"failures":[{"index":1,"errno":2,"detail":"..."}]}. */
  undone: 'undone',
  rootfs: 'rootfs',
  /** Fifos of a run that is handed over, made by its shim: see SHIM_FD. */
  go: 'go',
  status: 'status',
} as const;
