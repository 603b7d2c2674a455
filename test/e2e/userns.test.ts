/** Containers in user namespaces: what is right for root and users inside, and what that is outside. */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { unified } from '../helpers/cgroup.ts';
import { TestEngine } from '../helpers/engine.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine();
  await importBusybox(engine);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

const MAP = '0:300000:65536';
/** In a container with ids of its own. */
const sh = (script: string, ...flags: string[]): Promise<string> => engine.ok('run', '--rm', '--userns', MAP, ...flags, 'busybox', 'sh', '-c', script);
const refusal = async (...args: string[]): Promise<string> => {
  const result = await engine.run(args);
  expect(result.code).not.toBe(0);
  return result.stderr.trim();
};
const folder = (name: string): string => {
  const path = join(engine.folder, name);
  mkdirSync(path, { recursive: true });
  return path;
};
const lines = (text: string): string[] => text.split('\n').map((line) => line.trim().replace(/\s+/g, ' '));

describe('inside', () => {
  it('everything belongs to root, who is somebody else outside', async () => {
    const out = lines(await sh('cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c "%u:%g %n" / /bin/sh /home/app /dev /dev/pts /dev/shm /etc/hosts /etc/resolv.conf /etc/hostname /proc/self/fd/1; touch /new; stat -c %u:%g /new'));
    expect(out).toEqual(['0 300000 65536', '0 300000 65536', '0', '0:0 /', '0:0 /bin/sh', '1000:1000 /home/app', '0:0 /dev', '0:0 /dev/pts', '0:0 /dev/shm', '0:0 /etc/hosts', '0:0 /etc/resolv.conf', '0:0 /etc/hostname', '0:0 /proc/self/fd/1', '0:0']);
  });
  it('the namespaces are its own, with what only they show', async () => {
    const out = await sh('hostname; cat /proc/self/cgroup; echo $$; mount | grep -c " /proc type proc"; test -w /dev/mqueue && echo mqueue; ls /sys/class/net; cat /proc/sys/net/ipv4/ping_group_range');
    expect(out).toMatch(/^[0-9a-f]{12}\n/);
    expect(out.match(/^\d+:[^:]*:(.*)$/gm)?.every((line) => line.endsWith(':/'))).toBe(true);
    expect(out).toMatch(/\n1\n1\nmqueue\nlo\n0\s+65535$/);
  });
  it('devices are those of the host, and work', async () => {
    expect(await sh('echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 8 /dev/urandom | wc -c && echo full > /dev/full || echo ENOSPC; mknod /tmp/d c 1 3 2>&1 || true; mkfifo /tmp/f && echo fifo')).toMatch(/^4\n8\n(.*\n)*ENOSPC\n.*Operation not permitted\nfifo$/);
    // under another name than the host's
    expect(await sh('echo y > /dev/mine && stat -c %t:%T /dev/mine', '--device', '/dev/null:/dev/mine')).toBe('1:3');
  });
  it('users are resolved, with groups, folders and streams that are theirs', async () => {
    expect(await sh('id; pwd; echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin; stat -c %u . /proc/self/fd/1', '--user', 'app', '-w', '/home/app', '--group-add', '44')).toBe('uid=1000(app) gid=1000(app) groups=44,1000(app),2000(extra)\n/home/app\nout\n1000\n1000');
    expect(await sh('ls -dln /made/for/it | cut -d" " -f1; stat -c %u:%g /made/for/it', '-w', '/made/for/it')).toBe('drwxr-xr-x\n0:0');
    expect(await sh('id -u; id -g', '--user', '65535:7')).toBe('65535\n7');
  });
  it('ids that another container has are told by its name, and given', async () => {
    const box = ['busybox', 'true'];
    await engine.ok('create', '--name', 'there', '--userns', '0:500000:100', ...box);
    try {
      for (const flags of [['--rm'], ['--name', 'kept']]) {
        const { code, stderr } = await engine.run(['run', ...flags, '--uidmap', '0:500099:65536', ...box]);
        expect([code, stderr]).toEqual([0, expect.stringMatching(/shares uids from 500099 to 500099 of this machine with container there;/)]);
      }
      expect((await engine.run(['run', '--rm', '--userns', '0:400000:65536', ...box])).stderr).not.toContain('of this machine with');
    } finally {
      await engine.run(['rm', '-f', 'there', 'kept']);
    }
  });
  it('ids that are not mapped are refused with words', async () => {
    expect(await refusal('run', '--rm', '--userns', MAP, '--user', '65536', 'busybox', 'true')).toBe('engine: user 65536 is not mapped in the user namespace of the container; give it more ids, e.g. --userns=auto:size=N');
    // where no mount can show files with other owners, it is a file of the image that has none
    const unmapped = /user 1000(, which the maps do not have| is not mapped in this user namespace)/;
    expect(await refusal('run', '--rm', '--userns', '0:300000:1000', '--user', 'app', 'busybox', 'true')).toMatch(unmapped);
    expect(await refusal('run', '--rm', '--userns', '0:300000:2000', '--user', 'app', 'busybox', 'true')).toContain("one of the user's groups is not mapped");
    expect(await refusal('run', '--rm', '--userns', '0:300000:1000', '-t', '--user', 'app', 'busybox', 'true')).toMatch(unmapped);
    expect(await refusal('run', '--rm', '--userns', MAP, '--tmpfs', '/t:uid=70000', 'busybox', 'true')).toContain('uid=70000 is no id of the container');
    expect(await engine.ok('ps', '-aq')).toBe('');
  });
  it('a terminal belongs to its user', async () => {
    const { result } = engine.terminal(['run', '--rm', '-it', '--userns', MAP, '--user', 'app', 'busybox', 'sh', '-c', 'tty; stat -c %u $(tty); stat -c "%a %g" $(tty); stty size; echo ok > /dev/console && echo ok > /dev/tty']);
    expect((await result).stdout.replaceAll('\r', '')).toMatch(/^(engine: warning.*\n)?\/dev\/pts\/0\n1000\n620 5\n24 80\nok\nok\n$/);
    // a group of terminals that does not exist inside
    const small = engine.terminal(['run', '--rm', '-it', '--userns', '0:300000:3,1000:400000:1', 'busybox', 'sh', '-c', 'stat -c "%a %u" $(tty)']);
    expect((await small.result).stdout.trim()).toMatch(/^(engine: warning.*\n)?620 0$/);
  });
  it('capabilities, limits and scores are as outside, and hold inside alone', async () => {
    const [plain, mapped] = await Promise.all([engine.ok('run', '--rm', 'busybox', 'grep', 'Cap', '/proc/self/status'), engine.ok('run', '--rm', '--userns', MAP, 'busybox', 'grep', 'Cap', '/proc/self/status')]);
    expect(mapped).toBe(plain);
    expect(await sh('cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn', '--oom-score-adj', '300', '--ulimit', 'nofile=100:200')).toBe('300\n100\n200');
    // only who has CAP_SYS_RESOURCE may make it less
    const less = await engine.run(['run', '--rm', '--oom-score-adj', '-100', 'busybox', 'cat', '/proc/self/oom_score_adj']);
    expect((await engine.run(['run', '--rm', '--userns', MAP, '--oom-score-adj', '-100', 'busybox', 'cat', '/proc/self/oom_score_adj'])).stdout).toBe(less.stdout);
    expect(await sh('hostname other && hostname; date -s 2001-01-01 2>&1 | tail -1', '--cap-add', 'SYS_ADMIN', '--cap-add', 'SYS_TIME')).toMatch(/^other\n[^]*(not permitted|2001)/);
    expect(new Date().getFullYear()).toBeGreaterThan(2020);
    expect(await sh('cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start', '--sysctl', 'net.ipv4.ip_forward=1', '--sysctl', 'net.ipv4.ip_unprivileged_port_start=99')).toBe('1\n99');
  });
  it('--init, --read-only, --tmpfs and --shm-size work', async () => {
    expect(await sh('cat /proc/1/comm; touch /x 2>&1; stat -c "%u %a" /t /run; df -k /dev/shm | tail -1 | awk "{print \\$2}"', '--init', '--read-only', '--tmpfs', '/t:uid=1000,mode=700', '--tmpfs', '/run', '--shm-size', '1m')).toMatch(/^.*\n.*Read-only file system\n1000 700\n0 1777\n1024$/);
  });
  it('a container makes user namespaces of its own when it may', async () => {
    expect(await sh('unshare -U -r sh -c "id -u; cat /proc/self/uid_map"', '--security-opt', 'seccomp=unconfined', '--cap-add', 'SYS_ADMIN')).toMatch(/^0\n\s+0\s+0\s+1$/);
  });
  it('exec enters the same ids', async () => {
    await engine.ok('run', '-d', '--name', 'long', '--userns', MAP, '--oom-score-adj', '50', '--ulimit', 'nofile=64:128', 'busybox', 'sleep', '1000');
    expect(lines(await engine.ok('exec', 'long', 'sh', '-c', 'id -u; cat /proc/self/uid_map; cat /proc/self/oom_score_adj; ulimit -Hn; stat -c %u /proc/self/fd/1; touch /from-exec; stat -c %u /from-exec'))).toEqual(['0', '0 300000 65536', '50', '128', '0', '0']);
    expect(await engine.ok('exec', '--user', 'app', 'long', 'sh', '-c', 'id -un; echo again > /dev/stdout')).toBe('app\nagain');
    const { result } = engine.terminal(['exec', '-it', '--user', 'app', 'long', 'sh', '-c', 'stat -c %u $(tty)']);
    expect((await result).stdout.trim()).toBe('1000');
    expect(await refusal('exec', '--user', '65536', 'long', 'true')).toContain('user 65536 is not mapped in this user namespace');
    expect((await engine.run(['exec', '-i', 'long', 'cat'], { input: 'in and out' })).stdout).toBe('in and out');
    const pid = Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', 'long'));
    expect(statSync(`/proc/${pid}`).uid).toBe(300000);
    expect(await engine.ok('diff', 'long')).toContain('A /from-exec');
    expect(await engine.ok('logs', 'long')).toBe('');
    await engine.ok('stop', '-t', '0', 'long');
    expect(await engine.ok('inspect', '-f', '{{.State.ExitCode}} {{.HostConfig.UsernsMode}}', 'long')).toBe(`137 ${MAP}`);
    await engine.ok('start', 'long');
    expect(await engine.ok('exec', 'long', 'stat', '-c', '%u', '/from-exec')).toBe('0');
    await engine.ok('rm', '-f', 'long');
  });
  it('ends as it says: exit codes, signals, memory', async () => {
    expect((await engine.run(['run', '--rm', '--userns', MAP, 'busybox', 'sh', '-c', 'exit 42'])).code).toBe(42);
    expect((await engine.run(['run', '--rm', '--userns', MAP, 'busybox', '/none'])).code).toBe(127);
    expect((await engine.run(['run', '--rm', '--userns', MAP, 'busybox', '/etc/passwd'])).code).toBe(126);
    const eater = await engine.run(['run', '--rm', '--userns', MAP, '-m', '20m', 'busybox', 'tail', '/dev/zero']);
    expect(eater.code).toBe(137);
    expect(eater.stderr).toContain('ran out of memory');
  });
});

