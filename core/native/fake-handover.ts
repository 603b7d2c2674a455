import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { decodePlan, type DecodedStep } from '../plan/decode.ts';
import { RUN_FILES } from '../plan/protocol.ts';
import { failure, Session, type Perform, type RunProgram } from './fake-shim.ts';

/** How a fake process ended; `signal` 0 unless one has killed it. */
export interface FakeEnd { readonly code: number; readonly signal: number }

/** A process that a fake shim has handed over: nobody's child in the fake, seen by its pid alone. */
export class FakeProcess {
  readonly pid: number;
  readonly ended: Promise<FakeEnd>;
  isAlive = true;
  /** What its program has written to the caller's streams. */
  readonly output = { stdout: '', stderr: '' };
  #end: (end: FakeEnd) => void = () => {};
  #session: Session | undefined;

  constructor(pid: number) {
    this.pid = pid;
    this.ended = new Promise((resolve) => {
      this.#end = (end) => {
        this.isAlive = false;
        resolve(end);
      };
    });
  }
  /** It has become its program. */
  become(step: DecodedStep, run: RunProgram): void {
    this.#session = new Session(0, step, (stream, data) => void (this.output[stream] += Buffer.from(data).toString()), run);
    this.#session.endInput();
    void this.#session.ended.then((end) => this.#end(end));
  }
  end(code: number): void { this.#end({ code, signal: 0 }); }
  signal(number: number): void {
    if (!this.isAlive || number === 0) return;
    if (this.#session) this.#session.signal(number);
    else this.#end({ code: 128 + number, signal: number });
  }
}

/** Those of a machine, over all its engines. */
export class FakeProcesses {
  readonly #all = new Map<number, FakeProcess>();

  make(pid: number): FakeProcess {
    const made = new FakeProcess(pid);
    this.#all.set(pid, made);
    return made;
  }
  find(pid: number): FakeProcess | undefined { return this.#all.get(pid); }
  /** The init that a run's folder names, when it lives. */
  init(folder: string): FakeProcess | undefined {
    try {
      const { pid } = JSON.parse(fs.readFileSync(join(folder, RUN_FILES.started), 'utf8')) as { pid: number };
      const found = this.#all.get(pid);
      return found?.isAlive ? found : undefined;
    } catch {
      return undefined;
    }
  }
  killAll(): void {
    for (const one of this.#all.values()) one.signal(9);
  }
}

/** The fifos of a run that is handed over, as init holds them. */
export interface FakeFifos { readonly go: number; readonly status: number }
export function makeFifos(folder: string): FakeFifos {
  const open = (name: string): number => {
    const path = join(folder, name);
    execFileSync('mkfifo', ['-m', '600', path]);
    return fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
  };
  return { go: open(RUN_FILES.go), status: open(RUN_FILES.status) };
}
export function closeFifos({ go, status }: FakeFifos): void {
  fs.closeSync(go);
  fs.closeSync(status);
}

/** Init after its shim: waits for a byte in `go`, does what comes after `awaitStart`, becomes its program. */
export async function fakeInit(process: FakeProcess, plan: Uint8Array, fifos: FakeFifos, perform: Perform, program: RunProgram): Promise<void> {
  try {
    while (process.isAlive && !hasByte(fifos.go)) await new Promise((resolve) => setTimeout(resolve, 1).unref());
    if (!process.isAlive) return;
    const steps = decodePlan(plan).steps.filter(({ part }) => part === 'init');
    for (const step of steps.slice(1 + steps.findIndex(({ operation }) => operation.name === 'awaitStart'))) {
      try {
        if ((await perform(step, 'init')) === null) process.signal(9);
      } catch (error) {
        if (step.operation.flags?.optional) continue;
        fs.writeSync(fifos.status, JSON.stringify(failure(step, 'init', error).json));
        process.end(1);
      }
      if (!process.isAlive) return;
      if (step.operation.name === 'exec') process.become(step, program);
    }
  } finally {
    closeFifos(fifos);
  }
}

function hasByte(fd: number): boolean {
  try {
    return fs.readSync(fd, Buffer.alloc(1)) === 1;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return false;
    throw error;
  }
}
