import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodeEntries, tar, tarEntry, type PackedEntry, type TarFile } from '@engine/core/contracts/image/suite';
import { EntryWriter } from './entries.ts';
import { TarReader } from './tar/reader.ts';

/** Through reader and writer, in pieces of `step` bytes. */
function through(archive: Buffer, step = 1 << 20, maxEntries = 1000): ReadonlyMap<string, PackedEntry> {
  const writer = new EntryWriter();
  const reader = new TarReader(writer, { maxEntries });
  const parts: Buffer[] = [];
  for (let at = 0; at < archive.length; at += step) {
    reader.write(archive.subarray(at, at + step));
    // copied at once: what was handed out may not change afterwards
    parts.push(...writer.take());
  }
  reader.end();
  writer.end();
  return decodeEntries(Buffer.concat([...parts, ...writer.take()]));
}
const refuses = (file: TarFile | Buffer, code = 'ERR_TAR_ENTRY'): void => {
  expect(() => through(Buffer.isBuffer(file) ? file : tar([file]))).toThrow(expect.objectContaining({ code }));
};

describe('tar', () => {
  const everything = tar([
    { path: './', type: '5', mode: 0o755 },
    { path: 'bin/', type: '5', mode: 0o1777, uid: 3, gid: 4 },
    { path: './bin/su', content: 'x'.repeat(3000), mode: 0o4755, mtime: 1234567890 },
    { path: '/abs//./file', content: '' },
    { path: 'link', type: '2', link: '../../any/where' },
    { path: 'hard', type: '1', link: './bin/su' },
    { path: 'null', type: '3', major: 1, minor: 3, mode: 0o666 },
    { path: 'sda', type: '4', major: 8, minor: 0, format: 'gnu' },
    { path: 'fifo', type: '6' },
    { path: 'big id', uid: 3_000_000, gid: 4_294_967_294 },
    { path: 'pax', content: 'abc', pax: [['path', `${'d/'.repeat(100)}long`], ['mtime', '1700000000.123456789'], ['uid', '70000'], ['SCHILY.xattr.security.capability', Buffer.from([1, 0, 0, 2, 10, 61, 255])], ['SCHILY.xattr.user.x', 'a\nb=c']] },
    { path: 'old', pax: [['mtime', '-1.5']] },
    { path: `${'g'.repeat(120)}`, content: 'gnu', format: 'gnu' },
    { path: 'klink', type: '2', link: 'k'.repeat(150), format: 'gnu' },
    { path: 'new/.wh.gone' },
    { path: 'new/.wh..wh..opq' },
    { path: '.wh..wh.plnk/17.42', content: 'aufs' },
    { path: Buffer.from([0x66, 0xfc, 0x72]), content: 'latin1' },
    { path: 'folder-by-slash/', type: '0' },
  ]);
  const check = (entries: ReadonlyMap<string, PackedEntry>): void => {
    expect(entries.get('.')).toMatchObject({ kind: 'folder', mode: 0o755 });
    expect(entries.get('bin')).toMatchObject({ kind: 'folder', mode: 0o1777, uid: 3, gid: 4 });
    expect(entries.get('bin/su')).toMatchObject({ kind: 'file', mode: 0o4755, mtime: 1234567890_000000000n, size: 3000 });
    expect(entries.get('bin/su')?.content.toString()).toBe('x'.repeat(3000));
    expect(entries.get('abs/file')).toMatchObject({ kind: 'file', size: 0 });
    expect(entries.get('link')).toMatchObject({ kind: 'symlink', link: '../../any/where' });
    expect(entries.get('hard')).toMatchObject({ kind: 'hardlink', link: 'bin/su' });
    expect(entries.get('null')).toMatchObject({ kind: 'character', major: 1, minor: 3, mode: 0o666 });
    expect(entries.get('sda')).toMatchObject({ kind: 'block', major: 8, minor: 0 });
    expect(entries.get('fifo')?.kind).toBe('fifo');
    expect(entries.get('big id')).toMatchObject({ uid: 3_000_000, gid: 4_294_967_294 });
    const pax = entries.get(`${'d/'.repeat(100)}long`);
    expect(pax).toMatchObject({ mtime: 1700000000_123456789n, uid: 70000 });
    expect(pax?.xattrs['security.capability']).toEqual(Buffer.from([1, 0, 0, 2, 10, 61, 255]));
    expect(pax?.xattrs['user.x']?.toString()).toBe('a\nb=c');
    expect(entries.get('old')?.mtime).toBe(-1_500_000_000n);
    expect(entries.get('g'.repeat(120))?.content.toString()).toBe('gnu');
    expect(entries.get('klink')?.link).toBe('k'.repeat(150));
    expect(entries.get('new/gone')?.kind).toBe('whiteout');
    expect(entries.get('new/.opaque')?.kind).toBe('opaque');
    expect([...entries.keys()].some((path) => path.includes('plnk'))).toBe(false);
    expect(entries.get('folder-by-slash')?.kind).toBe('folder');
    expect(entries.size).toBe(18);
  };
  it.each([1 << 20, 4096, 512, 511, 7, 1])('is read in pieces of %i bytes', (step) => check(through(everything, step)));
  it('is what GNU tar writes', () => {
    const folder = mkdtempSync(join(tmpdir(), 'engine-tar-'));
    try {
      writeFileSync(join(folder, 'sparse'), 'begin');
      truncateSync(join(folder, 'sparse'), 3_000_000);
      writeFileSync(join(folder, 'sparse'), Buffer.concat([Buffer.from('begin'), Buffer.alloc(2_999_990), Buffer.from('end__')]));
      execFileSync('cp', ['--sparse=always', join(folder, 'sparse'), join(folder, 'holes')]);
      for (const format of [['--format=gnu'], ['--format=pax', '--sparse-version=1.0'], ['--format=pax', '--sparse-version=0.1'], ['--format=ustar']]) {
        const entries = through(execFileSync('tar', ['-C', folder, ...format, ...(format[0] === '--format=ustar' ? [] : ['-S']), '-cf', '-', '.'], { maxBuffer: 1 << 26 }), 1000);
        const holes = entries.get('holes');
        expect(holes?.content.equals(Buffer.concat([Buffer.from('begin'), Buffer.alloc(2_999_990), Buffer.from('end__')]))).toBe(true);
        if (format[0] !== '--format=ustar') expect(holes?.holes).toBeGreaterThan(2_000_000);
        expect(entries.get('.')?.kind).toBe('folder');
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
  it.each([
    ['..', { path: '../evil' }], ['.. inside', { path: 'a/../../evil' }], ['.. at the end', { path: 'a/..' }],
    ['a hard link out', { path: 'x', type: '1', link: '../../etc/passwd' }], ['a hard link to nothing', { path: 'x', type: '1', link: '' }],
    ['a symlink to nothing', { path: 'x', type: '2', link: '' }],
    ['too deep', { path: 'x', pax: [['path', 'd/'.repeat(300)]] }], ['too long', { path: 'x', pax: [['path', 'x/y'.repeat(1500)]] }], ['a too long part', { path: 'x', pax: [['path', 'x'.repeat(256)]] }],
    ['NUL in a PAX path', { path: 'x', pax: [['path', 'a\0b']] }], ['NUL in a link', { path: 'x', type: '2', link: 'x', pax: [['linkpath', 'a\0b']] }],
    ['a whiteout of the parent', { path: 'a/.wh...' }], ['a whiteout of itself', { path: '.wh..' }], ['a whiteout of nothing', { path: '.wh.' }],
    ['something below a whiteout', { path: '.wh.x/y' }], ['an unknown type', { path: 'x', type: 'V' }],
    ['a root that is a file', { path: './', type: '2', link: 'x' }], ['an owner out of range', { path: 'x', pax: [['uid', '4294967295']] }],
    ['a too long xattr', { path: 'x', pax: [['SCHILY.xattr.user.x', 'x'.repeat(70000)]] }],
  ] as [string, TarFile][])('refuses %s and names it', (_, file) => refuses(file));
  it('names the entry it refuses', () => {
    expect(() => through(tar([{ path: 'fine' }, { path: '../evil' }]))).toThrow(/"\.\.\/evil" is refused: its name contains "\.\."/);
  });
  it.each([
    ['a wrong checksum', tar([{ path: 'x', badChecksum: true }])], ['an end inside a file', tar([{ path: 'x', content: 'abc', size: 5000 }], { end: false }).subarray(0, 600)],
    ['an end inside a header', tar([{ path: 'x' }], { end: false }).subarray(0, 300)], ['a PAX record that is too long', tar([{ path: 'x', type: 'x', content: '99 path=x\n' }])],
    ['a PAX record without =', tar([{ path: 'x', type: 'x', content: '7 path\n' }])], ['a PAX time that is none', tar([{ path: 'x', pax: [['mtime', '1e9']] }])],
    ['a PAX size that is none', tar([{ path: 'x', pax: [['size', '-1']] }])], ['noise', Buffer.alloc(4096, 'noise')],
    ['a lone block of zeros', Buffer.concat([Buffer.alloc(512), tarEntry({ path: 'x' })])],
  ])('says that %s is damage', (_, archive) => refuses(archive, 'ERR_IMAGE_INVALID'));
  it('bounds extended headers and entries (CVE-2017-14992)', () => {
    refuses(tar([{ path: 'x', type: 'x', size: 2 ** 40, content: 'a' }]), 'ERR_IMAGE_LIMIT');
    refuses(tar([{ path: 'x', type: 'L', size: 2 ** 21, content: 'a' }]), 'ERR_IMAGE_LIMIT');
    expect(() => through(tar([{ path: 'a' }, { path: 'b' }, { path: 'c' }]), 512, 2)).toThrow(expect.objectContaining({ code: 'ERR_IMAGE_LIMIT' }));
  });
  it('takes an archive without its end, and an empty one', () => {
    expect(through(tar([{ path: 'x' }], { end: false })).size).toBe(1);
    expect(through(Buffer.alloc(1024)).size).toBe(0);
    expect(through(Buffer.alloc(0)).size).toBe(0);
  });
  it('never throws anything but its own errors, whatever bytes come', () => {
    let seed = 7;
    const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % n;
    for (let i = 0; i < 500; i++) {
      const bytes = Buffer.from(everything);
      for (let j = 0; j < 1 + random(8); j++) bytes[random(bytes.length)] = random(256);
      try {
        through(bytes, 1 + random(2000));
      } catch (error) {
        expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_(TAR_ENTRY|IMAGE_INVALID|IMAGE_LIMIT)$/) });
      }
    }
  });
});
