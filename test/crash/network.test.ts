import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enterNetns } from '../../native/ts/testing-netns.ts';
import { busyboxTar } from '../helpers/busybox.ts';
import { missingPeers } from '../helpers/peers.ts';
import { buildVictim, cutAll, Matrix, type Case } from './matrix.ts';
import { networkScenarios } from './network.ts';

const every = Number(process.env['CRASH_SAMPLE'] ?? 1);
const seed = Number(process.env['CRASH_SEED'] ?? Math.floor(Math.random() * every));
/** Every operation that networks have to do with, and every record; of mounts, cgroups and the like, which matrix.test.ts cuts one by one, every tenth. */
const ofNetworks = ({ name }: Case, i: number): boolean => i % 10 === 0 || name.startsWith('engine at ') || /\d (netlink|netlinkWith|linkIndex|holdPort|forgetFlows|execHost|writeFile|unlink|mkdir|joinNamespace|openNamespace|exec) of shim/.test(name);
const missing = missingPeers('nft', 'ip');
const lanes: Matrix[] = [];
let folder: string;
let back: () => void;
beforeAll(async () => {
  if (missing.length > 0) return;
  // this process and all that it starts from now on: the machine's network is not touched
  back = enterNetns();
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  buildVictim();
  folder = mkdtempSync('/dev/shm/engine-crash-net-');
  for (let i = 0; i < availableParallelism(); i++) {
    mkdirSync(join(folder, String(i)));
    const matrix = new Matrix(join(folder, String(i)), { archive: '', port: 8080 + i });
    lanes.push(matrix);
    await matrix.using((engine) => engine.images.import({ path: busyboxTar(), reference: 'base', changes: ['CMD ["true"]'] }));
  }
});
afterAll(async () => {
  for (const lane of lanes) await lane.close();
  if (missing.length > 0) return;
  back();
  rmSync(folder, { recursive: true, force: true });
});

describe.skipIf(missing.length > 0).each(Object.keys(networkScenarios))('killed at any instant of %s', (scenario) => {
  it('leaves no veth, address, rule, lease or name, and the state before or the state after', { timeout: 1_800_000 }, async () => {
    const all = ((await lanes[0]?.enumerate(scenario)) ?? []).filter(ofNetworks);
    const cases = all.filter((_, i) => (i + seed) % Math.min(every, all.length) === 0);
    expect(cases.length).toBeGreaterThan(0);
    console.log(`${scenario}: ${cases.length} cases${every > 1 ? ` (CRASH_SAMPLE=${every} CRASH_SEED=${seed})` : ''}`);
    expect(await cutAll(lanes, scenario, cases)).toEqual([]);
  });
});
