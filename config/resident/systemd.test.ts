import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const units = join(import.meta.dirname, '../systemd');
const hasTool = spawnSync('systemd-analyze', ['--version']).status === 0;

it.skipIf(!hasTool)('systemd finds nothing wrong with the units', () => {
  const folder = mkdtempSync(join(tmpdir(), 'engine-units-'));
  try {
    cpSync(units, folder, { recursive: true });
    const service = join(folder, 'engined.service');
    // what it starts is looked for
    writeFileSync(service, readFileSync(service, 'utf8').replace('/usr/bin/engine', join(import.meta.dirname, '../../bin/engine')));
    const said = execFileSync('systemd-analyze', ['verify', '--man=no', service, join(folder, 'engined.socket')], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    expect(said).toBe('');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it('what containers need of the units is there', () => {
  const service = readFileSync(join(units, 'engined.service'), 'utf8');
  expect(service).toMatch(/^KillMode=process$/m);
  expect(service).toMatch(/^Delegate=yes$/m);
  expect(readFileSync(join(units, 'engined.socket'), 'utf8')).toMatch(/^SocketMode=0600$/m);
});
