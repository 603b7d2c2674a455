import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTar } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { Dockerd, missingPeers } from '../helpers/peers.ts';

// The same image on each storage driver by a change of .enginerc alone. All three work on one btrfs, made on a loop device.
const missing = missingPeers('mkfs.btrfs', 'docker', 'dockerd');
const drivers = ['overlay', 'btrfs', 'vfs'];

describe.skipIf(missing.length > 0)(`storage drivers by .enginerc${missing.length ? ` (missing: ${missing.join(', ')})` : ''}`, () => {
  let folder: string;
  let engine: TestEngine | undefined;
  let project: string;
  let archive: string;
  beforeAll(async () => {
    folder = realpathSync(mkdtempSync('/var/tmp/engine-drivers-'));
    const [device, disk] = [join(folder, 'device'), join(folder, 'disk')];
    writeFileSync(device, '');
    truncateSync(device, 512 << 20);
    mkdirSync(disk);
    execFileSync('mkfs.btrfs', ['-q', device]);
    execFileSync('mount', ['-o', 'loop', device, disk]);
    engine = new TestEngine({ folder: disk });
    project = join(engine.folder, 'cwd');
    archive = join(folder, 'image.tar');
    const dockerd = await new Dockerd().start();
    try {
      dockerd.docker('import', '-c', 'CMD ["sh"]', busyboxTar(), 'base');
      dockerd.docker('run', '--name', 'changed', '--network', 'none', 'base', 'sh', '-c', 'rm /var/data/file; mkdir /srv; echo second > /srv/layer; chown 1000:1000 /srv/layer; chmod 4755 /srv/layer');
      dockerd.docker('commit', 'changed', 'mine:1');
      dockerd.docker('save', '-o', archive, 'mine:1');
    } finally {
      await dockerd.stop();
    }
  });
  afterAll(async () => {
    try {
      if (engine) expect(await engine.close()).toEqual([]);
    } finally {
      execFileSync('umount', [join(folder, 'disk')]);
      rmSync(folder, { recursive: true });
    }
  });
  const choose = (driver: string): void => writeFileSync(join(project, '.enginerc'), `drivers: { storage: ${driver} }\n`);

  it('what docker save wrote runs on each, and old containers stay with the driver that made them', async () => {
    if (!engine) throw new Error('no engine');
    expect(await engine.ok('load', '-i', archive)).toContain('Loaded image: mine:1');
    for (const driver of drivers) {
      choose(driver);
      expect(await engine.ok('run', '--name', `on-${driver}`, '--network', 'none', 'mine:1', 'sh', '-c', `cat /srv/layer; stat -c "%a %u %g" /srv/layer; ls /var/data; cat /count 2>/dev/null; echo ${driver} >> /count`)).toBe('second\n4755 1000 1000');
    }
    for (const driver of drivers) {
      choose(driver); // whatever is chosen now…
      for (const other of drivers) {
        expect(await engine.ok('inspect', '-f', '{{.Driver}}', `on-${other}`)).toBe(other);
        expect((await engine.ok('diff', `on-${other}`)).split('\n').filter((line) => !/\/(etc|dev)/.test(line))).toEqual(['A /count']);
      }
    }
    for (const driver of drivers) expect(await engine.ok('start', '-a', `on-${driver}`)).toBe(`second\n4755 1000 1000\n${driver}`); // …each has its own file
    expect((await engine.run(['rmi', 'mine:1'])).code).not.toBe(0); // it is in use
    await engine.ok('rm', ...drivers.map((driver) => `on-${driver}`));
    await engine.ok('rmi', 'mine:1');
  });
  it('a driver named outright that cannot work here is an error, not another driver', async () => {
    if (!engine) throw new Error('no engine');
    const elsewhere = new TestEngine({ config: 'drivers: { storage: btrfs }\n', folder: '/dev/shm' });
    try {
      const { code, stderr } = await elsewhere.run(['import', busyboxTar(), 'base']);
      const ran = code === 0 ? await elsewhere.run(['run', '--rm', '--network', 'none', 'base', 'true']) : { code, stderr };
      expect(ran).toMatchObject({ code: 125, stderr: expect.stringMatching(/btrfs/) });
      expect(ran.stderr.trimEnd().split('\n')).toHaveLength(1);
    } finally {
      elsewhere.configure('{}\n');
      expect(await elsewhere.close()).toEqual([]);
    }
  });
});
