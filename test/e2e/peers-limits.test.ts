/** pause, update, stats, top and the limits that inspect shows, beside a real dockerd: same codes, same output, the same said. */
import { spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTar } from '../helpers/busybox.ts';
import { Running, TestEngine, type Result } from '../helpers/engine.ts';
import { unified } from '../helpers/cgroup.ts';
import { Dockerd, missingPeers } from '../helpers/peers.ts';

const missing = missingPeers('docker', 'dockerd', 'containerd', 'ps');
const run = describe.skipIf(missing.length > 0);
if (missing.length > 0) console.error(`not compared with docker, missing: ${missing.join(', ')}`);

let engine: TestEngine;
let dockerd: Dockerd;
const docker = async (args: readonly string[]): Promise<Result> => {
  const running = new Running(spawn('docker', args, { env: dockerd.env, stdio: 'pipe' }));
  running.child.stdin.end();
  return running.result;
};
/** Both, one after the other: each has the machine for itself. */
const both = async (...args: string[]): Promise<{ readonly engine: Result; readonly docker: Result }> => ({ engine: await engine.run(args), docker: await docker(args) });
const same = async (...args: string[]): Promise<string> => {
  const answers = await both(...args);
  expect([answers.engine.code, answers.engine.stdout], answers.engine.stderr + answers.docker.stderr).toEqual([answers.docker.code, answers.docker.stdout]);
  return answers.engine.stdout.trimEnd();
};
/** Both refuse, with the same code, and say this. */
const refused = async (said: RegExp, ...args: string[]): Promise<void> => {
  const answers = await both(...args);
  expect(answers.docker.stderr, `docker ${args.join(' ')}`).toMatch(said);
  expect(answers.engine.stderr, `engine ${args.join(' ')}`).toMatch(said);
  expect(answers.engine.code, args.join(' ')).toBe(answers.docker.code);
};

beforeAll(async () => {
  if (missing.length > 0) return;
  engine = new TestEngine();
  dockerd = await new Dockerd().start();
  for (const one of [(args: string[]) => void dockerd.docker(...args), async (args: string[]) => void (await engine.ok(...args))]) {
    await one(['import', busyboxTar(), 'busybox']);
    await one(['run', '-d', '--name', 'up', '--network', 'none', '-m', '64m', 'busybox', 'sleep', '1000']);
    await one(['create', '--name', 'made', '--network', 'none', 'busybox', 'sleep', '1000']);
  }
}, 120_000);
afterAll(async () => {
  if (missing.length > 0) return;
  await engine.removeContainers();
  await dockerd.stop();
  expect(await engine.close()).toEqual([]);
});

run('pause', () => {
  it('answers as docker does', async () => {
    await refused(/is not paused/i, 'unpause', 'up');
    await refused(/is not running|is not paused/i, 'pause', 'made');
    await refused(/is not running|is not paused/i, 'unpause', 'made');
    await refused(/no such container: nope/i, 'pause', 'nope');
    expect(await same('pause', 'up')).toBe('up');
    await refused(/already paused/i, 'pause', 'up');
    await refused(/paused[,;] unpause/i, 'exec', 'up', 'true');
    await refused(/attach to .*container.*paused|paused container/i, 'attach', 'up');
    await refused(/paused/i, 'start', 'up');
    await refused(/paused.*unpause and (then )?stop/is, 'rm', 'up');
    await same('inspect', '-f', '{{.State.Status}} {{.State.Running}} {{.State.Paused}} {{.State.Restarting}}', 'up');
    await same('ps', '--filter', 'status=paused', '--format', '{{.Names}} {{.State}}');
    await same('unpause', 'up');
    await same('inspect', '-f', '{{.State.Status}} {{.State.Running}} {{.State.Paused}}', 'up');
  });
  it.each([[[], 'USR2'], [['--stop-signal', 'INT'], 'USR2'], [['--stop-signal', 'INT'], 'INT']] as const)('with %j is woken by %s or not, as in docker', async (flags, signal) => {
    await both('run', '-d', '--name', 'woken', '--network', 'none', ...flags, 'busybox', 'sh', '-c', 'trap "" USR2 INT; while :; do sleep 0.1; done');
    await same('pause', 'woken');
    await same('kill', '-s', signal, 'woken');
    await same('inspect', '-f', '{{.State.Status}}', 'woken');
    await same('rm', '-f', 'woken');
  });
  it('ends by stop, kill and rm -f as in docker', async () => {
    for (const end of [['stop', '-t', '0', 'ends'], ['kill', 'ends']]) {
      await both('run', '-d', '--name', 'ends', '--network', 'none', 'busybox', 'sleep', '1000');
      await same('pause', 'ends');
      await same(...end);
      await same('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}} {{.State.Paused}}', 'ends');
      await same('start', 'ends');
      await same('pause', 'ends');
      await same('rm', '-f', 'ends');
    }
  });
});

