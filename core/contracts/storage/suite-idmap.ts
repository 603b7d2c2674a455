import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { op } from '../../plan/build.ts';
import { BITS } from '../../plan/table.ts';
import { type Operation } from '../../plan/types.ts';
import { cutEverywhere, failsWith } from '../common/checks.ts';
import { apply, type SuiteCase } from '../common/suite.ts';
import { type SnapshotRequest } from './index.ts';
import { type StorageContext } from './suite.ts';
import { type Entry, type PackedEntry } from './stream.ts';

type Case = SuiteCase<StorageContext>;
const folder = (path: string, more: Partial<Entry> = {}): Entry => ({ kind: 'folder', path, ...more });
const file = (path: string, content: string = path, more: Partial<Entry> = {}): Entry => ({ kind: 'file', path, content: [content], ...more });
const write = (path: string, text: string, owner: { uid?: number; gid?: number } = {}): Operation => op.writeFile({ root: 'root', path, data: Buffer.from(text), mode: 0o644, how: BITS.WRITE.create | BITS.WRITE.truncate, ...owner });
const maps = (first: number) => ({ uidMap: `0 ${first} 65536\n`, gidMap: `0 ${first + 100_000} 65536\n` });

/** `struct vfs_cap_data` version 2: cap_net_raw in permitted, effective. */
const NET_RAW = Buffer.from('0100000200200000000000000000000000000000', 'hex');
const base: readonly Entry[] = [
  folder('etc'), file('etc/passwd', 'root', { mode: 0o640, uid: 1000, gid: 42 }), file('etc/shadow', 'x', { mode: 0o600 }),
  folder('home', { uid: 1000, gid: 1000, mode: 0o2750 }), file('home/note', 'note', { uid: 1000, gid: 1000 }),
  folder('bin'), file('bin/su', 'su', { mode: 0o6755 }), file('bin/ping', 'ping', { mode: 0o755, xattrs: { 'security.capability': NET_RAW } }), { kind: 'hardlink', path: 'bin/ping6', link: 'bin/ping' },
  { kind: 'symlink', path: 'bin/sh', link: '/bin/busybox', uid: 7, gid: 8 },
  folder('dev'), { kind: 'character', path: 'dev/null', mode: 0o666, major: 1, minor: 3, gid: 5 }, { kind: 'fifo', path: 'dev/pipe', uid: 65535 },
  folder('gone'), file('gone/a'),
];
const top: readonly Entry[] = [folder('etc'), file('etc/host', 'host', { uid: 3 }), { kind: 'whiteout', path: 'home/note' }, folder('home', { uid: 1000, gid: 1000, mode: 0o2750 })];

/** Owners of all that lies in the driver's folder, by path. */
function ownersIn(at: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (path: string): void => {
    for (const { name } of fs.readdirSync(join(at, path), { withFileTypes: true })) {
      const here = join(path, name);
      const s = fs.lstatSync(join(at, here));
      found.set(here, `${s.uid}:${s.gid} ${(s.mode & 0o7777).toString(8)}`);
      if (s.isDirectory()) walk(here);
    }
  };
  walk('');
  return found;
}
const layersOf = (c: StorageContext): Map<string, string> => new Map([...ownersIn(c.bench.deps.folder)].filter(([path]) => path.startsWith('layers/')));
async function twoLayers(c: StorageContext): Promise<string> {
  return c.layer('top', top, await c.layer('base', base));
}
const request = (chainID: string): SnapshotRequest => ({ key: 'k', lower: { chainID } });

/** As {@link base} and {@link top} make it, with every owner `uid` and `gid` further. */
function checkShown(seen: ReadonlyMap<string, PackedEntry>, uid: number, gid: number): void {
  assert.ok(!seen.has('home/note'), 'a whiteout hides');
  for (const entry of [...base, ...top]) {
    const got = seen.get(entry.path);
    if (entry.kind === 'whiteout' || entry.path === 'home/note' || entry.kind === 'hardlink' || got?.kind === 'hardlink') continue;
    assert.ok(got, `${entry.path} is missing`);
    assert.deepEqual([got.uid, got.gid], [(entry.uid ?? 0) + uid, (entry.gid ?? 0) + gid], `owner of ${entry.path}`);
    if (entry.mode !== undefined) assert.equal(got.mode, entry.mode, `mode of ${entry.path}`);
  }
}
function checkCapability(seen: ReadonlyMap<string, PackedEntry>, root: number): void {
  const value = Buffer.from([seen.get('bin/ping'), seen.get('bin/ping6')].find((entry) => entry?.kind === 'file')?.xattrs['security.capability'] ?? []);
  // version 3 names the root for whom it counts; seen from outside that is how an idmapped mount shows version 2, too
  assert.deepEqual([value.readUInt8(3), value.length], root === 0 ? [2, 20] : [3, 24]);
  if (root !== 0) assert.equal(value.readUInt32LE(20), root);
}

