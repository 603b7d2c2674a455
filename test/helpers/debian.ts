import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { which } from './peers.ts';

/** The mirror that this machine installs Debian packages from. */
function mirror(): string | undefined {
  try {
    const sites = execFileSync('apt-get', ['indextargets', '--format', '$(SITE) $(CODENAME) $(COMPONENT)'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return sites.split('\n').find((line) => / bookworm main$/.test(line) && line.includes('debian '))?.split(' ')[0];
  } catch {
    return undefined;
  }
}

/**
 * A tar of a minimal Debian made by debootstrap, once per machine (a minute). Undefined, with the reason on standard error, where that cannot
 * be done: no debootstrap, no mirror.
 */
export function debianTar(): string | undefined {
  const tar = join(tmpdir(), 'engine-test-debian-v1.tar');
  if (existsSync(tar)) return tar;
  const site = mirror();
  if (which('debootstrap') === undefined || site === undefined) {
    console.error(`no Debian to test with: ${site === undefined ? 'no mirror of bookworm is set up' : 'debootstrap is missing'}`);
    return undefined;
  }
  const work = mkdtempSync('/var/tmp/engine-debian-');
  try {
    execFileSync('debootstrap', ['--variant=minbase', 'bookworm', join(work, 'rootfs'), site], { stdio: 'ignore', timeout: 300_000 });
    execFileSync('tar', ['--numeric-owner', '--xattrs', '--xattrs-include=*', '--format=pax', '-C', join(work, 'rootfs'), '-cf', join(work, 'debian.tar'), '.']);
    execFileSync('mv', [join(work, 'debian.tar'), `${tar}.${process.pid}`]);
    renameSync(`${tar}.${process.pid}`, tar);
    return tar;
  } catch (error) {
    console.error(`no Debian to test with: debootstrap failed: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** A tar of `base` with packages installed, once per machine. Undefined, with the reason on standard error, where that cannot be done. */
function tarWith(name: string, base: () => string | undefined, packages: readonly string[]): string | undefined {
  const tar = join(tmpdir(), `engine-test-debian-${name}.tar`);
  if (existsSync(tar)) return tar;
  const below = base();
  if (below === undefined) return undefined;
  const work = mkdtempSync('/var/tmp/engine-debian-');
  const rootfs = join(work, 'rootfs');
  const inside = (...args: string[]): void => {
    execFileSync('chroot', [rootfs, ...args], { stdio: ['ignore', 'ignore', 'pipe'], timeout: 300_000, env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' } });
  };
  try {
    mkdirSync(rootfs);
    execFileSync('tar', ['--numeric-owner', '--xattrs', '-C', rootfs, '-xpf', below]);
    for (const file of ['resolv.conf', 'hosts']) copyFileSync(`/etc/${file}`, join(rootfs, 'etc', file));
    writeFileSync(join(rootfs, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 }); // nothing may be started by its installation
    inside('apt-get', '-q', 'update');
    inside('apt-get', '-q', '-y', '--no-install-recommends', 'install', ...packages);
    inside('apt-get', 'clean');
    execFileSync('tar', ['--numeric-owner', '-C', rootfs, '-cf', `${tar}.${process.pid}`, '.']);
    renameSync(`${tar}.${process.pid}`, tar);
    return tar;
  } catch (error) {
    console.error(`no Debian with ${packages.join(', ')} to test with: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** A tar of that Debian with nginx and redis. */
export const servicesTar = (): string | undefined => tarWith('services-v1', debianTar, ['nginx-light', 'redis-server']);
/** The same with Flask, its client of redis, and curl. */
export const webTar = (): string | undefined => tarWith('web-v1', servicesTar, ['python3-flask', 'python3-redis', 'curl']);
