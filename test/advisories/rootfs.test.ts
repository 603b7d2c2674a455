/** Images and volumes that try to move the engine's mounts, folders and files to the host, or away from where they protect. */
import { mkdirSync, symlinkSync, writeFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Attack } from './attack.ts';

let engine: Attack;
beforeAll(async () => {
  engine = new Attack();
  await engine.image('plain');
});
afterAll(async () => expect(await engine.close()).toEqual([]));

/** A refusal is one line with 125, and nothing is left. */
async function refused(args: readonly string[], message: RegExp): Promise<void> {
  const result = await engine.run(['run', '--rm', ...args]);
  expect({ code: result.code, stdout: result.stdout }, result.stderr).toEqual({ code: 125, stdout: '' });
  expect(result.stderr).toMatch(message);
  expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
}

describe('CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: mount points of the image that are links', () => {
  // `other` is a folder of the image: without the check the mount would go there, and /proc would be what the image says
  it.each(['proc', 'sys', 'dev'])('/%s', async (name) => {
    await engine.image(`link-${name}`, [{ path: 'other/', type: '5' }, { path: name, type: '2', link: '/other' }]);
    await refused([`link-${name}`, 'true'], new RegExp(`/${name}.*link`));
  });
  it('links that lead out of the rootfs, and loops', async () => {
    await engine.image('link-out', [{ path: 'proc', type: '2', link: `../../../../../..${engine.host}` }, { path: 'sys', type: '2', link: 'sys' }]);
    await refused(['link-out', 'true'], /link/);
    expect(engine.hostChanges()).toEqual([]);
  });
  it('files and devices in the place of folders', async () => {
    await engine.image('file-proc', [{ path: 'proc', content: 'x' }]);
    await refused(['file-proc', 'true'], /\/proc/);
    await engine.image('file-dev', [{ path: 'dev', type: '3', major: 1, minor: 3 }]);
    await refused(['file-dev', 'true'], /\/dev/);
  });
});

describe('CVE-2026-41579, CVE-2026-47766: devices below a /dev of the image', () => {
  it('/dev/pts, /dev/shm, /dev/mqueue and /dev/null of the image count for nothing', async () => {
    await engine.image('dev-links', [
      ...['pts', 'shm', 'mqueue'].map((name) => ({ path: `dev/${name}`, type: '2', link: `../../../../../../..${engine.host}` })),
      { path: 'dev/null', type: '2', link: '/etc/passwd' }, { path: 'dev/console', type: '2', link: `../../../../..${engine.host}/file` }, { path: 'dev/ptmx', type: '2', link: '/etc/passwd' },
    ]);
    const { stdout, stderr } = await engine.sh('dev-links', 'stat -c "%n %F %t:%T" /dev/null /dev/pts /dev/shm /dev/mqueue; echo gone > /dev/null; head -1 /etc/passwd; echo x > /dev/shm/x; readlink /dev/ptmx');
    expect(stdout, stderr).toBe('/dev/null character special file 1:3\n/dev/pts directory 0:0\n/dev/shm directory 0:0\n/dev/mqueue directory 0:0\nroot:x:0:0:root:/root:/bin/sh\npts/ptmx\n');
    expect(engine.hostChanges()).toEqual([]);
  });
  it('CVE-2025-52565: a terminal is the container\'s own, and /dev/console is it, whatever the image has there', async () => {
    const terminal = engine.terminal(['run', '--rm', '-it', 'dev-links', 'sh', '-c', 'tty; stat -c "%F %U" /dev/console /dev/pts/0; grep " /dev/console " /proc/self/mountinfo | cut -d " " -f 4,9; ls /dev/pts']);
    expect((await terminal.result).code).toBe(0);
    expect(terminal.stdout.replaceAll('\r', '')).toBe('/dev/pts/0\ncharacter special file root\ncharacter special file root\n/0 devpts\n0     ptmx\n');
  });
});

describe('CVE-2025-31133: masks', () => {
  it('bind the real null device, and folders are empty and read-only', async () => {
    // a volume over /dev: whoever writes to it says what /dev/null is, and masks must not come from there
    const dev = join(engine.folder, 'fake-dev');
    mkdirSync(join(dev, 'pts'), { recursive: true });
    symlinkSync('/etc/passwd', join(dev, 'null'));
    for (const name of ['shm', 'mqueue']) mkdirSync(join(dev, name));
    symlinkSync('/etc/passwd', join(dev, 'fd'));
    const result = await engine.sh('plain', 'for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do stat -c "%n %t:%T" $f 2>/dev/null; done; ls -A /proc/acpi /sys/firmware 2>&1 | grep -v :; touch /sys/firmware/x 2>&1', '-v', `${dev}:/dev`);
    expect(result.stderr).toBe('');
    for (const line of result.stdout.trim().split('\n').slice(0, -1)) if (line) expect(line).toMatch(/^\/proc\/\w+ 1:3$/);
    expect(result.stdout).toMatch(/keys 1:3/);
    expect(result.stdout).toMatch(/Read-only file system\n$/);
  });
});

