/** CVE-2026-31431 for real: a program under the default filter asks for AF_ALG. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fakeMachine, memoryState } from '@engine/core/contracts/common/bench';
import { plainSpec } from '@engine/core/contracts/security/suite';
import { BITS, op, step } from '@engine/core/plan';
import { createNative } from '@engine/native';
import { Bench, bytesOf, unable } from '@engine/native/testing';
import { expect, it } from 'vitest';
import { createSeccomp } from './driver.ts';
import { createLibseccomp } from './libseccomp.ts';

const source = `
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
static void try_call(const char *name, long r) { printf("%s %d\\n", name, r < 0 ? errno : 0); }
int main(void) {
	try_call("unix", socket(1, 1, 0));
	try_call("alg", socket(38, 5, 0));
	try_call("vsock", socket(40, 1, 0));
	try_call("unshare", unshare(0x10000000));
	try_call("keyctl", syscall(SYS_keyctl, 0, 0, 0));
	try_call("clone3", syscall(435, 0, 0));
	try_call("future", syscall(9999));
	try_call("io_uring", syscall(425, 1, 0));
	return 0;
}
`;
function compiler(): string | undefined {
  for (const name of ['musl-gcc', 'gcc']) {
    try {
      execFileSync(name, ['--version'], { stdio: 'ignore' });
      return name;
    } catch {
      // the next one
    }
  }
  return undefined;
}
const cc = compiler();
const why = unable ?? (createLibseccomp().find() === undefined ? 'no libseccomp' : cc === undefined ? 'no C compiler' : undefined);

it.skipIf(why !== undefined || process.arch !== 'x64')(`CVE-2026-31431: AF_ALG is out of a container's reach, with and without no-new-privs${why ? ` (skipped: ${why})` : ''}`, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'engine-alg-'));
  try {
    writeFileSync(join(folder, 'alg.c'), source);
    execFileSync(cc ?? '', ['-static', '-O1', '-D_GNU_SOURCE', '-Wno-implicit-function-declaration', '-Wno-error', '-o', join(folder, 'alg'), join(folder, 'alg.c')]);
    const machine = fakeMachine({ root: '/', runRoot: '/' });
    const driver = createSeccomp({ machine, state: memoryState(), log: { debug() {} } as never, library: createLibseccomp() });
    const spec = await driver.configure(plainSpec(), { privileged: false, capAdd: [], capDrop: [], options: [] });
    for (const noNewPrivileges of [false, true]) {
      const bench = new Bench(createNative());
      try {
        copyFileSync(join(folder, 'alg'), join(bench.root, 'bin/alg'));
        const steps = await driver.planProcess(spec, { part: 'init', noNewPrivileges, privilegedExec: false }, { container: 'c', run: 'r', instance: 'i', runFolder: '/', explain: false });
        const more = [...(noNewPrivileges ? [step('init.identity', op.noNewPrivileges({}))] : []), ...steps];
        const talk = bench.startPlan(bytesOf([...bench.steps({ argv: ['alg'], stdio: BITS.STDIO.attachStdout | BITS.STDIO.attachStderr }), ...more]));
        await talk.frame('gone');
        expect(talk.output().trim().split('\n')).toEqual(['unix 0', 'alg 1', 'vsock 1', 'unshare 1', 'keyctl 1', 'clone3 38', 'future 38', 'io_uring 1']);
      } finally {
        await bench.close();
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