describe('of the host', () => {
  it('a plain bind stays the host\'s: its root is not root there', async () => {
    const path = folder('plain');
    writeFileSync(join(path, 'secret'), 'x', { mode: 0o600 });
    expect(await sh('stat -c %u /h /h/secret; cat /h/secret 2>&1; touch /h/new 2>&1; true', '-v', `${path}:/h`)).toMatch(/^65534\n65534\n.*Permission denied\n.*Permission denied$/);
    chmodSync(path, 0o777);
    await sh('touch /h/mine; cp /bin/busybox /h/busybox; chmod 4755 /h/busybox', '-v', `${path}:/h`);
    expect(statSync(join(path, 'mine')).uid).toBe(300000);
    // set-id of an id that means nothing to the host
    expect(execFileSync(join(path, 'busybox'), ['id', '-u'], { encoding: 'utf8' }).trim()).toBe('300000');
  });
  it('a bind with idmap has the container\'s ids, and the host\'s on disk', async () => {
    const path = folder('mapped');
    writeFileSync(join(path, 'file'), 'x', { mode: 0o600 });
    expect(await sh('stat -c %u /h /h/file; cat /h/file; touch /h/new; chown app /h/new', '-v', `${path}:/h:idmap`)).toBe('0\n0\nx');
    expect(statSync(join(path, 'new')).uid).toBe(1000);
    expect(await sh('cat /f; echo more >> /f', '-v', `${join(path, 'file')}:/f:idmap`)).toBe('x');
    expect(readFileSync(join(path, 'file'), 'utf8')).toBe('xmore\n');
    expect(await refusal('run', '--rm', '-v', `${path}:/h:idmap`, 'busybox', 'true')).toContain('idmap needs a user namespace');
  });
  it('a volume has the ids of whoever uses it, in the next container too', async () => {
    await sh('touch /v/a; chown 1000:1000 /v/a; true', '-v', 'shared:/v');
    expect(await engine.ok('run', '--rm', '--userns', 'auto', '-v', 'shared:/v', 'busybox', 'stat', '-c', '%u', '/v', '/v/a')).toBe('0\n1000');
    expect(await engine.ok('run', '--rm', '-v', 'shared:/v', 'busybox', 'stat', '-c', '%u', '/v', '/v/a')).toBe('0\n1000');
    // copied up from the image
    expect(await sh('stat -c %u /var/data/file; cat /var/data/file', '-v', '/var/data')).toBe('0\nfrom the image');
    await engine.ok('volume', 'rm', 'shared');
  });
  it('its namespaces can be shared, and are not its to change', async () => {
    expect(await sh('mount | grep -o "on /sys type sysfs (ro"; ls /sys/class/net | wc -l; ip link set lo down 2>&1; true', '--network', 'host', '--cap-add', 'NET_ADMIN')).toMatch(/^on \/sys type sysfs \(ro\n\d+\n.*(not permitted|denied)/);
    expect(await sh('test $(ls -d /proc/[0-9]* | wc -l) -gt 5 && echo all; kill -0 1 2>&1; echo 1 2>&1 > /proc/sys/kernel/panic_on_oops; true', '--pid', 'host')).toMatch(/^all\n.*not permitted/);
    // a session says its score and its label to a procfs that nobody inside could mount
    await engine.ok('run', '-d', '--name', 'all', '--userns', MAP, '--pid', 'host', '--oom-score-adj', '50', 'busybox', 'sleep', '1000');
    expect(await engine.ok('exec', 'all', 'sh', '-c', 'id -u; cat /proc/self/oom_score_adj; tail -n 1 /proc/self/uid_map')).toMatch(/^0\n50\n\s+0\s+300000\s+65536$/);
    await engine.ok('rm', '-f', 'all');
    expect(await sh('hostname; ls /dev/mqueue >/dev/null && echo ipc; stat -c %u /dev/shm', '--uts', 'host', '--ipc', 'host')).toMatch(/\nipc\n65534$/);
    expect(await sh('cat /proc/self/cgroup | head -1', '--cgroupns', 'host')).toMatch(/engine-/);
  });
  it('nothing is mounted for longer than it runs, and no process is left', async () => {
    const before = readFileSync('/proc/self/mounts', 'utf8');
    await sh('true', '-v', 'gone:/v');
    expect(readFileSync('/proc/self/mounts', 'utf8')).toBe(before);
    await engine.ok('volume', 'rm', 'gone');
  });
});

describe('attacks of its root', () => {
  it('CVE-2022-0492: no release_agent is written, in a cgroup namespace of its own or not', async () => {
    const script = 'for f in $(find /sys/fs/cgroup -name release_agent 2>/dev/null); do echo /x > $f && echo WRITTEN; done; mkdir /m; mount -t cgroup -o memory c /m 2>/dev/null && { echo /x > /m/release_agent && echo WRITTEN; }; unshare -UrmC sh -c "mount -t cgroup -o rdma c /m && echo /x > /m/release_agent && echo WRITTEN"; echo done';
    for (const more of [[], ['--cap-add', 'ALL', '--security-opt', 'seccomp=unconfined']]) {
      const { stdout } = await engine.run(['run', '--rm', '--userns', MAP, ...more, 'busybox', 'sh', '-c', script]);
      expect(stdout).toBe('done\n');
    }
  });
  it('with all capabilities it reads no file of the host\'s root, and sets nothing of the kernel', async () => {
    const secret = join(folder('host'), 'secret');
    writeFileSync(secret, 'x', { mode: 0o600 });
    const before = readFileSync('/proc/sys/kernel/core_pattern', 'utf8');
    const script = `cat /h/secret; echo x > /h/new; chown 0 /h/secret; echo '|/x' > /proc/sys/kernel/core_pattern; mount -o remount,rw /proc/sys; echo '|/x' > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger; umount /proc/sysrq-trigger; echo b > /proc/sysrq-trigger; mknod /sda b 8 0; insmod /x.ko; swapoff -a; mount -t ext4 /dev/vda /mnt; chroot /proc/1/root id -u; nsenter -t 1 -m id -u; dmesg -c; reboot -f; echo alive`;
    const { stdout } = await engine.run(['run', '--rm', '--userns', MAP, '--cap-add', 'ALL', '--security-opt', 'seccomp=unconfined', '-v', `${join(engine.folder, 'host')}:/h`, 'busybox', 'sh', '-c', `${script} 2>/dev/null`]);
    expect(stdout.replaceAll(/^0\n/gm, '')).not.toContain('x');
    expect(readFileSync('/proc/sys/kernel/core_pattern', 'utf8')).toBe(before);
    expect(readdirSync(join(engine.folder, 'host'))).toEqual(['secret']);
    expect(statSync(secret).uid).toBe(0);
  });
  it('masked paths stay masked for those who make namespaces inside', async () => {
    const script = 'wc -c < /proc/timer_list; unshare -Urm sh -c "umount /proc/timer_list; umount -l /proc; wc -c < /proc/timer_list; mount -t proc p /proc; wc -c < /proc/timer_list" 2>/dev/null; unshare -UrmpfC sh -c "mkdir -p /q; mount -t proc p /q && wc -c < /q/timer_list" 2>/dev/null; true';
    const { stdout } = await engine.run(['run', '--rm', '--userns', MAP, '--security-opt', 'seccomp=unconfined', 'busybox', 'sh', '-c', script]);
    expect([...new Set(stdout.trim().split('\n'))]).toEqual(['0']);
  });
  it('other containers\' ids are out of reach', async () => {
    const path = folder('others');
    chmodSync(path, 0o777);
    await engine.ok('run', '--rm', '--userns', '0:400000:65536', '-v', `${path}:/h`, 'busybox', 'sh', '-c', 'echo x > /h/theirs; chmod 600 /h/theirs');
    expect(await sh('cat /h/theirs 2>&1; chmod 666 /h/theirs 2>&1; chown 0 /h/theirs 2>&1; stat -c %u /h/theirs', '-v', `${path}:/h`)).toMatch(/denied\n.*not permitted\n.*not permitted\n65534$/);
    await engine.ok('run', '-d', '--name', 'victim', '--userns', '0:400000:65536', 'busybox', 'sleep', '1000');
    const pid = await engine.ok('inspect', '-f', '{{.State.Pid}}', 'victim');
    expect(await sh(`kill -9 ${pid} 2>&1; ls /proc/${pid}/root 2>&1; cat /proc/${pid}/environ 2>&1`, '--pid', 'host', '--cap-add', 'ALL').catch((error: Error) => error.message)).toMatch(/not permitted[^]*denied[^]*denied/);
    await engine.ok('rm', '-f', 'victim');
  });
});

describe('time and cgroup namespaces', () => {
  it('clocks are set ahead and back, with and without ids of its own', async () => {
    const uptime = (): number => Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
    for (const userns of [[], ['--userns', MAP]]) {
      const before = uptime();
      const inside = Number((await engine.ok('run', '--rm', ...userns, '--time-offset', 'boottime=1000000.5', '--time-offset', 'monotonic=-5', 'busybox', 'cat', '/proc/uptime')).split(' ')[0]);
      expect(inside).toBeGreaterThanOrEqual(before + 1000000);
      expect(inside).toBeLessThan(uptime() + 1000002);
      expect(await engine.ok('run', '--rm', ...userns, '--time-offset', 'boottime=1000000.5', '--time-offset', 'monotonic=-5', 'busybox', 'cat', '/proc/self/timens_offsets')).toMatch(/^monotonic\s+-5\s+0\nboottime\s+1000000\s+500000000$/);
    }
    await engine.ok('run', '-d', '--name', 'ahead', '--time-offset', 'boottime=5000000', 'busybox', 'sleep', '1000');
    expect(Number((await engine.ok('exec', 'ahead', 'cat', '/proc/uptime')).split(' ')[0])).toBeGreaterThan(5000000);
    await engine.ok('rm', '-f', 'ahead');
    expect(await refusal('run', '--rm', '--time-offset', 'boottime=-99999999', 'busybox', 'true')).toMatch(/ERANGE.*no clock of a container can be set to before 0/);
    expect(await refusal('run', '--rm', '--time-offset', 'realtime=5', 'busybox', 'true')).toContain('monotonic=SECONDS or boottime=SECONDS');
  });
  it('a container sees itself as the root of its cgroups, and cannot change them', async () => {
    expect(await sh(`cat /proc/1/cgroup | cut -d: -f3 | sort -u; echo 1 > /sys/fs/cgroup/${unified ? '' : 'pids/'}pids.max 2>&1 || echo no`, '--pids-limit', '50')).toMatch(/^\/\n[^]*no$/);
  });
});
