/**
 * The seam between core and the native part: core says what it needs, `@engine/native` implements it, tests hand in a fake.
 * Nothing else in core touches a file descriptor or a process.
 */
export interface Native {
  /**
   * open(O_CREAT|O_CLOEXEC) + flock(LOCK_EX|LOCK_NB). Undefined when somebody else holds it, or the file is gone and `create` is false. What is locked is
   * the file at `path`: one that was renamed or replaced in between is let go.
   * `byte`: only that one of the file (an open file description lock): as many locks as one likes, without a file for each.
   * `shared`: LOCK_SH, to ask whether somebody holds it without looking like a holder to others who ask.
   */
  tryLock(path: string, options?: { readonly create?: boolean; readonly shared?: boolean; readonly byte?: number }): Lock | undefined;
  /**
   * Start the shim from a sealed memfd in a session of its own. Its control socket is the returned connection.
   * The shim inherits `lock` (same open file description: it holds the lock until it ends; close yours with `release` afterwards).
   */
  spawnShim(request: SpawnShim): ShimConnection;
  /** Start a program of somebody else's that is spoken with in messages. Errors: ERR_NATIVE with errno and path. */
  startProgram(request: StartProgram): Promise<ProgramConnection>;
  /** Connect to a running shim's socket. Rejects with ERR_SHIM_GONE when nobody listens. */
  connectShim(socketPath: string): Promise<ShimConnection>;
  /** Field 22 of /proc/PID/stat, undefined when there is no such process; with `living` also when it has ended, and only waits for its parent to ask how. */
  processStartTime(pid: number, living?: boolean): bigint | undefined;
  /** Folder of what the kernel tells of a process. */
  processFolder(pid: number): string;
  /** Send a signal to the process that has this start time, by a pidfd: never to another. False: it has ended. Errors: ERR_NATIVE. */
  signalProcess(pid: number, startTime: bigint, signal: number): boolean;
  /** Remove a cgroup folder that nobody is in, nor has a group in. True: it is not there any more; false: it cannot be done like that. */
  removeGroup(path: string): boolean;
  /** Tell once, from the event loop and never within this call, that the process that has this start time has ended, be it long ago. Keeps this process alive until then, or `close`. Errors: ERR_NATIVE. */
  watchEnd(pid: number, startTime: bigint, onEnd: () => void): { close(): void };
  /** /proc/sys/kernel/random/boot_id */
  bootId(): string;
  /** Two connected ends of a stream socket, close-on-exec. */
  socketPair(): readonly [number, number];
  /** Close an end of a socket pair that nobody has taken over. */
  close(fd: number): void;
  /** Can this port of the host be bound? 'sctp' that this kernel has no sockets for counts as free. `address` 4 or 6; IPv6 means IPv6 alone. */
  isPortFree(protocol: 'tcp' | 'udp' | 'sctp', address: string, port: number): boolean;
  /** Who listens there, in words: `nginx (pid 12)`. Undefined: not to be found out. Slow: reads /proc. */
  portHolder(protocol: 'tcp' | 'udp' | 'sctp', address: string, port: number): string | undefined;
  /** A pipe as two fds, close-on-exec; for streams of pack and unpack. */
  pipe(): { readonly read: number; readonly write: number };
}
export interface SpawnShim {
  readonly mode: 'run' | 'exec' | 'undo' | 'helper' | 'host';
  /** Path of the encoded plan. */
  readonly plan: string;
  readonly runFolder?: string;
  readonly lock?: Lock;
  /** Become fds 7.. and registers fd0... */
  readonly streams?: readonly number[];
  /** Mode `run`: a connected stream socket that becomes a client and gets the streams instead of the returned connection. Taken over: closed here in any case. */
  readonly client?: number;
  /**
   * Mode `run`: go ahead only until so many operations of part `init` are done (and all of part `shim` but `stdio`), say `prepared`, then wait for `resume`. The
   * plan that comes with it must be the same as this one up to there (`stdio` aside), registers included; its rest is run. Without `resume`: the end of
   * the connection undoes all.
   */
  readonly pool?: number;
  /** Frames `trace` tell when each operation began and ended. */
  readonly trace?: boolean;
  /** A program with arguments that the shim starts when it ends with nobody at its control connection. */
  readonly wake?: readonly string[];
  /** Start it in any case: who holds the connection is to end soon, perhaps just when the run does. */
  readonly wakeAlways?: boolean;
  /** Extra environment of the shim itself; tests only (halt points). */
  readonly env?: Readonly<Record<string, string>>;
  /** Start it as a child of somebody else, whose fds 0 to 2 it keeps; what the shim is told of it are options of its command line. */
  readonly by?: Spawner;
  /** Modes `run` and `exec`, with `by`: end without an undo as soon as the program waits for its start, or runs (`exec`). */
  readonly handOver?: CallerFds;
  /** Mode `exec`: also in a container that is paused (shim option `ignore-paused`). */
  readonly ignorePaused?: boolean;
}
/** What the caller's process hands over besides its fds 0 to 2. */
export interface CallerFds {
  /** The terminal's master goes to this unix socket; `relay`: to the caller's process, which passes on what comes. Absent without a terminal. */
  readonly console?: { readonly socket: string } | 'relay';
  /** Its fds 3 and up, so many. */
  readonly preserve: number;
}
/** Somebody else's process (the launcher of a command) that starts processes on our behalf, as its children. */
export interface Spawner {
  /**
   * vfork and execveat `program` with `fds[i]` as fd 3 + i (-1: closed), after them the console's socket and the preserved fds as `callerFds` says; fds 0 to 2 stay the
   * caller's. Resolves with its pid. Errors: ERR_NATIVE with errno; ERR_SHIM_GONE when the caller has gone.
   */
  spawn(request: { readonly program: number; readonly argv: readonly string[]; readonly env: readonly string[]; readonly fds: readonly number[]; readonly callerFds: CallerFds }): Promise<number>;
}
export interface StartProgram {
  /** Absolute. */
  readonly path: string;
  /** The first one included. */
  readonly argv: readonly string[];
  readonly env: readonly string[];
  readonly by: Spawner;
  /** Of ours, as its fds from 4 on; fd 3 is its end of the connection. */
  readonly fds: readonly number[];
  /** A terminal's socket comes after `fds`, see {@link ProgramConnection.sendTerminal}. */
  readonly callerFds: CallerFds;
}
/** Messages of at most 64 KiB that keep their borders. */
export interface ProgramConnection {
  readonly pid: number;
  /** Errors: ERR_NATIVE; EPIPE when it has ended. */
  send(message: Uint8Array): void;
  /** The next message, with a file that came along, which is whoever's gets it to close. Undefined: it has closed its end. */
  next(): Promise<{ readonly message: Buffer; readonly fd?: number } | undefined>;
  /** Give the master of a terminal to whom `callerFds.console` names; `fd` stays open here. Errors: ERR_NATIVE. */
  sendTerminal(fd: number): void;
  close(): void;
}
export interface Lock {
  readonly fd: number;
  readonly path: string;
  /** close(2): frees the lock unless a shim shares it. */
  release(): void;
}
export interface Frame {
  /** A value of FRAME. */
  readonly type: number;
  readonly session: number;
  readonly argument: number;
  readonly payload: Buffer;
}
export interface ShimConnection {
  /** Resolves when the bytes are with the kernel (back-pressure). */
  send(type: number, frame?: { readonly session?: number; readonly argument?: number; readonly payload?: Uint8Array }): Promise<void>;
  /** Send `adopt` with this fd, which is closed here in any case. */
  adopt(fd: number): void;
  /** Set once; frames that came before are delivered first, in order. */
  onFrame(listener: (frame: Frame) => void): void;
  /** Stop and go on reading from the socket: back-pressure for output. */
  pause(): void;
  resume(): void;
  /** Resolves when the other side has closed, however that came. */
  readonly closed: Promise<void>;
  /** Why there was never anybody on the other side. */
  readonly failure?: Error | undefined;
  close(): void;
}
