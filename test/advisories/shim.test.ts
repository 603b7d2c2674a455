/** The shim, its socket, its folders and its log under attack; and containers that use up what they can get. */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { until } from '../helpers/wait.ts';
import { openFiles } from '../helpers/leaks.ts';
import { Attack } from './attack.ts';

const bin = join(import.meta.dirname, '..', '..', 'bin', 'engine');
let engine: Attack;
beforeAll(async () => {
  engine = new Attack();
  await engine.image('plain');
});
afterAll(async () => expect(await engine.close()).toEqual([]));

const start = async (...args: string[]): Promise<string> => (await engine.ok('run', '-d', ...args)).trim();
const state = (id: string): Promise<string> => engine.ok('inspect', '-f', '{{.State.Status}}', id);
const runFolder = (id: string): string => {
  const runs = join(engine.runRoot, 'runs');
  const name = readdirSync(runs).find((run) => run === id || readFileSync(join(runs, run, 'record.json'), 'utf8').includes(id));
  if (name === undefined) throw new Error(`no run of ${id}`);
  return join(runs, name);
};
function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined; // gone meanwhile
  }
}
/** The shim holds the lock of its run. */
function shimOf(id: string): number {
  const lock = join(runFolder(id), 'lock');
  const pid = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).find((name) => readLink(`/proc/${name}/exe`)?.includes('engine-shim') && openFiles(name).includes(lock));
  if (pid === undefined) throw new Error(`no shim of ${id}`);
  return Number(pid);
}
const memory = (pid: number): number => Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
/** The run's folder by a name that fits a socket's address. */
function shortly(id: string): string {
  const link = join(engine.folder, id.slice(0, 4));
  symlinkSync(runFolder(id), link);
  return join(link, 'shim.sock');
}
function connectOnce(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path, () => resolve(socket));
    socket.on('error', reject);
  });
}
/** Again when the queue of those who wait to be accepted is full. */
async function connect(path: string): Promise<Socket> {
  for (;;) {
    try {
      return await connectOnce(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      await sleep(2);
    }
  }
}

describe('CVE-2024-25621: folders and files of the engine', () => {
  it('are for their owner alone, while containers run and after', async () => {
    const id = await start('-v', 'vol:/v', 'plain', 'sleep', '1000');
    expect([engine.root, engine.runRoot, join(engine.runRoot, 'runs'), runFolder(id)].map((path) => statSync(path).mode & 0o777)).toEqual([0o700, 0o700, 0o700, 0o700]);
    for (const name of readdirSync(runFolder(id))) if (name !== 'rootfs') expect(statSync(join(runFolder(id), name)).mode & 0o077, name).toBe(0);
    expect(statSync(join(runFolder(id), 'shim.sock')).mode & 0o777).toBe(0o600);
    await engine.ok('rm', '-fv', id);
    await engine.ok('volume', 'rm', 'vol');
  });
  it('a root that others could have prepared is refused', async () => {
    const folder = join(engine.host, '..', 'shared-root');
    mkdirSync(folder);
    for (const spoil of [() => chmodSync(folder, 0o777), () => { chmodSync(folder, 0o700); chownSync(folder, 1000, 1000); }]) {
      spoil();
      expect((await engine.run(['ps'], { env: { ENGINE_ROOT: folder } })).code).not.toBe(0);
      expect((await engine.run(['ps'], { env: { ENGINE_RUN_ROOT: folder } })).code).not.toBe(0);
    }
    expect(readdirSync(folder)).toEqual([]);
    const open = join(engine.folder, 'open');
    mkdirSync(open);
    chmodSync(open, 0o777);
    symlinkSync(engine.host, join(open, 'root'));
    await engine.run(['ps'], { env: { ENGINE_RUN_ROOT: join(open, 'root') } });
    expect(engine.hostChanges()).toEqual([]);
  });
});

describe('CVE-2020-15257: the shim\'s socket', () => {
  it('is no abstract one, and a container with the host\'s network sees none of ours', async () => {
    const id = await start('plain', 'sleep', '1000');
    const { stdout } = await engine.sh('plain', 'cat /proc/net/unix', '--network', 'host');
    expect(stdout).toMatch(/^Num/);
    const ours = stdout.split('\n').map((line) => line.split(/\s+/)[7] ?? '').filter((path) => /engine|shim/.test(path) && !path.startsWith('/'));
    expect(ours.filter((path) => path.startsWith('@'))).toEqual([]);
    // its path leads nowhere from inside, as root of the host's user namespace
    const sock = shortly(id);
    expect((await engine.run(['run', '--rm', '--network', 'host', 'plain', 'attack', 'sockets', sock, '@engine-shim', '@/engine/shim.sock'])).stdout).toMatch(/ENOENT\n@engine-shim ECONNREFUSED\n@\/engine\/shim.sock ECONNREFUSED/);
    // another user of the host is not let in, and not even answered where the modes were lost
    const asNobody = (): string => execFileSync('setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups', engine.program, 'sockets', sock], { encoding: 'utf8', cwd: '/' });
    const folders = [engine.folder, engine.runRoot, join(engine.runRoot, 'runs'), runFolder(id)];
    chmodSync(engine.folder, 0o711);
    expect(asNobody()).toMatch(/ EACCES$/m);
    for (const path of folders) chmodSync(path, 0o711);
    chmodSync(sock, 0o666);
    expect(asNobody()).toMatch(/ closed$/m);
    for (const path of folders) chmodSync(path, 0o700);
    chmodSync(sock, 0o600);
    expect(execFileSync(engine.program, ['sockets', sock], { encoding: 'utf8' })).toMatch(/ answered$/m); // control: its owner is
    await engine.ok('rm', '-f', id);
  });
  it('survives garbage, floods and 10,000 short clients, and grows by nothing', async () => {
    const id = await start('plain', 'sh', '-c', 'while read -r line; do echo "$line"; done; sleep 1000');
    const shim = shimOf(id);
    const sock = shortly(id);
    const fds = readdirSync(`/proc/${shim}/fd`).length;
    const before = memory(shim);
    const frame = (length: number, type: number, session = 0, argument = 0, payload = Buffer.alloc(0)): Buffer => {
      const head = Buffer.alloc(12);
      head.writeUInt32LE(length >>> 0, 0);
      head.writeUInt16LE(type, 4);
      head.writeUInt16LE(session, 6);
      head.writeUInt32LE(argument >>> 0, 8);
      return Buffer.concat([head, payload]);
    };
    const garbage: Buffer[] = [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.alloc(70_000, 0xff), Buffer.alloc(12), frame(2 ** 32 - 1, 1), frame(16, 1).subarray(0, 9)];
    // every type with nothing, too little, nonsense; those that end the run are what an owner may ask for: 0x7fff instead
    let seed = 12345;
    const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    const { FRAME } = await import('@engine/core/plan');
    const harmless = Object.entries(FRAME).filter(([name]) => !/kill|signal|abort|remove|close|stop|pause|freeze/i.test(name)).map(([, type]) => type as number);
    for (const type of [...harmless, 0x7fff, 999]) for (const size of [0, 1, 7, 64, 4096]) garbage.push(frame(size, type, random(3), random(2 ** 31), Buffer.from(Array.from({ length: size }, () => random(256)))));
    for (const bytes of garbage) {
      const socket = await connect(sock);
      socket.on('error', () => {});
      await new Promise<void>((resolve) => socket.write(bytes, () => resolve()));
      socket.destroy();
    }
    for (let i = 0; i < 10_000; i += 50) {
      await Promise.all(Array.from({ length: 50 }, async () => (await connect(sock).catch(() => undefined))?.destroy()));
    }
    await until('the shim to let go of them', () => readdirSync(`/proc/${shim}/fd`).length <= fds);
    expect(memory(shim)).toBeLessThan(Math.max(250, before + 60));
    expect(await state(id)).toBe('running');
    expect(await engine.ok('exec', id, 'echo', 'alive')).toBe('alive');
    await engine.ok('rm', '-f', id);
  });
});

