/**
 * `npm run soak`: 10,000 starts in a row through the resident engine; memory, fds, files, rows and cgroups must stay flat. Exits 1 when they don't.
 * `npm run soak -- kills [MINUTES]`: random kills instead, 10 minutes of them.
 * `npm run soak -- oci`: 10,000 times create, start, delete of a bundle by engine-oci.
 *
 * SOAK_STARTS (10000), SOAK_POOL (auto, or off), CRASH_SEED (for kills).
 */
import { soakKills } from './kills.ts';
import { soakOci } from './oci.ts';
import { soakStarts } from './starts.ts';

const [mode = 'starts', minutes = '10'] = process.argv.slice(2);
if (mode === 'kills') process.exitCode = (await soakKills(Number(minutes))) ? 0 : 1;
else if (mode === 'oci') {
  const cycles = Number(process.env['SOAK_STARTS'] ?? 10_000);
  const began = performance.now();
  const wrong = await soakOci({
    cycles,
    step: Math.max(1, Math.round(cycles / 20)),
    say: (line) => console.log(line),
    onDriver: (driver) => {
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => driver.stop());
    },
  });
  console.log(`${cycles} cycles in ${((performance.now() - began) / 1000).toFixed(0)} s: ${wrong.length === 0 ? 'nothing left, flat' : 'not flat'}`);
  for (const line of wrong) console.log(`  ${line}`);
  process.exitCode = wrong.length === 0 ? 0 : 1;
} else if (mode === 'starts') {
  const starts = Number(process.env['SOAK_STARTS'] ?? 10_000);
  const began = performance.now();
  const { wrong } = await soakStarts({
    starts,
    step: Math.max(1, Math.round(starts / 20)),
    pooled: process.env['SOAK_POOL'] !== 'off',
    say: (line) => console.log(line),
    onDriver: (driver) => {
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => driver.stop());
    },
  });
  console.log(`${starts} starts in ${((performance.now() - began) / 1000).toFixed(0)} s: ${wrong.length === 0 ? 'flat' : 'not flat'}`);
  for (const line of wrong) console.log(`  ${line}`);
  process.exitCode = wrong.length === 0 ? 0 : 1;
} else {
  console.error('usage: npm run soak [-- starts | -- oci | -- kills [MINUTES]]');
  process.exitCode = 2;
}
