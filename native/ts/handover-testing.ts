/** What the tests of a hand-over share: a shim that is a direct child of somebody else than the engine, with that one's streams. */
import { spawn as spawnProcess, type ChildProcess, type StdioOptions } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BITS, op, RUN_FILES, step, type Step } from '@engine/core/plan';
import { binaryFolder } from './binaries.ts';
import { createConnection } from './shim.ts';
import { createSyscalls } from './syscalls.ts';
import { Bench, bytesOf, Talk, type Container } from './testing.ts';

export interface Caller {
  /** Its fds 0 to 2; /dev/null without. */
  readonly stdio?: readonly [number | 'ignore', number | 'ignore', number | 'ignore'];
  /** A connected unix socket for the terminal's master. */
  readonly console?: number;
  /** Its fds from 3 on. */
  readonly preserved?: readonly number[];
  readonly options?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A program that is put before the shim. */
  readonly before?: readonly string[];
}

/** A caller that lives on as the parent of what is handed over: a subreaper, as containerd's shim and conmon are. */
export class HandOver extends Bench {
  readonly children: ChildProcess[] = [];
  readonly #open: number[] = [];

  /** As `steps` of a Bench, with the streams of the caller and a wait for the start. */
  handedSteps(container: Container): Step[] {
    const terminal = ((container.stdio ?? 0) & BITS.STDIO.terminal) !== 0;
    const steps = this.steps({ ...container, stdio: terminal ? BITS.STDIO.terminal : BITS.STDIO.inherit, log: false });
    const at = steps.findIndex(({ operation }) => operation.name === 'exec');
    return [...steps.slice(0, at), step('init.exec', op.awaitStart({})), ...steps.slice(at)];
  }

  /** Start the shim as a child of this process. */
  spawn(mode: 'run' | 'exec' | 'host', plan: Uint8Array, caller: Caller = {}): Talk {
    const name = mode === 'run' ? 'plan' : `${mode}-plan`;
    const path = join(this.run, name);
    writeFileSync(path, plan);
    const lock = mode === 'run' ? this.native.tryLock(join(this.run, 'lock'), { create: true }) : undefined;
    if (mode === 'run' && !lock) throw new Error('the lock is taken');
    const calls = createSyscalls();
    const [mine, theirs] = calls.socketPair();
    const folder = openSync(this.run, constants.O_RDONLY | constants.O_DIRECTORY);
    const planFd = openSync(path, 'r');
    const extra = [...(caller.console === undefined ? [] : [caller.console]), ...(caller.preserved ?? [])];
    const stdio: StdioOptions = [...(caller.stdio ?? ['ignore', 'ignore', 'ignore'] as const), theirs, lock ? lock.fd : 'ignore', folder, planFd, ...extra];
    const options = [...(mode === 'host' ? [] : ['hand-over']), ...(caller.console === undefined ? [] : ['console']), ...(caller.preserved ? [`preserve=${caller.preserved.length}`] : []), ...(caller.options ?? [])];
    const shim = join(binaryFolder(), caller.env ? 'engine-shim-test' : 'engine-shim');
    const [program = shim, ...rest] = [...(caller.before ?? []), shim, mode, ...options];
    const child = spawnProcess(program, rest, { stdio, env: { ...caller.env } });
    this.children.push(child);
    lock?.release();
    for (const fd of [theirs, folder, planFd]) closeSync(fd);
    const talk = new Talk(createConnection(new Socket({ fd: mine, readable: true, writable: true }), () => calls));
    this.connections.push(talk);
    return talk;
  }

  /** Create a container that waits for its start; its pid. */
  async create(container: Container, caller: Caller = {}): Promise<number> {
    const talk = this.spawn('run', bytesOf(this.handedSteps(container)), caller);
    const { argument } = await talk.frame('started');
    await talk.connection.closed;
    return argument;
  }

  /** What `start` does: why the program could not be run, '' when it runs. */
  async begin(): Promise<string> {
    const status = openSync(join(this.run, RUN_FILES.status), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const go = openSync(join(this.run, RUN_FILES.go), constants.O_WRONLY | constants.O_NONBLOCK);
      writeSync(go, 'x');
      closeSync(go);
      const buffer = Buffer.alloc(4096);
      for (let text = ''; ;) {
        try {
          const n = readSync(status, buffer);
          if (n === 0) return text;
          text += buffer.toString('utf8', 0, n);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
          await sleep(1);
        }
      }
    } finally {
      closeSync(status);
    }
  }

  /** An fd that is closed with this. */
  keep(fd: number): number {
    this.#open.push(fd);
    return fd;
  }

  override async close(): Promise<void> {
    for (const fd of this.#open.splice(0)) closeSync(fd);
    try {
      process.kill((JSON.parse(this.file('started')) as { pid: number }).pid, 'SIGKILL');
    } catch {
      // never started, or gone
    }
    await super.close();
  }
}

/** Field `name` of /proc/PID/status; undefined when there is no such process, or only its zombie. */
export function statusOf(pid: number, name: string): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'utf8');
    return /^State:\tZ/m.test(text) ? undefined : new RegExp(`^${name}:\t(.*)$`, 'm').exec(text)?.[1];
  } catch {
    return undefined;
  }
}