describe('CVE-2025-52881: writes to /proc', () => {
  it('go to a private procfs: a fake one over /proc gets none of them', async () => {
    const fake = join(engine.folder, 'fake-proc');
    for (const path of ['sys/net/ipv4', 'sys/kernel', 'self/attr', 'thread-self/attr', '1']) mkdirSync(join(fake, path), { recursive: true });
    const files = ['sys/net/ipv4/ip_unprivileged_port_start', 'sys/kernel/domainname', 'self/oom_score_adj', 'thread-self/oom_score_adj', 'thread-self/attr/exec', 'self/attr/exec'];
    for (const file of files) writeFileSync(join(fake, file), 'untouched');
    const result = await engine.run(['run', '--rm', '-v', `${fake}:/proc`, '--sysctl', 'net.ipv4.ip_unprivileged_port_start=77', '--oom-score-adj', '500', 'plain', 'cat', '/proc/self/oom_score_adj']);
    // refusing a bind over /proc is as good as withstanding it
    if (result.code === 0) expect(result.stdout).toBe('untouched');
    else expect(result.code).toBe(125);
    for (const file of files) expect(readFileSync(join(fake, file), 'utf8'), file).toBe('untouched');
    // control: the same run without the fake does write
    expect((await engine.sh('plain', 'cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj', '--sysctl', 'net.ipv4.ip_unprivileged_port_start=77', '--oom-score-adj', '500')).stdout).toBe('77\n500\n');
  });
});

describe('files that the engine puts over those of the image', () => {
  const names = ['etc/hosts', 'etc/hostname', 'etc/resolv.conf'];
  it('links to the host, to nothing, in a loop: nothing of the host is read or changed', async () => {
    const out = `../../../../../..${engine.host}`;
    for (const [name, links] of Object.entries({ files: [`${out}/file`, `${engine.host}/file`, `${out}/made`], odd: [`${out}/folder`, 'hostname', engine.host] })) {
      await engine.image(`files-${name}`, names.map((path, index) => ({ path, type: '2', link: links[index] ?? '' })));
      const result = await engine.sh(`files-${name}`, 'for f in hosts hostname resolv.conf; do cat /etc/$f; echo changed >> /etc/$f; done');
      expect([0, 1, 125], result.stderr).toContain(result.code);
      expect(result.stdout).not.toContain(engine.secret);
      expect(engine.hostChanges(), name).toEqual([]);
    }
  });
  it('folders, fifos and devices in their place', async () => {
    await engine.image('files-odd', [{ path: 'etc/hosts/', type: '5' }, { path: 'etc/hostname', type: '6' }, { path: 'etc/resolv.conf', type: '3', major: 1, minor: 3 }]);
    const result = await engine.sh('files-odd', 'true');
    expect([0, 125]).toContain(result.code);
    if (result.code) expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
    await engine.image('etc-link', [{ path: 'etc', type: '2', link: `../../../..${engine.host}/folder` }]);
    expect([0, 125]).toContain((await engine.sh('etc-link', 'true')).code);
    await engine.image('etc-file', [{ path: 'etc', content: 'x' }]);
    await refused(['etc-file', 'true'], /\/etc/);
    expect(engine.hostChanges()).toEqual([]);
  });
});

describe('CVE-2022-23648, CVE-2024-9675, 9407, 9341, 11218: paths of volumes and mounts', () => {
  it('VOLUME copies nothing of the host and makes nothing there', async () => {
    const paths = ['/../../../../../../etc', `/../../../../../..${engine.host}/folder`, '/link', '/out/new/deep', `/up/../../../../../../..${engine.host}/up`];
    const links = [{ path: 'link', type: '2', link: `../../../../../..${engine.host}/folder` }, { path: 'out', type: '2', link: engine.host }, { path: 'up/', type: '5' }];
    await engine.image('volume', links, paths.map((path) => `VOLUME ${path}`));
    const result = await engine.sh('volume', `cat ${engine.host}/folder/file ${paths.map((path) => `${path}/file`).join(' ')} 2>/dev/null; for v in ${paths.join(' ')}; do echo x > $v/written && echo written; done`);
    expect(result.stdout).toBe('written\n'.repeat(paths.length));
    expect(engine.hostChanges()).toEqual([]);
    // control: it is the link that keeps the content away. A plain folder's is copied
    await engine.image('volume-plain', [{ path: 'data/', type: '5' }, { path: 'data/file', content: 'of the image' }], ['VOLUME /data']);
    expect((await engine.sh('volume-plain', 'cat /data/file; grep -c " /data " /proc/self/mountinfo')).stdout).toBe('of the image1\n');
  });
  it('targets of -v, --mount and --tmpfs through links of the image stay inside', async () => {
    await engine.image('targets', [{ path: 'link', type: '2', link: `../../../../../..${engine.host}` }, { path: 'abs', type: '2', link: engine.host }, { path: 'd/', type: '5' }, { path: 'd/loop', type: '2', link: '../d/loop' }]);
    for (const flags of [['-v', '/link/a/b'], ['-v', `${engine.folder}/attack:/abs/made`], ['--tmpfs', '/link/c'], ['--mount', 'type=tmpfs,target=/abs/x/../y'], ['--mount', `type=bind,source=${engine.host}/file,target=/link/../../../../../../../made,readonly`], ['-w', '/link/work'], ['-w', '/abs/work'], ['-v', '/d/loop/x'], ['--device', '/dev/null:/link/null']]) {
      const result = await engine.run(['run', '--rm', ...flags, 'targets', 'true']);
      expect([0, 125], `${flags.join(' ')}: ${result.stderr}`).toContain(result.code);
      expect(engine.hostChanges(), flags.join(' ')).toEqual([]);
    }
    // control: the image's link does lead to the host's folder when it is followed on the host
    expect(readFileSync(join(engine.host, 'file'), 'utf8')).toBe(engine.secret);
  });
  it('names of volumes are no paths', async () => {
    for (const name of ['../x', 'a/b', '..', '.', '-x', 'x\ny', 'x'.repeat(300)]) expect((await engine.run(['volume', 'create', '--', name])).code, name).not.toBe(0);
    expect(await engine.ok('volume', 'ls', '-q')).toBe('');
  });
});
