/** What containers in user namespaces leave on disk, per storage driver and where mounts cannot show other owners. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxRootfs } from '../helpers/busybox.ts';
import { until } from '../helpers/wait.ts';
import { TestEngine } from '../helpers/engine.ts';

const bin = join(import.meta.dirname, '../../bin/engine');
const MAP = '0:300000:65536';
const OTHER = '0:700000:65536';
const lines = (text: string): string[] => text.split('\n').map((line) => line.trim().replace(/\s+/g, ' '));

/** Says who it is; compiled once per machine. */
function idsProgram(): string {
  const source = join(import.meta.dirname, '../helpers/programs/ids.c');
  const path = join(tmpdir(), `engine-test-ids-${createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 8)}`);
  if (!existsSync(path)) {
    execFileSync('gcc', ['-static', '-O1', '-s', '-o', `${path}.${process.pid}`, source]);
    renameSync(`${path}.${process.pid}`, path);
  }
  return path;
}

/** An image with owners, set-id bits, a capability and a hard link. */
async function importOwners(engine: TestEngine): Promise<void> {
  const work = join(engine.folder, 'image');
  mkdirSync(work);
  busyboxRootfs(work);
  copyFileSync(idsProgram(), join(work, 'bin/su2'));
  execFileSync('sh', ['-c', `cd ${work}; cp bin/su2 bin/ping2; chmod 4755 bin/su2; ln bin/su2 bin/su3; chown -R 1000:1000 home/app; chown 33:33 var/data var/data/file; chown 0:2000 var; chmod 2775 var; setcap cap_net_raw+ep bin/ping2 2>/dev/null || true
    tar --numeric-owner --xattrs --xattrs-include='*' -cf ../image.tar .`]);
  await engine.ok('import', '-c', 'CMD ["sh"]', join(engine.folder, 'image.tar'), 'owners');
  rmSync(work, { recursive: true });
}

/** Paths below `folder` that belong to an id of a container's range. */
function ranged(folder: string): string[] {
  const found: string[] = [];
  const walk = (at: string): void => {
    for (const name of existsSync(at) ? readdirSync(at) : []) {
      const path = join(at, name);
      const s = lstatSync(path);
      if (s.uid >= 65536 || s.gid >= 65536) found.push(path);
      if (s.isDirectory()) walk(path);
    }
  };
  walk(folder);
  return found;
}
/** The layers of all storage drivers, which nobody may chown. */
const rangedLayers = (engine: TestEngine): string[] => ['overlay', 'btrfs', 'vfs'].flatMap((name) => ranged(join(engine.root, `storage-${name}`, 'layers')));

