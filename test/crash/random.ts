import { join } from 'node:path';
import { entries, type Running, type TestEngine } from '../helpers/engine.ts';
import { cgroups, owned } from '../helpers/leaks.ts';
import { until } from '../helpers/wait.ts';

/** Numbers from 0 to 1 that are the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const NAMES = ['one', 'two', 'three'];
type Verb = (pick: <T>(list: readonly T[]) => T) => string[];
const verbs: readonly Verb[] = [
  (pick) => ['create', '--name', pick(NAMES), '-v', '/var/data', 'busybox', 'sleep', '1000'],
  (pick) => ['run', '-d', '--name', pick(NAMES), '-m', '32m', 'busybox', 'sleep', '1000'],
  () => ['run', '--rm', '-v', 'shared:/var/data', 'busybox', 'cat', '/var/data/file'],
  () => ['run', '--rm', 'busybox', 'no-such-program'],
  (pick) => ['start', pick(NAMES)],
  (pick) => ['exec', pick(NAMES), 'true'],
  (pick) => ['stop', '-t', '0', pick(NAMES)],
  (pick) => ['pause', pick(NAMES)],
  (pick) => ['unpause', pick(NAMES)],
  (pick) => ['update', '-m', '48m', '--memory-swap', '-1', '--pids-limit', '40', pick(NAMES)],
  (pick) => ['rm', '-f', pick(NAMES)],
  (pick) => ['rm', '-fv', pick(NAMES)],
  () => ['volume', 'rm', '-f', 'shared'],
  () => ['ps', '-a'],
];

const ownShims = (engine: TestEngine): number[] =>
  owned({ instance: engine.instance, folder: engine.folder }).processes.filter((line) => line.startsWith('engine-shim')).map((line) => Number(line.split(' ')[1]));

/**
 * One round: several commands at once, some killed at a random time, some shims too. Then the machine must be as an engine that was never
 * killed would leave it. Returns what is wrong.
 */
export async function randomRound(engine: TestEngine, random: () => number, parallel = 5): Promise<string[]> {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const told: string[] = [];
  const commands = Array.from({ length: parallel }, () => {
    const argv = pick(verbs)(pick);
    const deadline = random() < 0.6 ? random() * 300 : undefined;
    told.push(`${argv.join(' ')}${deadline === undefined ? '' : ` killed after ${Math.round(deadline)} ms`}`);
    const running: Running = engine.start(argv, { input: '' });
    if (deadline !== undefined) setTimeout(() => running.child.kill('SIGKILL'), deadline);
    return running;
  });
  if (random() < 0.3) {
    const delay = random() * 200;
    setTimeout(() => {
      const [pid] = ownShims(engine);
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
    }, delay);
  }
  const results = await Promise.all(commands.map(({ result }) => result));
  const wrong: string[] = [];
  for (const [i, { stderr, signal }] of results.entries()) {
    // a refusal is fine; an error of ours that nobody caught is not
    if (signal === null && /ERR_INTERNAL|TypeError|at .*\.js:\d+/.test(stderr)) wrong.push(`${told[i] ?? ''}: ${stderr}`);
  }
  // the next start: whatever is listed works, whatever isn't has left nothing
  const listed = await engine.containers();
  const known = new Set(listed);
  for (const [folder, label] of [['containers', 'folder'], ['storage-overlay/snapshots', 'snapshot']] as const) {
    for (const name of entries(join(engine.root, folder))) if (!known.has(name)) wrong.push(`${label} ${name} belongs to no container`);
  }
  for (const id of listed) {
    await engine.run(['unpause', id]); // says so when it is not
    const { code, stderr } = await engine.run(['start', id]);
    if (code !== 0) wrong.push(`container ${id.slice(0, 12)} does not start: ${stderr}`);
    else if ((await engine.run(['exec', id, 'true'])).code !== 0) wrong.push(`container ${id.slice(0, 12)} serves no session`);
  }
  for (const id of listed) await engine.ok('rm', '-fv', id);
  await until('all shims to end', () => ownShims(engine).length === 0).catch((error: unknown) => wrong.push(String(error)));
  for (const folder of ['inflight', 'trash', 'containers', 'storage-overlay/snapshots', 'storage-overlay/trash']) {
    for (const name of entries(join(engine.root, folder))) wrong.push(`left: ${folder}/${name}`);
  }
  wrong.push(...cgroups().filter((path) => path.includes(engine.instance)).map((path) => `left: ${path}`));
  return wrong.length ? [...told.map((line) => `(${line})`), ...wrong] : [];
}
