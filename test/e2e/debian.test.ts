import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { debianTar } from '../helpers/debian.ts';
import { TestEngine } from '../helpers/engine.ts';
import { withFolder } from '../helpers/images.ts';

const engine = new TestEngine();
afterAll(async () => expect(await engine.close()).toEqual([]));

/** Every path with type, mode, owner, time, link target, and size where it is a file. */
const format = '%P %y %m %U %G %T@ %l';
const own = /^(\.dockerenv|dev|proc|sys|run|tmp|etc|etc\/(hosts|hostname|resolv\.conf|mtab)|dev\/.*) /;
const comparable = (listing: string): string[] => listing.split('\n').filter((line) => line !== '' && !own.test(line) && !line.startsWith(' ')).sort();

it('a Debian made by debootstrap is the same inside, to the nanosecond', { timeout: 400_000 }, (context) => withFolder(async (folder) => {
  const tar = debianTar();
  if (tar === undefined) return context.skip('no Debian to test with: needs debootstrap and a mirror');
  const rootfs = join(folder, 'rootfs');
  execFileSync('mkdir', [rootfs]);
  execFileSync('tar', ['--numeric-owner', '-C', rootfs, '-xpf', tar]);
  const outside = comparable(execFileSync('find', [rootfs, '-xdev', '-printf', `${format}\\n`, '-type', 'f', '-printf', '%P size %s\\n'], { encoding: 'utf8', maxBuffer: 1 << 28 }));
  await engine.ok('import', tar, 'debian:test');
  const inside = comparable(await engine.ok('run', '--rm', '--network', 'none', 'debian:test', 'find', '/', '-xdev', '-printf', `${format}\\n`, '-type', 'f', '-printf', '%P size %s\\n'));
  expect(inside.length).toBeGreaterThan(5000);
  expect(inside).toEqual(outside);
  expect(await engine.ok('run', '--rm', '--network', 'none', 'debian:test', 'sh', '-c', 'dpkg --verify && dpkg-query -W -f "\\${Status}\\n" bash')).toBe('install ok installed');
  expect(await engine.ok('run', '--rm', '--network', 'none', 'debian:test', 'perl', '-e', 'print "perl $^O\n"')).toBe('perl linux');
  await engine.ok('rmi', 'debian:test');
}));
