import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { instanceOf, leaks, openFiles, owned, type Snapshot } from './leaks.ts';
import { oldKernel } from './old-kernel.ts';
import { patience, until } from './wait.ts';

const bin = join(import.meta.dirname, '..', '..', 'bin', 'engine');
/** With ENGINE_TEST_OLD_KERNEL any test of the product runs as if the kernel were Linux 5.14. */
const kernel: readonly string[] = process.env['ENGINE_TEST_OLD_KERNEL'] ? oldKernel() : [];

export interface Result {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}
export interface RunOptions {
  readonly input?: string | Buffer;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** ms until the process is killed and the test fails. */
  readonly deadline?: number;
}

/** A process of the command line that goes on. */
export class Running {
  readonly child: ChildProcessWithoutNullStreams;
  stdout = '';
  stderr = '';
  readonly result: Promise<Result>;

  constructor(child: ChildProcessWithoutNullStreams) {
    this.child = child;
    child.stdout.on('data', (data: Buffer) => (this.stdout += data.toString('latin1')));
    child.stderr.on('data', (data: Buffer) => (this.stderr += data.toString('latin1')));
    child.stdin.on('error', () => {}); // it may end without reading all
    this.result = new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) => resolve({ code, signal, stdout: Buffer.from(this.stdout, 'latin1').toString(), stderr: Buffer.from(this.stderr, 'latin1').toString() }));
    });
  }
  async output(pattern: RegExp, deadline?: number): Promise<void> {
    await until(() => `${pattern.source} in the output, got: ${JSON.stringify(this.stdout + this.stderr)}`, () => pattern.test(this.stdout + this.stderr), deadline);
  }
}

export interface TestEngineOptions {
  /** The user's configuration file. */
  readonly config?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly folder?: string;
  /** Are commands served by an engined of its own (started with the first), or each by a process of its own? Default `off`, but `auto` in a guest of test/vm, where a process of Node takes seconds. */
  readonly resident?: 'auto' | 'off';
  /** What to put before a command so that it runs elsewhere, see World.engine. Without it containers have no network unless they ask for one: the machine's own is not to be touched. */
  readonly enter?: readonly string[];
}

/**
 * The product as a user has it, with roots of its own. `close` removes everything and returns what was left behind: expect it to be [].
 */
export class TestEngine {
  readonly folder: string;
  readonly root: string;
  readonly runRoot: string;
  readonly #before: Snapshot;
  readonly #env: Readonly<Record<string, string>>;
  readonly #enter: readonly string[];

  constructor(options: TestEngineOptions = {}) {
    this.folder = realpathSync(mkdtempSync(join(options.folder ?? '/var/tmp', 'engine-test-')));
    this.root = join(this.folder, 'root');
    this.runRoot = join(this.folder, 'run');
    for (const name of ['home', 'cwd', 'root']) mkdirSync(join(this.folder, name), { mode: 0o700 });
    this.#before = this.#owned();
    if (options.config !== undefined) this.configure(options.config);
    this.#enter = options.enter ?? [];
    // what a guest has was built outside
    const noBuild = process.env['ENGINE_NO_BUILD'];
    this.#env = { ...(noBuild ? { ENGINE_NO_BUILD: noBuild } : {}), ENGINE_RESIDENT: options.resident ?? (process.env['VM'] ? 'auto' : 'off'), ...(process.env['VM'] ? { ENGINE_WATCHDOG: '120' } : {}), ...(options.enter ? {} : { ENGINE_DRIVERS_NETWORK: 'none' }), ...options.env };
  }

