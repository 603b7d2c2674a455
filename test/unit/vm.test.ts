import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { which } from '../helpers/peers.ts';

const vm = join(import.meta.dirname, '../vm');
const folder = mkdtempSync(join(tmpdir(), 'engine-vm-test-'));
afterAll(() => rmSync(folder, { recursive: true }));
const derived = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text);
  return spawnSync('awk', ['-v', 'names=bookworm stable', '-f', join(vm, 'backports.awk'), join(folder, name)], { encoding: 'utf8' }).stdout;
};

describe.skipIf(which('awk') === undefined)('sources of backports, derived from apt’s own', () => {
  it('come from deb822, with address, keys and options, without other suites, components and what is disabled', () => {
    expect(derived('a.sources', `Types: deb deb-src
# a comment
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: https://mirror.example/security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://else.example/
Suites: bookworm
Components: stable

Enabled: no
Types: deb
URIs: https://off.example/
Suites: bookworm
Components: main
`)).toBe(`Types: deb
Suites: bookworm-backports
Components: main
URIs: https://mirror.example/debian
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

`);
  });
  it('come from sources of one line each', () => {
    expect(derived('sources.list', `# deb https://off.example/ bookworm main
deb-src https://mirror.example/debian bookworm main
deb [ signed-by=/usr/share/keyrings/a.gpg arch=amd64 ] https://mirror.example/debian bookworm main non-free
deb https://mirror.example/debian stable contrib main
deb https://mirror.example/security bookworm-security main
deb https://else.example/debian bookworm stable
`)).toBe(`deb [ signed-by=/usr/share/keyrings/a.gpg arch=amd64 ] https://mirror.example/debian bookworm-backports main
deb https://mirror.example/debian stable-backports main
`);
  });
});

describe('a guest', () => {
  /** A path with these programs only. */
  function pathOf(...programs: string[]): string {
    const path = mkdtempSync(join(folder, 'bin-'));
    for (const program of programs) symlinkSync(which(program) ?? '/bin/false', join(path, program));
    return path;
  }
  const boot = (args: readonly string[], env: Readonly<Record<string, string>> = {}): { status: number | null; stdout: string; stderr: string } =>
    spawnSync(join(vm, 'boot'), args, { encoding: 'utf8', env: { ...process.env, ...env } });
  const basics = ['bash', 'sh', 'dirname', 'readlink', 'sed'];

  it('says what is missing, with a status of its own', () => {
    expect(boot(['true'], { PATH: pathOf(...basics) })).toMatchObject({ status: 3, stderr: 'vm: qemu is missing: apt-get install qemu-system-x86\n' });
    expect(boot(['--nonsense', 'true']).status).toBe(2);
    expect(boot([]).status).toBe(2);
  });
  it.skipIf(which('qemu-system-x86_64') === undefined)('says when a kernel can’t be had', () => {
    expect(boot(['--kernel', '9.99', 'true'], { VM_CACHE: join(folder, 'none'), PATH: pathOf(...basics, 'qemu-system-x86_64') })).toMatchObject({ status: 3, stderr: 'vm: no kernel 9.99: apt-get is missing\n' });
  });
  it('is skipped, not failed, by the tier where there is none', () => {
    const out = join(folder, 'tier');
    mkdirSync(out);
    const programs = [...basics, 'mkdir', 'tail', 'cat', 'nice'];
    expect(spawnSync(join(vm, 'tier'), [out, '6.1', 'kernel'], { env: { ...process.env, PATH: pathOf(...programs) } }).status).toBe(3);
    expect(readFileSync(join(out, '6.1-kernel.verdict'), 'utf8')).toBe('skipped vm: qemu is missing: apt-get install qemu-system-x86\n');
  });
  const ready = which('qemu-system-x86_64') !== undefined && existsSync(join(vm, 'cache/6.1/initrd'));
  it.skipIf(!ready)('gives back output, exit status and files, and ends in time', { timeout: 300_000 }, () => {
    const out = join(folder, 'out');
    const done = boot(['--out', out, '--disk', '64M', 'echo out; echo err >&2; uname -r >$VM_OUT/release; test -b /dev/vda; cat /sys/fs/cgroup/cgroup.controllers; exit $(($? + 7))']);
    expect(done).toMatchObject({ status: 7, stderr: 'err\n' });
    expect(done.stdout).toMatch(/^out\n.*\bmemory\b.*\n$/);
    expect(readFileSync(join(out, 'release'), 'utf8')).toMatch(/^6\.1\./);
    expect(existsSync(join(import.meta.dirname, 'written-by-a-guest'))).toBe(false);
  });
  it.skipIf(!ready)('that hangs or dies is told from one that fails', { timeout: 300_000 }, () => {
    expect(boot(['--timeout', '2', 'sleep 1000'])).toMatchObject({ status: 124, stderr: expect.stringMatching(/^vm: nothing after 2 s; the console's end:\n/) });
    expect(boot(['echo c >/proc/sysrq-trigger; sleep 1000'])).toMatchObject({ status: 125, stderr: expect.stringMatching(/^vm: the guest ended without a status .*sysrq/s) });
  });
});