describe('a shim that is killed or stopped by root in a container with the host\'s pids', () => {
  it('SIGKILL: the container dies with it, nothing stays, others go on', async () => {
    const [victim, other] = [await start('--name', 'victim', 'plain', 'sh', '-c', 'sleep 1001 & setsid sleep 1002 & wait'), await start('plain', 'sleep', '1000')];
    const pid = Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', victim));
    // AppArmor's profile lets it signal its like alone
    if (existsSync('/sys/kernel/security/apparmor')) expect((await engine.sh('plain', `kill -9 ${shimOf(victim)}`, '--pid', 'host')).stderr).toContain('Permission denied');
    expect((await engine.sh('plain', `kill -9 ${shimOf(victim)}`, '--pid', 'host', '--security-opt', 'apparmor=unconfined')).code).toBe(0);
    await until('its processes to end', () => !existsSync(`/proc/${pid}`));
    expect(await state(victim)).toBe('exited');
    expect(await state(other)).toBe('running');
    await engine.ok('rm', 'victim');
    await engine.ok('rm', '-f', other);
  });
  it('SIGSTOP: the engine answers, and rm -f gets rid of it', async () => {
    const id = await start('plain', 'sleep', '1000');
    const shim = shimOf(id);
    process.kill(shim, 'SIGSTOP');
    try {
      const list = await engine.run(['ps'], { deadline: 15_000 });
      expect(list.code).toBe(0);
      const exec = engine.run(['exec', id, 'true'], { deadline: 40_000 }).catch((error: unknown) => error);
      await engine.ok('rm', '-f', id);
      await until('the shim to end', () => !existsSync(`/proc/${shim}`));
      await exec;
    } finally {
      try {
        process.kill(shim, 'SIGCONT');
      } catch {
        // gone
      }
    }
    expect(await engine.ok('ps', '-aq', '--filter', `id=${id}`)).toBe('');
  });
});

