import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, linkSync, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { op } from '@engine/core/plan';
import { build, canRun, entryStream, inFolder, readEntries, run, whileExchanging, withStream, type ReadEntry, type Result, type TestEntry } from './harness.ts';

const E = constants.errno;
const unpackInto = (path: string, entries: readonly TestEntry[], args: object = {}, end = true): Result =>
  withStream(entryStream(entries, end), (fd) => run([op.unpack({ path, stream: 'fd0', ...args })], { fds: [fd] }));
function pack(path: string, whiteouts = 0): ReadEntry[] {
  return inFolder((f) => {
    const fd = openSync(join(f, 'out'), 'w');
    const result = run([op.pack({ path, stream: 'fd0', whiteouts })], { fds: [fd] });
    closeSync(fd);
    expect(result.failures).toEqual([]);
    return readEntries(readFileSync(join(f, 'out')));
  });
}
const xattr = (path: string, name: string): string =>
  execFileSync('python3', ['-c', `import os,sys\ntry: print(os.getxattr(sys.argv[1],sys.argv[2],follow_symlinks=False).decode('latin1'),end='')\nexcept OSError as e: print(e.errno,end='')`, path, name], { encoding: 'utf8' });

describe.skipIf(!canRun)('unpack', () => {
  beforeAll(() => void build('interpret'), 120_000);

  it('makes every kind of entry with owner, mode, ns time, xattrs and holes', () => inFolder((f) => {
    const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
    expect(unpackInto(f, [
      { kind: 'folder', path: 'd', mode: 0o2750, uid: 1, gid: 2, mtime: 1_000_000_000_000_000_001n },
      { kind: 'file', path: 'd/suid', mode: 0o4755, uid: 33, gid: 44, mtime: -5n, data: ['abc', 4096, 'def'], xattrs: { 'security.capability': capability, 'user.x': 'y'.repeat(2000), 'trusted.overlay.redirect': '/etc' } },
      { kind: 'file', path: 'd/empty' },
      { kind: 'file', path: 'tail', data: ['x', 1 << 20] },
      { kind: 'symlink', path: 'd/s', target: '/etc/passwd', uid: 7, mtime: 3_000_000_003n },
      { kind: 'hardlink', path: 'hard', target: 'd/suid' },
      { kind: 'character', path: 'null', mode: 0o666, major: 1, minor: 3 }, { kind: 'block', path: 'loop', mode: 0o660, major: 7, minor: 300 }, { kind: 'fifo', path: 'fifo', mode: 0o622 },
      { kind: 'file', path: 'implicit/parents/file', data: ['x'] },
      { kind: 'folder', path: '.', mode: 0o711, mtime: 42n },
    ]).failures).toEqual([]);
    expect(statSync(`${f}/d`, { bigint: true })).toMatchObject({ mode: 0o042750n, uid: 1n, gid: 2n, mtimeNs: 1_000_000_000_000_000_001n });
    expect(statSync(`${f}/d/suid`, { bigint: true })).toMatchObject({ mode: 0o104755n, uid: 33n, gid: 44n, mtimeNs: -5n, nlink: 2n, size: 4102n });
    expect(readFileSync(`${f}/d/suid`).toString('latin1')).toBe(`abc${'\0'.repeat(4096)}def`);
    expect(statSync(`${f}/tail`).size).toBe((1 << 20) + 1);
    expect(lstatSync(`${f}/d/s`, { bigint: true })).toMatchObject({ uid: 7n, mtimeNs: 3_000_000_003n });
    expect([statSync(`${f}/null`).rdev, statSync(`${f}/null`).mode & 0o777, lstatSync(`${f}/fifo`).isFIFO(), lstatSync(`${f}/loop`).isBlockDevice()]).toEqual([0x103, 0o666, true, true]);
    expect(statSync(`${f}/implicit/parents`).mode & 0o777).toBe(0o755);
    expect(statSync(f, { bigint: true })).toMatchObject({ mode: 0o040711n, mtimeNs: 42n });
    expect([xattr(`${f}/d/suid`, 'security.capability'), xattr(`${f}/d/suid`, 'user.x').length, xattr(`${f}/d/suid`, 'trusted.overlay.redirect')]).toEqual([capability.toString('latin1'), 2000, '61']);
  }));

  it.each<[string, TestEntry, number]>([
    ['..', { kind: 'file', path: '../evil' }, E.EINVAL],
    ['.. inside', { kind: 'file', path: 'a/../../evil' }, E.EINVAL],
    ['an absolute path', { kind: 'file', path: '/evil' }, E.EINVAL],
    ['an empty part', { kind: 'file', path: 'a//b' }, E.EINVAL],
    ['an empty path', { kind: 'file', path: '' }, E.EINVAL],
    ['.', { kind: 'file', path: '.' }, E.EINVAL],
    ['a NUL byte', { kind: 'file', path: 'a\0b' }, E.EINVAL],
    ['a path too deep', { kind: 'file', path: 'd/'.repeat(300) + 'x' }, E.ENAMETOOLONG],
    ['a path too long', { kind: 'file', path: 'x'.repeat(200) + ('/' + 'x'.repeat(200)).repeat(30) }, E.ENAMETOOLONG],
    ['a hardlink to ..', { kind: 'hardlink', path: 'x', target: '../../etc/passwd' }, E.EINVAL],
    ['an absolute hardlink', { kind: 'hardlink', path: 'x', target: '/etc/passwd' }, E.EINVAL],
    ['a whiteout outside', { kind: 'whiteout', path: '../x' }, E.EINVAL],
    ['an owner that wraps to -1', { kind: 'file', path: 'x', uid: 0xffffffff }, E.ERANGE],
  ])('tar attacks: refuses %s, by the name of the entry', (_, entry, errno) => inFolder((f) => {
    mkdirSync(`${f}/in`);
    const result = unpackInto(`${f}/in`, [entry]);
    expect(result.result).toBe(errno);
    expect(result.failures[0]?.detail).toContain(entry.path?.split('\0')[0]?.slice(0, 50));
    expect([readdirSync(f), readdirSync(`${f}/in`)]).toEqual([['in'], []]);
  }));

  it('tar attacks: links in the stream never lead out', () => inFolder((f) => {
    mkdirSync(`${f}/in`);
    mkdirSync(`${f}/out`);
    writeFileSync(`${f}/out/secret`, 'secret');
    for (const target of [`${f}/out`, '../out', '/../../../../out', `../../../../../../../../${f}/out`]) {
      for (const attack of [
        [{ kind: 'file', path: 'l/evil', data: ['x'] }], [{ kind: 'folder', path: 'l/sub' }], [{ kind: 'symlink', path: 'l/s', target: 'x' }],
        [{ kind: 'hardlink', path: 'stolen', target: 'l/secret' }], [{ kind: 'whiteout', path: 'l/secret' }], [{ kind: 'opaque', path: 'l' }],
        [{ kind: 'folder', path: 'l/./..' }], [{ kind: 'file', path: 'l/a/b/c', data: ['x'] }],
      ] satisfies TestEntry[][])
        unpackInto(`${f}/in`, [{ kind: 'symlink', path: 'l', target }, ...attack]);
      expect(readdirSync(`${f}/out`)).toEqual(['secret']);
      expect(existsSync(`${f}/in/stolen`)).toBe(false);
      execFileSync('rm', ['-rf', `${f}/in`]);
      mkdirSync(`${f}/in`);
    }
    // through the last component: the link itself is replaced
    expect(unpackInto(`${f}/in`, [{ kind: 'symlink', path: 'l', target: `${f}/out/secret` }, { kind: 'file', path: 'l', data: ['new'], mode: 0o777 }]).result).toBe(0);
    expect([readFileSync(`${f}/out/secret`, 'utf8'), readFileSync(`${f}/in/l`, 'utf8')]).toEqual(['secret', 'new']);
    expect(unpackInto(`${f}/in`, [{ kind: 'symlink', path: 'h', target: `${f}/out/secret` }, { kind: 'hardlink', path: 'i', target: 'h' }, { kind: 'file', path: 'i', data: ['x'] }]).result).toBe(0);
    expect(readFileSync(`${f}/out/secret`, 'utf8')).toBe('secret');
  }));

  it('CVE-2025-47290: a race that exchanges a parent for a link wins nothing', { timeout: 60_000 }, () => inFolder((f) => {
    mkdirSync(`${f}/in/p`, { recursive: true });
    mkdirSync(`${f}/out`);
    whileExchanging(`${f}/in`, 'p', 'q', `${f}/out`, () => {
      const entries = Array.from({ length: 1500 }, (_, i): TestEntry => (i % 2 ? { kind: 'file', path: `p/a${i}`, data: ['x'] } : { kind: 'file', path: `o${i}` }));
      for (let round = 0; round < 3; round++) unpackInto(`${f}/in`, entries);
    });
    expect(readdirSync(`${f}/out`)).toEqual([]);
  }));

  it('CVE-2023-25153: keeps to the bounds on bytes and entries', () => inFolder((f) => {
    const files = [{ kind: 'file', path: 'a', data: ['12345'] }, { kind: 'file', path: 'b', data: ['67890'] }] satisfies TestEntry[];
    expect(unpackInto(f, files, { maxBytes: 10n, maxEntries: 2 }).result).toBe(0);
    expect(unpackInto(f, files, { maxBytes: 9n }).result).toBe(E.EFBIG);
    expect(unpackInto(f, files, { maxEntries: 1 }).result).toBe(E.EFBIG);
    expect(unpackInto(f, [{ kind: 'file', path: 'x', size: 3, data: ['1234'] }]).result).toBe(E.EBADMSG);
    expect(unpackInto(f, [{ kind: 'file', path: 'x', size: 2 ** 40, data: [2 ** 41] }]).result).toBe(E.EBADMSG);
    expect(unpackInto(f, [{ kind: 'file', path: 'x', size: 5, data: ['12'] }]).result).toBe(E.EBADMSG);
    expect(unpackInto(f, [{ kind: 'folder', path: 'x' }], {}, false).result).toBe(E.EPIPE);
  }));

  it('replaces entries of other types as layers do', () => inFolder((f) => {
    mkdirSync(`${f}/folder/sub`, { recursive: true });
    writeFileSync(`${f}/folder/sub/file`, '');
    symlinkSync('folder', `${f}/link`);
    writeFileSync(`${f}/file`, 'old');
    linkSync(`${f}/file`, `${f}/other`);
    mkdirSync(`${f}/kept`);
    writeFileSync(`${f}/kept/inside`, '');
    expect(unpackInto(f, [
      { kind: 'file', path: 'folder', data: ['file now'] }, { kind: 'folder', path: 'link' }, { kind: 'file', path: 'file', data: ['new'] },
      { kind: 'folder', path: 'kept', mode: 0o700 }, { kind: 'symlink', path: 'kept/inside', target: 'x' }, { kind: 'hardlink', path: 'other', target: 'file' }, { kind: 'hardlink', path: 'other', target: 'file' },
    ]).failures).toEqual([]);
    expect([readFileSync(`${f}/folder`, 'utf8'), lstatSync(`${f}/link`).isDirectory(), readFileSync(`${f}/other`, 'utf8'), readlinkSync(`${f}/kept/inside`)]).toEqual(['file now', true, 'new', 'x']);
  }));

  it('whiteouts on a full tree hide what was below, not what the layer brings', () => inFolder((f) => {
    execFileSync('sh', ['-c', `cd ${f} && mkdir -p a/old b/deep/er c && touch a/file a/old/x b/deep/er/y b/z c/gone c/stays`]);
    expect(unpackInto(f, [
      { kind: 'folder', path: 'a' }, { kind: 'file', path: 'a/new' }, { kind: 'opaque', path: 'a' },
      { kind: 'file', path: 'b/deep/mine' }, { kind: 'whiteout', path: 'b' },
      { kind: 'whiteout', path: 'c/gone' }, { kind: 'whiteout', path: 'c/never' }, { kind: 'whiteout', path: 'nowhere/x' }, { kind: 'file', path: 'fresh' }, { kind: 'whiteout', path: 'fresh' },
    ]).failures).toEqual([]);
    expect([readdirSync(`${f}/a`), readdirSync(`${f}/b`), readdirSync(`${f}/b/deep`), readdirSync(`${f}/c`), existsSync(`${f}/fresh`)]).toEqual([['new'], ['deep'], ['mine'], ['stays'], true]);
  }));

  it('writes overlay whiteouts and reads them back', () => inFolder((f) => {
    mkdirSync(`${f}/l`);
    const entries: TestEntry[] = [
      { kind: 'folder', path: 'a', mode: 0o700 }, { kind: 'whiteout', path: 'a/gone' }, { kind: 'opaque', path: 'b' }, { kind: 'whiteout', path: 'c' }, { kind: 'folder', path: 'c' },
      { kind: 'folder', path: 'd' }, { kind: 'whiteout', path: 'd' }, { kind: 'file', path: 'e' }, { kind: 'whiteout', path: 'e' },
    ];
    expect(unpackInto(`${f}/l`, entries, { whiteouts: 1 }).failures).toEqual([]);
    expect(lstatSync(`${f}/l/a/gone`)).toMatchObject({ rdev: 0 });
    expect(['b', 'c', 'd'].map((name) => xattr(`${f}/l/${name}`, 'trusted.overlay.opaque'))).toEqual(['y', 'y', 'y']);
    expect(lstatSync(`${f}/l/e`).isFile()).toBe(true);
    expect(pack(`${f}/l`, 1).map((e) => `${e.kind} ${e.path}`)).toEqual(['folder a', 'whiteout a/gone', 'folder b', 'opaque b', 'folder c', 'opaque c', 'folder d', 'opaque d', 'file e']);
  }));

  it('pack and unpack give the same tree back', () => inFolder((f) => {
    mkdirSync(`${f}/from/d`, { recursive: true });
    mkdirSync(`${f}/to`);
    writeFileSync(`${f}/from/d/file`, 'x'.repeat(100_000));
    linkSync(`${f}/from/d/file`, `${f}/from/e-hard`);
    symlinkSync('nowhere', `${f}/from/s`);
    writeFileSync(`${f}/from/sparse`, 'start');
    truncateSync(`${f}/from/sparse`, 1 << 22);
    const fd = openSync(`${f}/from/sparse`, 'r+');
    writeSync(fd, 'end', (1 << 22) - 3);
    closeSync(fd);
    execFileSync('python3', ['-c', `import os; os.setxattr('${f}/from/d/file','user.a',b'1'*3000); os.setxattr('${f}/from/s',b'trusted.s',b't',follow_symlinks=False)`]);
    execFileSync('mknod', [`${f}/from/node`, 'b', '7', '1']);
    const sent = pack(`${f}/from`);
    expect(sent.map((e) => `${e.kind} ${e.path}${e.target && ` -> ${e.target}`}`)).toEqual(['folder d', 'file d/file', 'hardlink e-hard -> d/file', 'block node', 'symlink s -> nowhere', 'file sparse']);
    expect(sent.at(-1)?.data).toMatch(/^start\0*\[\d+\]\0*end$/);
    const stream = openSync(`${f}/stream`, 'w+');
    expect(run([op.pack({ path: `${f}/from`, stream: 'fd0' })], { fds: [stream] }).result).toBe(0);
    closeSync(stream);
    expect(withStream(readFileSync(`${f}/stream`), (s) => run([op.unpack({ path: `${f}/to`, stream: 'fd0' })], { fds: [s] })).failures).toEqual([]);
    expect(pack(`${f}/to`)).toEqual(sent);
    expect(statSync(`${f}/to/sparse`).blocks).toBeLessThan(100);
  }));
});
