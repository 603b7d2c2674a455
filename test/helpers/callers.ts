/**
 * Programs that run containers through an OCI runtime (dockerd, containerd, podman), each on a machine of its own: network and mount namespaces made by the test, an engine with its own
 * roots in them, and a folder that holds all that the daemon has. `close` ends the daemons and says what is left.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Running, type Result, type RunOptions, type TestEngine } from './engine.ts';
import { openFiles } from './leaks.ts';
import { endDaemon, untilUp } from './peers.ts';
import { patience, until } from './wait.ts';
import { makeWorld, type World } from './world.ts';

const repository = join(import.meta.dirname, '..', '..');
/** What callers are given as their runtime: ours. With ENGINE_TEST_RUNTIME=/usr/sbin/runc one sees what they do with another. */
export const runtime = process.env['ENGINE_TEST_RUNTIME'] ?? join(repository, 'bin', 'engine-oci');
/** Is it ours? A few things others can't do. */
export const ours = basename(runtime) === 'engine-oci';
/** Where the documentation says that it is installed. */
const installed = '/usr/local/bin/engine-oci';

/** An example of docs/callers as it is, but with the runtime of this test. */
export const example = (name: string): string => readFileSync(join(repository, 'docs', 'callers', 'examples', name), 'utf8').replaceAll(installed, runtime);