describe('containers that use up what they can get', () => {
  it('a fork bomb ends at --pids-limit, also through exec, and the shim lives on', async () => {
    const { stdout } = await engine.run(['run', '--rm', '--pids-limit', '40', 'plain', 'attack', 'fork-bomb']);
    expect(Number(/made (\d+)/.exec(stdout)?.[1])).toBe(39);
    const id = await start('--pids-limit', '20', 'plain', 'sh', '-c', 'while true; do sleep 1000 & done 2>/dev/null');
    await until('the limit', async () => (await engine.run(['exec', id, 'true'])).code !== 0);
    const refused = await engine.run(['exec', id, 'true']);
    expect(refused.stderr.trimEnd().split('\n'), refused.stderr).toHaveLength(1);
    await engine.ok('rm', '-f', id);
  });
  it('a memory hog takes neither the shim nor its account with it', async () => {
    const id = await start('--name', 'hog', '-m', '24m', 'plain', 'sh', '-c', 'sleep 0.3; for i in 1 2 3; do tail /dev/zero; done; echo survived; sleep 1000');
    const shim = shimOf(id);
    // the shim's memory is not the container's
    const own = readFileSync(`/proc/${shim}/cgroup`, 'utf8');
    expect(own).not.toContain(runFolder(id).split('/').at(-1)?.slice(0, 16));
    await until('the hogs to die', async () => (await engine.ok('logs', 'hog')).includes('survived'), 60_000);
    expect(existsSync(`/proc/${shim}`)).toBe(true);
    expect(await engine.ok('exec', id, 'echo', 'alive')).toBe('alive');
    await engine.ok('rm', '-f', id);
  });
  it('a flood of output that nobody reads fills neither the disk nor memory, and stops nobody', async () => {
    const id = await start('--log-opt', 'max-size=100k', '--log-opt', 'max-file=2', 'plain', 'sh', '-c', 'yes "$(seq 200 | tr "\\n" " ")"');
    const shim = shimOf(id);
    // a client that attaches and then stands still
    const idle = spawn(bin, ['attach', id], { env: engine.env, cwd: engine.folder, stdio: ['ignore', 'pipe', 'ignore'] });
    idle.stdout.once('readable', () => {});
    await sleep(1500);
    idle.kill('SIGSTOP');
    await sleep(1500);
    expect(memory(shim)).toBeLessThan(1000);
    const size = Number(await engine.ok('inspect', '-f', '{{.LogPath}}', id).then((path) => readdirSync(join(path, '..')).reduce((sum, name) => sum + (statSync(join(path, '..', name), { throwIfNoEntry: false })?.size ?? 0), 0))); // it is rotated meanwhile
    expect(size).toBeLessThan(1_000_000);
    expect(await engine.ok('exec', id, 'echo', 'alive')).toBe('alive');
    await engine.ok('rm', '-f', id);
    idle.kill('SIGKILL');
  });
});

