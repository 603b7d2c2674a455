import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { op } from '../../plan/build.ts';
import { BITS } from '../../plan/table.ts';
import { failsWith, listTree } from '../common/checks.ts';
import { applyOnCommit, type SuiteCase } from '../common/suite.ts';
import { type StorageContext } from './suite.ts';
import { type Entry } from './stream.ts';

type Case = SuiteCase<StorageContext>;
const folder = (path: string, more: Partial<Entry> = {}): Entry => ({ kind: 'folder', path, ...more });
const file = (path: string, content: string = path, more: Partial<Entry> = {}): Entry => ({ kind: 'file', path, content: [content], ...more });
const write = (path: string, text: string) => op.writeFile({ root: 'root', path, data: Buffer.from(text), mode: 0o644, how: BITS.WRITE.create | BITS.WRITE.truncate });

/** `struct vfs_cap_data` version 2: cap_net_raw in permitted, effective. */
const NET_RAW = Buffer.from('0100000200200000000000000000000000000000', 'hex');
const NS = 1_234_567_890_123_456_789n;

const base: readonly Entry[] = [
  folder('.', { mode: 0o1777, uid: 3, gid: 4, mtime: NS }),
  folder('etc', { mode: 0o750, uid: 5, gid: 6, mtime: NS }),
  file('etc/passwd', 'root:x:0:0::/root:/bin/sh\n', { mode: 0o640, uid: 1000, gid: 100_000, mtime: NS }),
  folder('bin'),
  file('bin/su', 'su', { mode: 0o4755 }),
  file('bin/ping', 'ping', { mode: 0o755, xattrs: { 'security.capability': NET_RAW, 'user.note': Buffer.from('a\0b') } }),
  { kind: 'hardlink', path: 'bin/ping6', link: 'bin/ping' },
  { kind: 'symlink', path: 'bin/sh', link: '../../../etc/passwd', mtime: NS, uid: 7, gid: 8 },
  folder('dev'),
  { kind: 'character', path: 'dev/null', mode: 0o666, major: 1, minor: 3 },
  { kind: 'block', path: 'dev/loop', mode: 0o660, major: 7, minor: 0, gid: 6 },
  { kind: 'fifo', path: 'dev/pipe', mode: 0o600 },
  { kind: 'file', path: 'sparse', content: ['start', 8 << 20, 'end'] },
  folder('gone'), file('gone/a'), file('gone/b'),
  folder('opaque'), file('opaque/old'), folder('opaque/sub'), file('opaque/sub/old'),
  folder('mixed'), file('mixed/keep'), file('mixed/drop'),
  file('was-file'), folder('was-folder'), file('was-folder/x'),
];
const top: readonly Entry[] = [
  { kind: 'whiteout', path: 'gone' },
  folder('opaque', { mode: 0o700 }),
  { kind: 'opaque', path: 'opaque' },
  file('opaque/new'),
  folder('mixed'),
  { kind: 'whiteout', path: 'mixed/drop' },
  folder('was-file'), file('was-file/now', 'a folder'),
  file('was-folder', 'a file'),
];