/** A line of a block of commands in docs/callers, as it stands there but with the runtime of this test. */
export function documented(page: string, begins: string): string {
  const text = readFileSync(join(repository, 'docs', 'callers', page), 'utf8');
  const lines = [...text.matchAll(/^```sh\n([^]*?)^```$/gm)].flatMap(([, block = '']) => block.split('\n')).filter((line) => line.startsWith(begins));
  const [line] = lines;
  if (line === undefined || lines.length > 1) throw new Error(`docs/callers/${page} has ${lines.length} lines that begin with: ${begins}`);
  return line.replace(/ {2,}#.*/, '').replaceAll(installed, runtime);
}
/** Programs that every machine of a caller is made and looked at with. */
export const needed = ['ip', 'nft', 'busybox'];

export interface MachineOptions {
  /** Are commands of the runtime served by an engined, or each by a process of its own? */
  readonly resident?: 'auto' | 'off';
}

export class CallerMachine {
  readonly folder: string;
  readonly world: World;
  readonly engine: TestEngine;
  /** Name of the cgroup below which containers are to be; `pod-<name>` and `conmon` in it are the caller's own. */
  readonly cgroup: string;
  readonly #daemons: ChildProcess[] = [];
  readonly #ids = new Set<string>();

  private constructor(world: World, { resident = 'auto' }: MachineOptions) {
    this.folder = mkdtempSync('/var/tmp/engine-caller-');
    this.cgroup = basename(this.folder);
    this.world = world;
    this.engine = world.engine({ resident });
  }
  static async make(options: MachineOptions = {}): Promise<CallerMachine> {
    // with resolvers it has a mount namespace too: whatever a daemon leaves mounted goes with it
    const machine = new CallerMachine(await makeWorld({ resolvers: ['127.0.0.1'] }), options);
    await machine.#hide('/run/containerd', '/var/lib/docker', '/var/lib/cni');
    if (ours) await machine.engine.ok('version');
    return machine;
  }
  /** Folders that callers use whatever roots they are given: empty ones on this machine, which go with it. What they are mounted on stays: others may have mounted there as well. */
  async #hide(...folders: string[]): Promise<void> {
    for (const folder of folders) {
      mkdirSync(folder, { recursive: true });
      await this.ok(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'callers', folder]);
    }
  }
  get env(): Record<string, string> {
    return { ...process.env, ...this.engine.env, HOME: this.folder, DOCKER_RAMDISK: '1' } as Record<string, string>;
  }
  path(...names: string[]): string {
    return join(this.folder, ...names);
  }
  write(name: string, text: string, mode = 0o644): string {
    const path = this.path(name);
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  }
  /** The runtime for callers that pass on no variables: the engine's are set by a script, which the runtime replaces. */
  wrapped(): string {
    const variables = Object.entries(this.engine.env).filter(([name]) => name.startsWith('ENGINE_')).map(([name, value]) => `export ${name}='${value}'\n`);
    return this.write('engine-oci', `#!/bin/sh\n${variables.join('')}exec ${runtime} "$@"\n`, 0o755);
  }
  /** Start a daemon whose log is `<name>.log`, and wait until `probe` succeeds. */
  async daemon(name: string, argv: readonly string[], probe: () => unknown, env: Readonly<Record<string, string>> = {}): Promise<ChildProcess> {
    const log = openSync(this.path(`${name}.log`), 'a');
    const [program = '', ...args] = [...this.world.machine.enter, ...argv];
    const daemon = spawn(program, args, { stdio: ['ignore', log, log], env: { ...this.env, ...env }, detached: true }); // Ctrl-C is for us: we end it
    closeSync(log);
    this.#daemons.push(daemon);
    await untilUp(name, daemon, this.path(`${name}.log`), probe);
    return daemon;
  }
  start(argv: readonly string[], options: RunOptions = {}): Running {
    const [program = '', ...args] = [...this.world.machine.enter, ...argv];
    const running = new Running(spawn(program, args, { stdio: 'pipe', env: { ...this.env, ...options.env } }));
    if (options.input !== undefined) running.child.stdin.end(options.input);
    return running;
  }
  async run(argv: readonly string[], options: RunOptions = {}): Promise<Result> {
    const running = this.start(argv, { input: '', ...options });
    const timer = setTimeout(() => running.child.kill('SIGKILL'), (options.deadline ?? 60_000) * patience);
    return running.result.finally(() => clearTimeout(timer));
  }
  async ok(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    const { code, signal, stdout, stderr } = await this.run(argv, options);
    if (code !== 0) throw new Error(`${argv.join(' ')}: ended with ${code ?? signal ?? ''}: ${stderr}${stdout}`);
    return stdout.replace(/\n$/, '');
  }
  /** On a terminal of 24 × 80; what is typed is standard input. */
  terminal(argv: readonly string[], options: RunOptions = {}): Running {
    const quoted = argv.map((arg) => `'${arg.replaceAll("'", `'\\''`)}'`).join(' ');
    return this.start(['script', '-qec', `stty rows 24 cols 80; exec ${quoted}`, '/dev/null'], { ...options, env: { TERM: 'xterm', ...options.env } });
  }
  /** From now on nothing may be left that has this id in its name. */
  watch(...ids: readonly string[]): void {
    for (const id of ids) if (id) this.#ids.add(id.trim());
  }

  /** What is left of containers while the daemons run; wait for what is on its way out. */
  async leftovers(): Promise<string[]> {
    let left: string[] = [];
    await until('leftovers to go', async () => (left = await this.#left()).length === 0, 8000).catch(() => {});
    // each is in a dozen hierarchies
    return left.length > 12 ? [...left.slice(0, 12), `and ${left.length - 12} more`] : left;
  }
  async #left(): Promise<string[]> {
    const marks = [...this.#ids];
    const found = cgroupFolders().filter((path) => marks.some((id) => path.includes(id)) || path.split('/').includes(this.cgroup) && !new RegExp(`/${this.cgroup}(/pod-\\w+|/conmon)?$`).test(path));
    const mounted = (await this.ok(['cat', '/proc/self/mountinfo'])).split('\n').map((line) => line.split(' ')[4] ?? '').filter((path) => marks.some((id) => path.includes(id)) || path.startsWith(`${this.folder}/`) && /\/(merged|rootfs)$/.test(path));
    const links = (await this.ok(['ip', '-o', 'link'])).split('\n').map((line) => line.split(' ')[1] ?? '').filter((name) => /^(veth|engine)/.test(name));
    const rules = (await this.ok(['nft', 'list', 'tables'])).split('\n').filter((line) => line.includes('engine-'));
    return [...found.map((path) => `cgroup: ${path}`), ...mounted.map((path) => `mount: ${path}`), ...links.map((name) => `link: ${name}`), ...rules.map((line) => `table: ${line}`), ...stateFolders(this.folder).map((path) => `run folder: ${path}`)];
  }

  /** End a daemon of this machine. */
  async end(daemon: ChildProcess | undefined): Promise<void> {
    await endDaemon(daemon);
  }
  /** What is left behind, one line each: expect []. */
  async close(): Promise<string[]> {
    const left: string[] = await this.leftovers();
    for (const daemon of this.#daemons.splice(0).reverse()) await endDaemon(daemon);
    let processes: string[] = [];
    await until('processes to end', () => (processes = this.#processes()).length === 0, 5000).catch(() => {});
    left.push(...processes.map((line) => `process: ${line}`));
    for (const line of processes) killOne(Number(line.split(' ')[0]));
    // what the daemons themselves leave in a network namespace is theirs
    await this.world.mark();
    if (ours) left.push(...(await this.world.close()));
    else await this.world.machine.end();
    removeCgroups(this.cgroup);
    rmSync(this.folder, { recursive: true, force: true });
    return left;
  }
  /** Those that have to do with this folder, but for the engine's own, which its `close` ends. */
  #processes(): string[] {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid).flatMap((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return words.includes(this.folder) || openFiles(pid).some((file) => file.startsWith(`${this.folder}/`)) ? [`${pid} ${words.slice(0, 200)}`] : [];
      } catch {
        return [];
      }
    });
  }
}

function killOne(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // gone by itself
  }
}
/** Every cgroup of every hierarchy. */
function cgroupFolders(): string[] {
  const found: string[] = [];
  const walk = (path: string): void => {
    let names: string[] = [];
    try {
      names = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => name);
    } catch {
      // gone in the meantime
    }
    for (const name of names) {
      found.push(join(path, name));
      walk(join(path, name));
    }
  };
  walk('/sys/fs/cgroup');
  return found;
}
/** Remove the groups of this name, in every hierarchy, and what is in them. */
export function removeCgroups(called: string): void {
  for (const path of cgroupFolders().filter((folder) => basename(folder) === called)) removeCgroup(path);
}
function removeCgroup(path: string): void {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true })) if (entry.isDirectory()) removeCgroup(join(path, entry.name));
    rmdirSync(path);
  } catch {
    // somebody is in it: `leftovers` has said so
  }
}
/** Folders in which a runtime keeps what it knows of a container. */
function stateFolders(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const found: string[] = [];
  const walk = (path: string, depth: number): void => {
    for (const entry of entriesOf(path)) {
      if (!entry.isDirectory()) {
        if (['state.json', 'record.json', 'container.json'].includes(entry.name)) found.push(path);
      } else if (depth > 0 && !['data', 'root', 'snapshots', 'rootfs', 'merged', 'diff', 'content'].includes(entry.name)) walk(join(path, entry.name), depth - 1);
    }
  };
  walk(folder, 7);
  return found;
}
function entriesOf(path: string) {
  try {
    return readdirSync(path, { withFileTypes: true });
  } catch {
    return []; // gone in the meantime
  }
}

/** A folder of the machine, made if need be. */
export function makeFolder(path: string): string {
  mkdirSync(path, { recursive: true });
  return path;
}
/** Does `program` of this machine know a word? Versions differ. */
export const knows = (program: string, ...args: string[]): boolean => {
  try {
    execFileSync(program, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