describe('injection by words', () => {
  it('lines of a container cannot pass for the log\'s own', async () => {
    const forged = '2001-01-01T00:00:00.000000000Z stderr F forged\n2001-01-01T00:00:00Z stdout P part';
    const result = await engine.run(['run', '--name', 'forger', 'plain', 'printf', '%s\\n\\0\\r\\033]0;x\\007no end', forged]);
    expect(result.code).toBe(0);
    const { stdout, stderr } = await engine.run(['logs', 'forger']);
    expect(stdout).toBe(`${forged}\n\0\r\x1b]0;x\x07no end`);
    expect(stderr).toBe('');
    const stamped = (await engine.run(['logs', '-t', 'forger'])).stdout.split('\n');
    expect(stamped).toHaveLength(3);
    for (const line of stamped) expect(line).toMatch(/^20[2-9]\d-/);
    await engine.ok('rm', 'forger');
  });
  it('what images and containers are called does not speak to the terminal', async () => {
    const evil = 'x\n\x1b]0;evil\x07\u202egpj.exe';
    const id = await start('--name', 'named', '-l', `label=${evil}`, 'plain', 'sh', '-c', `sleep 1000 # ${evil}`);
    for (const args of [['ps', '--no-trunc', '--filter', 'name=named'], ['ps', '--no-trunc', '--filter', 'name=named', '--format', '{{.ID}} {{.Command}} {{.Labels}}'], ['ps', '--no-trunc', '--filter', 'name=named', '--format', 'table {{.Command}}\t{{.Labels}}']]) {
      const lines = (await engine.ok(...args)).split('\n');
      expect(lines.length).toBeLessThanOrEqual(2);
      expect(lines.join('\n')).not.toMatch(/[\x1b\x07\u202e]/);
      expect(lines.join('\n')).toContain('\\u001b');
    }
    const files = await engine.run(['exec', id, 'sh', '-c', 'touch "$(printf "/tmp/a\\033[31m\\nA forged")"']);
    expect(files.code).toBe(0);
    expect(await engine.ok('diff', 'named')).not.toMatch(/\x1b|^A forged/m);
    for (const args of [['run', evil], ['run', 'plain', evil], ['inspect', evil], ['run', '--name', evil, 'plain'], ['run', '-v', `${evil}:/x`, 'plain'], ['exec', id, evil], [evil], ['run', `--${evil}`]]) {
      const { code, stderr } = await engine.run(args);
      expect(code, args.join(' ')).not.toBe(0);
      expect(stderr).not.toMatch(/[\x1b\x07\u202e]/);
      expect(stderr.trimEnd().split('\n'), stderr).toHaveLength(1);
    }
    await engine.ok('rm', '-f', id);
  });
  it('odd arguments and environments arrive as they are, or are refused in one line', async () => {
    const odd = ['', ' ', '-', '--', '$(id)', '`id`', ';id', '%s%n', '*', '\\', '\n', '\u00e9', '--rm', '"'];
    expect((await engine.run(['run', '--rm', 'plain', 'sh', '-c', 'for a; do printf "[%s]" "$a"; done', 'sh', ...odd])).stdout).toBe(odd.map((word) => `[${word}]`).join(''));
    expect((await engine.run(['run', '--rm', '-e', 'A=1\nB=2', '-e', 'PS1=$(id)', '-e', 'EMPTY=', 'plain', 'sh', '-c', 'printf "%s|%s|%s|%s" "$A" "${B-unset}" "$PS1" "${EMPTY-unset}"'])).stdout).toBe('1\nB=2|unset|$(id)|');
    for (const flags of [['-e', '=x'], ['-e', ''], ['-e', '=']]) {
      const { code, stderr } = await engine.run(['run', '--rm', ...flags, 'plain', 'true']);
      if (code !== 0) expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    }
    // larger than a program may be given: an answer, not a hang
    const big = await engine.run(['run', '--rm', 'plain', 'true', ...Array.from({ length: 12 }, () => 'x'.repeat(120_000))]);
    expect([0, 125, 126], big.stderr).toContain(big.code);
    for (const words of [[], [''], ['', 'x']]) expect((await engine.run(['run', '--rm', '--entrypoint', '', 'plain', ...words])).code).not.toBe(137);
  });
});
