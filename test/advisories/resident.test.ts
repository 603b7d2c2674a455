/** engined, its socket, the relays and the sandboxes that wait, under attack. */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FRAME } from '@engine/core/plan';
import { encodeFrame } from '@engine/native/frames';
import { LAUNCH, LAUNCH_VERSION } from '@engine/native/launch';
import { encodeRequest } from '@engine/native/launch-request';
import { ownWorld } from '../../config/resident/local.ts';
import { seeded } from '../crash/random.ts';
import { parentOf, pool, ready } from '../helpers/pool.ts';
import { until } from '../helpers/wait.ts';
import { Attack } from './attack.ts';

let engine: Attack;
let short: string;
beforeAll(async () => {
  engine = new Attack({ resident: 'auto' });
  await engine.image('plain');
  await engine.startEngined();
  // a way that fits a socket's address
  short = join(engine.folder, 'r');
  symlinkSync(engine.runRoot, short);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

const socket = (): string => join(short, 'engined.sock');
const daemon = (): number => engine.engined ?? 0;
const fds = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;
const rss = (pid: number): number => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
const mode = (path: string): string => (statSync(path).mode & 0o7777).toString(8);
const plain = ['run', '--rm', 'plain'] as const;
const seed = Number(process.env['FUZZ_SEED'] ?? 20_261);
const connect = (path: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const connection = createConnection(path, () => resolve(connection));
    connection.on('error', (error: NodeJS.ErrnoException) => (error.code === 'EAGAIN' ? setTimeout(() => resolve(connect(path)), 5) : reject(error)));
  });
/** Send, hear what comes, leave. */
async function say(path: string, bytes: Uint8Array, patience = 20): Promise<string> {
  const connection = await connect(path);
  let heard = '';
  connection.on('data', (data: Buffer) => (heard += data.toString('latin1')));
  connection.on('error', () => {});
  const closed = new Promise<void>((resolve) => connection.once('close', () => resolve()));
  connection.write(bytes);
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, patience))]);
  connection.destroy();
  await closed;
  return heard;
}
/** A frame that is nearly right, or not at all. */
function malformed(random: () => number, types: readonly number[]): Buffer {
  const below = (n: number): number => Math.floor(random() * n);
  const noise = (size: number): Buffer => Buffer.from(Array.from({ length: size }, () => below(256)));
  const payload = noise(below(4) === 0 ? below(5000) : below(40));
  const frame = Buffer.from(encodeFrame(below(4) === 0 ? below(65_536) : (types[below(types.length)] ?? 0), { argument: below(2) ? below(80) : below(2 ** 32), payload }));
  switch (below(6)) {
    case 0: return frame.subarray(0, below(frame.length)); // cut short
    case 1: return Buffer.concat([Buffer.from([255, 255, 255, below(256)]), frame.subarray(4)]); // of a length that is none
    case 2: return Buffer.concat([frame, noise(below(30))]);
    case 3: return noise(1 + below(100));
    case 4: return Buffer.concat([frame, frame, frame]);
    default: return frame;
  }
}
const request = (over: Partial<Parameters<typeof encodeRequest>[0]> = {}): Buffer =>
  encodeRequest({ argv: ['version'], cwd: '/', env: { ENGINE_ROOT: engine.root, ENGINE_RUN_ROOT: engine.runRoot }, terminals: 0, rows: 0, cols: 0, home: '', world: ownWorld(), umask: 0o022, ...over });

describe('CVE-2024-25621: what engined keeps beside its socket', () => {
  it('is for its user alone', async () => {
    await ready(engine, [...plain, 'true']);
    expect(mode(engine.runRoot)).toBe('700');
    for (const name of readdirSync(engine.runRoot)) expect([name, statSync(join(engine.runRoot, name)).mode & 0o077]).toEqual([name, 0]);
    expect(mode(join(engine.runRoot, 'engined.sock'))).toBe('600');
    for (const id of readdirSync(join(engine.runRoot, 'runs'))) {
      const folder = join(engine.runRoot, 'runs', id);
      expect(mode(folder)).toBe('700');
      for (const name of readdirSync(folder)) if (name !== 'rootfs') expect([name, statSync(join(folder, name)).mode & 0o077]).toEqual([name, 0]);
    }
  });
});