run('update', () => {
  const shown = '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}} {{.HostConfig.CpusetCpus}} {{.HostConfig.BlkioWeight}} {{json .HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}';
  it('keeps what docker keeps', async () => {
    for (const flags of [['-m', '100m'], ['--memory-swap', '300m', '-m', '200m'], ['--memory-reservation', '50m'], ['--cpu-shares', '512'], ['--cpuset-cpus', '0'], ['--pids-limit', '50'], ['--cpu-period', '50000', '--cpu-quota', '25000'], ['--restart', 'on-failure:3'], ['--memory-swap', '-1'], ['--restart', 'no'], ['--cpu-shares', '0', '--pids-limit', '60']]) {
      expect(await same('update', ...flags, 'up')).toBe('up');
      await same('inspect', '-f', shown, 'up');
    }
    await same('update', '--cpus', '1.5', 'made');
    await same('inspect', '-f', shown, 'made');
  });
  it('refuses what docker refuses, in its words', async () => {
    await both('run', '-d', '--name', 'no', '--network', 'none', '-m', '64m', 'busybox', 'sleep', '1000');
    await refused(/minimum memory limit allowed is 6MB/i, 'update', '-m', '1m', 'no');
    await refused(/memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time/i, 'update', '-m', '200m', 'no');
    await refused(/minimum memoryswap limit should be larger than memory limit/i, 'update', '-m', '64m', '--memory-swap', '32m', 'no');
    await refused(/minimum memory limit can not be less than memory reservation limit/i, 'update', '-m', '64m', '--memory-reservation', '100m', 'no');
    await refused(/no such container: nope/i, 'update', '-m', '64m', 'nope');
    await refused(/requested CPUs are not available - requested 4000, available: /i, 'update', '--cpuset-cpus', '4000', 'no');
    await same('update', '--cpus', '0.5', 'no');
    await refused(/conflicting options: CPU quota cannot be updated as nano ?CPUs has already been set/i, 'update', '--cpu-quota', '50000', 'no');
    await refused(/conflicting options: CPU period cannot be updated as nano ?CPUs has already been set/i, 'update', '--cpu-period', '50000', 'no');
    await both('rm', '-f', 'no');
    await both('run', '-d', '--rm', '--name', 'goes', '--network', 'none', 'busybox', 'sleep', '1000');
    await refused(/restart policy cannot be updated because AutoRemove is enabled for the container/i, 'update', '--restart', 'always', 'goes');
    await both('rm', '-f', 'goes');
  });
  // without memsw: docker says -1 and leaves what was there
  it('holds the same in the kernel', async () => {
    const files = unified ? ['memory.max', 'cpu.max', 'cpu.weight', 'pids.max'] : ['memory/memory.limit_in_bytes', 'cpu/cpu.cfs_quota_us', 'cpu/cpu.cfs_period_us', 'cpu/cpu.shares', 'pids/pids.max', 'cpuset/cpuset.cpus'];
    await same('exec', 'up', 'sh', '-c', `cd /sys/fs/cgroup; cat ${files.join(' ')}`);
  });
});