  #owned(): Snapshot {
    return owned({ instance: this.instance, folder: this.folder });
  }

  /** What its cgroups are named after. */
  get instance(): string {
    return instanceOf(this.root);
  }

  /** Write the user's configuration file. */
  configure(text: string): void {
    mkdirSync(join(this.folder, 'home', '.config', 'engine'), { recursive: true });
    writeFileSync(join(this.folder, 'home', '.config', 'engine', 'enginerc.yaml'), text);
  }

  get env(): Record<string, string> {
    return { PATH: process.env['PATH'] ?? '', HOME: join(this.folder, 'home'), ENGINE_ROOT: this.root, ENGINE_RUN_ROOT: this.runRoot, ...this.#env };
  }

  start(args: readonly string[], options: RunOptions = {}): Running {
    const cwd = options.cwd ?? join(this.folder, 'cwd');
    const [program = bin, ...rest] = [...this.#entered(cwd), bin, ...args];
    const running = new Running(spawn(program, rest, { cwd, env: { ...this.env, ...options.env }, stdio: 'pipe' }));
    if (options.input !== undefined) running.child.stdin.end(options.input);
    return running;
  }

  /** Whoever enters a mount namespace begins at its root. */
  #entered(cwd: string): readonly string[] {
    return [...this.#enter, ...(this.#enter.some((word) => word.startsWith('--mount')) ? ['env', '-C', cwd] : []), ...kernel];
  }

  /** Run to the end. Standard input is empty unless `input` is given. */
  async run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const running = this.start(args, { input: '', ...options });
    const timer = setTimeout(() => running.child.kill('SIGKILL'), (options.deadline ?? 60_000) * patience);
    const result = await running.result.finally(() => clearTimeout(timer));
    if (result.signal === 'SIGKILL') throw new Error(`engine ${args.join(' ')} took too long; stdout: ${result.stdout} stderr: ${result.stderr}`);
    return result;
  }

  /** Run and expect success; standard output without the last newline. */
  async ok(...args: string[]): Promise<string> {
    const result = await this.run(args);
    if (result.code !== 0) throw new Error(`engine ${args.join(' ')} ended with ${result.code ?? result.signal ?? ''}: ${result.stderr}${result.stdout}`);
    return result.stdout.replace(/\n$/, '');
  }

  /** Run on a terminal of its own of 24 × 80 (script(1) makes it). Standard input is what is typed; standard output and error come as one. */
  terminal(args: readonly string[], options: RunOptions = {}): Running {
    const quoted = [...this.#entered(join(this.folder, 'cwd')), bin, ...args].map((arg) => `'${arg.replaceAll("'", `'\\''`)}'`).join(' ');
    return new Running(spawn('script', ['-qec', `stty rows 24 cols 80; exec ${quoted}`, '/dev/null'], { cwd: join(this.folder, 'cwd'), env: { ...this.env, TERM: 'xterm', ...options.env }, stdio: 'pipe' }));
  }

  /** Pid of its engined, undefined when none runs. */
  get engined(): number | undefined {
    return enginedOf(this.runRoot);
  }
  /** Pid of what keeps its networks' services, undefined when none runs. */
  get keeper(): number | undefined {
    return holderOf(join(this.runRoot, 'keeper.lock'));
  }
  /** Start its engined and wait until it listens. */
  async startEngined(): Promise<number> {
    await this.ok('engined', '--start');
    return until('engined', () => this.engined);
  }
  /** End it, and wait until it has ended. */
  async stopEngined(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    // one may just be handing over to the next
    for (let pid = this.engined; pid !== undefined; pid = this.engined) {
      process.kill(pid, signal);
      await until('the end of engined', () => !existsSync(`/proc/${pid}`));
    }
  }

  /** It ends by itself some time after the last container; nobody waits for that here. Nor for one that is being replaced by a newer build. */
  async stopKeeper(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const keepers = (): number[] => entries('/proc').filter((pid) => /^\d+$/.test(pid) && isKeeper(pid, this.runRoot)).map(Number);
    for (const pid of keepers()) process.kill(pid, signal);
    await until('the end of the keeper', () => keepers().length === 0);
  }
  async #withoutNetworks(): Promise<string[]> {
    await this.ok('network', 'prune', '-f');
    return this.orphans();
  }
  /** What doctor finds left behind, one line each. What is just being removed is waited for. */
  async orphans(): Promise<string[]> {
    let found: string[] = [];
    await until('orphans to be removed', async () => {
      const [, left] = (await this.run(['doctor'])).stdout.split('\nLEFT BEHIND');
      found = (left ?? '').split('\n').slice(1).filter(Boolean).map((line) => `doctor: ${line}`);
      return found.length === 0;
    }, 5000).catch(() => {});
    return found;
  }

  /** Ids of all its containers, whatever their state. */
  async containers(): Promise<string[]> {
    return (await this.ok('ps', '-aq', '--no-trunc')).split('\n').filter(Boolean);
  }
  /** Remove them all, with what runs in them and their anonymous volumes. */
  async removeContainers(): Promise<void> {
    const ids = await this.containers();
    if (ids.length > 0) await this.ok('rm', '-fv', ...ids);
  }

  /** Remove all containers, volumes and networks, then the roots; what is left on the machine and in the roots, one line each. */
  async close(): Promise<string[]> {
    await this.removeContainers();
    const volumes = (await this.ok('volume', 'ls', '-q')).split('\n').filter(Boolean);
    if (volumes.length) await this.ok('volume', 'rm', ...volumes);
    // its networks, and what no owner accounts for
    const orphans = this.#enter.length > 0 ? await this.#withoutNetworks() : [];
    // one may be on its way: `ps` and the like start it for the next command
    if (this.#env['ENGINE_RESIDENT'] !== 'off') await this.ok('engined', '--start');
    await until('engined to be known', () => this.#env['ENGINE_RESIDENT'] === 'off' || this.engined !== undefined);
    await this.stopEngined();
    await this.stopKeeper();
    const inFlight = ['inflight', 'containers'].flatMap((name) => entries(join(this.root, name)).map((entry) => `root: ${name}/${entry}`));
    const runs = entries(join(this.runRoot, 'runs')).map((entry) => `runRoot: runs/${entry}`);
    // a shim ends a moment after it has reported that all is gone, and systemd removes its scope after that; a process that looked after restart policies, when it has seen that none are left
    const mine = await until('processes to end', () => { const left = leaks(this.#before, this.#owned()); return left.every((line) => !line.startsWith('processes: ') && !/^cgroups: .*\.scope(?:\/|$)/.test(line)) ? [left] : undefined; }, 15_000).catch(() => [leaks(this.#before, this.#owned())]);
    const left = [...orphans, ...(mine[0] ?? []), ...inFlight, ...runs];
    rmSync(this.folder, { recursive: true, force: true });
    return left;
  }
}

/** Names in a folder, none when it isn't there. */
export function entries(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => !name.startsWith('.'));
  } catch {
    return [];
  }
}

/** Pid of the engined that holds the lock of this folder. */
export const enginedOf = (runRoot: string): number | undefined => holderOf(join(runRoot, 'engined.lock'));

/** Pid in a lock file that its process has open. */
export function holderOf(lock: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(lock, 'utf8'));
    return pid > 0 && openFiles(pid).includes(lock) ? pid : undefined;
  } catch {
    return undefined;
  }
}
function isKeeper(pid: string, runRoot: string): boolean {
  try {
    return new RegExp(`^engine-keeper ${runRoot}\0*$|keeper\\.js\0${runRoot}\0*$`).test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
  } catch {
    return false;
  }
}