describe('CVE-2020-15257: the way to engined and to the relays', () => {
  it('leads from no container, with the host\'s network and processes either', async () => {
    const held = engine.start(['run', '--rm', '-i', 'plain', 'cat']);
    held.child.stdin.write('up\n');
    await held.output(/up/);
    const { stdout } = await engine.sh('plain', 'cat /proc/net/unix', '--network', 'host', '--pid', 'host');
    const ours = stdout.split('\n').map((line) => line.split(/\s+/)[7] ?? '').filter((path) => path.includes(engine.folder) || /^@.*engine/.test(path));
    // those with a name are in our own folders, and none is abstract
    for (const path of ours) expect(path.startsWith(engine.folder), path).toBe(true);
    const reach = await engine.run(['run', '--rm', '--network', 'host', '--pid', 'host', 'plain', 'attack', 'sockets', socket(), join(engine.runRoot, 'engined.sock'), '@engined.sock', '/run/engine/engined.sock']);
    expect(reach.stdout).not.toMatch(/answered|closed/);
    // nor by way of the processes that hold them
    const launcher = held.child.pid ?? 0;
    const through = await engine.sh('plain', `for p in ${daemon()} ${launcher}; do test -d /proc/$p && echo seen; cat /proc/$p/environ; readlink /proc/$p/fd/0 /proc/$p/fd/3; ls /proc/$p/root/; ls /proc/$p/cwd/; done 2>&1`, '--network', 'host', '--pid', 'host');
    expect(through.stdout.match(/seen/g)).toHaveLength(2);
    expect(through.stdout).not.toMatch(/HOME=|PATH=|^(\/|socket|pipe|etc$)/m);
    held.child.stdin.end();
    expect((await held.result).code).toBe(0);
  });
  it('is refused to another user, even where the modes are lost', () => {
    const folders = [engine.folder, engine.runRoot];
    const asked = (): string => execFileSync('setpriv', ['--reuid', '65534', '--regid', '0', '--clear-groups', engine.program, 'sockets', socket()], { encoding: 'utf8', cwd: '/' });
    chmodSync(engine.folder, 0o711);
    expect(asked()).toMatch(/ EACCES$/m);
    for (const path of folders) chmodSync(path, 0o711);
    expect(asked()).toMatch(/ EACCES$/m);
    chmodSync(socket(), 0o666);
    // it answers one thing: no
    const connect = `const s = require('node:net').connect(process.argv[1]); let t = ''; s.write(Buffer.from(process.argv[2], 'hex')); s.on('data', (d) => (t += d.toString('latin1'))); s.on('error', () => {}); s.on('close', () => console.log(t));`;
    const bytes = Buffer.from(encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload: request({ argv: ['ps', '-a'] }) })).toString('hex');
    const said = execFileSync(process.execPath, ['-e', connect, socket(), bytes], { uid: 65534, gid: 65534, cwd: '/', encoding: 'utf8' });
    // or is cut off with what it has sent unread
    expect(said).toMatch(/this engined serves uid 0 only|^\n$/);
    expect(said).not.toContain('CONTAINER');
    for (const path of folders) chmodSync(path, 0o700);
    chmodSync(socket(), 0o600);
  });
});

