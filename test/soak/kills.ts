import { readdirSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { randomRound, seeded } from '../crash/random.ts';

/** Random kills, and starts in a row with folders and inodes counted. Prints what it does; false at the first leak. */
export async function soakKills(minutes: number): Promise<boolean> {
  const seed = Number(process.env['CRASH_SEED'] ?? Date.now() % 1_000_000);
  const engine = new TestEngine();
  const end = Date.now() + minutes * 60_000;
  const random = seeded(seed);
  console.log(`seed ${seed}, ${minutes} minutes`);
  let failed = false;
  try {
    await importBusybox(engine);
    await engine.ok('run', '--rm', 'busybox', 'true');
    const files = (): number => readdirSync(engine.root, { recursive: true }).length;
    const before = { files: files(), inodes: statfsSync(engine.root).ffree };
    for (let round = 0; Date.now() < end && !failed; round++) {
      const wrong = await randomRound(engine, random);
      for (const line of wrong) console.log(`round ${round}: ${line}`);
      failed = wrong.length > 0;
      for (let i = 0; i < 20; i++) await engine.ok('run', '--rm', '-v', '/var/data', 'busybox', 'true');
      await engine.run(['volume', 'rm', '-f', 'shared']);
      const now = files();
      console.log(`round ${round}: ${now} files below root (${before.files} at first), ${before.inodes - statfsSync(join(engine.root)).ffree} inodes more on its filesystem`);
      if (now > before.files + 4) {
        console.log('files pile up');
        failed = true;
      }
    }
  } finally {
    const left = await engine.close();
    if (left.length) console.log(`left behind: ${left.join(', ')}`);
    failed ||= left.length > 0;
  }
  return !failed;
}
