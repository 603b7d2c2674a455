/**
 * `npm run bench`: start latency and image load against docker, podman, runc and crun, one after another in one run on one machine, as ratios.
 * Peers that are not installed are left out and named.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { busyboxRootfs, importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { Dockerd, missingPeers, Podman } from '../helpers/peers.ts';
import { makeArchive } from './archive.ts';

interface Contestant {
  readonly name: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Put things back before the next round. */
  readonly reset?: () => void;
  readonly times: number[];
}

const engineBin = join(import.meta.dirname, '..', '..', 'bin', 'engine');
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
const ms = (value: number): string => (value < 100 ? value.toFixed(1) : value.toFixed(0));

/** One run, wall clock in ms. */
function time(contestant: Contestant): number {
  const [program = '', ...args] = contestant.command;
  const start = performance.now();
  const { status, stderr } = spawnSync(program, args, { env: contestant.env, stdio: ['ignore', 'ignore', 'pipe'] });
  const took = performance.now() - start;
  if (status !== 0) throw new Error(`${contestant.name} failed: ${String(stderr)}`);
  return took;
}

/** All take turns, so that noise of the machine hits everyone alike. */
function race(contestants: readonly Contestant[], rounds: number): void {
  for (let round = -1; round < rounds; round++) {
    for (const contestant of contestants) {
      // nobody waits for the disk to take what the one before has written
      if (contestant.reset) spawnSync('sync');
      const took = time(contestant);
      if (round >= 0) contestant.times.push(took); // the first one warms caches
      contestant.reset?.();
    }
  }
}

function report(title: string, contestants: readonly Contestant[]): string {
  const own = median(contestants[0]?.times ?? []);
  const rows = contestants.map(({ name, times }) => {
    const sorted = [...times].sort((a, b) => a - b);
    return `| ${name} | ${ms(median(times))} | ${ms(sorted[Math.floor(sorted.length * 0.95)] ?? NaN)} | ${(own / median(times)).toFixed(2)} |`;
  });
  return `### ${title}\n\n| | median ms | p95 ms | engine takes, as a part of it |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`;
}

/** A bundle for bare runtimes, with the same root filesystem. */
function makeBundle(folder: string, runtime: string): string {
  const bundle = join(folder, `bundle-${runtime}`);
  mkdirSync(join(bundle, 'rootfs'), { recursive: true });
  busyboxRootfs(join(bundle, 'rootfs'));
  execFileSync(runtime, ['spec'], { cwd: bundle });
  const path = join(bundle, 'config.json');
  const spec = JSON.parse(readFileSync(path, 'utf8')) as { process: { args: string[]; terminal: boolean; rlimits?: unknown } };
  spec.process.args = ['true'];
  spec.process.terminal = false;
  delete spec.process.rlimits;
  writeFileSync(path, JSON.stringify(spec));
  return bundle;
}

/**
 * crun and podman refuse a hybrid tree with a controller on v2: hugetlb is mounted on v1 somewhere of ours for as long as they run.
 */
function withoutUnifiedControllers<T>(folder: string, run: () => T): T {
  const at = join(folder, 'hugetlb');
  mkdirSync(at, { recursive: true });
  const hybrid = spawnSync('mount', ['-t', 'cgroup', '-o', 'hugetlb', 'cgroup', at]).status === 0;
  try {
    return run();
  } finally {
    if (hybrid) execFileSync('umount', [at]);
  }
}

function shimMemory(engine: TestEngine, id: string): string {
  const pid = execFileSync(engineBin, ['inspect', '-f', '{{.State.Pid}}', id], { env: engine.env, encoding: 'utf8' }).trim();
  const shim = /^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '';
  return /^Pss:\s+(\d+ kB)/m.exec(readFileSync(`/proc/${shim}/smaps_rollup`, 'utf8'))?.[1] ?? '?';
}

/** Everything a contestant stores, thrown away between loads. */
function emptyFolder(folder: string): void {
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true, force: true });
}

async function main(): Promise<void> {
  const rounds = Number(process.env['BENCH_ROUNDS'] ?? 15);
  const folder = mkdtempSync('/var/tmp/engine-bench-');
  const missing = missingPeers('docker', 'dockerd', 'podman', 'runc', 'crun');
  if (missing.length) console.log(`left out, not installed: ${missing.join(', ')}\n`);
  const has = (name: string): boolean => !missing.includes(name);
  const engine = new TestEngine();
  const dockerd = has('dockerd') && has('docker') ? await new Dockerd().start() : undefined;
  const podman = has('podman') ? new Podman() : undefined;
  const path = { PATH: process.env['PATH'] ?? '' };
  try {
    await importBusybox(engine);
    const rootfs = join(folder, 'rootfs.tar');
    mkdirSync(join(folder, 'rootfs'));
    busyboxRootfs(join(folder, 'rootfs'));
    execFileSync('tar', ['-C', join(folder, 'rootfs'), '-cf', rootfs, '.']);
    dockerd?.docker('import', rootfs, 'busybox');
    podman?.podman('import', rootfs, 'busybox');
    const start: Contestant[] = [{ name: 'engine (cold command)', command: [engineBin, 'run', '--rm', '--network', 'none', 'busybox', 'true'], env: engine.env, times: [] }];
    if (dockerd) start.push({ name: 'docker', command: ['docker', 'run', '--rm', '--network', 'none', 'busybox', 'true'], env: dockerd.env, times: [] });
    if (podman) start.push({ name: 'podman', command: ['podman', ...podman.args, 'run', '--rm', '--network', 'none', 'busybox', 'true'], env: podman.env, times: [] });
    for (const runtime of ['runc', 'crun'].filter(has)) {
      start.push({ name: `${runtime} (bare bundle)`, command: [runtime, '--root', join(folder, `state-${runtime}`), 'run', '--bundle', makeBundle(folder, runtime), `engine-bench-${runtime}`], env: path, times: [] });
    }
    withoutUnifiedControllers(folder, () => race(start, rounds));
    console.log(report('`run --rm`, network none, `true`: answered and everything gone', start));

    const id = await engine.ok('run', '-d', 'busybox', 'sleep', '1000');
    console.log(`shim of an idle container: ${shimMemory(engine, id)} PSS\n`);
    await engine.ok('rm', '-f', id);

    const archive = join(folder, 'image.tar');
    makeArchive(archive, { layers: 4, bytes: 300 << 20 });
    const loads: Contestant[] = [{ name: 'engine', command: [engineBin, 'load', '-q', '-i', archive], env: { ...engine.env, ENGINE_ROOT: join(folder, 'load-root') }, reset: () => rmSync(join(folder, 'load-root'), { recursive: true, force: true }), times: [] }];
    if (dockerd) loads.push({ name: 'docker', command: ['docker', 'load', '-q', '-i', archive], env: dockerd.env, reset: () => void dockerd.docker('rmi', '-f', 'bench:latest'), times: [] });
    if (podman) loads.push({ name: 'podman', command: ['podman', ...podman.args, 'load', '-q', '-i', archive], env: podman.env, reset: () => void podman.podman('rmi', '-f', 'bench:latest'), times: [] });
    race(loads, Math.max(3, Math.round(rounds / 5)));
    console.log(report(`load of an image of ${Math.round(statSync(archive).size / (1 << 20))} MB in 4 layers`, loads));
  } finally {
    await dockerd?.stop();
    podman?.close();
    const left = await engine.close();
    if (left.length) console.log(`left behind: ${left.join(', ')}`);
    emptyFolder(folder);
    rmSync(folder, { recursive: true, force: true });
  }
}

await main();