run('limits of run', () => {
  it('are shown as docker shows them', async () => {
    const fields = ['BlkioWeight', 'BlkioWeightDevice', 'BlkioDeviceReadBps', 'BlkioDeviceWriteBps', 'BlkioDeviceReadIOps', 'BlkioDeviceWriteIOps', 'CpuPeriod', 'CpuQuota', 'CpuRealtimePeriod', 'CpuRealtimeRuntime', 'CpuShares', 'CpusetCpus', 'CpusetMems', 'KernelMemory', 'KernelMemoryTCP', 'Memory', 'MemoryReservation', 'MemorySwap', 'NanoCpus', 'OomKillDisable', 'PidsLimit'];
    const template = fields.map((field) => `${field}={{json .HostConfig.${field}}}`).join('\n');
    await both('create', '--name', 'plain', '--network', 'none', 'busybox', 'true');
    await same('inspect', '-f', template, 'plain');
    await both('create', '--name', 'full', '--network', 'none', '-m', '64m', '--memory-reservation', '32m', '--cpus', '0.5', '--cpu-shares', '100', '--cpuset-cpus', '0', '--pids-limit', '20', '--device-read-bps', '/dev/loop0:1mb', '--device-write-bps', '/dev/loop0:2kb', '--device-read-iops', '/dev/loop0:10', '--device-write-iops', '/dev/loop0:20', 'busybox', 'true');
    await same('inspect', '-f', template, 'full');
    await both('rm', 'plain', 'full');
  });
  it('are refused as docker refuses them', async () => {
    const make = ['create', '--network', 'none'];
    await refused(/bad format|DEVICE:VALUE/i, ...make, '--device-read-bps', '/dev/loop0', 'busybox');
    await refused(/bad format for device path|device below \/dev/i, ...make, '--device-write-iops', 'loop0:10', 'busybox');
    await refused(/invalid (rate|value)/i, ...make, '--device-read-bps', '/dev/loop0:much', 'busybox');
    await refused(/invalid (weight|value)/i, ...make, '--blkio-weight-device', '/dev/loop0:5', 'busybox');
  });
});

run('stats', () => {
  it('has the columns and the form of docker', async () => {
    const heading = (text: string): string => (text.replaceAll(/\x1b\[\w+/g, '').split('\n')[0] ?? '').split(/ {2,}/).join('|');
    const { engine: ours, docker: theirs } = await both('stats', '--no-stream');
    expect(heading(ours.stdout)).toBe(heading(theirs.stdout));
    await same('stats', '--no-stream', '--format', '{{.Name}} {{.Container}} {{.PIDs}} {{.NetIO}}', 'up');
    const limit = '{{.MemUsage}}';
    const memory = await both('stats', '--no-stream', '--format', limit, 'up');
    expect(memory.engine.stdout.split(' / ')[1]).toBe(memory.docker.stdout.split(' / ')[1]);
    for (const format of ['{{.CPUPerc}}', '{{.MemPerc}}', '{{.MemUsage}}', '{{.BlockIO}}', '{{.ID}}']) {
      const answers = await both('stats', '--no-stream', '--format', format, 'up');
      const shape = (text: string): string => text.trim().replaceAll(/[0-9a-f]{12}/g, 'ID').replaceAll(/[\d.]+/g, 'N').replaceAll(/[KMG]i?B|kB/g, 'B');
      expect(shape(answers.engine.stdout)).toBe(shape(answers.docker.stdout));
    }
    const keys = (text: string): string[] => Object.keys(JSON.parse(text) as object).sort();
    const json = await both('stats', '--no-stream', '--format', '{{json .}}', 'up');
    expect(keys(json.engine.stdout)).toEqual(keys(json.docker.stdout));
  });
  it('has zeros for what does not run, and refuses what is not there', async () => {
    await same('stats', '--no-stream', '--format', '{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}', 'made');
    await refused(/no such container: nope/i, 'stats', '--no-stream', 'nope');
  });
});

run('top', () => {
  it('prints what docker prints', async () => {
    const shape = (text: string): string => text.replaceAll(/\b\d\d:\d\d(:\d\d)?\b/g, 'T').replaceAll(/\b\d+ {15,}/g, 'N '.padEnd(20));
    for (const options of [[], ['-ef'], ['aux'], ['-o', 'pid,ppid,comm']]) {
      const answers = await both('top', 'up', ...options);
      expect(answers.engine.code, answers.engine.stderr).toBe(0);
      const [ours, theirs] = [answers.engine, answers.docker].map(({ stdout }) => shape(stdout).split('\n').map((line) => line.trimEnd().replaceAll(/ [\d.]+ {2,}/g, ' N ')));
      if (options.length !== 1 || options[0] !== 'aux') expect(ours).toEqual(theirs);
      else expect(ours?.[0]).toBe(theirs?.[0]);
    }
    await refused(/couldn't find PID field in ps output/i, 'top', 'up', '-o', 'comm');
    await refused(/is not running/i, 'top', 'made');
    await refused(/no such container: nope/i, 'top', 'nope');
  });
});
