import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { entries, type Running, type TestEngine } from './engine.ts';
import { owned } from './leaks.ts';
import { until } from './wait.ts';

type Pick = <T>(list: readonly T[]) => T;
interface Client {
  readonly argv: (pick: Pick) => string[];
  /** What its output and code are when nothing happened to it. */
  readonly fine?: (stdout: string, code: number | null) => boolean;
}
const NAMES = ['one', 'two', 'three'];
const clients: readonly Client[] = [
  { argv: () => ['run', '--rm', 'busybox', 'sh', '-c', 'echo begin; sleep 0.1; echo end; exit 7'], fine: (stdout, code) => stdout === 'begin\nend\n' && code === 7 },
  { argv: () => ['run', '--rm', '-i', 'busybox', 'sh', '-c', 'cat; head -c 200000 /dev/zero | tr "\\0" x'], fine: (stdout, code) => stdout.length === 200_000 && code === 0 },
  { argv: () => ['run', '--rm', '-t', 'busybox', 'sh', '-c', 'sleep 0.05; tty; exit 3'], fine: (stdout, code) => stdout === '/dev/pts/0\r\n' && code === 3 },
  { argv: (pick) => ['run', '-d', '--name', pick(NAMES), '-m', '32m', 'busybox', 'sleep', '1000'] },
  { argv: (pick) => ['run', '-d', '--rm', '--name', pick(NAMES), 'busybox', 'sleep', '0.2'] },
  { argv: (pick) => ['exec', pick(NAMES), 'sh', '-c', 'echo in; sleep 0.1; exit 5'], fine: (stdout, code) => stdout === 'in\n' && code === 5 },
  { argv: (pick) => ['logs', '-f', pick(NAMES)] },
  { argv: (pick) => ['wait', pick(NAMES)] },
  { argv: (pick) => ['stop', '-t', '0', pick(NAMES)] },
  { argv: (pick) => ['restart', '-t', '0', pick(NAMES)] },
  { argv: (pick) => ['rm', '-f', pick(NAMES)] },
  { argv: () => ['ps', '-a'] },
  { argv: () => ['images'] },
];

/**
 * Commands at once, engined ended in between in a random way, a shim perhaps, too. Then everything must be in order: answers right or refused in a line,
 * what is listed works, what is not has left nothing. Returns what is wrong.
 */
