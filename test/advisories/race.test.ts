/** Another process with access to a volume exchanges folders and links while the engine works in it. */
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Attack } from './attack.ts';

let engine: Attack;
beforeAll(async () => {
  engine = new Attack();
  await engine.image('plain');
  await engine.image('content', [{ path: 'data/', type: '5' }, { path: 'data/a/', type: '5' }, ...Array.from({ length: 3000 }, (_, i) => ({ path: `data/a/f${i}`, content: 'of the image' }))]);
});
afterEach(() => engine.stop());
afterAll(async () => expect(await engine.close()).toEqual([]));

/** A folder to be bound as /x, in which `y` is now a folder and now a link to `target`. */
async function contested(name: string, target: string): Promise<string> {
  const shared = join(engine.folder, name);
  mkdirSync(join(shared, 'y', 'z'), { recursive: true });
  symlinkSync(target, join(shared, 'link'));
  await engine.beside('exchange', join(shared, 'y'), join(shared, 'link'));
  return shared;
}

describe('CVE-2021-30465, CVE-2024-45310: mount targets and their folders', () => {
  it('control: the exchange does lead a mkdir by path out', async () => {
    const shared = await contested('control', engine.host);
    for (let i = 0; i < 5000 && engine.hostChanges().length === 0; i++) for (let k = 0; k < 50; k++) try { mkdirSync(join(shared, 'y', `made-${i}-${k}`, 'deep'), { recursive: true }); } catch { /* it was moved away */ }
    expect(engine.hostChanges()).not.toEqual([]);
    for (const name of readdirSync(engine.host)) if (name.startsWith('made')) rmSync(join(engine.host, name), { recursive: true });
    expect(engine.hostChanges()).toEqual([]);
  });
  it('mounts end inside the rootfs and folders are made only there', async () => {
    const other = join(engine.folder, 'other');
    mkdirSync(other);
    writeFileSync(join(other, 'mine'), 'mine');
    for (const [name, target] of [['relative', `../../../../../../../../../..${engine.host}`], ['absolute', engine.host], ['root', '/'], ['proc', '/proc/self/root']] as const) {
      const shared = await contested(name, target);
      const runs = await Promise.all(Array.from({ length: 6 }, (_, i) => engine.run(['run', '--rm', '-v', `${shared}:/x`, '-v', `${other}:/x/y/z`, '-v', `${other}:/x/y/new-${i}/deep`, '--tmpfs', `/x/y/tmp-${i}`, '-w', `/x/y/work-${i}`, 'plain', 'sh', '-c', `cat /x/y/file /x/link/file ${engine.host}/file 2>/dev/null; cut -d " " -f 5 /proc/self/mountinfo; true`])));
      engine.stop();
      for (const { code, stdout, stderr } of runs) {
        expect([0, 125, 126], stderr).toContain(code);
        expect(stdout).not.toContain(engine.secret);
        for (const point of stdout.split('\n')) expect(point).not.toMatch(/deleted|\.\./);
      }
      expect(engine.hostChanges(), name).toEqual([]);
    }
  });
  it('a contested bind source is whole or refused, and never another than what stands there', async () => {
    const shared = await contested('source', join(engine.host, 'folder'));
    writeFileSync(join(engine.folder, 'source', 'mark'), '');
    const runs = await Promise.all(Array.from({ length: 6 }, () => engine.run(['run', '--rm', '-v', `${shared}:/x:ro`, 'plain', 'sh', '-c', 'touch /x/y/made /x/link/made 2>/dev/null; ls /x'])));
    for (const { stdout, stderr } of runs) expect(stdout, stderr).toBe('link\nmark\ny\n');
    expect(engine.hostChanges()).toEqual([]);
  });
});

describe('CVE-2018-15664, CVE-2025-47290: copies into a volume', () => {
  it('go by fd: an exchanged folder leads them nowhere', async () => {
    for (let i = 0; i < 3; i++) {
      const volume = `v${i}`;
      await engine.ok('volume', 'create', volume);
      const path = await engine.ok('volume', 'inspect', '-f', '{{.Mountpoint}}', volume);
      const link = join(engine.folder, `link-${i}`);
      symlinkSync(join(engine.host, 'folder'), link);
      await engine.beside('exchange', join(path, 'a'), link);
      const result = await engine.run(['run', '--rm', '-v', `${volume}:/data`, 'content', 'true']);
      engine.stop();
      expect([0, 125], result.stderr).toContain(result.code);
      expect(engine.hostChanges()).toEqual([]);
    }
  });
});