const NO_DEVICE = new Set(['ramfs', 'tmpfs']);
/** A mount of its own below /var/tmp; a loop device where one is needed. */
class Filesystem {
  readonly folder = mkdtempSync('/var/tmp/engine-userns-');
  readonly #device: string = '';
  constructor(type: string) {
    const at = this.at;
    mkdirSync(at);
    if (NO_DEVICE.has(type)) {
      execFileSync('mount', ['-t', type, 'none', at]);
      return;
    }
    const image = join(this.folder, 'image');
    writeFileSync(image, '');
    truncateSync(image, 1 << 30);
    execFileSync(`mkfs.${type}`, ['-q', image], { stdio: 'ignore' });
    this.#device = execFileSync('losetup', ['--find', '--show', image]).toString().trim();
    execFileSync('mount', ['-t', type, this.#device, at]);
  }
  get at(): string {
    return join(this.folder, 'mount');
  }
  close(): void {
    execFileSync('umount', ['-l', this.at]);
    if (this.#device) spawnSync('losetup', ['-d', this.#device]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
const canLoop = (type: string): boolean => readFileSync('/proc/filesystems', 'utf8').includes(`\t${type}\n`) && spawnSync('sh', ['-c', `command -v mkfs.${type} && losetup -f`]).status === 0;

const [major = 0, minor = 0] = release().split('.').map(Number);
const tmpfsCan = major > 6 || (major === 6 && minor >= 3);
interface World { readonly name: string; readonly config: string; readonly filesystem?: string; /** Owners are changed on disk. */ readonly shifts: boolean; /** Volumes keep plain owners, and everybody sees them as his own. */ readonly volumes: boolean }
const worlds: readonly World[] = [
  { name: 'overlay', config: 'drivers: { storage: overlay }', shifts: false, volumes: true },
  { name: 'overlay by mount(2)', config: 'drivers: { storage: overlay }\noptions: { storage-overlay: { mount: mount } }', shifts: false, volumes: true },
  { name: 'vfs', config: 'drivers: { storage: vfs }', shifts: false, volumes: true },
  { name: 'btrfs', config: 'drivers: { storage: btrfs }', filesystem: 'btrfs', shifts: false, volumes: true },
  { name: 'overlay that may not show other owners', config: 'drivers: { storage: overlay }\noptions: { storage-overlay: { idmap: never } }', shifts: true, volumes: true },
  // since Linux 6.3
  { name: 'overlay on tmpfs', config: 'drivers: { storage: overlay }', filesystem: 'tmpfs', shifts: !tmpfsCan, volumes: tmpfsCan },
  { name: 'vfs on a filesystem that cannot', config: 'drivers: { storage: vfs }', filesystem: 'ramfs', shifts: true, volumes: false },
];

/** In a guest: what depends on its kernel. */
const ofKernel = (name: string): boolean => !process.env['VM'] || name === 'overlay' || name === 'overlay on tmpfs';
describe.for(worlds.filter(({ name }) => ofKernel(name)).filter(({ filesystem }) => filesystem === undefined || NO_DEVICE.has(filesystem) || canLoop(filesystem)))('$name', ({ config, filesystem, shifts, volumes }) => {
  let engine: TestEngine;
  let mounted: Filesystem | undefined;
  beforeAll(async () => {
    mounted = filesystem === undefined ? undefined : new Filesystem(filesystem);
    engine = new TestEngine({ config, ...(mounted && { folder: mounted.at }) });
    await importOwners(engine);
  });
  afterAll(async () => {
    try {
      await engine.removeContainers();
      await engine.ok('rmi', 'owners'); // its layers on btrfs are sealed
      expect(await engine.close()).toEqual([]);
    } finally {
      mounted?.close();
    }
  });

  it('owners inside are those of the image; its layers are not touched, and only a word says how', async () => {
    const result = await engine.run(['run', '--name', 'one', '--userns', MAP, 'owners', 'sh', '-c', 'stat -c "%n %u:%g %a %h" /bin/su2 /bin/su3 /home/app /var /var/data/file; echo new > /new; rm /bin/su3; chown 5:6 /var/data; echo x >> /etc/group; stat -c "%u:%g" /new /var/data']);
    expect(result.code, result.stderr).toBe(0);
    expect(lines(result.stdout.trim())).toEqual(['/bin/su2 0:0 4755 2', '/bin/su3 0:0 4755 2', '/home/app 1000:1000 755 2', '/var 0:2000 2775 3', '/var/data/file 33:33 644 1', '0:0', '5:6'].map((line) => (line.startsWith('/home') || line.startsWith('/var 0') ? expect.stringContaining(line.split(' ').slice(0, 3).join(' ')) : line)));
    expect(/owners on disk/.test(result.stderr)).toBe(shifts);
    expect(rangedLayers(engine)).toEqual([]);
    expect(ranged(engine.root).some((path) => path.includes('/snapshots/'))).toBe(shifts);
    const changes = (await engine.ok('diff', 'one')).split('\n').filter((line) => !/^C \/(bin|etc|var)$/.test(line));
    expect(changes).toEqual(['D /bin/su3', 'C /etc/group', 'A /new', 'C /var/data']);
    // a second start sees what the first has written
    expect(await engine.ok('start', '-a', 'one')).toMatch(/^stat: can't stat '\/bin\/su3'|\/bin\/su2 0:0 4755/m);
  });

  it('file capabilities count inside', async ({ skip }) => {
    if (spawnSync('sh', ['-c', 'command -v setcap getcap']).status !== 0 || filesystem === 'ramfs') skip('no setcap, or no extended attributes');
    const status = await engine.ok('run', '--rm', '--userns', MAP, '-u', '1000', 'owners', '/bin/ping2');
    expect(status).toMatch(/CapEff:\s*0000000000002000/);
  });

  it('set-id programs make root of the container, whoever that is', async () => {
    expect(await engine.ok('run', '--rm', '--userns', MAP, '-u', '1000', 'owners', '/bin/su2')).toMatch(/Uid:\s*1000\s+0\s+0\s+0/);
  });

  it('volumes: filled by the image, the same to all who use them', async () => {
    const fill = await engine.run(['run', '--rm', '--userns', MAP, '-v', 'vol:/var/data', '-v', 'empty:/new', 'owners', 'sh', '-c', 'stat -c "%u:%g" /var/data /var/data/file /new; echo a > /var/data/a; chown 42:43 /var/data/a; touch /new/x']);
    expect(fill.stderr.split('\n').filter((line) => !line.includes('on disk'))).toEqual(['']);
    expect(fill.stdout.split('\n').slice(0, 3)).toEqual(['33:33', '33:33', '0:0']);
    const next = await engine.run(['run', '--rm', '--userns', OTHER, '-v', 'vol:/var/data', 'owners', 'sh', '-c', 'stat -c "%u:%g" /var/data/file /var/data/a; echo b > /var/data/b']);
    const data = join(engine.root, 'volume-local/vol/_data');
    if (volumes) {
      expect(next.stdout).toBe('33:33\n42:43\n');
      expect(await engine.ok('run', '--rm', '-v', 'vol:/var/data', 'owners', 'stat', '-c', '%u:%g', '/var/data/a', '/var/data/b')).toBe('42:43\n0:0');
      expect(ranged(data)).toEqual([]);
    } else {
      expect(next.stderr).toMatch(/the files of volume vol keep their owners, who may be nobody in the container/);
      expect(next.stdout).toBe('65534:65534\n65534:65534\n');
      expect(statSync(join(data, 'a')).uid).toBe(300_042);
    }
  });

  it('a folder of the user\'s own that is a volume keeps its owners on disk', async () => {
    const own = join(engine.folder, 'own');
    mkdirSync(own);
    await engine.ok('volume', 'create', '-o', 'type=none', '-o', 'o=bind', '-o', `device=${own}`, 'mine');
    const result = await engine.run(['run', '--rm', '--userns', MAP, '-v', 'mine:/m', 'owners', 'stat', '-c', '%u', '/m']);
    // others than root may reach it: as with a bind, what a mapped root makes there is not the host's root's unless that is said
    expect(result.stdout).toBe('65534\n');
    expect(result.stderr).toContain('the files of volume mine keep their owners, who may be nobody in the container');
    const said = await engine.run(['run', '--rm', '--userns', MAP, '-v', 'mine:/m:idmap', 'owners', 'stat', '-c', '%u', '/m']);
    expect(said.stdout).toBe(volumes ? '0\n' : '65534\n');
    expect(statSync(own).uid).toBe(0);
    // made by the run itself
    writeFileSync(join(own, 'file'), 'x');
    const mount = `type=volume,source=new,target=/m,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=${own}`;
    expect((await engine.run(['run', '--rm', '--userns', MAP, '--mount', mount, 'owners', 'stat', '-c', '%u', '/m/file'])).stdout).toBe('65534\n');
  });

  it('files of the engine, the log and copies are root\'s inside', async () => {
    expect(await engine.ok('run', '--name', 'files', '--userns', MAP, 'owners', 'sh', '-c', 'stat -c "%u:%g %a" /etc/hostname /etc/hosts /etc/resolv.conf; echo more >> /etc/hosts; tail -n1 /etc/hosts; echo logged')).toBe('0:0 644\n0:0 644\n0:0 644\nmore\nlogged');
    expect(await engine.ok('logs', 'files')).toContain('logged');
  });

  it('too few ids are said to be that, and nothing is left', async () => {
    const result = await engine.run(['run', '--rm', '--userns', '0:300000:1000', 'owners', 'stat', '-c', '%u', '/home/app']);
    if (shifts) {
      expect(result.code).toBe(125);
      expect(result.stderr).toMatch(/belongs to (user|group) \d+, which the maps do not have.*--userns=auto:size=/);
    } else expect(result.stdout).toBe('65534\n');
    let left: readonly string[] = [];
    await until(() => `the container to be gone: ${left.join()}`, async () => (left = await engine.containers()).length === 2);
    expect(rangedLayers(engine)).toEqual([]);
  });
});

describe('attacks', () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = new TestEngine();
    await importOwners(engine);
  });
  afterAll(async () => expect(await engine.close()).toEqual([]));

  it('a set-id program that a mapped root leaves in a volume is reached by no user of the host, and in other containers makes their own root', async () => {
    await engine.ok('run', '--rm', '--userns', MAP, '-v', 'trap:/v', 'owners', 'sh', '-c', 'cp /bin/ping2 /v/su; chmod 6755 /v/su; chmod 777 /v');
    const program = join(engine.root, 'volume-local/trap/_data/su');
    expect(statSync(program)).toMatchObject({ uid: 0, mode: 0o106755 });
    const host = spawnSync('setpriv', ['--reuid', '1000', '--regid', '1000', '--clear-groups', 'sh', '-c', program], { encoding: 'utf8' });
    expect(host.status).not.toBe(0);
    expect(host.stderr).toMatch(/Permission denied/);
    const other = await engine.ok('run', '-d', '--userns', OTHER, '-u', '1000', '-v', 'trap:/v', 'owners', '/v/su', 'wait');
    const pid = await engine.ok('inspect', '--format', '{{.State.Pid}}', other);
    expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/Uid:\s*701000\s+700000\s+700000\s+700000/);
    await engine.ok('rm', '-f', other);
  });

  it('a plain bind: what its root makes there belongs to his range, also as set-id', async () => {
    const shared = join(engine.folder, 'shared');
    mkdirSync(shared);
    chmodSync(shared, 0o777);
    await engine.ok('run', '--rm', '--userns', MAP, '-v', `${shared}:/s`, 'owners', 'sh', '-c', 'cp /bin/ping2 /s/su; chmod 4755 /s/su');
    expect(statSync(join(shared, 'su'))).toMatchObject({ uid: 300_000, mode: 0o104755 });
    const refused = await engine.run(['run', '--rm', '--userns', MAP, '-v', `${shared}:/s:idmap`, 'owners', 'mknod', '/s/disk', 'b', '8', '0']);
    expect(refused.stderr).toMatch(/Operation not permitted/);
  });

  it('a hard link to a layer\'s file leads to a copy of it; chown and chmod stay in the snapshot', async () => {
    const before = execFileSync('sh', ['-c', `find ${join(engine.root, 'storage-overlay/layers')} -type f -printf '%p %U %G %m %n\\n' | sort`], { encoding: 'utf8' });
    await engine.ok('run', '--rm', '--userns', MAP, 'owners', 'sh', '-c', 'ln /bin/su2 /x; chown -R 7:7 /bin /home; chmod -R 777 /var; echo over > /bin/su3');
    expect(execFileSync('sh', ['-c', `find ${join(engine.root, 'storage-overlay/layers')} -type f -printf '%p %U %G %m %n\\n' | sort`], { encoding: 'utf8' })).toBe(before);
  });
});

describe('a machine whose mounts are shared', () => {
  it('sees nothing of what the stage mounts for a moment, nor for longer', async () => {
    const engine = new TestEngine();
    await importOwners(engine);
    const count = 'grep -c . /proc/self/mountinfo; grep -c engine-test /proc/self/mountinfo || true';
    const script = `mount --make-rshared /; mount --bind ${engine.root} ${engine.root}; ${count}
      ${bin} run --name one --userns ${MAP} -v vol:/var/data owners touch /x; ${bin} run --rm --userns ${OTHER} -v vol:/var/data owners touch /var/data/y; ${count}; ${bin} rm -v one > /dev/null; umount ${engine.root}`;
    const done = spawnSync('unshare', ['-m', '--propagation', 'private', 'sh', '-ec', script], { encoding: 'utf8', env: engine.env });
    expect(done).toMatchObject({ status: 0, stderr: '' });
    const [all, ours, allLater, oursLater] = done.stdout.trim().split('\n');
    expect([allLater, oursLater]).toEqual([all, ours]);
    expect(await engine.close()).toEqual([]);
  });
});

describe('this machine\'s own root', () => {
  const type = execFileSync('stat', ['-f', '-c', '%T', '/'], { encoding: 'utf8' }).trim();
  it('is shown with the container\'s owners, or refused in words', async () => {
    const engine = new TestEngine();
    const result = await engine.run(['run', '--rm', '--userns', MAP, 'host', 'sh', '-c', 'stat -c %u / /etc/shadow; echo x > /engine-test-file; stat -c %u /engine-test-file; grep -c . /etc/shadow > /dev/null && echo read']);
    if (/ext|xfs|btrfs/.test(type)) expect(result).toMatchObject({ code: 0, stdout: '0\n0\n0\nread\n' });
    else {
      expect(result.code).toBe(125);
      expect(result.stderr).toMatch(/cannot be shown with the owners of a user namespace: .*--userns=host/);
    }
    expect(existsSync('/engine-test-file')).toBe(false);
    expect(statSync('/etc/shadow').uid).toBe(0);
    expect(await engine.close()).toEqual([]);
  });
});
