import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TestEngine, type Result } from '../helpers/engine.ts';
import { tar, type TarFile } from '../helpers/tar.ts';
import { until } from '../helpers/wait.ts';

const applets = ['sh', 'cat', 'ls', 'id', 'echo', 'true', 'sleep', 'grep', 'readlink', 'stat', 'mount', 'umount', 'touch', 'ln', 'mkdir', 'rm', 'head', 'tr', 'wc', 'env', 'pwd', 'test', 'sort', 'dd', 'find', 'hostname', 'tail', 'printf', 'yes', 'kill', 'chmod', 'cut', 'seq', 'mv', 'cp', 'od', 'ps', 'sed', 'setsid', 'nc', 'awk'];
const busybox = readFileSync('/bin/busybox');
const passwd = 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n';

/** Folders of a root filesystem, those left out that an attack replaces. */
const folders: readonly TarFile[] = ['bin/', 'dev/', 'etc/', 'proc/', 'root/', 'sys/', 'tmp/', 'home/', 'home/app/'].map((path) => ({ path, type: '5', mode: path === 'tmp/' ? 0o1777 : 0o755 }));

/** An engine with roots of its own, a host folder with a secret to reach for, and images that are made to hurt. */
export class Attack extends TestEngine {
  /** Lies outside every rootfs. Nothing an attack does may change it or what is in it. */
  readonly host = join(this.folder, 'host');
  readonly secret = 'secret of the host';
  #program: string | undefined;
  readonly #helpers: ChildProcess[] = [];

  constructor(options?: ConstructorParameters<typeof TestEngine>[0]) {
    super(options);
    mkdirSync(join(this.host, 'folder'), { recursive: true });
    writeFileSync(join(this.host, 'file'), this.secret);
    writeFileSync(join(this.host, 'folder', 'file'), this.secret);
  }

  /** The attack program, static, made once per engine. */
  get program(): string {
    if (this.#program !== undefined) return this.#program;
    const program = join(this.folder, 'attack');
    execFileSync('gcc', ['-static', '-O2', '-Wall', '-o', program, join(import.meta.dirname, 'programs', 'attack.c')]);
    return (this.#program = program);
  }

  /** The bytes of a rootfs with busybox, the attack program and `evil`, whose paths replace what a rootfs has of the same name. */
  rootfs(evil: readonly TarFile[] = []): Buffer {
    const name = (file: TarFile): string => String(file.path).replace(/^\.?\/+|\/+$/g, '');
    const replaced = new Set(evil.map(name));
    const files: TarFile[] = [
      ...folders, { path: 'bin/busybox', content: busybox, mode: 0o755 }, { path: 'bin/attack', content: readFileSync(this.program), mode: 0o755 },
      ...applets.map((applet) => ({ path: `bin/${applet}`, type: '2', link: 'busybox' })),
      { path: 'etc/passwd', content: passwd }, { path: 'etc/group', content: 'root:x:0:\napp:x:1000:\nextra:x:2000:app\n' },
    ];
    return tar([...files.filter((file) => !replaced.has(name(file)) && !evil.some((e) => e.type !== '5' && name(file).startsWith(`${name(e)}/`))), ...evil]);
  }

  /** Import such a rootfs as image `name`. */
  async image(name: string, evil: readonly TarFile[] = [], changes: readonly string[] = []): Promise<void> {
    const file = join(this.folder, `${name}.tar`);
    writeFileSync(file, this.rootfs(evil));
    await this.ok('import', ...['CMD ["sh"]', ...changes].flatMap((change) => ['-c', change]), file, name);
  }

  /** A shell script in a new container, removed afterwards. */
  sh(image: string, script: string, ...flags: string[]): Promise<Result> {
    return this.run(['run', '--rm', ...flags, image, 'sh', '-c', script]);
  }

  /** The attack program on the host, as another process of this machine, until the end of the test or {@link stop}. */
  async beside(...args: string[]): Promise<ChildProcess> {
    const child = spawn(this.program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#helpers.push(child);
    let said = '';
    child.stdout.on('data', (data: Buffer) => (said += data.toString()));
    await until('the attacker to begin', () => said.includes('go'));
    return child;
  }
  stop(): void {
    for (const child of this.#helpers.splice(0)) child.kill('SIGKILL');
  }

  /** What an attack has done to the host's folder; [] is what we want. */
  hostChanges(): string[] {
    const now = execFileSync('find', [this.host, '-printf', '%P %y %m %U\\n'], { encoding: 'utf8' }).split('\n').filter(Boolean).sort();
    const expected = [' d 755 0', 'file f 644 0', 'folder d 755 0', 'folder/file f 644 0'];
    const changed = now.filter((line) => !expected.includes(line)).map((line) => `new: ${line}`);
    const gone = expected.filter((line) => !now.includes(line)).map((line) => `gone: ${line}`);
    const content = ['file', 'folder/file'].filter((name) => existsSync(join(this.host, name)) && readFileSync(join(this.host, name), 'utf8') !== this.secret).map((name) => `changed: ${name}`);
    return [...changed, ...gone, ...content];
  }

  override close(): Promise<string[]> {
    this.stop();
    return super.close();
  }
}

/** `name outcome` lines of the attack program as an object. */
export function outcomes(text: string): Record<string, string> {
  return Object.fromEntries(text.split('\n').filter(Boolean).map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]));
}
