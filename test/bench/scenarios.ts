import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Arena } from './arena.ts';
import { makeArchive } from './archive.ts';
import { engineBin } from './engines.ts';
import { memoryOf, quietMemory, residentMemory } from './memory.ts';
import { median, takeTurns, type Turn } from './measure.ts';
import { inNamespace } from './namespace.ts';
import { networkScenarios } from './network.ts';
import { below, cycle } from './oci.ts';
import { latencyRow, rateRow, type Outcome, type Row } from './outcome.ts';
import { type Contestant, type Network } from './peers.ts';

export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** Undefined: nobody can take part. `before`: what the earlier scenarios of this run have given. */
  run(arena: Arena, before: readonly Outcome[]): Promise<Outcome | readonly Outcome[] | undefined>;
}

/** Those that take 100 ms and more get fewer starts a round: all get about the same time. */
const isSlow = ({ name }: Contestant): boolean => ['docker', 'podman', 'engine, cold'].includes(name);
const settle = 150;

/** A pause before each start: pools fill again, nothing overlaps. */
function idle(network: Network): Scenario {
  const title = `\`run --rm\` of \`true\`, network ${network}, idle`;
  return {
    name: `idle-${network}`,
    title,
    async run(arena) {
      const { pause, rounds } = arena.settings;
      const turns = arena.contestants.flatMap((one): Turn[] => {
        const argv = one.run(network);
        return argv ? [{ name: one.name, command: { argv, env: one.env }, pace: { runs: isSlow(one) ? 4 : 30, pause, gone: one.gone }, settle }] : [];
      });
      const results = await takeTurns(arena.driver, turns, rounds);
      return { scenario: `idle-${network}`, kind: 'latency', title, note: `${pause} ms of pause before each start; in ms`, rows: rows(arena, results, latencyRow) };
    },
  };
}

/** Without a pause, from one client or many; the window ends when everything is gone. */
function rush(name: string, network: Network, workers: number): Scenario {
  const title = `\`run --rm\` of \`true\`, network ${network}, ${workers === 1 ? 'back to back' : `${workers} clients`}`;
  return {
    name,
    title,
    async run(arena) {
      const turns = arena.contestants.flatMap((one): Turn[] => {
        const argv = one.run(network);
        return argv ? [{ name: one.name, command: { argv, env: one.env }, pace: { seconds: 3, workers, gone: one.gone }, settle }] : [];
      });
      const results = await takeTurns(arena.driver, turns, Math.max(1, Math.round(arena.settings.rounds / 3)));
      return { scenario: name, kind: 'rate', title, note: 'started for 3 s; the rate is that of containers that are fully gone', rows: rows(arena, results, rateRow) };
    },
  };
}

function rows(arena: Arena, results: Awaited<ReturnType<typeof takeTurns>>, row: typeof latencyRow): Row[] {
  return arena.contestants.flatMap(({ name, own }) => {
    const series = results.get(name);
    return series && series.answered.length > 0 ? [row(name, own, series)] : [];
  });
}

/** 500 that run at the same time. */
const many: Scenario = {
  name: 'many',
  title: 'the 500th container, while 499 run',
  async run(arena) {
    const count = arena.settings.rounds < 5 ? 40 : 500;
    const found: Row[] = [];
    for (const one of arena.contestants) {
      const argv = one.name === 'engine, cold' ? undefined : one.detached?.();
      if (!argv || !one.removeAll) continue;
      const warm = one.run('none');
      if (warm) await arena.driver.run({ argv: warm, env: one.env }, { runs: 5 });
      try {
        const { answered } = await arena.driver.run({ argv, env: one.env }, { runs: count, pause: 5 });
        found.push({ name: one.name, own: one.own, runs: count, first: median(answered.slice(0, 10)), last: median(answered.slice(-10)) });
      } finally {
        await one.removeAll();
      }
    }
    return { scenario: 'many', kind: 'many', title: `\`run -d\` of \`sleep\`, ${count} at a time`, note: 'median of the first ten starts and of the last ten, in ms', rows: found };
  },
};

