import { execFileSync } from 'node:child_process';
import { type Arena } from './arena.ts';
import { EngineContestant } from './engines.ts';
import { parentOf, pss, rss } from './machine.ts';
import { type Contestant } from './peers.ts';

const output = (one: Contestant, program: string, ...args: string[]): string => execFileSync(program, args, { env: { ...one.env }, encoding: 'utf8' }).trim();

/** What one idle container costs beside its own processes, and what is resident besides. */
export async function memoryOf(one: Contestant): Promise<readonly (readonly [string, number])[]> {
  return one instanceof EngineContestant ? engineMemory(one) : (one.memory?.() ?? []);
}

async function engineMemory(one: EngineContestant): Promise<(readonly [string, number])[]> {
  const [program = '', ...args] = one.detached();
  const id = output(one, program, ...args);
  // what only its start has needed is given back a moment later
  await quiet(1000);
  const shim = pss(parentOf(Number(output(one, program, 'inspect', '-f', '{{.State.Pid}}', id))));
  await one.removeAll();
  const { pid } = one;
  return [[`${one.name}: shim (PSS)`, shim], ...(pid === undefined ? [] : ([[`${one.name}: engined (RSS)`, rss(pid)]] as const))];
}

const quiet = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

/** RSS of engined in KB when nothing has happened for a few seconds: it gives back then what only commands need. */
export async function quietMemory({ pid }: EngineContestant): Promise<number | undefined> {
  await quiet(5000);
  return pid === undefined ? undefined : rss(pid);
}

/** RSS of engined in KB by the number of starts it has made: 10,000 in a row, a sample every 1,000. */
export async function residentMemory(arena: Arena, engine: EngineContestant): Promise<(readonly [number, number])[]> {
  const argv = engine.plain();
  const step = arena.settings.rounds < 5 ? 50 : 1000;
  const samples: [number, number][] = [];
  for (let starts = 0; starts < step * 10; ) {
    await arena.driver.run({ argv, env: engine.env }, { runs: step });
    starts += step;
    const { pid } = engine;
    if (pid !== undefined) samples.push([starts, rss(pid)]);
  }
  return samples;
}