export const contentCases: readonly Case[] = [
  {
    name: 'everything that a layer holds is there, exactly',
    needs: ['mounts', 'owners'],
    async run(c) {
      const request = await c.snapshot({ key: 'k', lower: { chainID: await c.layer('base', base) } });
      const seen = await c.read(request);
      for (const entry of base) {
        const got = seen.get(entry.path);
        if (entry.path === '.' && !got) continue; // a stream may leave its own root out
        assert.ok(got, `${entry.path} is missing`);
        if (entry.kind === 'hardlink' || got.kind === 'hardlink') continue;
        assert.equal(got.kind, entry.kind, entry.path);
        assert.equal(got.uid, entry.uid ?? 0, `uid of ${entry.path}`);
        assert.equal(got.gid, entry.gid ?? 0, `gid of ${entry.path}`);
        if (entry.kind !== 'symlink') assert.equal(got.mode, entry.mode ?? (entry.kind === 'folder' ? 0o755 : 0o644), `mode of ${entry.path}`);
        if (entry.mtime !== undefined && entry.path !== '.') assert.equal(got.mtime, entry.mtime, `mtime of ${entry.path}`);
        if (entry.link !== undefined) assert.equal(got.link, entry.link);
        assert.deepEqual([got.major, got.minor], [entry.major ?? 0, entry.minor ?? 0]);
        if (entry.kind === 'file' && !entry.path.startsWith('sparse')) assert.equal(got.content.toString(), entry.content?.join(''));
      }
      const ping = [seen.get('bin/ping'), seen.get('bin/ping6')].find((entry) => entry?.kind === 'file');
      assert.deepEqual(Object.keys(ping?.xattrs ?? {}).filter((name) => !name.startsWith('trusted.')).sort(), ['security.capability', 'user.note']);
      assert.deepEqual(Buffer.from(ping?.xattrs['security.capability'] ?? []), NET_RAW);
      assert.ok([seen.get('bin/ping'), seen.get('bin/ping6')].some((entry) => entry?.kind === 'hardlink'), 'the hard link is one');
      const sparse = seen.get('sparse');
      assert.equal(sparse?.content.length, 5 + (8 << 20) + 3);
      assert.equal(sparse.content.subarray(0, 5).toString(), 'start');
      assert.equal(sparse.content.subarray(-3).toString(), 'end');
      assert.ok(sparse.holes > 7 << 20, 'the hole is still one');
    },
  },
  {
    name: 'the root has the attributes that the layers give it',
    needs: ['mounts', 'owners'],
    async run(c) {
      const below = await c.layer('base', base);
      const chainID = await c.layer('top', [file('x')], below);
      const request = await c.snapshot({ key: 'k', lower: { chainID } });
      const changes = c.driver.changes(request);
      const root = fs.statSync(changes.kind === 'upper' ? changes.upper : changes.tree);
      assert.deepEqual([root.mode & 0o7777, root.uid, root.gid], [0o1777, 3, 4]);
    },
  },
  {
    name: 'whiteouts and opaque folders hide what lies below',
    needs: ['mounts', 'owners'],
    async run(c) {
      const chainID = await c.layer('top', top, await c.layer('base', base));
      const seen = await c.read(await c.snapshot({ key: 'k', lower: { chainID } }));
      for (const hidden of ['gone', 'gone/a', 'opaque/old', 'opaque/sub', 'mixed/drop', 'was-folder/x']) assert.ok(!seen.has(hidden), `${hidden} shines through`);
      for (const shown of ['opaque/new', 'mixed/keep', 'was-file/now', 'etc/passwd']) assert.ok(seen.has(shown), `${shown} is missing`);
      assert.equal(seen.get('opaque')?.mode, 0o700);
      assert.equal(seen.get('was-folder')?.kind, 'file');
      assert.equal(seen.get('was-file')?.kind, 'folder');
    },
  },
  {
    name: 'what is written stays in its snapshot, over many runs',
    needs: ['mounts', 'owners'],
    async run(c) {
      const chainID = await c.layer('base', base);
      const one = await c.snapshot({ key: 'one', lower: { chainID } });
      const two = await c.snapshot({ key: 'two', lower: { chainID } });
      await c.inside(one, [write('/etc/passwd', 'changed'), write('/new', 'new'), op.removeTree({ root: 'root', path: '/gone' }), op.unlink({ root: 'root', path: '/was-file' })]);
      await c.inside(one, [write('/second', 'run')]);
      const seen = await c.read(one);
      assert.equal(seen.get('etc/passwd')?.content.toString(), 'changed');
      assert.equal(seen.get('etc/passwd')?.uid, 1000, 'copy-up keeps the owner');
      assert.ok(seen.has('new') && seen.has('second') && !seen.has('gone') && !seen.has('gone/a') && !seen.has('was-file'));
      const other = await c.read(two);
      assert.match(other.get('etc/passwd')?.content.toString() ?? '', /^root:/);
      assert.ok(!other.has('new') && other.has('gone/a') && other.has('was-file'));
    },
  },
  {
    name: 'readonly shows the snapshot as it is and takes no write',
    needs: ['mounts', 'owners'],
    async run(c) {
      const request = await c.snapshot({ key: 'k', lower: { chainID: await c.layer('base', base) } });
      await c.inside(request, [write('/new', 'new'), op.removeTree({ root: 'root', path: '/gone' })]);
      await failsWith('ERR_OPERATION_FAILED', () => c.inside(request, [write('/no', 'no')], true), 'EROFS');
      const seen = await c.read(request, true);
      assert.ok(seen.has('new') && seen.has('etc/passwd') && !seen.has('gone') && !seen.has('no'));
      const bare = await c.snapshot({ key: 'bare', lower: {} });
      assert.deepEqual([...(await c.read(bare, true)).keys()].filter((path) => path !== '.'), []);
    },
  },
  {
    name: 'a snapshot on nothing is an empty root that can be written',
    needs: ['mounts', 'owners'],
    async run(c) {
      const request = await c.snapshot({ key: 'k', lower: {} });
      await c.inside(request, [write('/x', 'x')]);
      assert.deepEqual([...(await c.read(request)).keys()].filter((path) => path !== '.'), ['x']);
    },
  },
  {
    name: 'nodes and setuid work, whatever the host mounted its folder with',
    needs: ['mounts', 'owners'],
    async run(c) {
      const request = await c.snapshot({ key: 'k', lower: { chainID: await c.layer('base', base) } });
      await c.inside(request, [op.open({ root: 'root', path: '/dev/null', flags: 1, out: 'null' }), op.writeFd({ fd: 'null', data: Buffer.from('x') })]);
    },
  },
  {
    name: 'a chain of 127 layers',
    needs: ['mounts', 'owners'],
    async run(c) {
      let parent: string | undefined;
      for (let i = 0; i < 127; i++) parent = await c.layer(`l${i}`, [file(`f${i}`), file('last', String(i)), ...(i > 0 ? [{ kind: 'whiteout', path: `f${i - 1}` } as const] : [])], parent);
      const request = await c.snapshot({ key: 'k'.repeat(64), lower: { chainID: parent ?? '' } });
      const seen = await c.read(request);
      assert.deepEqual([...seen.keys()].filter((path) => path !== '.').sort(), ['f126', 'last']);
      assert.equal(seen.get('last')?.content.toString(), '126');
      assert.equal((await c.read(request, true)).get('last')?.content.toString(), '126');
    },
  },
  {
    name: 'changes and usage tell what was written',
    needs: ['mounts', 'owners'],
    async run(c) {
      const chainID = await c.layer('base', base);
      const request = await c.snapshot({ key: 'k', lower: { chainID } });
      const before = await c.driver.usage('k');
      await c.inside(request, [write('/big', 'x'.repeat(1 << 20)), op.unlink({ root: 'root', path: '/was-file' }), op.syncFs({ path: c.bench.deps.folder })]);
      const after = await c.driver.usage('k');
      assert.ok(after.bytes - before.bytes > 1_000_000 && after.bytes - before.bytes < 3 << 20, `${before.bytes} then ${after.bytes} bytes`);
      assert.ok(after.inodes > before.inodes - 2);
      const changes = c.driver.changes(request);
      const written = changes.kind === 'upper' ? changes.upper : changes.tree;
      assert.equal(fs.statSync(join(written, 'big')).size, 1 << 20);
      if (changes.kind === 'upper') {
        assert.ok(fs.lstatSync(join(written, 'was-file')).isCharacterDevice());
        assert.ok(changes.lowers.some((lower) => fs.existsSync(join(lower, 'was-file'))));
      } else {
        assert.ok(!fs.existsSync(join(written, 'was-file')));
        assert.ok(fs.existsSync(join(changes.lower ?? '', 'was-file')));
      }
      const differences = new Map((await c.driver.diff(request)).map(({ kind, path }) => [path, kind]));
      assert.deepEqual([differences.get('/big'), differences.get('/was-file'), differences.get('/etc/passwd')], ['A', 'D', undefined]);
    },
  },
  {
    name: 'a removed snapshot leaves nothing, whatever was in it',
    needs: ['mounts', 'owners'],
    async run(c) {
      const chainID = await c.layer('base', base);
      const warm = await c.snapshot({ key: 'warm', lower: { chainID } });
      await c.read(warm);
      await applyOnCommit(c.bench, c.driver.removeSnapshot(warm.key));
      const before = c.tree();
      const request = await c.snapshot({ key: 'k', lower: { chainID } });
      const FS_IMMUTABLE_FL = 0x10;
      await c.inside(request, [write('/locked', 'x'), op.mkdir({ root: 'root', path: '/a/b/c', mode: 0, parents: 1 }), op.setFileFlags({ root: 'root', path: '/locked', set: FS_IMMUTABLE_FL }, { optional: true })]);
      await applyOnCommit(c.bench, c.driver.removeSnapshot('k'));
      assert.deepEqual(c.tree(), before);
    },
  },
  {
    name: 'a host folder is a lower that is never written',
    needs: ['mounts', 'owners', 'host-folder'],
    async run(c) {
      const host = join(c.bench.folder, 'host');
      fs.mkdirSync(join(host, 'sub'), { recursive: true });
      fs.writeFileSync(join(host, 'sub/file'), 'host');
      const before = listTree(host);
      const request = await c.snapshot({ key: 'k', lower: { folder: host } });
      await c.inside(request, [write('/sub/file', 'container'), write('/new', 'x'), op.unlink({ root: 'root', path: '/sub/file' })]);
      assert.deepEqual(listTree(host), before);
      assert.equal(fs.readFileSync(join(host, 'sub/file'), 'utf8'), 'host');
      const seen = await c.read(request);
      assert.ok(seen.has('new') && !seen.has('sub/file') && seen.has('sub'));
    },
  },
  {
    name: 'the machine\'s own root is a lower, although the snapshot lies inside it',
    needs: ['mounts', 'owners', 'host-folder'],
    async run(c) {
      const request = await c.snapshot({ key: 'k', lower: { folder: '/' } });
      await c.inside(request, [write('/etc/engine-suite-was-here', 'x')]);
      assert.ok(!fs.existsSync('/etc/engine-suite-was-here'));
      await c.inside(request, [op.unlink({ root: 'root', path: '/etc/engine-suite-was-here' })]);
    },
  },
  {
    name: 'a size holds',
    needs: ['mounts', 'owners', 'quota'],
    async run(c) {
      const chainID = await c.layer('base', [file('big', 'x'.repeat(4 << 20))]);
      const request = await c.snapshot({ key: 'k', lower: { chainID }, options: { size: '2m' } });
      const fill = (name: string, bytes: number) => [write(`/${name}`, 'y'.repeat(bytes)), op.syncFs({ path: c.bench.deps.folder })];
      await c.inside(request, fill('small', 64 << 10));
      await failsWith('ERR_OPERATION_FAILED', () => c.inside(request, Array.from({ length: 8 }, (_, i) => fill(`f${i}`, 1 << 20)).flat()), 'EDQUOT');
    },
  },
  {
    name: 'a volatile snapshot runs more than once',
    needs: ['mounts', 'owners', 'volatile'],
    async run(c) {
      const request = await c.snapshot({ key: 'k', lower: { chainID: await c.layer('base', base) }, options: { volatile: 'true' } });
      await c.inside(request, [write('/one', '1')]);
      await c.inside(request, [write('/two', '2')]);
      const seen = await c.read(request);
      assert.ok(seen.has('one') && seen.has('two'));
    },
  },
];
