import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Running, TestEngine, type Result, type RunOptions, type TestEngineOptions } from './engine.ts';
import { netProgram } from './net.ts';
import { until } from './wait.ts';

/**
 * A machine and hosts around it, each a network namespace that the test makes: nothing here touches the network of the machine that the test runs on, and no address leaves it.
 *
 *     const world = await makeWorld({ hosts: ['peer'] });
 *     const engine = world.engine();
 *     await importNet(engine);
 *     await engine.ok('run', '-d', '-p', '8080:80', 'net', 'net', 'serve', 'tcp/80');
 *     expect(client(await world.host('peer').call('tcp', world.host('peer').machine, 8080))).toBe(world.host('peer').address);
 *     expect(await world.close()).toEqual([]);
 *
 * The nth host has 192.0.2.(16n+2)/28 and 2001:db8:(n+1)::2/64, the machine .(16n+1) and ::1 on the link `to-<host>`; a host's default route goes through the machine. The machine's goes through the first host.
 */
export interface WorldOptions {
  readonly hosts?: readonly string[];
  /** Name servers in the machine's /etc/resolv.conf; it then has a mount namespace of its own too. */
  readonly resolvers?: readonly string[];
  /** Further lines of it. */
  readonly resolvConf?: string;
}

/** A process that holds namespaces; it ends with the test, whatever happens to that. */
export class Namespace {
  readonly name: string;
  readonly pid: number;
  readonly #holder: ChildProcessWithoutNullStreams;
  readonly #mounts: boolean;
  readonly #started = new Set<Running>();

  protected constructor(name: string, holder: ChildProcessWithoutNullStreams, mounts: boolean) {
    this.name = name;
    this.#holder = holder;
    this.#mounts = mounts;
    if (holder.pid === undefined) throw new Error('a namespace has no process');
    this.pid = holder.pid;
  }
  protected static async hold(mounts: boolean, script: string): Promise<ChildProcessWithoutNullStreams> {
    const holder = spawn('unshare', ['-n', ...(mounts ? ['-m', '--propagation', 'private'] : []), 'sh', '-ec', `ip link set lo up\n${script}\necho ready\nexec cat >/dev/null`], { stdio: 'pipe' });
    let errors = '';
    holder.stderr.on('data', (data: Buffer) => (errors += data.toString()));
    await new Promise<void>((resolve, reject) => {
      holder.stdout.once('data', () => resolve());
      holder.once('error', reject);
      holder.once('exit', (code) => reject(new Error(`no namespace (${code ?? 'killed'}): ${errors}`)));
    });
    return holder;
  }