describe('garbage', () => {
  it(`2,000 malformed frames leave engined as it was (FUZZ_SEED=${seed})`, async () => {
    const pid = daemon();
    await engine.ok('ps');
    const before = { fds: fds(pid), rss: rss(pid) };
    const random = seeded(seed);
    const real = request();
    for (let i = 0; i < 2000; i += 20) {
      await Promise.all(Array.from({ length: 20 }, () => {
        const bytes = malformed(random, Object.values(LAUNCH));
        // some behind a request that is in order, some instead of it
        if (random() < 0.2) return say(socket(), Buffer.concat([encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload: request({ argv: ['import', '-'] }) }), bytes]));
        if (random() < 0.2) {
          const broken = Buffer.from(real);
          for (let n = 0; n < 4; n++) broken[Math.floor(random() * broken.length)] = Math.floor(random() * 256);
          return say(socket(), encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload: broken }));
        }
        return say(socket(), bytes);
      }));
    }
    expect(daemon()).toBe(pid);
    await until('it to let go of them', () => fds(pid) <= before.fds + 3);
    expect(rss(pid)).toBeLessThan(before.rss + 80);
    expect(await engine.ok(...plain, 'echo', 'well')).toBe('well');
    expect(await engine.ok('images', '--format', '{{.Repository}}')).toBe('host\nplain');
  });
  it('oversized ones are refused, and take no memory', async () => {
    const pid = daemon();
    const before = rss(pid);
    const head = Buffer.from(encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload: Buffer.alloc(0) }));
    head.writeUInt32LE(0xfffffff0, 0);
    const many = await Promise.all(Array.from({ length: 20 }, () => say(socket(), Buffer.concat([head, Buffer.alloc(8 << 20)]), 10_000)));
    for (const heard of many) expect(heard === '' || heard.includes('the request')).toBe(true);
    // a list of more strings than there are bytes, and one that says it has 4 GB
    for (const count of [0xffffffff, 0x10000]) {
      const payload = request();
      const at = 12 + 4 + ownWorld().length + 4 + 1;
      payload.writeUInt32LE(count, at);
      expect(await say(socket(), encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload }), 5000)).toContain('the request cannot be read');
    }
    // a working directory without a beginning
    expect(await say(socket(), encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload: request({ cwd: 'relative' }) }), 5000)).toContain('the request cannot be read');
    // more input than it asked for
    await say(socket(), Buffer.concat([encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload: request({ argv: ['import', '-', 'x'] }) }), ...Array.from({ length: 100 }, () => encodeFrame(LAUNCH.input, { payload: Buffer.alloc(1 << 19) }))]), 5000);
    await until(() => `memory to be given back: ${rss(pid).toFixed(0)} MB, ${before.toFixed(0)} before`, () => rss(pid) < before + 120);
    expect(daemon()).toBe(pid);
    expect(await engine.ok(...plain, 'echo', 'well')).toBe('well');
  });
  it('who says nothing is let go, and 1,000 who come and go don\'t matter', async () => {
    const pid = daemon();
    const before = fds(pid);
    for (let i = 0; i < 1000; i += 50) await Promise.all(Array.from({ length: 50 }, async () => (await connect(socket())).destroy()));
    const idle = await connect(socket());
    const closed = new Promise((resolve) => idle.once('close', resolve));
    idle.on('data', () => {});
    idle.on('error', () => {});
    expect(await Promise.race([closed.then(() => 'let go'), new Promise((resolve) => setTimeout(resolve, 15_000, 'kept'))])).toBe('let go');
    await until('their fds to be closed', () => fds(pid) <= before + 2);
    expect(await engine.ok('version')).toContain('engine');
  });
  it(`2,000 malformed frames leave a shim as it was (FUZZ_SEED=${seed})`, async () => {
    const id = await engine.ok('run', '-d', 'plain', 'sleep', '1000');
    const shim = parentOf(Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', id)));
    const path = join(engine.folder, 's');
    symlinkSync(join(engine.runRoot, 'runs', id), path);
    const before = fds(shim);
    const random = seeded(seed);
    // its owner may signal and may start sessions: those are what they are for
    const types = Object.entries(FRAME).filter(([name]) => name !== 'signal').map(([, type]) => type);
    for (let i = 0; i < 2000; i += 20) await Promise.all(Array.from({ length: 20 }, () => {
      const bytes = malformed(random, types);
      if (bytes.length >= 6 && bytes.readUInt16LE(4) === FRAME.signal) bytes.writeUInt16LE(FRAME.state, 4);
      return say(join(path, 'shim.sock'), bytes, 5);
    }));
    await until(() => `the shim to let go of them (${fds(shim)} fds, ${before} before)`, () => fds(shim) <= before);
    expect(rss(shim)).toBeLessThan(3);
    expect(await engine.ok('inspect', '-f', '{{.State.Status}}', id)).toBe('running');
    expect(await engine.ok('exec', id, 'echo', 'alive')).toBe('alive');
    await engine.ok('rm', '-f', id);
  });
});