const memory: Scenario = {
  name: 'memory',
  title: 'memory',
  async run(arena) {
    const found: Row[] = [];
    for (const one of arena.contestants) {
      if (one.name === 'engine, cold') continue;
      for (const [name, kilobytes] of await memoryOf(one)) found.push({ name, own: one.own, memory: kilobytes });
    }
    const resident = arena.engines.find(({ kind }) => kind === 'unpooled');
    const growth = resident && (await residentMemory(arena, resident));
    const settled = resident && (await quietMemory(resident));
    if (resident && settled !== undefined) found.push({ name: `${resident.name}: engined (RSS), ${growth?.at(-1)?.[0] ?? 0} starts later and quiet`, own: true, memory: settled });
    return { scenario: 'memory', kind: 'memory', title: 'memory', rows: found, ...(growth && { growth }), ...(settled !== undefined && { settled }) };
  },
};

/** The whole race again where many filesystems are mounted. */
const mounts: Scenario = {
  name: 'mounts',
  title: 'with 1,500 mounts on the host',
  async run(arena, before) {
    const inside = await inNamespace(arena, ['-m'], { BENCH_MOUNTS: '1500', BENCH_ONLY: 'idle-none' });
    const plain = before.find(({ scenario }) => scenario === 'idle-none')?.rows;
    const measured = inside.outcomes.find(({ scenario }) => scenario === 'idle-none');
    return measured && { ...measured, scenario: 'mounts', title: `${measured.title}, 1,500 mounts on the host`, rows: measured.rows.map((row) => ({ ...row, ...withPlain(plain?.find(({ name }) => name === row.name)) })) };
  },
};
const withPlain = (row: Row | undefined): { plain?: number } => (row?.answered ? { plain: row.answered.p50 } : {});

/** In a network namespace of ours: nobody touches the host's networks. */
const bridge: Scenario = {
  name: 'bridge',
  title: 'network bridge',
  async run(arena) {
    const { outcomes, absent } = await inNamespace(arena, ['-m', '-n'], { BENCH_BRIDGE: '1', BENCH_ONLY: inner.map(({ name }) => name).join(',') });
    arena.absent.push(...absent.filter((line) => !arena.absent.includes(line)));
    // what the bridge adds is told against starts without it in the same namespace
    const none = outcomes.find(({ scenario }) => scenario === 'idle-none')?.rows;
    return outcomes.filter(({ scenario }) => scenario !== 'idle-none').map((outcome) => (outcome.scenario === 'idle-bridge' ? { ...outcome, rows: outcome.rows.map((row) => ({ ...row, ...withPlain(none?.find(({ name }) => name === row.name)) })) } : outcome));
  },
};

const load: Scenario = {
  name: 'load',
  title: 'load of an image',
  async run(arena) {
    const archive = join(arena.folder, 'image.tar');
    makeArchive(archive, { layers: 4, bytes: 300 << 20 });
    const engine = arena.engines.at(-1);
    const root = join(arena.folder, 'load-root');
    const turns: Turn[] = [];
    if (engine) turns.push({ name: engine.name, command: { argv: [engineBin, 'load', '-q', '-i', archive], env: { ...engine.env, ENGINE_ROOT: root, ENGINE_RUN_ROOT: join(arena.folder, 'load-run'), ENGINE_RESIDENT: 'off' } }, pace: { runs: 1 }, reset: () => rmSync(root, { recursive: true, force: true }) });
    for (const one of arena.contestants) {
      const loads = one.load?.(archive);
      if (loads) turns.push({ name: one.name, command: loads.command, pace: { runs: 1 }, reset: loads.reset });
    }
    // nobody waits for the disk to take what the one before has written
    const results = await takeTurns(arena.driver, turns, Math.max(1, Math.round(arena.settings.rounds / 3)), 'sync');
    return { scenario: 'load', kind: 'load', title: `load of an image of ${Math.round(statSync(archive).size / (1 << 20))} MB in 4 layers`, note: 'in ms', rows: rows(arena, results, latencyRow) };
  },
};

/** In this order: `memory` comes when the engines have made many starts. */
export const scenarios: readonly Scenario[] = [idle('none'), idle('host'), rush('rush-none', 'none', 1), rush('rush-host', 'host', 1), rush('eight', 'none', 8), cycle, below, mounts, bridge, many, load, memory];
/** Only inside `bridge`, and `idle-none` once more. */
export const inner: readonly Scenario[] = [idle('none'), idle('bridge'), rush('eight-bridge', 'bridge', 8), ...networkScenarios];