export async function chaosRound(engine: TestEngine, random: () => number, parallel = 8): Promise<string[]> {
  const pick: Pick = (list) => list[Math.floor(random() * list.length)] as (typeof list)[number];
  const told: string[] = [];
  const wrong: string[] = [];
  let shimsKilled = 0;
  const shims = (): number[] => owned({ instance: engine.instance, folder: engine.folder }).processes.filter((line) => line.startsWith('engine-shim')).map((line) => Number(line.split(' ')[1]));
  const signal = (pid: number | undefined, name: NodeJS.Signals): boolean => {
    try {
      return pid !== undefined && process.kill(pid, name);
    } catch {
      return false; // it has just ended
    }
  };
  const running: { readonly client: Client; readonly run: Running; readonly argv: string[] }[] = [];
  const kills = 1 + Math.floor(random() * 2);
  const at = new Set(Array.from({ length: kills }, () => Math.floor(random() * parallel)));
  for (let i = 0; i < parallel; i++) {
    const client = pick(clients);
    const argv = client.argv(pick);
    told.push(argv.join(' '));
    running.push({ client, argv, run: engine.start(argv, { input: '' }) });
    if (!at.has(i)) continue;
    // some of them have just begun, others are in the middle
    const delay = random() * 60;
    await new Promise((resolve) => setTimeout(resolve, delay));
    const how = pick(['SIGKILL', 'SIGKILL', 'SIGTERM', 'SIGHUP'] as const);
    told.push(`(${how} to engined after ${delay.toFixed(0)} ms)`);
    signal(engine.engined, how);
    if (random() < 0.3) {
      told.push('(SIGKILL to a shim)');
      if (signal(pick(shims()), 'SIGKILL')) shimsKilled++;
    }
  }
  // those that wait for containers that nobody ends
  const waiting = running.filter(({ argv: [verb] }) => verb === 'wait' || verb === 'logs');
  const others = running.filter((one) => !waiting.includes(one));
  await Promise.all(others.map(({ run, argv }) => {
    const late = setTimeout(() => {
      wrong.push(`${argv.join(' ')} waits for ever: ${standing(run.child.pid)}`);
      run.child.kill('SIGKILL');
    }, 20_000);
    return run.result.finally(() => clearTimeout(late));
  }));
  const ids = await engine.containers();
  for (const id of ids) {
    const started = await engine.run(['start', id]);
    if (started.code !== 0 && !/no such container/.test(started.stderr)) wrong.push(`container ${id.slice(0, 12)} does not start: ${started.stderr}`);
    else if (started.code === 0) {
      const { code, stderr } = await engine.run(['exec', id, 'true']);
      // one of 0.2 s may just end, and what runs in it with it: then it is no longer there
      const ends = async (): Promise<boolean> => (await engine.run(['inspect', '-f', '{{.State.Running}}', id])).stdout.trim() !== 'true';
      const ended = code === 137 ? await until('its end', ends, 5000).then(() => true, () => false) : /no such container|is not running/.test(stderr);
      if (code !== 0 && !ended) wrong.push(`container ${id.slice(0, 12)} serves no session: ${JSON.stringify({ code, stderr })}`);
    }
  }
  for (const id of ids) {
    const { code, stderr } = await engine.run(['rm', '-fv', id]);
    if (code !== 0 && !/no such container/.test(stderr)) wrong.push(`container ${id.slice(0, 12)} cannot be removed: ${stderr}`);
  }
  for (const { run, argv } of waiting) {
    const late = setTimeout(() => {
      wrong.push(`${argv.join(' ')} waits for ever`);
      run.child.kill('SIGKILL');
    }, 20_000);
    await run.result;
    clearTimeout(late);
  }
  /** Did something of this round end the container of that name: a command, its own program, or with its shim? */
  const mayEnd = (name: string | undefined): boolean => shimsKilled > 0 || running.some(({ argv }) => (['stop', 'restart', 'rm'].includes(argv[0] ?? '') && argv.at(-1) === name) || (argv[0] === 'run' && argv.includes('--rm') && argv.includes(name ?? '')));
  let ownEnds = 0;
  for (const { run, argv, client } of running) {
    const { code, stdout, stderr, signal: by } = await run.result;
    const what = `${argv.join(' ')}: ${JSON.stringify({ code, by, stdout: stdout.slice(0, 200), stderr })}`;
    if (/ERR_INTERNAL|TypeError|at .*\.js:\d+/.test(stderr)) wrong.push(what);
    else if (client.fine && !client.fine(stdout, code)) {
      // killed (137) with its shim, of which each takes one run along, or with its container; or told why
      const killed = code === 137 && (argv[0] === 'exec' ? mayEnd(argv[1]) : ++ownEnds <= shimsKilled);
      if (!killed && ((code !== 125 && code !== 1) || stderr === '')) wrong.push(what);
    }
  }
  await until('everything to be gone', async () => (await engine.ok('ps', '-aq')) === '' && entries(join(engine.runRoot, 'runs')).length <= (await sandboxes(engine)), 20_000).catch(() => wrong.push(`left: ${entries(join(engine.runRoot, 'runs')).join(' ')}`));
  for (const folder of ['inflight', 'containers']) for (const name of entries(join(engine.root, folder))) if (!(await isSandbox(engine, name))) wrong.push(`left: ${folder}/${name}`);
  return wrong.length ? [...told, ...wrong] : [];
}

/** What a process that doesn't end is doing. */
function standing(pid: number | undefined): string {
  try {
    return `${readFileSync(`/proc/${pid ?? 0}/cmdline`, 'utf8').replaceAll('\0', ' ')}(${readFileSync(`/proc/${pid ?? 0}/wchan`, 'utf8')}; ${execFileSync('ls', ['-l', `/proc/${pid ?? 0}/fd`], { encoding: 'utf8' }).replaceAll(/^.* (\d+ -> .*)$/gm, '$1').replaceAll('\n', ', ')})`;
  } catch {
    return 'it has just ended';
  }
}

/** Those that wait in the pool. */
export async function sandboxes(engine: TestEngine): Promise<number> {
  return Number(await engine.ok('info', '-f', '{{.Sandboxes.Ready}}'));
}
/** The container folder of one that waits: its run is there, and no row. */
const isSandbox = (engine: TestEngine, id: string): Promise<boolean> => Promise.resolve(entries(join(engine.runRoot, 'runs')).includes(id));
