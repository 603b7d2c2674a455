import { execFileSync } from 'node:child_process';
import { chmodSync, linkSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { BITS, op } from '@engine/core/plan';
import { build, canRun, inFolder, run, withStream } from './harness.ts';

const E = constants.errno;
const O = { PATH: 0o10000000, DIRECTORY: 0o200000 };

describe.skipIf(!canRun)('file operations', () => {
  beforeAll(() => void build('interpret'), 120_000);

  it('make folders with an exact mode, parents only when asked', () => inFolder((f) => {
    expect(run([op.mkdir({ path: `${f}/a`, mode: 0o1777 }), op.mkdir({ path: `${f}/x/y/z`, mode: 0o700, uid: 5, gid: 6, parents: 1 })]).result).toBe(0);
    expect(statSync(`${f}/a`).mode & 0o7777).toBe(0o1777);
    expect([statSync(`${f}/x/y`).mode & 0o7777, statSync(`${f}/x/y/z`).mode & 0o7777, statSync(`${f}/x/y/z`).uid]).toEqual([0o755, 0o700, 5]);
    const again = run([op.mkdir({ path: `${f}/new`, mode: 0o700 }), op.mkdir({ path: `${f}/a`, mode: 0o700 })]);
    expect(again.failures).toMatchObject([{ index: 1, errno: E.EEXIST }]);
    expect(run([op.mkdir({ path: `${f}/a`, mode: 0o700 }, { okExists: true })]).result).toBe(0);
    expect(run([op.mkdir({ path: `${f}/no/b`, mode: 0o700 })]).result).toBe(E.ENOENT);
    expect(run([op.mkdir({ path: 'relative', mode: 0o700 })]).result).toBe(E.EINVAL);
  }));

  it('CVE-2024-45310: mkdir -p below a root follows links inside it and never out', () => inFolder((f) => {
    mkdirSync(`${f}/root/real`, { recursive: true });
    mkdirSync(`${f}/outside`);
    symlinkSync('/real', `${f}/root/absolute`);
    symlinkSync(`${f}/outside`, `${f}/root/out`);
    symlinkSync('../../../outside', `${f}/root/up`);
    symlinkSync('/else/there', `${f}/root/dangling`);
    symlinkSync('/loop2', `${f}/root/loop1`);
    symlinkSync('/loop1', `${f}/root/loop2`);
    const root = op.open({ path: `${f}/root`, flags: O.PATH | O.DIRECTORY, out: 'root' });
    const make = (path: string) => run([root, op.mkdir({ root: 'root', path, mode: 0o755, parents: 1 })]).result;
    expect([make('absolute/sub'), make('out/sub'), make('up/sub'), make('dangling/sub'), make('/../../x')]).toEqual([0, 0, 0, 0, 0]);
    expect(make('nothing/../../y')).toBe(E.EINVAL);
    expect(make('loop1/x')).toBe(E.ELOOP);
    expect(readdirSync(`${f}/outside`)).toEqual([]);
    expect(readdirSync(`${f}/root/real`)).toEqual(['sub']);
    expect(statSync(`${f}/root/else/there/sub`).isDirectory()).toBe(true);
    expect(statSync(`${f}/root/${f}/outside/sub`).isDirectory()).toBe(true);
    expect(statSync(`${f}/root/x`).isDirectory()).toBe(true);
  }));

  it('write files: create, exclusive, truncate, append, atomic', () => inFolder((f) => {
    const W = BITS.WRITE;
    const data = (s: string) => Buffer.from(s);
    expect(run([
      op.writeFile({ path: `${f}/a`, data: data('hello'), mode: 0o640, how: W.create, uid: 3, gid: 4 }),
      op.writeFile({ path: `${f}/a`, data: data('J'), how: 0 }),
      op.writeFile({ path: `${f}/a`, data: data('!'), how: W.append }),
      op.writeFile({ path: `${f}/b`, data: data('long text'), how: W.create }),
      op.writeFile({ path: `${f}/b`, data: data('b'), how: W.create | W.truncate }),
      op.writeFile({ path: `${f}/c`, data: data('c'), mode: 0o600, how: W.atomic }),
    ]).failures).toEqual([]);
    expect([readFileSync(`${f}/a`, 'utf8'), readFileSync(`${f}/b`, 'utf8'), readFileSync(`${f}/c`, 'utf8')]).toEqual(['Jello!', 'b', 'c']);
    expect([statSync(`${f}/a`).mode & 0o7777, statSync(`${f}/a`).uid, statSync(`${f}/c`).mode & 0o7777]).toEqual([0o640, 3, 0o600]);
    expect(run([op.writeFile({ path: `${f}/a`, data: data('x'), how: W.create | W.exclusive })]).result).toBe(E.EEXIST);
    expect(run([op.writeFile({ path: `${f}/c`, data: data('x'), how: W.atomic | W.exclusive })]).result).toBe(E.EEXIST);
    expect(run([op.writeFile({ path: `${f}/missing`, data: data('x') })]).result).toBe(E.ENOENT);
    expect(readdirSync(f).filter((name) => name.startsWith('.engine'))).toEqual([]);
  }));

  it('write only regular files below a root, through links inside it', () => inFolder((f) => {
    mkdirSync(`${f}/root/etc`, { recursive: true });
    writeFileSync(`${f}/host`, 'host');
    symlinkSync(`${f}/host`, `${f}/root/etc/hosts`);
    execFileSync('mkfifo', [`${f}/root/fifo`]);
    execFileSync('mknod', [`${f}/root/null`, 'c', '1', '3']);
    const root = op.open({ path: `${f}/root`, flags: O.PATH | O.DIRECTORY, out: 'root' });
    const write = (path: string) => run([root, op.writeFile({ root: 'root', path, data: Buffer.from('x'), how: BITS.WRITE.create })]).result;
    expect(write('/etc/hosts')).toBe(E.ENOENT); // its target's folder is not inside
    expect([write('/fifo'), write('/null')]).toEqual([E.ENXIO, E.ENXIO]);
    expect(readFileSync(`${f}/host`, 'utf8')).toBe('host');
  }));

  it('change last components without following them', () => inFolder((f) => {
    mkdirSync(`${f}/root`);
    writeFileSync(`${f}/host`, 'host', { mode: 0o600 });
    symlinkSync(`${f}/host`, `${f}/root/l`);
    const root = op.open({ path: `${f}/root`, flags: O.PATH | O.DIRECTORY, out: 'root' });
    expect(run([root, op.setAttributes({ root: 'root', path: 'l', what: BITS.ATTR.owner | BITS.ATTR.mtime, uid: 7, gid: 8, mtime: 5_000_000_007n })]).result).toBe(0);
    expect(run([root, op.setAttributes({ root: 'root', path: 'l', what: BITS.ATTR.mode, mode: 0o777 })]).result).toBe(E.EOPNOTSUPP);
    expect(lstatSync(`${f}/root/l`, { bigint: true })).toMatchObject({ uid: 7n, gid: 8n, mtimeNs: 5_000_000_007n });
    expect(statSync(`${f}/host`).mode & 0o777).toBe(0o600);
    expect(run([root, op.link({ root: 'root', path: 'hard', target: 'l' }), op.unlink({ root: 'root', path: 'l' })]).result).toBe(0);
    expect(readlinkSync(`${f}/root/hard`)).toBe(`${f}/host`);
    expect(run([root, op.symlink({ root: 'root', path: 's', target: '../x' }), op.mknod({ root: 'root', path: 'n', mode: 0o020666, major: 1, minor: 5, uid: 1 }), op.setXattr({ root: 'root', path: 'n', name: 'trusted.t', value: Buffer.from('v') })]).failures).toEqual([]);
    expect(statSync(`${f}/root/n`)).toMatchObject({ mode: 0o020666, uid: 1, rdev: 0x105 });
    expect(run([root, op.unlink({ root: 'root', path: '/..' })]).result).toBe(E.EINVAL);
    expect(run([op.unlink({ path: `${f}/none` }, { okMissing: true }), op.rmdir({ path: `${f}/none` }, { optional: true }), op.rename({ from: `${f}/host`, to: `${f}/guest` })])).toMatchObject({ result: 0, warnings: [{ index: 1, errno: E.ENOENT }] });
    expect(run([op.open({ path: f, flags: O.PATH, magic: 0x9fa0, out: 'x' })]).result).toBe(E.EXDEV);
  }));

  it('remove trees: deep ones, immutable files, links not followed', () => inFolder((f) => {
    mkdirSync(`${f}/t/a/b`, { recursive: true });
    mkdirSync(`${f}/keep`);
    writeFileSync(`${f}/keep/file`, '');
    symlinkSync(`${f}/keep`, `${f}/t/a/link`);
    writeFileSync(`${f}/t/a/b/file`, '');
    execFileSync('python3', ['-c', `import os\nos.chdir('${f}/t')\nfor i in range(1500):\n os.mkdir('d'); os.chdir('d')\n if i%100==0: open('f','w')`]);
    try {
      execFileSync('chattr', ['+i', `${f}/t/a/b/file`], { stdio: 'ignore' });
    } catch {
      // a filesystem without flags
    }
    expect(run([op.removeTree({ path: `${f}/t` }), op.removeTree({ path: `${f}/missing/too` })]).failures).toEqual([]);
    expect(readdirSync(f)).toEqual(['keep']);
    expect(readdirSync(`${f}/keep`)).toEqual(['file']);
    const root = op.open({ path: f, flags: O.PATH | O.DIRECTORY, out: 'root' });
    symlinkSync('/keep', `${f}/l`);
    expect(run([root, op.removeTree({ root: 'root', path: 'l' })]).result).toBe(0);
    expect(readdirSync(f)).toEqual(['keep']);
  }));

  it('never remove across a mount', () => inFolder((f) => {
    mkdirSync(`${f}/t/m`, { recursive: true });
    mkdirSync(`${f}/source`);
    writeFileSync(`${f}/source/file`, '');
    const result = run([
      op.openTree({ source: `${f}/source`, out: 'bind' }), op.moveMount({ mount: 'bind', target: `${f}/t/m` }), op.removeTree({ path: `${f}/t` }),
    ], { private: true });
    expect(result.failures).toMatchObject([{ index: 2 }]);
    expect([E.EBUSY, E.EXDEV]).toContain(result.result);
    expect(readdirSync(`${f}/source`)).toEqual(['file']);
  }));

  it('copy trees with owners, modes, times, links, holes, xattrs and nodes', () => inFolder((f) => {
    mkdirSync(`${f}/from/d`, { recursive: true });
    mkdirSync(`${f}/to`);
    writeFileSync(`${f}/from/d/file`, 'text');
    linkSync(`${f}/from/d/file`, `${f}/from/hard`);
    symlinkSync('d/file', `${f}/from/sym`);
    writeFileSync(`${f}/from/sparse`, 'start');
    truncateSync(`${f}/from/sparse`, 8 << 20);
    execFileSync('mknod', [`${f}/from/node`, 'c', '1', '7']);
    execFileSync('chown', ['-h', '12:34', `${f}/from/sym`, `${f}/from/d/file`]);
    chmodSync(`${f}/from/d/file`, 0o4755);
    execFileSync('python3', ['-c', `import os; os.setxattr('${f}/from/d','user.k',b'v'); os.setxattr('${f}/from/sym',b'trusted.k',b'w',follow_symlinks=False); os.setxattr('${f}/from/d','trusted.overlay.opaque',b'y')`]);
    utimesSync(`${f}/from/d`, 1000, 2000.25);
    expect(run([op.copyTree({ from: `${f}/from`, to: `${f}/to` })]).failures).toEqual([]);
    expect(statSync(`${f}/to/d/file`)).toMatchObject({ uid: 12, gid: 34, mode: 0o104755, nlink: 2 });
    expect(statSync(`${f}/to/hard`).ino).toBe(statSync(`${f}/to/d/file`).ino);
    expect(readlinkSync(`${f}/to/sym`)).toBe('d/file');
    expect(lstatSync(`${f}/to/sym`).uid).toBe(12);
    expect(statSync(`${f}/to/sparse`)).toMatchObject({ size: 8 << 20 });
    expect(statSync(`${f}/to/sparse`).blocks).toBeLessThan(1000);
    expect(statSync(`${f}/to/node`).rdev).toBe(0x107);
    expect(statSync(`${f}/to/d`).mtimeMs).toBe(2_000_250);
    expect(execFileSync('python3', ['-c', `import os; print(os.listxattr('${f}/to/d'), os.getxattr('${f}/to/sym',b'trusted.k',follow_symlinks=False))`], { encoding: 'utf8' })).toBe("['user.k'] b'w'\n");
  }));

  it('CVE-2022-23648: copy-up resolves inside the rootfs, and fills only an empty volume', () => inFolder((f) => {
    mkdirSync(`${f}/root/data`, { recursive: true });
    mkdirSync(`${f}/secret`);
    mkdirSync(`${f}/volume`);
    writeFileSync(`${f}/secret/key`, '');
    writeFileSync(`${f}/root/data/file`, '');
    chmodSync(`${f}/root/data`, 0o1770);
    execFileSync('chown', ['9:9', `${f}/root/data`]);
    symlinkSync(`${f}/secret`, `${f}/root/evil`);
    symlinkSync('../../secret', `${f}/root/evil2`);
    const root = op.open({ path: `${f}/root`, flags: O.PATH | O.DIRECTORY, out: 'root' });
    const up = (from: string) => run([root, op.copyUp({ fromRoot: 'root', from, to: `${f}/volume` })]).result;
    expect([up('evil'), up('evil2'), up('/nothing')]).toEqual([0, 0, 0]);
    expect(readdirSync(`${f}/volume`)).toEqual([]);
    expect(up('/data')).toBe(0);
    expect(readdirSync(`${f}/volume`)).toEqual(['file']);
    expect(statSync(`${f}/volume`)).toMatchObject({ uid: 9, mode: 0o041770 });
    writeFileSync(`${f}/root/data/second`, '');
    expect(up('/data')).toBe(0);
    expect(readdirSync(`${f}/volume`)).toEqual(['file']);
  }));

  it('write streams of an exact or a limited length', () => inFolder((f) => withStream(Buffer.from('0123456789'), (fd) => {
    const write = (args: object) => run([op.writeStream({ path: join(f, 'out'), stream: 'fd0', mode: 0o444, ...args }), op.unlink({ path: `${f}/out` })], { fds: [fd] }).result;
    const [whole] = [run([op.writeStream({ path: `${f}/whole`, stream: 'fd0', offset: 2n, length: 5n, mode: 0o444 })], { fds: [fd] })];
    expect(whole.failures).toEqual([]);
    expect([readFileSync(`${f}/whole`, 'utf8'), statSync(`${f}/whole`).mode & 0o777]).toEqual(['23456', 0o444]);
    expect([write({}), write({ limit: 10n }), write({ limit: 9n }), write({ length: 11n })]).toEqual([0, 0, E.EFBIG, E.EPIPE]);
    expect(readdirSync(f)).toEqual(['whole']);
  })));
});
