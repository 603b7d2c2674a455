import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTar } from '../helpers/busybox.ts';
import { Running, TestEngine, type Result } from '../helpers/engine.ts';
import { Dockerd, missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';

const missing = missingPeers('docker', 'dockerd', 'containerd', 'script');
const run = describe.skipIf(missing.length > 0);
if (missing.length > 0) console.error(`not compared with docker, missing: ${missing.join(', ')}`);

/** What a combination of flags meets as standard input: nothing, a pipe, or a terminal on which a line is typed. */
type Input = 'empty' | 'piped' | 'terminal';
type Start = (args: readonly string[], input?: Input) => Running;

let engine: TestEngine;
let dockerd: Dockerd;
let start: Record<'engine' | 'docker', Start>;
const typed = 'typed\n';

function feed(running: Running, input: Input): Running {
  if (input === 'empty') running.child.stdin.end();
  else if (input === 'piped') running.child.stdin.end(typed);
  else {
    // typed once the program is up, or is taken not to show it: what is typed earlier is echoed by another terminal
    void running.output(/out|err/, 1000).catch(() => {}).then(() => running.child.stdin.write(typed));
    void running.result.then(() => running.child.stdin.end(), () => {});
  }
  return running;
}

beforeAll(async () => {
  if (missing.length > 0) return;
  engine = new TestEngine();
  dockerd = await new Dockerd().start();
  const images: [string, string[]][] = [
    ['busybox', ['CMD ["sh"]']],
    ['full', ['ENV A=image B=image', 'WORKDIR /work/dir', 'USER app', 'ENTRYPOINT ["/bin/echo","entry"]', 'CMD ["cmd"]', 'LABEL l=1 m=2', 'EXPOSE 80/tcp']],
    ['vol', ['VOLUME /var/data', 'CMD ["sh"]']],
    ['nothing', []],
  ];
  for (const [name, changes] of images) {
    const args = [...changes.flatMap((change) => ['-c', change]), busyboxTar(), name];
    dockerd.docker('import', ...args);
    await engine.ok('import', ...args);
  }
  writeFileSync(join(engine.folder, 'env'), '# comment\nF=file\nNAME=from file\n\nPASSED\n');
  mkdirSync(join(engine.folder, 'bind/sub'), { recursive: true });
  writeFileSync(join(engine.folder, 'bind/sub/file'), 'bound\n');
  const cwd = join(engine.folder, 'cwd');
  const env = { PASSED: 'passed on', HIDDEN: 'x' };
  start = {
    engine: (args, input = 'empty') => feed(input === 'terminal' ? engine.terminal(args, { env }) : engine.start(args, { env }), input),
    docker: (args, input = 'empty') => {
      const quoted = ['docker', ...args].map((arg) => `'${arg.replaceAll("'", `'\\''`)}'`).join(' ');
      const [program, argv] = input === 'terminal' ? ['script', ['-qec', `stty rows 24 cols 80; exec ${quoted}`, '/dev/null']] : ['docker', [...args]];
      return feed(new Running(spawn(program, argv, { cwd, env: { ...dockerd.env, ...env, TERM: 'xterm' }, stdio: 'pipe' })), input);
    },
  };
});
afterAll(async () => {
  await dockerd?.stop();
  if (engine) expect(await engine.close()).toEqual([]);
});

/** Both at once, as they are slow to start. */
async function both(args: readonly string[], input?: Input): Promise<{ engine: Result; docker: Result }> {
  const [ours, theirs] = await Promise.all([start.engine(args, input).result, start.docker(args, input).result]);
  return { engine: ours, docker: theirs };
}

interface Comparable {
  readonly code: number | null | 'refused';
  readonly stdout: string;
  readonly stderr: string;
}
/**
 * Ids differ, and the words of an error; that there is one does not. What is refused before a program runs ends with 125 here; there it is
 * 1 or 125, and for `exec`, whose errors Docker writes to standard output, 126 or 127 by version.
 */
function comparable({ code, stdout, stderr }: Result): Comparable {
  if (/^(Error|docker:|"docker |engine:|invalid|unknown|the input|conflicting|OCI runtime|unable to|template parsing)/im.test(stderr + stdout) && code !== 0) return { code: code === 126 || code === 127 ? code : 'refused', stdout: '', stderr: '' };
  const failed = /^(Error|engine:)/im.test(stderr);
  return { code, stdout: stdout.replaceAll('"CAP_', '"').replace(/[0-9a-f]{64}/g, '<id>').replace(/\b[0-9a-f]{12}\b/g, '<short id>'), stderr: failed ? '<error>' : stderr };
}
async function same(args: readonly string[], input?: Input): Promise<string> {
  const result = await both(args, input);
  expect.soft(comparable(result.engine), `${args.join(' ')}\nengine: ${result.engine.stderr}\ndocker: ${result.docker.stderr}`).toEqual(comparable(result.docker));
  return result.engine.stdout;
}
const sh = (script: string, ...flags: string[]): readonly string[] => ['run', '--rm', '--network', 'none', ...flags, 'busybox', 'sh', '-c', script];

/** Major version of docker's client; the daemon may be of another one. */
const clientVersion = missing.length ? 0 : Number(/version (\d+)/.exec(execFileSync('docker', ['--version'], { encoding: 'utf8' }))?.[1]);

run('all combinations of -a -i -t -d', () => {
  const program = 'echo out; echo err >&2; test -t 0 && echo tty-in; test -t 1 && echo tty-out; read -t 2 x; echo "got:$x"; exit 3';
  const attached = [[], ['-a', 'stdin'], ['-a', 'stdout'], ['-a', 'stderr'], ['-a', 'stdin', '-a', 'stdout', '-a', 'stderr']];
  const inputs: Input[] = ['empty', 'piped', 'terminal'];
  // with nothing but stdin attached, docker's client before 23 prints no id, and at a terminal waits for ever
  const isOlderWay = (flags: readonly string[]): boolean => clientVersion < 23 && flags.filter((flag) => flag === '-a').length === 1 && flags.includes('stdin');
  for (const input of inputs) {
    const combinations = [[], ['-i'], ['-t'], ['-i', '-t']].flatMap((some) => [...attached.map((attach) => [...attach, ...some]), ['-d', ...some]]).concat([['-d', '-a', 'stdout']]);
    it.concurrent.for(combinations.map((flags) => ({ flags, title: flags.join(' ') || 'none of them' })))(`${input}: $title`, async ({ flags }, { expect: check, skip }) => {
      if (isOlderWay(flags)) skip(`the client of docker ${clientVersion} does this in a way of its own`);
      const name = `combined${input}${flags.join('')}`;
      const args = ['run', '--network', 'none', ...(flags.includes('-d') ? ['--name', name] : ['--rm']), ...flags, 'busybox', 'sh', '-c', program];
      const result = await both(args, input);
      const clean = ({ code, stdout, stderr }: Result): unknown => ({
        ...comparable({ code, signal: null, stderr, stdout: stdout.replaceAll('typed\r\n', (echo, at: number) => (stdout.slice(0, at).endsWith('got:') ? echo : '')) }),
        // one terminal carries both, and who comes first is a race
        ...(input === 'terminal' && code !== 125 && code !== 1 ? { stdout: stdout.replaceAll(/[0-9a-f]{64}/g, '<id>').split('\r\n').filter((line) => line !== 'typed').sort() } : {}),
      });
      if (flags.includes('-d') && result.engine.code === 0) {
        for (const verb of ['wait', 'logs', 'rm']) {
          const { engine: ours, docker: theirs } = await both([verb, name]);
          check([ours.stdout, ours.stderr], `${verb} ${name}`).toEqual([theirs.stdout, theirs.stderr]);
        }
      }
      check(clean(result.engine), result.engine.stderr + result.engine.stdout).toEqual(clean(result.docker));
    });
  }
});

run('what a program finds', () => {
  it('exit codes', async () => {
    for (const script of ['true', 'exit 3', 'exit 125', 'exit 255', 'kill -9 $$; sleep 1', 'kill -TERM $$; sleep 1']) await same(sh(script, '--init'));
    await same(['run', '--rm', '--network', 'none', 'busybox', 'sh', '-c', 'kill -9 $$; echo alive']);
    for (const command of ['no-such', '/no/such', '/etc/passwd', '/etc', './sh', '']) await same(['run', '--rm', '--network', 'none', 'busybox', command]);
  });
  it('environment', async () => {
    const env = (...flags: string[]): readonly string[] => ['run', '--rm', '--network', 'none', '-h', 'h', ...flags, 'busybox', 'env'];
    await same(env());
    for (const flags of [['-e', 'A=1', '-e', 'A=2'], ['-e', 'EMPTY='], ['-e', 'PASSED', '-e', 'UNSET'], ['-e', 'X=a=b']]) await same(env(...flags)); // in any order where there are more: a map of Go's
    await same(env('--env-file', join(engine.folder, 'env'), '-e', 'F=flag'));
    await same(env('-e', 'PATH=/bin', '-e', 'HOME=/tmp', '-e', 'HOSTNAME=x'));
    await same(env('-u', 'app'));
    await same(env('-u', '4711'));
    await same(['run', '--rm', '--network', 'none', '-h', 'h', '-e', 'B=flag', '--entrypoint', 'env', 'full']);
    for (const bad of ['', '=x']) await same(env('-e', bad));
  });
  it('user and groups', async () => {
    for (const user of ['app', 'app:daemon', '1000', '1000:1', '4321', '4321:8765', 'app:2000', 'daemon', ':1', 'nobody-here', 'app:nothing', '-1', '4294967296']) await same(sh('id; echo $HOME', '-u', user));
    await same(sh('id', '-u', 'app', '--group-add', 'daemon', '--group-add', '3000'));
    await same(sh('id', '--group-add', 'nothing'));
  });
  it('entrypoint, command and folder', async () => {
    const full = (...args: string[]): readonly string[] => ['run', '--rm', '--network', 'none', ...args];
    for (const args of [['full'], ['full', 'x', 'y'], ['--entrypoint', 'pwd', 'full'], ['--entrypoint', 'echo', 'full', 'a'], ['--entrypoint', '', 'full'], ['--entrypoint', '', 'full', 'id', '-un'], ['nothing'], ['nothing', 'pwd'],
      ['-w', '/new/folder', 'busybox', 'pwd'], ['-w', 'relative', 'busybox', 'pwd'], ['-u', 'app', '-w', '/made', 'busybox', 'sh', '-c', 'stat -c %u:%g:%a .']]) await same(full(...args));
  });
  it('capabilities, privileges and limits', async () => {
    const status = 'grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Umask|SigIgn|SigBlk)" /proc/self/status';
    for (const flags of [[], ['-u', 'app'], ['--cap-drop', 'ALL'], ['--cap-drop', 'ALL', '--cap-add', 'NET_ADMIN'], ['--cap-add', 'sys_admin'], ['--cap-add', 'CAP_SYS_PTRACE'], ['--cap-drop', 'CHOWN', '-u', 'app'], ['--security-opt', 'no-new-privileges'],
      ['--security-opt', 'seccomp=unconfined'], ['--cap-add', 'NOPE'], ['--security-opt', 'nope']]) await same(sh(status, ...flags));
    await same(sh('cat /proc/self/limits; cat /proc/self/oom_score_adj'));
    await same(sh('ulimit -n; ulimit -Hn; ulimit -u', '--ulimit', 'nofile=100:200', '--ulimit', 'nproc=50'));
    await same(sh('cat /proc/self/oom_score_adj', '--oom-score-adj', '100'));
    await same(sh('cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range'));
    await same(sh('cat /proc/sys/net/ipv4/ip_forward', '--sysctl', 'net.ipv4.ip_forward=1'));
    for (const [flags, file] of [[['-m', '64m'], 'memory/memory.limit_in_bytes'], [['-m', '64m', '--memory-swap', '100m'], 'memory/memory.limit_in_bytes'], [['--cpus', '0.5'], 'cpu/cpu.cfs_quota_us'], [['--cpu-shares', '100'], 'cpu/cpu.shares'],
      [['--cpuset-cpus', '0'], 'cpuset/cpuset.cpus'], [['--pids-limit', '20'], 'pids/pids.max'], [['--pids-limit', '-1'], 'pids/pids.max'], [[], 'memory/memory.limit_in_bytes'], [[], 'pids/pids.max']] as const) await same(sh(`cat /sys/fs/cgroup/${file}`, ...flags));
    await same(sh('grep -v -e "c 10:200" -e "c 5:1 " /sys/fs/cgroup/devices/devices.list | sort')); // no tun and no console of the host unless asked for
  });
  it('the root folder, devices and names', async () => {
    await same(sh('ls -l /dev | grep -v " core " | tr -s " " | cut -d " " -f 1-5,10-'));
    await same(sh('ls -ld /dev /dev/shm /dev/mqueue /dev/pts /proc /sys /tmp / | tr -s " " | cut -d " " -f 1,3,4,9; stat -c "%a %u %g" /etc/hosts /etc/hostname /etc/resolv.conf'));
    await same(sh('hostname; cat /etc/hostname; tail -n +2 /etc/hosts | grep -v ::; domainname', '-h', 'my-name', '--add-host', 'other:10.1.2.3'));
    await same(['run', '--rm', '--network', 'host', 'busybox', 'sh', '-c', 'hostname; grep -v :: /etc/hosts; cat /etc/resolv.conf']);
    await same(sh('sort /etc/resolv.conf', '--dns', '1.2.3.4', '--dns-search', 'example.org', '--dns-option', 'ndots:2'));
    await same(sh('ls -ln / | tr -s " " | cut -d " " -f 1,3,4,9- | grep -v dockerenv'));
    await same(sh('touch /x /tmp/x /dev/shm/x /run/x 2>&1 | sed "s/.*: //"; echo $?', '--read-only'));
    await same(sh('df -k /dev/shm | tail -1 | tr -s " " | cut -d " " -f 2', '--shm-size', '8m'));
  });
  it('mounts and their flags', async () => {
    const mounts = async (...flags: string[]): Promise<Record<'engine' | 'docker', Map<string, string>>> => {
      const result = await both(sh('cat /proc/self/mountinfo', ...flags));
      const parse = (text: string): Map<string, string> => new Map(text.split('\n').filter(Boolean).map((line) => {
        const fields = line.split(' ');
        const at = fields.indexOf('-');
        return [fields[4] ?? '', [fields[5]?.replace(/^(ro|rw)(,.*?)?(,(no|rel|strict)atime)?$/, '$1$2'), fields.slice(6, at).map((tag) => tag.replace(/:\d+/, '')).join(','), fields[at + 1]].join(' ')];
      }));
      return { engine: parse(result.engine.stdout), docker: parse(result.docker.stdout) };
    };
    const { engine: ours, docker: theirs } = await mounts();
    // Stricter here: Docker mounts the tmpfs of the cgroups writable, and its masks may be executed from and hold devices; what masks a file is the same null device.
    const reasons: Record<string, string> = { '/sys/fs/cgroup': 'ro', '/proc/acpi': 'empty', '/sys/firmware': 'empty', '/proc/keys': 'null', '/proc/timer_list': 'null', '/proc/interrupts': "of today's Docker", '/proc/kcore': 'null', '/sys/devices/virtual/powercap': "of today's Docker", '/proc/scsi': 'empty' };
    for (const [target, line] of theirs) {
      expect([...ours.keys()]).toContain(target);
      if (target === '/') expect.soft(ours.get(target)?.replace('master', '')).toBe(line.replace('master', '')); // slave of no mount of the host's here
      else if (!(target in reasons)) expect(`${target} ${ours.get(target)}`).toBe(`${target} ${line}`);
    }
    expect([...ours.keys()].filter((target) => !theirs.has(target) && !(target in reasons))).toEqual([]);
    const bind = join(engine.folder, 'bind');
    const extra = ['-v', `${bind}:/b`, '-v', `${bind}:/r:ro`, '--mount', `type=bind,src=${bind}/sub/file,dst=/etc/one,readonly`, '--tmpfs', '/t', '--tmpfs', '/s:size=1m,mode=700,exec', '--mount', 'type=tmpfs,dst=/u,tmpfs-size=1m', '-v', 'some:/v'];
    const more = await mounts(...extra);
    for (const target of ['/b', '/r', '/etc/one', '/t', '/s', '/u', '/v']) expect(`${target} ${more.engine.get(target)}`).toBe(`${target} ${target === '/v' ? more.docker.get(target)?.replace('master', '') : more.docker.get(target)}`);
    await same(['volume', 'rm', 'some']);
  });
  it('what is masked and cannot be written', async () => {
    await same(sh('for f in kcore keys timer_list sysrq-trigger; do test -e /proc/$f && { wc -c < /proc/$f; echo x > /proc/$f; } 2>&1 | sed "s/.*: //"; done; ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | wc -l; for f in /proc/sys/kernel/domainname /proc/irq/default_smp_affinity /sys/kernel/uevent_helper /sys/fs/cgroup/cpu/cpu.shares; do { echo 1 > $f; } 2>&1 | sed "s/.*: //"; done'));
    await same(sh('mount -t tmpfs x /mnt 2>&1; mount -o remount,rw /sys 2>&1; umount /proc/sys 2>&1; unshare -m true 2>&1; hostname other 2>&1; chroot / true; mknod /null c 1 3 && echo made; mknod /sda b 8 0 && cat /sda 2>&1; echo end'));
  });
});

run('lives', () => {
  const step = async (...args: string[]): Promise<string> => (await same(args)).trim();
  it('start, stop, kill, wait, remove', async () => {
    await step('create', '--name', 'life', '--network', 'none', '--stop-signal', 'USR1', 'busybox', 'sh', '-c', 'trap "exit 5" USR1; echo up; while :; do sleep 0.1; done');
    const states = '{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}';
    await step('inspect', '-f', states, 'life');
    for (const args of [['start', 'life'], ['start', 'life'], ['rm', 'life'], ['kill', '-s', 'NOPE', 'life'], ['kill', '-s', 'WINCH', 'life'], ['stop', 'life'], ['stop', 'life'], ['inspect', '-f', states, 'life'], ['kill', 'life'], ['wait', 'life'],
      ['start', 'life'], ['kill', '-s', '9', 'life'], ['wait', 'life'] , ['start', 'life'], ['kill', 'life'], ['wait', 'life'], ['inspect', '-f', states, 'life'], ['logs', 'life'], ['exec', 'life', 'true'], ['create', '--name', 'life', 'busybox'], ['rm', '-f', 'life'], ['rm', 'life'], ['rm', '-f', 'life'], ['start', 'life'],
      ['stop', 'no-such'], ['wait', 'no-such'], ['logs', 'no-such'], ['inspect', 'no-such'], ['diff', 'no-such'], ['kill', 'no-such'], ['rmi', 'no-such'], ['volume', 'rm', 'no-such'], ['volume', 'inspect', 'no-such'], ['exec', 'no-such', 'true'], ['ps', '--no-such'], ['no-such'], ['rm'], ['run']]) await step(...args);
  });
  it('restart, and what is started again', async () => {
    const fields = '{{json .HostConfig.RestartPolicy}} {{.RestartCount}} {{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.ExitCode}}';
    for (const [i, policy] of ['no', 'always', 'unless-stopped', 'on-failure', 'on-failure:3', 'on-failure:0'].entries()) {
      await step('create', '--name', `policy${i}`, '--network', 'none', '--restart', policy, 'busybox', 'true');
      await step('inspect', '-f', fields, `policy${i}`);
    }
    for (const policy of ['sometimes', 'always:3', 'unless-stopped:1', 'on-failure:x', 'on-failure:-1', 'on-failure:1:2']) await step('create', '--network', 'none', '--restart', policy, 'busybox', 'true');
    await step('run', '--rm', '--network', 'none', '--restart', 'always', 'busybox', 'true');
    await step('run', '--rm', '--network', 'none', '--restart', 'no', 'busybox', 'echo', 'once');
    for (const args of [['--restart', 'on-failure:5', 'policy1'], ['--restart', 'always:3', 'policy1'], ['--restart', 'always', 'no-such']]) await step('update', ...args);
    await step('inspect', '-f', fields, 'policy1');
    await step('run', '-d', '--name', 'again', '--network', 'none', '--restart', 'on-failure:2', 'busybox', 'sh', '-c', 'echo out; exit 3');
    let seen: string[] = [];
    await until(() => `both to give up: ${seen.join('')}`, async () => {
      const { engine: ours, docker: theirs } = await both(['inspect', '-f', fields, 'again']);
      seen = [ours.stdout, theirs.stdout];
      return seen.every((state) => state.includes(' 2 exited'));
    });
    for (const args of [['inspect', '-f', fields, 'again'], ['logs', 'again'], ['wait', 'again']]) await step(...args);
    await step('run', '-d', '--name', 'lasting', '--network', 'none', '--restart', 'always', 'busybox', 'sleep', '1000');
    for (const args of [['restart', '-t', '0', 'lasting'], ['inspect', '-f', fields, 'lasting'], ['stop', '-t', '0', 'lasting'], ['inspect', '-f', fields, 'lasting'], ['restart', '-t', '0', 'lasting'], ['kill', 'lasting'], ['wait', 'lasting'], ['inspect', '-f', fields, 'lasting'], ['restart', 'no-such'], ['restart'],
      ['rm', '-f', 'again', 'lasting', ...[0, 1, 2, 3, 4, 5].map((i) => `policy${i}`)]]) await step(...args);
  });
  it('exec', async () => {
    await step('run', '-d', '--name', 'ex', '--network', 'none', '-h', 'h', '-e', 'X=1', '-w', '/tmp', '-m', '32m', '--cap-drop', 'CHOWN', 'busybox', 'sleep', '1000');
    for (const args of [['ex', 'env'], ['ex', 'pwd'], ['-w', '/', 'ex', 'pwd'], ['-e', 'X=2', 'ex', 'env'], ['-u', 'app', 'ex', 'env'], ['-u', 'app', 'ex', 'id'],  ['ex', 'sh', '-c', 'exit 7'], ['ex', 'sh', '-c', 'kill -9 $$'],
      ['ex', 'sh', '-c', 'grep -E "^(Cap|Seccomp:|NoNew)" /proc/self/status; ls /proc/self/fd'], ['-d', 'ex', 'true'], ['ex', 'sh', '-c', 'echo out; echo err >&2']]) await step('exec', ...args);
    for (const input of ['empty', 'piped'] as const) for (const flags of [[], ['-i'], ['-it']]) await same(['exec', ...flags, 'ex', 'sh', '-c', 'read x; echo "got:$x"'], input);
    await step('rm', '-f', 'ex');
  });
  it('inspect, ps and images', async () => {
    await step('run', '-d', '--name', 'one', '--network', 'none', '-h', 'h1', '-l', 'a=1', '-l', 'b', '-m', '64m', '--cpus', '0.5', '-e', 'Z=1', '-v', 'data:/d', '--cap-add', 'NET_ADMIN', '--pids-limit', '50', 'busybox', 'sleep', '1000');
    await step('create', '--name', 'two', '--network', 'host', 'full');
    await step('run', '--name', 'three', '--network', 'none', '-l', 'a=2', 'busybox', 'sh', '-c', 'exit 4');
    for (const name of ['one', 'two', 'three']) {
      const fields = ['.Name', '.Path', '.Args', '.Config.Cmd', 'json .Config.Cmd', 'json .Config.Entrypoint', 'json .Config.Labels', '.Config.Hostname', '.Config.Image', '.Config.User', '.Config.WorkingDir', '.Config.Tty', '.Config.OpenStdin', '.Config.StdinOnce', '.Config.AttachStdin',
        '.Config.AttachStdout', '.Config.AttachStderr', '.HostConfig.NetworkMode', '.HostConfig.Memory', '.HostConfig.NanoCpus', 'json .HostConfig.Binds', 'json .HostConfig.CapAdd', 'json .HostConfig.CapDrop', '.HostConfig.Privileged', '.HostConfig.AutoRemove', '.HostConfig.ReadonlyRootfs', 
        '.HostConfig.ShmSize', '.State.Status', '.State.Running', '.State.Paused', '.State.Restarting', '.State.ExitCode', '.State.OOMKilled', '.State.Dead', '.RestartCount', '.HostConfig.RestartPolicy.Name', 'range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end', 'len .Id', 'if .State.StartedAt}}yes{{end',
        'upper .Name', 'slice .Name 1', ];
      await same(['inspect', '-f', fields.map((field) => `${field.replace(/[{}]/g, '')}: {{${field}}}`).join('\n'), name]);
      // by themselves: together with others Docker falls back to a form without types
      for (const field of ['.Config.Env', '.HostConfig.PidsLimit', 'index .Config.Labels "a"', 'printf "%s-%d" .Name .State.ExitCode']) await same(['inspect', '-f', `{{${field}}}`, name]);
    }
    await same(['inspect', '-f', '{{.Id}} {{.Name}}', 'one', 'three']);
    await same(['inspect', '-f', '{{.No.Such}}', 'one']);
    await same(['inspect', '-f', '{{.Id', 'one']);
    for (const args of [['-a'], ['-a', '-f', 'status=exited'], ['-a', '-f', 'status=created'], ['-f', 'label=a'], ['-a', '-f', 'label=a=2'], ['-a', '-f', 'name=t'], ['-a', '-f', 'name=^/one$'], ['-a', '-f', 'exited=4'], ['-a', '-f', 'ancestor=full'], ['-a', '-f', 'volume=data'], ['-a', '-f', 'network=none'],
      ['-n', '2'], ['-l'], ['-a', '-f', 'before=two'], ['-a', '-f', 'since=two'], ['-a', '-f', 'status=nope'], ['-a', '-f', 'nope=x'], ['-a', '-f', 'status=exited', '-f', 'status=running'], ['-a', '-f', 'id=ffffffffffff']])
      await same(['ps', ...args, '--format', '{{.Names}} {{.Image}} {{.Command}} {{.State}} {{.Mounts}} {{.Ports}}{{.Label "a"}}']);
    await same(['ps', '-a', '--format', 'table {{.Names}}\t{{.Image}}\t{{.Command}}\t{{.State}}']);
    await same(['ps', '-aq', '--no-trunc']);
    await same(['ps', '-a', '--no-trunc', '--format', '{{.Command}}']);
    for (const args of [['--format', '{{.Repository}}:{{.Tag}}'], ['busybox', '--format', '{{.Repository}} {{.Tag}}'], ['-f', 'reference=f*', '--format', '{{.Repository}}'], ['-f', 'label=l=1', '--format', '{{.Repository}}'], ['-f', 'dangling=true', '--format', '{{.ID}}']]) {
      const { engine: ours, docker: theirs } = await both(['images', ...args]);
      const lines = ({ stdout }: Result): string[] => stdout.split('\n').filter((line) => line !== '' && !line.startsWith('host')).sort(); // the image host is always there
      expect.soft(lines(ours), args.join(' ') + ours.stderr).toEqual(lines(theirs));
    }
    await same(['inspect', '-f', ['json .Config.Env', 'json .Config.Cmd', 'json .Config.Entrypoint', '.Config.User', '.Config.WorkingDir', 'json .Config.Labels', 'json .Config.ExposedPorts', '.Os', '.Architecture', 'json .RepoTags', 'len .RootFS.Layers', '.RootFS.Type'].map((field) => `${field}: {{${field}}}`).join('\n'), 'full']);
    await same(['rmi', 'vol:nope']);
    await same(['tag', 'busybox', 'other:1']);
    await same(['tag', 'no-such', 'other:2']);
    await same(['tag', 'busybox', 'Bad:1']);
    await step('rmi', 'full');
    await step('rm', '-f', 'one', 'two', 'three');
    await step('volume', 'rm', 'data');
  });
  it('logs', async () => {
    await step('run', '--name', 'talk', '--network', 'none', 'busybox', 'sh', '-c', 'for i in 1 2 3 4 5; do echo line $i; done; sleep 0.1; echo err >&2; sleep 0.1; printf partial');
    for (const args of [[], ['--tail', '2'], ['-n', '0'], ['--tail', 'all'], ['--tail', '-1'], ['-f'], ['--since', '1h'], ['--since', '2030-01-01'], ['--until', '1h'], ['--since', 'x']]) await same(['logs', ...args, 'talk']);
    const { engine: ours, docker: theirs } = await both(['logs', '-t', 'talk']);
    const stamps = ({ stdout }: Result): string => stdout.replaceAll(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z /gm, '<time> ');
    expect(stamps(ours)).toBe(stamps(theirs));
    await step('rm', 'talk');
  });
  it('diff and volumes', async () => {
    await step('run', '--name', 'changer', '--network', 'none', 'busybox', 'sh', '-c', 'rm /var/data/file; echo x >> /etc/passwd; mkdir -p /new/dir; echo > /new/f; chmod 700 /root; mv /home/app /home/other; rm -r /usr; ln -s a /link');
    const { engine: ours, docker: theirs } = await both(['diff', 'changer']);
    expect(ours.stdout.split('\n').sort()).toEqual(theirs.stdout.split('\n').sort());
    await step('rm', 'changer');
    await step('run', '--rm', '--network', 'none', 'vol', 'sh', '-c', 'cat /var/data/file; stat -c "%a %u" /var/data');
    await step('volume', 'create', 'named');
    await step('run', '--rm', '--network', 'none', '-v', 'named:/home/app', 'busybox', 'stat', '-c', '%u:%g %a', '/home/app');
    await step('run', '--rm', '--network', 'none', '-v', 'named:/var/data', 'busybox', 'ls', '-A', '/var/data');
    await step('run', '--rm', '--network', 'none', '-v', 'fresh:/var/data:nocopy', 'busybox', 'ls', '-A', '/var/data');
    await step('run', '--rm', '--network', 'none', '-v', 'filled:/var/data', 'busybox', 'cat', '/var/data/file');
    await step('run', '--rm', '--network', 'none', '-v', 'filled:/elsewhere:ro', 'busybox', 'sh', '-c', 'cat /elsewhere/file; touch /elsewhere/x 2>&1; echo $?');
    await step('volume', 'ls', '--format', '{{.Name}} {{.Driver}}');
    await step('volume', 'ls', '-q', '-f', 'name=na');
    await step('volume', 'inspect', '-f', '{{.Name}} {{.Driver}} {{.Scope}}', 'named');
    await step('volume', 'rm', 'named', 'fresh', 'filled');
    await step('volume', 'create', 'bad name');
    for (const flags of [['-v', 'relative/x:/y'], ['-v', '/a:relative'], ['-v', '/a:/b:nope'], ['-v', '/:/'], ['-v', '/tmp:/x', '-v', '/var:/x'], ['--mount', 'type=bind,src=/no/such,dst=/x'], ['--mount', 'type=nope,dst=/x'], ['--mount', 'dst=/x,nope=1'], ['--tmpfs', 'x'], ['--memory', '1k'], ['--cpus', 'x'], ['--cpus', '1000'], ['--name', '-bad'],
      ['--ulimit', 'nope=1'], ['--ulimit', 'nofile=9:1'], ['--sysctl', 'kernel.core_pattern=x'], ['--add-host', 'x'], ['--stop-signal', 'NOPE'], ['--log-driver', 'nope'], ['--network', 'nope'], ['--shm-size', 'x'], ['--env-file', '/no/such'], ['--no-such-flag'], ['-Z'], ['--cidfile', '/etc/passwd']])
      await same(sh('true', ...flags));
    await step('ps', '-aq');
  });
});
