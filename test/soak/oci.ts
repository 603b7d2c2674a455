import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { EngineContestant } from '../bench/engines.ts';
import { cgroupFolders, processesOf, rss } from '../bench/machine.ts';
import { Driver } from '../bench/measure.ts';
import { ociBin } from '../bench/oci.ts';
import { makeBundle } from '../bench/peers.ts';
import { until } from '../helpers/wait.ts';
import { growthPerThousand } from './flat.ts';

export interface OciSoakOptions {
  readonly cycles: number;
  readonly step: number;
  say(line: string): void;
  onDriver?(driver: Driver): void;
}
const count = (folder: string): number => {
  try {
    return readdirSync(folder).filter((name) => !name.startsWith('.')).length;
  } catch {
    return 0; // it was never made
  }
};
/** Mounts and processes of the whole machine that speak of a folder. */
const mounts = (folder: string): number => readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => line.includes(folder)).length;
const groups = (name: string): string[] => cgroupFolders().flatMap((folder) => readdirSync(folder).filter((entry) => entry.includes(name)).map((entry) => join(folder, entry)));

/** create, start, delete through the resident engine, again and again: nothing may be left, and engined may not grow. What is `wrong`, one line each. */
export async function soakOci({ cycles, step, say, onDriver }: OciSoakOptions): Promise<string[]> {
  const parent = mkdtempSync('/var/tmp/engine-soak-');
  const driver = new Driver(parent);
  onDriver?.(driver);
  const engine = new EngineContestant('unpooled', parent);
  const wrong: string[] = [];
  const growth: (readonly [number, number])[] = [];
  try {
    await engine.start();
    const program = join(parent, 'bench-cycle');
    execFileSync(process.env['CC'] ?? 'gcc', ['-std=gnu11', '-O2', '-static', join(import.meta.dirname, '..', 'bench', 'src', 'cycle.c'), '-o', program]);
    const [bundle, state, name] = [join(parent, 'bundle'), join(parent, 'state'), `soak-oci-${process.pid}`];
    makeBundle(bundle, 'runc', 'none', ['true']);
    const pid = engine.pid;
    let fds: number | undefined;
    for (let done = 0; done < cycles && wrong.length === 0; ) {
      const runs = Math.min(step, cycles - done);
      await driver.run({ argv: [program, ociBin, state, bundle, `${name}-%i`], env: engine.env }, { runs });
      done += runs;
      if (engine.pid !== pid || pid === undefined) wrong.push(`after ${done} cycles engined is another process: ${pid ?? 'none'} was replaced by ${engine.pid ?? 'none'}`);
      else growth.push([done, rss(pid) / 1024]);
      const open = pid === undefined ? 0 : readdirSync(`/proc/${pid}/fd`).length;
      // what is in the trash is removed on another thread
      await until('the trash to be empty', () => count(join(state, '.trash')) === 0, 5000).catch(() => {});
      const aside = ['.leftovers', '.trash'].reduce((sum, folder) => sum + count(join(state, folder)), 0);
      const left = { state: count(state) + aside, cgroups: groups(name).length, mounts: mounts(parent), processes: processesOf(parent).filter(([called]) => called.startsWith('engine-')).length };
      say(`${String(done).padStart(6)} cycles: engined ${growth.at(-1)?.[1].toFixed(1) ?? '-'} MB, ${open} fds; left: ${left.state} containers, ${left.cgroups} cgroups, ${left.mounts} mounts, ${left.processes} processes`);
      if (Object.values(left).some((n) => n > 0)) wrong.push(`left after ${done} cycles: ${JSON.stringify(left)}`);
      fds ??= open;
      if (open > fds + 10) wrong.push(`engined has ${open} open files after ${done} cycles, ${fds} after the first ${step}`);
    }
    // a young heap grows
    const grown = cycles >= 4000 ? growthPerThousand(growth) : 0;
    if (grown > 1) wrong.push(`engined grows by ${grown.toFixed(2)} MB per 1,000 cycles`);
  } finally {
    wrong.push(...(await engine.close()).map((what) => `left behind: ${what}`));
    rmSync(parent, { recursive: true, force: true });
  }
  return wrong;
}
