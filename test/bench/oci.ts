import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { busyboxTar } from '../helpers/busybox.ts';
import { Dockerd, missingPeers, which } from '../helpers/peers.ts';
import { type Arena } from './arena.ts';
import { engineBin, type EngineContestant } from './engines.ts';
import { takeTurns, type Turn } from './measure.ts';
import { latencyRow, type Outcome } from './outcome.ts';
import { makeBundle } from './peers.ts';
import type { Scenario } from './scenarios.ts';

export const ociBin = join(engineBin, '..', 'engine-oci');
/** Names of rows. */
export const oci = { resident: 'engine-oci', cold: 'engine-oci, cold' } as const;

/** Who is asked to create, start and delete, and with which variables. */
interface Runtime { readonly name: string; readonly own: boolean; readonly program: string; readonly env: Readonly<Record<string, string>>; readonly slow?: boolean }

function runtimes(arena: Arena): Runtime[] {
  const of = (kind: EngineContestant['kind']): EngineContestant | undefined => arena.engines.find((engine) => engine.kind === kind);
  const [resident, cold] = [of('unpooled'), of('cold')];
  return [
    ...(resident ? [{ name: oci.resident, own: true, program: ociBin, env: resident.env }] : []),
    ...(cold ? [{ name: oci.cold, own: true, program: ociBin, env: cold.env, slow: true }] : []),
    ...['crun', 'runc'].flatMap((name) => {
      const program = arena.settings.peers.length === 0 || arena.settings.peers.includes(name) ? which(name) : undefined;
      return program ? [{ name, own: false, program, env: { PATH: process.env['PATH'] ?? '' } }] : [];
    }),
  ];
}

/** What a caller's shim does, by a program in C that is the same for all: create, start, wait, delete. */
export const cycle: Scenario = {
  name: 'oci-cycle',
  title: 'create, start and delete of a bundle, as a caller\'s shim asks for them',
  async run(arena) {
    const { folder, settings } = arena;
    const program = join(folder, 'bench-cycle');
    execFileSync(process.env['CC'] ?? 'gcc', ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-static', join(import.meta.dirname, 'src', 'cycle.c'), '-o', program]);
    const bundle = join(folder, 'oci-bundle');
    const maker = ['runc', 'crun'].find((name) => which(name));
    if (!maker) return undefined; // nobody to compare with, nor to write a config.json
    makeBundle(bundle, maker, 'none', ['true']);
    const turns = runtimes(arena).map((one, at): Turn => {
      const state = join(folder, `oci-state-${at}`);
      return { name: one.name, command: { argv: [program, one.program, state, bundle, `engine-bench-oci-${at}`], env: one.env }, pace: { runs: one.slow ? 4 : 30, pause: settings.pause }, settle: 150 };
    });
    const results = await takeTurns(arena.driver, turns, settings.rounds);
    const rows = runtimes(arena).flatMap(({ name, own }) => {
      const series = results.get(name);
      return series && series.answered.length > 0 ? [latencyRow(name, own, series)] : [];
    });
    return { scenario: 'oci-cycle', kind: 'latency', title: `${cycle.title}: all answered`, note: `${settings.pause} ms of pause before each; in ms. runc and crun with the same bundle`, rows } satisfies Outcome;
  },
};

/** `docker run` in one dockerd, with one runtime or the other below it. */
export const below: Scenario = {
  name: 'oci-docker',
  title: '`docker run --rm` of `true`, network none, by the runtime below it',
  async run(arena) {
    const missing = missingPeers('docker', 'dockerd', 'containerd', 'runc');
    if (missing.length > 0) return undefined;
    const engine = arena.engines.find(({ kind }) => kind === 'unpooled');
    const others = ['runc', 'crun'].filter((name) => which(name));
    const dockerd = new Dockerd(engine?.env);
    try {
      await dockerd.start(...(engine ? ['--add-runtime', `engine=${ociBin}`] : []), ...(others.includes('crun') ? ['--add-runtime', `crun=${which('crun') ?? ''}`] : []));
      dockerd.docker('import', busyboxTar(), 'busybox');
      const names = [...(engine ? [oci.resident] : []), ...others];
      const runtime = (name: string): string => (name === oci.resident ? 'engine' : name);
      const turns = names.map((name): Turn => ({ name, command: { argv: [which('docker') ?? 'docker', 'run', '--rm', '--runtime', runtime(name), '--network', 'none', 'busybox', 'true'], env: dockerd.env }, pace: { runs: 4, pause: arena.settings.pause }, settle: 150 }));
      const results = await takeTurns(arena.driver, turns, arena.settings.rounds);
      const rows = names.flatMap((name) => {
        const series = results.get(name);
        return series && series.answered.length > 0 ? [latencyRow(name, name === oci.resident, series)] : [];
      });
      return { scenario: 'oci-docker', kind: 'latency', title: below.title, note: 'one dockerd; in ms', rows };
    } finally {
      await dockerd.stop();
    }
  },
};
