import { execFileSync } from 'node:child_process';
import { createReadStream, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTar } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { foreignImages, makeBusyboxImage, withFolder } from '../helpers/images.ts';
import { missingPeers } from '../helpers/peers.ts';
import { dockerArchive, tar, type TarFile } from '../helpers/tar.ts';

const look = 'cat /etc/layer; stat -c "%a %u %g %Y" /etc/layer; ls /var; ls -l /srv/hard | tr -s " " | cut -d" " -f2; cat /srv/hard2; readlink /srv/link; stat -c %a /srv/setuid; stat -c %F /srv/fifo; stat -c %a /tmp; stat -c %u /home/app; echo $FROM';
const seen = ['two', '640 1000 1000 1600000000', '2', 'linked', '../etc/layer', '4755', 'fifo', '1777', '1000', 'image'].join('\n');

for (const storage of ['overlay', 'vfs']) {
  describe(`images on ${storage}`, () => {
    let engine: TestEngine;
    const kept = (): string[] => ['image-oci/blobs/sha256', 'image-oci/staging', `storage-${storage}/layers`].flatMap((name) => {
      const folder = join(engine.root, name);
      return existsSync(folder) ? readdirSync(folder).map((entry) => `${name}/${entry}`) : [];
    });
    beforeAll(() => {
      engine = new TestEngine({ config: `drivers: { storage: ${storage} }\n` });
    });
    afterAll(async () => expect(await engine.close()).toEqual([]));

    it('are loaded, run, and removed without a trace', async () => {
      expect(await engine.ok('load', '-i', makeBusyboxImage())).toContain('Loaded image: busybox:latest');
      expect(await engine.ok('run', '--rm', '--network', 'none', 'busybox', 'sh', '-c', look)).toBe(seen);
      expect(await engine.ok('rmi', 'busybox')).toMatch(/^Untagged: busybox:latest\nDeleted: sha256:/);
      expect(kept()).toEqual([]);
    });
    it('come through a pipe as well', async () => {
      const running = engine.start(['load']);
      createReadStream(makeBusyboxImage()).pipe(running.child.stdin);
      expect((await running.result).stderr).not.toMatch(/error/i);
      expect(await engine.ok('run', '--rm', '--network', 'none', 'busybox', 'sh', '-c', look)).toBe(seen);
      await engine.ok('rmi', 'busybox');
      expect(kept()).toEqual([]);
    });
    for (const { name, needs, make } of foreignImages) {
      const missing = missingPeers(...needs);
      it.skipIf(missing.length > 0 || (storage !== 'overlay' && needs.includes('dockerd')))(`written by ${name}${missing.length ? ` (missing: ${missing.join(', ')})` : ''}`, () => withFolder(async (folder) => {
        const foreign = await make(folder);
        expect(await engine.ok('load', '-i', foreign.path)).toContain(`Loaded image: ${foreign.name}`);
        expect(await engine.ok('run', '--rm', '--network', 'none', foreign.name, 'sh', '-c', look)).toBe(seen);
        for (const id of new Set((await engine.ok('images', '-q')).split('\n'))) if (!id.includes('host')) await engine.ok('rmi', '-f', id);
        expect(kept()).toEqual([]);
      }));
    }
    it('are imported from a tar on standard input', async () => {
      const { code, stderr } = await engine.run(['import', '-c', 'CMD ["echo", "imported"]', '-', 'mine:1'], { input: readFileSync(busyboxTar()) });
      expect(stderr + String(code)).toBe('0');
      expect(await engine.ok('run', '--rm', '--network', 'none', 'mine:1')).toBe('imported');
      await engine.ok('rmi', 'mine:1');
      expect(kept()).toEqual([]);
    });
    it('are not imported from nothing, as what a failed command before a pipe gives; a tar with no files in it is something', async () => {
      for (const [input, words] of [[Buffer.alloc(0), 'is empty;'], [gzipSync(Buffer.alloc(0)), 'is empty once decompressed (gzip);']] as const) {
        const { code, stdout, stderr } = await engine.run(['import', '-', 'none:1'], { input });
        expect([code, stdout, stderr]).toEqual([125, '', expect.stringMatching(/^engine: standard input .*; a tar archive is needed; see what the command before it in the pipe says.*\n$/)]);
        expect(stderr).toContain(words);
      }
      expect(kept()).toEqual([]);
      expect((await engine.run(['import', '-', 'none:1'], { input: Buffer.alloc(1024) })).code).toBe(0);
      await engine.ok('rmi', 'none:1');
      expect(kept()).toEqual([]);
    });
    const evil: [string, readonly TarFile[]][] = [
      ['..', [{ path: '../../../../tmp/engine-evil', content: 'x' }]],
      ['a link out, then a file through it', [{ path: 'out', type: '2', link: '/tmp' }, { path: 'out/engine-evil', content: 'x' }]],
      ['a hard link through a link', [{ path: 'out', type: '2', link: '/etc' }, { path: 'engine-evil', type: '1', link: 'out/shadow' }]],
      ['a whiteout through a link', [{ path: 'out', type: '2', link: '/tmp' }, { path: 'out/.wh.engine-victim' }]],
      ['a folder over a link', [{ path: 'out', type: '2', link: '/tmp' }, { path: 'out/', type: '5', mode: 0o777 }, { path: 'out/engine-evil', content: 'x' }]],
    ];
    it.each(evil)('cannot reach the host: %s', (_, files) => withFolder(async (folder) => {
      writeFileSync('/tmp/engine-victim', 'alive');
      writeFileSync(join(folder, 'evil.tar'), dockerArchive([{ layers: [{ tar: readFileSync(busyboxTar()) }, { tar: tar(files) }], names: ['evil'] }]));
      const { code } = await engine.run(['load', '-i', join(folder, 'evil.tar')]);
      expect(existsSync('/tmp/engine-evil')).toBe(false);
      expect(readFileSync('/tmp/engine-victim', 'utf8')).toBe('alive');
      execFileSync('rm', ['/tmp/engine-victim']);
      if (code === 0) await engine.ok('rmi', 'evil');
      expect(kept().filter((path) => path.startsWith('image-oci'))).toEqual([]);
    }));
  });
}
