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
 * connection; extra fds follow), `pool=N` (mode run only: after N operations of part init, init and shim wait for `resume`), `trace`, and last
 * `hand-over` (with `console` and `preserve=N`, see below) and
 * `wake PROGRAM ARG...`: run when the shim ends while nobody holds its control connection, detached and with a clean environment. `wake-always PROGRAM ARG...`:
 * also when somebody does, as that one will not live on.
 *
 * Fds the shim is born with. How it is started: `run` (a container), `undo` (the after part of fd 6, with the run's folder and lock), `helper` (the helper
 * part, in a private mount namespace; extra fds 7.. are preset in registers `fd0`.. which the encoder numbers 0..7).
 * `host`: as `helper`, but in the caller's mount namespace (hooks of the OCI spec). `exec`: the exec part of fd 6 in the container whose run folder is fd 5 (its init by
 * `started`, checked by its start time), with its lock not needed.
 *
 * `hand-over` (modes `run`, `exec`): the shim is a child of the caller's own process, and init is to become that one's. Fds 0 to 2 are kept for the program (BITS.STDIO.inherit). Then
 * fd 7 is a connected unix socket that gets the terminal's master by SCM_RIGHTS (option `console`), and the next N fds are the program's from 3 on (`preserve=N`). Mode `run` says
 * `started` when init waits in `awaitStart`, mode `exec` when the program runs; after that the shim ends without an undo, and its processes do not die with it.
 * In `undo`, `helper` and `host` the control socket carries warning/failed frames and a last `ok` or `error`.
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
  /** Fifos of a run that was handed over: `start` writes a byte to `go`, and reads from `status` until its end why the program could not be exec'd. */
  go: 'go',
  status: 'status',
} as const;
