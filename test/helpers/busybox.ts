import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestEngine } from './engine.ts';

const BUSYBOX = '/bin/busybox';

/** Make a root filesystem of Debian's busybox-static below `folder`: users root, daemon and app (uid 1000, groups app and extra). */
export function busyboxRootfs(folder: string): void {
  for (const name of ['bin', 'etc', 'home/app', 'proc', 'root', 'sys', 'tmp', 'usr', 'var/data']) mkdirSync(join(folder, name), { recursive: true });
  chmodSync(join(folder, 'tmp'), 0o1777);
  copyFileSync(BUSYBOX, join(folder, 'bin/busybox'));
  for (const applet of execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).split('\n').filter((name) => name && name !== 'busybox')) symlinkSync('busybox', join(folder, 'bin', applet));
  writeFileSync(join(folder, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\napp:x:1000:1000:app:/home/app:/bin/sh\n');
  writeFileSync(join(folder, 'etc/group'), 'root:x:0:\ndaemon:x:1:\napp:x:1000:\nextra:x:2000:app\n');
  writeFileSync(join(folder, 'var/data/file'), 'from the image\n');
}

/** A tar of that root filesystem, made once per machine. */
export function busyboxTar(): string {
  const tar = join(tmpdir(), `engine-test-busybox-v1-${process.getuid?.() ?? 0}.tar`);
  if (existsSync(tar)) return tar;
  if (!existsSync(BUSYBOX)) throw new Error('busybox is missing: apt-get install busybox-static');
  const work = mkdtempSync(join(tmpdir(), 'engine-test-rootfs-'));
  try {
    const rootfs = join(work, 'rootfs');
    mkdirSync(rootfs);
    busyboxRootfs(rootfs);
    execFileSync('chown', ['-R', '1000:1000', join(rootfs, 'home/app')]);
    execFileSync('tar', ['--numeric-owner', '-C', rootfs, '-cf', join(work, 'rootfs.tar'), '.']);
    renameSync(join(work, 'rootfs.tar'), tar);
  } finally {
    rmSync(work, { recursive: true });
  }
  return tar;
}

/** Import it as `busybox`, with `sh` as command; further instructions in `changes`. */
export async function importBusybox(engine: TestEngine, name = 'busybox', changes: readonly string[] = []): Promise<string> {
  return engine.ok('import', ...['CMD ["sh"]', ...changes].flatMap((change) => ['-c', change]), busyboxTar(), name);
}