export const idmapCases: readonly Case[] = [
  {
    name: 'idmap shows all with the owners of the user namespace, and changes nothing on disk',
    needs: ['mounts', 'owners', 'idmappable'],
    async run(c) {
      const one = await c.snapshot(request(await twoLayers(c)));
      const before = ownersIn(c.bench.deps.folder);
      for (const readonly of [true, false]) {
        for (const first of [100_000, 700_000]) {
          const seen = await c.read(one, readonly, maps(first));
          checkShown(seen, first, first + 100_000);
          checkCapability(seen, first);
        }
      }
      checkShown(await c.read(one), 0, 0);
      const after = ownersIn(c.bench.deps.folder);
      for (const [path, owner] of before) assert.equal(after.get(path), owner, path);
      assert.deepEqual([...after].filter(([, owner]) => !/^\d{1,5}:\d{1,5} /.test(owner)), [], 'an id of the namespace is on disk');
    },
  },
  {
    name: 'what is written with idmap has plain owners on disk, and those of any other range later',
    needs: ['mounts', 'owners', 'idmappable'],
    async run(c) {
      const one = await c.snapshot(request(await twoLayers(c)));
      const layers = layersOf(c);
      await c.inside(one, [
        write('/new', 'new'), write('/mine', 'mine', { uid: 100_033, gid: 200_033 }), write('/etc/passwd', 'changed'), op.removeTree({ root: 'root', path: '/gone' }),
        op.mkdir({ root: 'root', path: '/gone', mode: 0o755 }), op.setAttributes({ root: 'root', path: '/home', what: BITS.ATTR.owner, uid: 100_001, gid: 200_001 }), op.unlink({ root: 'root', path: '/etc/shadow' }),
        op.setAttributes({ root: 'root', path: '/bin/su', what: BITS.ATTR.mode, mode: 0o4711 }),
      ], false, maps(100_000));
      assert.deepEqual(layersOf(c), layers, 'a layer was changed');
      const changes = c.driver.changes(one);
      const written = changes.kind === 'upper' ? changes.upper : changes.tree;
      const owner = (path: string): string => {
        const { uid, gid, mode } = fs.lstatSync(join(written, path));
        return `${uid}:${gid} ${(mode & 0o7777).toString(8)}`;
      };
      assert.deepEqual(['new', 'mine', 'etc/passwd', 'gone', 'home', 'bin/su'].map(owner), ['0:0 644', '33:33 644', '1000:42 640', '0:0 755', '1:1 2750', '0:0 4711']);
      const differences = new Map((await c.driver.diff(one)).map(({ kind, path }) => [path, kind]));
      assert.deepEqual(['/new', '/etc/passwd', '/etc/shadow', '/bin/ping'].map((path) => differences.get(path)), ['A', 'C', 'D', undefined]);
      for (const first of [undefined, 900_000]) {
        const seen = await c.read(one, false, first === undefined ? undefined : maps(first));
        const [uid, gid] = [first ?? 0, first === undefined ? 0 : first + 100_000];
        assert.deepEqual(['mine', 'etc/passwd', 'new'].map((path) => [seen.get(path)?.uid, seen.get(path)?.gid]), [[33 + uid, 33 + gid], [1000 + uid, 42 + gid], [uid, gid]]);
        assert.ok(!seen.has('etc/shadow') && !seen.has('gone/a') && seen.has('gone'));
      }
      await failsWith('ERR_OPERATION_FAILED', () => c.inside(one, [write('/no', 'no')], true, maps(100_000)), 'EROFS');
    },
  },
  {
    name: 'maps of several ranges; whom they do not have is nobody, and can be given nothing',
    needs: ['mounts', 'owners', 'idmappable'],
    async run(c) {
      const one = await c.snapshot(request(await twoLayers(c)));
      const some = { uidMap: '0 500000 1\n3 300003 1\n1000 1000 1\n', gidMap: '0 500000 65536\n' };
      const seen = await c.read(one, false, some);
      assert.deepEqual(['etc', 'etc/host', 'etc/passwd', 'bin/sh'].map((path) => seen.get(path)?.uid), [500_000, 300_003, 1000, 65_534]);
      await failsWith('ERR_OPERATION_FAILED', () => c.inside(one, [op.setAttributes({ root: 'root', path: '/etc/host', what: BITS.ATTR.owner, uid: 7, gid: 500_000 })], false, some));
      await failsWith('ERR_OPERATION_FAILED', () => c.inside(one, [op.setAttributes({ root: 'root', path: '/bin/sh', what: BITS.ATTR.owner, uid: 500_000, gid: 500_000 })], false, some));
    },
  },
  {
    name: 'a snapshot on nothing with idmap',
    needs: ['mounts', 'owners', 'idmappable'],
    async run(c) {
      const one = await c.snapshot({ key: 'k', lower: {} });
      await c.inside(one, [write('/x', 'x')], false, maps(100_000));
      const seen = await c.read(one, false, maps(200_000));
      assert.equal(seen.get('x')?.uid, 200_000);
      assert.equal((await c.read(one)).get('x')?.uid, 0);
    },
  },
  {
    name: 'a host folder with idmap keeps its owners on disk',
    needs: ['mounts', 'owners', 'idmappable', 'host-folder'],
    async run(c) {
      const host = join(c.bench.folder, 'host');
      fs.mkdirSync(join(host, 'sub'), { recursive: true });
      fs.writeFileSync(join(host, 'sub/file'), 'host');
      fs.chownSync(join(host, 'sub/file'), 12, 13);
      const one = await c.snapshot({ key: 'k', lower: { folder: host } });
      await c.inside(one, [write('/sub/file', 'changed'), write('/new', 'new')], false, maps(100_000));
      const seen = await c.read(one, true, maps(100_000));
      assert.deepEqual([seen.get('sub/file')?.uid, seen.get('sub/file')?.gid, seen.get('new')?.uid], [100_012, 200_013, 100_000]);
      assert.equal(fs.readFileSync(join(host, 'sub/file'), 'utf8'), 'host');
      assert.deepEqual([fs.statSync(join(host, 'sub/file')).uid, fs.existsSync(join(host, 'new'))], [12, false]);
    },
  },
  {
    name: 'a shifted snapshot has the owners of the namespace on disk; its layers do not, and diff shows nothing of it',
    needs: ['mounts', 'owners', 'shifts'],
    async run(c) {
      const chainID = await twoLayers(c);
      const layers = layersOf(c);
      const shift = maps(100_000);
      const one = await c.shifted(request(chainID), shift);
      assert.deepEqual(layersOf(c), layers, 'a layer was changed');
      const seen = await c.read(one);
      checkShown(seen, 100_000, 200_000);
      checkCapability(seen, 100_000);
      assert.ok([seen.get('bin/ping'), seen.get('bin/ping6')].some((entry) => entry?.kind === 'hardlink'), 'two names are one file still');
      assert.deepEqual(await c.driver.diff(one), []);
      await c.inside(one, [write('/new', 'new'), op.unlink({ root: 'root', path: '/etc/host' }), op.setAttributes({ root: 'root', path: '/etc/shadow', what: BITS.ATTR.owner, uid: 100_001, gid: 200_000 }), write('/home/x', 'x')]);
      const differences = (await c.driver.diff(one)).map(({ kind, path }) => `${kind} ${path}`).sort();
      assert.deepEqual(differences.filter((line) => !/^C \/(etc|home)$/.test(line)), ['A /home/x', 'A /new', 'C /etc/shadow', 'D /etc/host']);
      const other = await c.snapshot({ key: 'other', lower: { chainID } });
      checkShown(await c.read(other), 0, 0);
    },
  },
  {
    name: 'owners that the maps do not have are named when a snapshot is shifted, and nothing is left of it',
    needs: ['mounts', 'owners', 'shifts'],
    async run(c) {
      const chainID = await twoLayers(c);
      await c.shifted({ key: 'warm', lower: { chainID } }, maps(100_000));
      const before = c.tree();
      await assert.rejects(() => c.shifted(request(chainID), { uidMap: '0 100000 1000\n', gidMap: '0 200000 65536\n' }), (error) => {
        assert.equal((error as { errno?: string }).errno, 'ERANGE');
        assert.match(String(error), /belongs to user (1000|65535)/);
        return true;
      });
      assert.deepEqual(c.tree(), before);
    },
  },
  {
    name: 'cut anywhere, a shifted snapshot is there whole or not at all',
    needs: ['mounts', 'owners', 'shifts', 'faults'],
    async run(c) {
      const chainID = await twoLayers(c);
      await c.shifted({ key: 'warm', lower: { chainID } }, maps(100_000));
      const before = c.tree();
      for (const kind of ['fail', 'die'] as const) {
        let effects;
        await cutEverywhere(c.bench, kind, {
          verb: async (transaction) => transaction.run((effects = await c.shiftedEffects({ key: `k-${kind}`, lower: { chainID } }, maps(100_000)))),
          check: (at) => assert.deepEqual(c.tree(), before, `${kind} at ${at}`),
        });
        assert.ok(effects);
        await apply(c.bench, c.driver.removeSnapshot(`k-${kind}`));
      }
    },
  },
];