describe('fds that nobody asked for', () => {
  const flood = `
import socket, sys, os, array, struct
files = [os.open('/dev/null', os.O_RDONLY) for _ in range(200)]
sent = 0
for round in range(int(sys.argv[3])):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(sys.argv[1])
    try:
        for _ in range(20):
            s.sendmsg([bytes.fromhex(sys.argv[2])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', files))])
            sent += len(files)
    except OSError:
        pass
    s.close()
# and one that stays
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(sys.argv[1])
try:
    for _ in range(5): s.sendmsg([bytes.fromhex(sys.argv[2])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', files))])
except OSError:
    pass
print(sent, flush=True)
sys.stdin.read()
`;
  const frameOf = (type: number): string => Buffer.from(encodeFrame(type, { payload: Buffer.alloc(0) })).toString('hex');
  const nulls = (pid: number): number => execFileSync('ls', ['-l', `/proc/${pid}/fd`], { encoding: 'utf8' }).split('\n').filter((line) => line.endsWith('/dev/null')).length;

  it('are not kept by engined', async () => {
    const pid = daemon();
    const before = [fds(pid), nulls(pid)];
    const { stdout, status } = spawnSync('python3', ['-c', flood, socket(), frameOf(LAUNCH.resize), '20'], { encoding: 'utf8', input: '' });
    expect([status, Number(stdout) > 0]).toEqual([0, true]);
    await until('them to be closed', () => fds(pid) <= (before[0] ?? 0) + 2 && nulls(pid) <= (before[1] ?? 0));
    expect(await engine.ok('version')).toContain('engine');
  });
  it('are not kept by a shim', async () => {
    const id = await engine.ok('run', '-d', 'plain', 'sleep', '1000');
    const shim = parentOf(Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', id)));
    const path = join(engine.folder, 't');
    symlinkSync(join(engine.runRoot, 'runs', id), path);
    const before = fds(shim);
    for (const type of [FRAME.state, FRAME.adopt, FRAME.stdin]) {
      const { status } = spawnSync('python3', ['-c', flood, join(path, 'shim.sock'), frameOf(type), '5'], { encoding: 'utf8', input: '' });
      expect(status).toBe(0);
      await until(() => `them to be closed: ${fds(shim)} fds, ${before} before`, () => fds(shim) <= before);
    }
    expect(await engine.ok('exec', id, 'echo', 'alive')).toBe('alive');
    await engine.ok('rm', '-f', id);
  });
});

describe('a sandbox that waits', () => {
  it('has its limits, and can be entered by nobody', async () => {
    await engine.stopEngined();
    await engine.startEngined();
    const { Pids } = await ready(engine, ['run', '--rm', '-m', '32m', '--pids-limit', '30', 'plain', 'true']);
    const [init = 0] = Pids;
    const shim = parentOf(init);
    const group = (controller: string): string => new RegExp(`^\\d+:${controller}:(.*)$`, 'm').exec(readFileSync(`/proc/${init}/cgroup`, 'utf8'))?.[1] ?? '';
    expect(readFileSync(join('/sys/fs/cgroup/memory', group('memory'), 'memory.limit_in_bytes'), 'utf8')).toBe(`${32 << 20}\n`);
    expect(readFileSync(join('/sys/fs/cgroup/pids', group('pids'), 'pids.max'), 'utf8')).toBe('30\n');
    // root in a container with the host's processes: no file, no memory, no trace, no environment of either
    const { stdout } = await engine.sh('plain', `for p in ${init} ${shim}; do test -e /proc/$p/stat && echo seen; for f in environ maps auxv; do cat /proc/$p/$f && echo read $f; done; for f in exe cwd root fd/3 ns/mnt; do readlink /proc/$p/$f && echo followed $f; done; ls /proc/$p/root/ && echo walked; (echo x > /proc/$p/mem) && echo wrote; done 2>/dev/null`, '--pid', 'host');
    for (const pid of [init, shim]) expect(existsSync(`/proc/${pid}/stat`)).toBe(true);
    expect(stdout).toBe('seen\nseen\n');
    // nor another user of the host
    const asNobody = spawnSync('setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups', 'sh', '-c', `ls /proc/${init}/fd /proc/${init}/root /proc/${shim}/fd; cat /proc/${init}/environ /proc/${shim}/environ`], { encoding: 'utf8', cwd: '/' });
    expect(asNobody.stdout.replaceAll(/^\/proc.*|\n/gm, '')).toBe('');
    for (const pid of [init, shim]) expect(Number(/^TracerPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])).toBe(0);
  });
  it('shows nothing of its waiting to what runs in it', async () => {
    const look = [
      'echo == fds; ls -l /proc/self/fd > /tmp/one 2>/dev/null; < /tmp/one sed "s/.*[0-9] \\([0-9]* ->\\)/\\1/; s/\\[[0-9]*\\]/[N]/" | sort',
      'echo == of 1; ls -l /proc/1/fd > /tmp/two; < /tmp/two sed "s/.*[0-9] \\([0-9]* ->\\)/\\1/; s/\\[[0-9]*\\]/[N]/" | sort',
      'echo == env; env | grep -v HOSTNAME | sort', 'echo == cmdline; tr "\\0" "|" < /proc/1/cmdline', 'echo; echo == exe; readlink /proc/1/exe; readlink /proc/1/cwd; readlink /proc/1/root; pwd',
      'echo == status; grep -v -e ctxt -e SigQ -e Vm -e Rss -e HugetlbPages -e Cpus_allowed -e Mems -e Speculation -e x86 /proc/1/status',
      'echo == limits; cat /proc/1/limits', 'echo == ps; ps -o pid,ppid,user,args', 'echo == rest; cat /proc/1/oom_score_adj /proc/1/cgroup /proc/1/comm /proc/1/loginuid /proc/1/sessionid /proc/1/personality /proc/1/timerslack_ns 2>&1',
      'echo == mounts; sed "s/^[0-9]* [0-9]* [0-9:]* //; s/[0-9a-f]\\{16,\\}/ID/g; s/shared:[0-9]*//; s/master:[0-9]*//" /proc/self/mountinfo',
      'echo == names; cat /proc/sys/kernel/hostname | wc -c; cat /etc/hostname | wc -c; diff /etc/hostname /proc/sys/kernel/hostname && echo alike; hostname | grep -c .', 'echo == ns; ls /proc/1/ns', 'echo == files; find / -xdev -newer /bin/busybox ! -path "/proc/*" ! -path "/sys/*" | sort', 'echo == stat; cut -d" " -f 4-9,18-20 /proc/1/stat; ls /proc > /tmp/three; grep -c "^[0-9]" /tmp/three',
    ].join('; ');
    const words = [...plain, 'sh', '-c', look];
    const anonymous = (text: string): string => text.replaceAll(/[0-9a-f]{12,64}/g, 'ID').replaceAll(engine.folder, 'FOLDER');
    await ready(engine, [...plain, 'true']);
    const { Used } = await pool(engine);
    const from = await engine.run(words);
    expect((await pool(engine)).Used).toBe(Used + 1);
    const without = await engine.run(['--set', 'pool=off', ...words]);
    const alone = await engine.run(['--no-daemon', ...words]);
    for (const { code, stderr } of [from, without, alone]) expect([code, stderr]).toEqual([0, '']);
    expect(anonymous(from.stdout)).toBe(anonymous(without.stdout));
    expect(anonymous(from.stdout)).toBe(anonymous(alone.stdout));
    expect(from.stdout).toContain('== mounts');
  });
  it('starts its program when it is asked to, and says so', async () => {
    await ready(engine, [...plain, 'true']);
    const { Used } = await pool(engine);
    const before = Date.now();
    const run = engine.start(['run', '--rm', '-i', '--name', 'timed', 'plain', 'cat']);
    run.child.stdin.write('up\n');
    await run.output(/up/);
    const started = Date.parse(await engine.ok('inspect', '-f', '{{.State.StartedAt}}', 'timed'));
    const created = Date.parse(await engine.ok('inspect', '-f', '{{.Created}}', 'timed'));
    expect((await pool(engine)).Used).toBeGreaterThanOrEqual(Used);
    expect(started).toBeGreaterThanOrEqual(before - 5);
    expect(created).toBeGreaterThanOrEqual(before - 5);
    run.child.stdin.end();
    expect((await run.result).code).toBe(0);
  });
  it('gives the next one nothing of the one before', async () => {
    for (let i = 0; i < 3; i++) {
      await ready(engine, [...plain, 'true']);
      expect(await engine.ok(...plain, 'sh', '-c', 'ls -A /tmp /root /dev/shm /dev/mqueue; echo mine > /tmp/f; echo mine > /dev/shm/f; echo end')).toBe('/dev/mqueue:\n\n/dev/shm:\n\n/root:\n\n/tmp:\nend');
    }
    expect(existsSync(join(engine.runRoot, 'runs'))).toBe(true);
  });
});