  /** What to put before a command so that it runs here. It execs: signals and the exit status are the command's. */
  get enter(): readonly string[] {
    const at = (kind: string): string => `/proc/${this.pid}/ns/${kind}`;
    return ['nsenter', `--net=${at('net')}`, ...(this.#mounts ? [`--mount=${at('mnt')}`] : []), '--'];
  }
  start(argv: readonly string[], options: RunOptions = {}): Running {
    const [program = '', ...args] = [...this.enter, ...(options.cwd && this.#mounts ? ['env', '-C', options.cwd] : []), ...argv];
    const running = new Running(spawn(program, args, { stdio: 'pipe', env: { ...process.env, ...options.env }, ...(options.cwd ? { cwd: options.cwd } : {}) }));
    if (options.input !== undefined) running.child.stdin.end(options.input);
    this.#started.add(running);
    void running.result.then(() => this.#started.delete(running), () => this.#started.delete(running));
    return running;
  }
  /** Run to the end. */
  async exec(argv: readonly string[], options: RunOptions = {}): Promise<Result> {
    const running = this.start(argv, { input: '', ...options });
    const timer = setTimeout(() => running.child.kill('SIGKILL'), options.deadline ?? 60_000);
    return running.result.finally(() => clearTimeout(timer));
  }
  /** Run and expect success; standard output without the last newline. */
  async ok(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.exec(argv);
    if (code !== 0) throw new Error(`${argv.join(' ')} in ${this.name}: ${code ?? 'killed'}: ${stderr}${stdout}`);
    return stdout.replace(/\n$/, '');
  }
  /** A script of sh; its output. */
  sh(script: string): Promise<string> {
    return this.ok('sh', '-ec', script);
  }
  /**
   * Ask a `net serve`: what it says of the client (`CLIENT PORT LOCAL LOCALPORT NAME`) and, with `text`, what it sends back. Where that fails, in what: `connect: ECONNREFUSED`, `connect: ETIMEDOUT`.
   * `source`: address to ask from.
   */
  async call(protocol: 'tcp' | 'udp', address: string, port: number, options: { readonly text?: string; readonly source?: string; readonly timeout?: number } = {}): Promise<string> {
    const { stdout, stderr } = await this.exec([netProgram(), 'call', ...(options.source ? ['-s', options.source] : []), ...(options.timeout ? ['-t', String(options.timeout)] : []), protocol, address, String(port), ...(options.text === undefined ? [] : [options.text])]);
    return (stdout + stderr).trim();
  }
  /** Servers that say who asks them, and send back what they get: `tcp/80`, `udp/53@127.0.0.1`. */
  async serve(...specs: string[]): Promise<Running> {
    return this.#ready(this.start([netProgram(), 'serve', ...specs], { env: { NAME: this.name } }));
  }
  /** Answers INIT chunks on an SCTP port. */
  async serveSctp(port: number): Promise<Running> {
    return this.#ready(this.start([netProgram(), 'sctp-serve', String(port)]));
  }
  /** A name server, see programs/dns-server.ts; its output is what it was asked. */
  async serveNames(order: { readonly address: string; readonly port?: number; readonly records: Readonly<Record<string, Partial<Record<'A' | 'AAAA' | 'TXT' | 'PTR', readonly string[]>>>>; readonly mode?: 'silent' | 'refuse' | 'servfail' | 'truncate' | 'lie' }): Promise<Running> {
    return this.#ready(this.start([process.execPath, '--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'programs', 'dns-server.ts'), JSON.stringify(order)]));
  }
  async #ready(running: Running): Promise<Running> {
    await running.output(/^ready$/m);
    return running;
  }
  /** A connection that stays. */
  async hold(address: string, port: number): Promise<Connection> {
    const running = this.start([netProgram(), 'hold', '-t', '20000', address, String(port)]);
    await until(() => `a connection to ${address} ${port}: ${running.stderr}`, () => running.stdout.includes('\n') || running.child.exitCode !== null);
    if (running.child.exitCode !== null) throw new Error(`no connection to ${address} ${port}: ${running.stderr}`);
    return new Connection(running);
  }
  /** Servers and other commands of the test in it. */
  get pids(): readonly number[] {
    return [...this.#started].flatMap(({ child: { pid } }) => (pid === undefined ? [] : [pid]));
  }
  async stop(): Promise<void> {
    for (const running of this.#started) {
      running.child.kill('SIGKILL');
      await running.result.catch(() => {});
    }
  }
  async end(): Promise<void> {
    await this.stop();
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#holder.once('exit', resolve));
    this.#holder.kill('SIGKILL');
    await ended;
  }
}

/** A TCP connection to a `net serve`. */
export class Connection {
  readonly running: Running;
  /** What the server said of us. */
  readonly seen: string;
  constructor(running: Running) {
    this.running = running;
    this.seen = running.stdout.split('\n')[0] ?? '';
  }
  /** Send a line and wait for it to come back; rejects when the connection has ended. */
  async echo(text: string): Promise<void> {
    const { running } = this;
    running.child.stdin.write(`${text}\n`);
    await until(() => `${text} to come back: ${running.stdout}${running.stderr}`, () => {
      if (running.child.exitCode !== null) throw new Error(`the connection ended: ${running.stderr}`);
      return running.stdout.includes(`\n${text}\n`);
    });
  }
  async close(): Promise<void> {
    this.running.child.stdin.end();
    await this.running.result;
  }
}
/** The client's address out of what a server said. */
export const client = (line: string): string => line.split(' ')[0] ?? '';

/** A host beside the machine. */
export class Host extends Namespace {
  readonly address: string;
  readonly address6: string;
  /** The machine, as this host knows it. */
  readonly machine: string;
  readonly machine6: string;
  /** The machine's end of the cable. */
  readonly link: string;

  private constructor(name: string, n: number, holder: ChildProcessWithoutNullStreams) {
    super(name, holder, false);
    this.machine = `192.0.2.${16 * n + 1}`;
    this.address = `192.0.2.${16 * n + 2}`;
    this.machine6 = `2001:db8:${n + 1}::1`;
    this.address6 = `2001:db8:${n + 1}::2`;
    this.link = `to-${name}`;
  }
  static async make(name: string, n: number, machine: Namespace): Promise<Host> {
    const host = new Host(name, n, await Namespace.hold(false, ''));
    await machine.sh(`ip link add ${host.link} type veth peer name eth0 netns ${host.pid}
      ip link set ${host.link} up; ip address add ${host.machine}/28 dev ${host.link}; ip address add ${host.machine6}/64 dev ${host.link} nodad`);
    await host.sh(`ip link set eth0 up; ip address add ${host.address}/28 dev eth0; ip address add ${host.address6}/64 dev eth0 nodad
      ip route add default via ${host.machine}; ip route add default via ${host.machine6}`);
    return host;
  }
}

class Machine extends Namespace {
  static async make(options: WorldOptions): Promise<Machine> {
    const text = options.resolvers && [...options.resolvers.map((address) => `nameserver ${address}`), options.resolvConf ?? ''].join('\n');
    // a file of its own in a tmpfs that nobody else sees; what /etc/resolv.conf is a link to is left alone
    const script = text === undefined ? '' : `mount -t tmpfs world /mnt\ncat >/mnt/resolv.conf <<'END'\n${text}\nEND\nmount --bind /mnt/resolv.conf "$(readlink -f /etc/resolv.conf)"`;
    return new Machine('machine', await Namespace.hold(text !== undefined, script), text !== undefined);
  }
}

export class World {
  readonly machine: Namespace;
  readonly #hosts: ReadonlyMap<string, Host>;
  readonly #engines: TestEngine[] = [];
  #before: readonly string[] = [];

  constructor(machine: Namespace, hosts: ReadonlyMap<string, Host>) {
    this.machine = machine;
    this.#hosts = hosts;
  }
  host(name: string): Host {
    const host = this.#hosts.get(name);
    if (!host) throw new Error(`no host ${name} in this world`);
    return host;
  }
  get hosts(): readonly Host[] {
    return [...this.#hosts.values()];
  }
  /** The product, with its commands (and all that they start) on this machine. `close` closes it. */
  engine(options: TestEngineOptions = {}): TestEngine {
    const engine = new TestEngine({ resident: 'auto', ...options, enter: this.machine.enter });
    this.#engines.push(engine);
    return engine;
  }
  /** Run on the machine, or on a host. */
  exec(where: string, argv: readonly string[], options: RunOptions = {}): Promise<Result> {
    return (where === 'machine' ? this.machine : this.host(where)).exec(argv, options);
  }

  /** From now on what is there is no leak: the default network's bridge, say, which stays until the machine is switched off. */
  async mark(): Promise<void> {
    this.#before = await this.state();
  }
  /** What is there and was not when it was marked; `engines`: which go on, with their keepers. Waits for what is on its way out. */
  async leaks(options: { readonly engines?: boolean; readonly except?: (line: string) => boolean } = {}): Promise<string[]> {
    let left: string[] = [];
    const matters = (line: string): boolean => !(options.engines && isRunning(line)) && !options.except?.(line);
    await until('leaks to go', async () => (left = added(this.#before, await this.state()).filter(matters)).length === 0, 5000).catch(() => {});
    return left;
  }
  /** All of the machine's network that something could be left in, one line each. */
  async state(): Promise<string[]> {
    const text = await this.machine.sh(`
      ip -o link | awk '{ sub(/@.*|:$/, "", $2); print "link", $2 }'
      ip -o address | awk '$4 !~ /^fe80/ { print "address", $2, $4 }'
      { ip -4 route show table all; ip -6 route show table all; } | grep -vE '^(local|broadcast|anycast|multicast|fe80)|^unreachable .*error' | sed 's/ linkdown//; s/ dead//; s/^/route /' || true
      { ip -4 rule; ip -6 rule; } | sed 's/^/rule /'
      nft -s list ruleset | awk '/^table/ { table = $2 " " $3 } { print "nft", table, $0 }'
      for save in iptables-legacy-save ip6tables-legacy-save; do ! command -v $save >/dev/null || $save 2>/dev/null | grep '^-A' | sed "s/^/$save /" || true; done
      cd /proc/sys/net
      grep -rs . ipv4/conf/all ipv4/conf/default ipv4/conf/lo ipv6/conf/all ipv6/conf/default ipv6/conf/lo ipv4/ip_local_port_range ipv4/ip_unprivileged_port_start | grep -v forwarding | sed 's/^/sysctl /' || true`);
    return [...text.split('\n').filter(Boolean), ...this.#processes()];
  }
  #processes(): string[] {
    const namespace = link(`/proc/${this.machine.pid}/ns/net`);
    const known = new Set([this.machine.pid, ...this.machine.pids]);
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name) && !known.has(Number(name))).flatMap((pid) => {
      if (link(`/proc/${pid}/ns/net`) !== namespace || known.has(parentOf(pid))) return [];
      try {
        return [`process ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim().slice(0, 200)}`];
      } catch {
        return [];
      }
    });
  }

  /** Close its engines, look what is left of them, then end it. What is left, one line each: expect []. The default network of each stays until the machine is switched off: that is none. */
  async close(): Promise<string[]> {
    const left: string[] = [];
    const stays: ((line: string) => boolean)[] = [];
    try {
      for (const engine of this.#engines.splice(0).reverse()) {
        stays.push(await standing(engine));
        left.push(...(await engine.close().catch((error: unknown) => [`closing: ${error instanceof Error ? error.message : String(error)}`])));
      }
      await this.machine.stop();
      left.push(...(await this.leaks({ except: (line) => stays.some((is) => is(line)) })));
    } finally {
      for (const host of [...this.hosts, this.machine]) await host.end();
    }
    return left;
  }
}

/** Make it. Needs root, ip and nft. */
export async function makeWorld(options: WorldOptions = {}): Promise<World> {
  const machine = await Machine.make(options);
  const hosts = new Map<string, Host>();
  const world = new World(machine, hosts);
  try {
    for (const [n, name] of (options.hosts ?? []).entries()) hosts.set(name, await Host.make(name, n, machine));
    const [first] = world.hosts;
    if (first) await machine.sh(`ip route add default via ${first.address}; ip route add default via ${first.address6}`);
    await world.mark();
  } catch (error) {
    for (const host of [...world.hosts, machine]) await host.end();
    throw error;
  }
  return world;
}

/** What belongs to the default network of this engine, and to nothing else: its bridge, and its table without a published port or another link. */
async function standing(engine: TestEngine): Promise<(line: string) => boolean> {
  const { stdout } = await engine.run(['network', 'inspect', 'bridge']);
  const [network] = stdout.startsWith('[{') || stdout.startsWith('[\n') ? (JSON.parse(stdout) as { Id: string }[]) : [];
  if (!network) return () => false;
  const bridge = `br-${network.Id.slice(0, 12)}`;
  const binding = /: (\d+\.|[0-9a-f]+:)/;
  return (line) => {
    if (line.startsWith(`nft inet ${engine.instance} `)) return !binding.test(line) && [...line.matchAll(/"(br-\w+)"/g)].every(([, name]) => name === bridge);
    return line === `link ${bridge}` || line.startsWith(`address ${bridge} `) || (line.startsWith('route ') && line.includes(` dev ${bridge} `));
  };
}
/** Lines of a state that come and go with engines and their keepers. */
export const isRunning = (line: string): boolean => /^process |^nft inet engine-\w+-guard /.test(line);

function added(before: readonly string[], after: readonly string[]): string[] {
  const known = new Map<string, number>();
  for (const line of before) known.set(line, (known.get(line) ?? 0) + 1);
  return after.filter((line) => {
    const left = known.get(line) ?? 0;
    known.set(line, left - 1);
    return left <= 0;
  });
}
function link(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
function parentOf(pid: string): number {
  try {
    return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]);
  } catch {
    return 0;
  }
}
