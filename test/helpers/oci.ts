/** `engine-oci` (or runc, to compare) with a root and bundles of its own, called as its callers do: with files for its output, since a container keeps what it is given. */
import { spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, closeSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Spec } from '@engine/core/spec';
import { exampleSpec } from '../../plugins/frontend-oci/example-spec.ts';
import { cgroups, instanceOf, mounts } from './leaks.ts';
import { TestEngine } from './engine.ts';
import { patience, until } from './wait.ts';

const binary = join(import.meta.dirname, '..', '..', 'bin', 'engine-oci');
const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path));
export const hasBusybox = busybox !== undefined;
export const hasScript = existsSync('/usr/bin/script');
/** A real runc to compare with. */
export const runc = ['/usr/sbin/runc', '/usr/bin/runc', '/usr/local/sbin/runc'].find((path) => existsSync(path));

export interface Answer { readonly code: number | null; readonly stdout: string; readonly stderr: string; readonly pid: number }
export interface CallOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
  /** Fds 3 and up. */
  readonly fds?: readonly number[];
  readonly deadline?: number;
}
export interface Started {
  readonly child: ChildProcess;
  readonly answer: Promise<Answer>;
  /** Standard output so far. */
  output(): string;
}

export class OciRuntime {
  readonly engine: TestEngine;
  readonly folder: string;
  readonly root: string;
  readonly #program: string;
  readonly #before: readonly string[];
  #count = 0;

  constructor(options: { readonly resident?: 'auto' | 'off'; readonly program?: string } = {}) {
    this.engine = new TestEngine({ resident: options.resident ?? 'off' });
    this.folder = realpathSync(mkdtempSync('/var/tmp/engine-oci-test-'));
    this.root = join(this.folder, 'state');
    mkdirSync(this.root, { mode: 0o700 });
    this.#program = options.program ?? binary;
    this.#before = mounts();
  }
  /** A folder with busybox as its root filesystem and a config.json that `change` makes of the example. */
  bundle(change: (spec: Spec & { process: NonNullable<Spec['process']> }) => void = () => {}, args: readonly string[] = ['sh', '-c', 'exit 0']): string {
    const bundle = join(this.folder, `bundle-${++this.#count}`);
    mkdirSync(join(bundle, 'rootfs', 'bin'), { recursive: true });
    for (const name of ['etc', 'proc', 'dev', 'sys', 'tmp']) mkdirSync(join(bundle, 'rootfs', name));
    copyFileSync(busybox ?? '', join(bundle, 'rootfs', 'bin', 'busybox'));
    chmodSync(join(bundle, 'rootfs', 'bin', 'busybox'), 0o755);
    for (const name of ['sh', 'sleep', 'cat', 'echo', 'id', 'env', 'ls', 'tty', 'stty', 'kill', 'readlink', 'true', 'grep']) symlinkSync('busybox', join(bundle, 'rootfs', 'bin', name));
    writeFileSync(join(bundle, 'rootfs', 'etc', 'plain'), 'no program\n');
    const spec = exampleSpec() as Spec & { process: NonNullable<Spec['process']> };
    spec.process.terminal = false;
    spec.process.args = [...args];
    spec.ociVersion = '1.0.2'; // of any age
    change(spec);
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
    return bundle;
  }
  start(args: readonly string[], { env = {}, cwd = this.folder, input, fds = [] }: CallOptions = {}): Started {
    const place = join(this.folder, `out-${++this.#count}`);
    const [out, error] = [openSync(`${place}.1`, 'w'), openSync(`${place}.2`, 'w')];
    const child = spawn(this.#program, ['--root', this.root, ...args], { cwd, env: { ...this.engine.env, ...env }, stdio: [input === undefined ? 'ignore' : 'pipe', out, error, ...fds] });
    closeSync(out);
    closeSync(error);
    if (input !== undefined) child.stdin?.end(input);
    const answer = new Promise<Answer>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => resolve({ code, stdout: readFileSync(`${place}.1`, 'utf8'), stderr: readFileSync(`${place}.2`, 'utf8'), pid: child.pid ?? 0 }));
    });
    return { child, answer, output: () => readFileSync(`${place}.1`, 'utf8') };
  }
  async call(args: readonly string[], options: CallOptions = {}): Promise<Answer> {
    const { child, answer } = this.start(args, options);
    const timer = setTimeout(() => child.kill('SIGKILL'), (options.deadline ?? 60_000) * patience);
    const said = await answer.finally(() => clearTimeout(timer));
    if (said.code === null) throw new Error(`${args.join(' ')} took too long: ${said.stderr}`);
    return said;
  }
  /** On a terminal of 24 x 80, with `input` typed when the size has been told; what is on it in the end, and the exit code. */
  async terminal(args: readonly string[], input: string): Promise<string> {
    const words = [this.#program, '--root', this.root, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    const child = spawn('script', ['-qec', `stty rows 24 cols 80; ${words}; echo code $?`, '/dev/null'], { cwd: this.folder, env: { ...this.engine.env, TERM: 'xterm' }, stdio: 'pipe' });
    let said = '';
    child.stdout.on('data', (data: Buffer) => (said += data.toString()));
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    await until(() => `the size of the terminal: ${JSON.stringify(said)}`, () => said.includes('24 80') || child.exitCode !== null);
    child.stdin.write(input);
    await ended;
    return said;
  }
  async ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.call(args);
    if (code !== 0) throw new Error(`${args.join(' ')} ended with ${code}: ${stderr}`);
    return stdout;
  }
  async state(id: string): Promise<{ readonly status: string; readonly pid: number; readonly [key: string]: unknown }> {
    return JSON.parse(await this.ok('state', id)) as { status: string; pid: number };
  }
  async untilStatus(id: string, status: string): Promise<void> {
    await until(`${id} to be ${status}`, async () => (await this.state(id)).status === status);
  }
  async ids(): Promise<string[]> {
    return (await this.ok('list', '-q')).split('\n').filter(Boolean);
  }
  /** Delete all; what is left on the machine, one line each: expect it to be []. */
  async close(): Promise<string[]> {
    const left: string[] = [];
    for (const id of await this.ids()) await this.ok('delete', '--force', id);
    const entries = readdirSync(this.root).filter((name) => name !== '.trash' && name !== '.leftovers');
    left.push(...entries.map((name) => `state: ${name}`));
    const trash = join(this.root, '.trash');
    await until('what was deleted to be gone', async () => !existsSync(trash) || readdirSync(trash).length === 0 || void (await this.call(['delete', '--force', 'nobody'])), 20_000, 50);
    for (const aside of ['.trash', '.leftovers']) if (existsSync(join(this.root, aside))) left.push(...readdirSync(join(this.root, aside)).map((name) => `${aside}: ${name}`));
    left.push(...cgroups().filter((path) => path.includes(this.instance)).map((path) => `cgroup: ${path}`));
    left.push(...mounts().filter((path) => path.startsWith(this.folder) && !this.#before.includes(path)).map((path) => `mount: ${path}`));
    left.push(...await this.engine.close());
    left.push(...this.processes().map((name) => `process: ${name}`));
    rmSync(this.folder, { recursive: true, force: true });
    return left;
  }
  /** In names of what containers have on the host. */
  get instance(): string {
    return instanceOf(this.root);
  }
  /** Processes whose root or arguments are of this test. */
  processes(): string[] {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid).flatMap((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
        return words.includes(this.folder) ? [`${pid} ${words.replaceAll('\0', ' ')}`] : [];
      } catch {
        return [];
      }
    });
  }
}
