import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { op, type Operation } from '@engine/core/plan';
import { build, canRun, encode, inFolder, run, runBytes, whileExchanging, type Placed, type Result } from './harness.ts';

const E = constants.errno;
const env = ['PATH=/usr/bin:/bin:/usr/sbin:/sbin'];
const PRIVATE = 0x44000;
const NEW_NS = 0x20000n;
const NEW_USER = 0x10000000n;
const maps = { uidMap: '0 100000 65536\n', gidMap: '0 200000 65536\n' };
const shell = (script: string): string => execFileSync('sh', ['-ec', script], { encoding: 'utf8' });

/** Init in a mount namespace of its own: `before`, then a shell of the host's root. */
const init = (before: readonly Operation[], script: string): Result =>
  runBytes('shim', encode([
    ['shim.spawn', op.spawn({ flags: NEW_NS, pid: 'pid', pidfd: 'pidfd' })],
    ...[op.setPropagation({ path: '/', flags: PRIVATE }), ...before, op.pipes({}), op.resolveExec({ name: '/bin/sh', env, out: 'sh' }), op.exec({ program: 'sh', argv: ['sh', '-c', script], env })].map((o): Placed => ['init.exec', o]),
  ]), { fds: [2] });

const TREE = `
import json,os,sys
os.chdir(sys.argv[1]); out={}
def note(p):
  s=os.lstat(p); x={} if os.path.islink(p) else {k:os.getxattr(p,k).hex() for k in os.listxattr(p) if not k.startswith('trusted.')}
  out[p[2:] or '.']=[s.st_uid,s.st_gid,oct(s.st_mode&0o7777)[2:],x]
note('./')
for d,ds,fs in os.walk('.'):
  for n in ds+fs: note(os.path.join(d,n))
print(json.dumps(out))`;
type Seen = Readonly<Record<string, readonly [uid: number, gid: number, mode: string, xattrs: Readonly<Record<string, string>>]>>;
const seen = (folder: string): Seen => JSON.parse(execFileSync('python3', ['-c', TREE, folder], { encoding: 'utf8' })) as Seen;

/** vfs_cap_data of version 2 (cap_net_raw, effective); version 3 has the root's id behind it. */
const CAPABILITY_2 = '0100000200200000000000000000000000000000';
const CAPABILITY_3 = `0100000300200000000000000000000000000000${'a0860100'}`;
/** user::rw-, user:5:r--, group::r--, group:6:r--, mask::r--, other::--- */
const acl = (user: number, group: number): string => {
  const entry = (tag: number, perm: number, id: number): Buffer => {
    const b = Buffer.alloc(8);
    b.writeUInt16LE(tag);
    b.writeUInt16LE(perm, 2);
    b.writeUInt32LE(id, 4);
    return b;
  };
  const none = 0xffffffff;
  return Buffer.concat([Buffer.from([2, 0, 0, 0]), entry(1, 6, none), entry(2, 4, user), entry(4, 4, none), entry(8, 4, group), entry(16, 4, none), entry(32, 0, none)]).toString('hex');
};
const setXattr = (path: string, name: string, hex: string): void => void execFileSync('python3', ['-c', 'import os,sys; os.setxattr(sys.argv[1],sys.argv[2],bytes.fromhex(sys.argv[3]),follow_symlinks=False)', path, name, hex]);

/** A tree with everything that has an owner. */
function makeTree(t: string): void {
  shell(`mkdir -p ${t}/d/e; cd ${t}; echo x > f; echo s > suid; echo p > ping; echo a > acl; echo h > h1; ln h1 d/h2; ln -s /etc/passwd link; ln -s nowhere dangling; mkfifo fifo; mknod null c 1 3
    chown 1:2 f; chown 33:33 d; chown -h 7:8 link; chown 4:5 null h1; chmod 6755 suid; chmod 2755 d; chmod 1777 d/e`);
  setXattr(`${t}/ping`, 'security.capability', CAPABILITY_2);
  setXattr(`${t}/ping`, 'user.note', '00ff');
  setXattr(`${t}/acl`, 'system.posix_acl_access', acl(5, 6));
  setXattr(`${t}/d/e`, 'system.posix_acl_default', acl(9, 10));
}
const shift = (path: string, more: { back?: number; uidMap?: string; gidMap?: string } = {}): Result => run([op.shiftTree({ path, ...maps, ...more })]);

describe.skipIf(!canRun)('ids of a user namespace', () => {
  beforeAll(() => void build('interpret'), 120_000);

  it('a mount shows its files with other owners; nothing is changed on disk, no process and no fd is left', () => inFolder((f) => {
    shell(`mkdir ${f}/a ${f}/at; cd ${f}/a; touch zero one big; chown 1:2 one; chown 65536:0 big`);
    const done = init([
      op.makeUserNamespace({ ...maps, out: 'userns' }), op.openTree({ source: `${f}/a`, out: 't' }), op.idmapMount({ mount: 't', userns: 'userns' }), op.moveMount({ mount: 't', target: `${f}/at` }), op.close({ fd: 'userns' }), op.close({ fd: 't' }),
    ], `cd ${f}/at; stat -c '%n %u %g' *; ls /proc/self/fd | wc -l; touch ${f}/at/new 2>&1`);
    expect(done.failures).toEqual([]);
    expect(done.output).toMatch(new RegExp(`^big 65534 200000\none 100001 200002\nzero 100000 200000\n${init([], 'ls /proc/self/fd | wc -l').output}touch`));
    // whom the maps do not have can make nothing there
    expect(done.output).toMatch(/Value too large/);
    expect(shell(`stat -c '%n %u %g' ${f}/a/*`).replaceAll(`${f}/a/`, '')).toBe('big 65536 0\none 1 2\nzero 0 0\n');
  }));

  it('says what is wrong: maps, a mount that is idmapped already, a filesystem that cannot', () => inFolder((f) => {
    mkdirSync(`${f}/a`);
    for (const bad of ['', 'x\n', '0 0\n', '0 100000 10\n5 200000 10\n', `0 100000 ${2 ** 32}\n`, '0 0 0\n']) {
      expect(run([op.makeUserNamespace({ ...maps, uidMap: bad, out: 'u' })]).failures, bad).toMatchObject([{ errno: E.EINVAL, detail: expect.stringMatching(/^uid_map: /) }]);
    }
    expect(run([op.makeUserNamespace({ ...maps, gidMap: '0 1\n', out: 'u' })]).failures).toMatchObject([{ errno: E.EINVAL, detail: expect.stringMatching(/^gid_map: /) }]);
    const twice = [op.makeUserNamespace({ ...maps, out: 'u' }), op.openTree({ source: `${f}/a`, out: 't' }), op.idmapMount({ mount: 't', userns: 'u' })];
    expect(run([...twice, op.idmapMount({ mount: 't', userns: 'u' })]).failures).toMatchObject([{ index: 3, errno: E.EPERM, detail: expect.stringMatching(/already/) }]);
    expect(run([op.makeUserNamespace({ ...maps, out: 'u' }), op.procHandle({ out: 't' }), op.idmapMount({ mount: 't', userns: 'u' })]).failures).toMatchObject([{ index: 2, errno: E.EINVAL, detail: expect.stringMatching(/cannot show/) }]);
    expect(run([op.makeUserNamespace({ ...maps, out: 'u' }), op.open({ path: f, flags: 0o200000, out: 't' }), op.idmapMount({ mount: 't', userns: 'u' })]).failures).toMatchObject([{ index: 2, errno: E.EINVAL }]);
    expect(run([op.idmapMount({ mount: 'none', userns: 'none' })]).failures).toMatchObject([{ errno: E.EBADF }]);
  }));

  it('an overlay on idmapped layers works in the name of their root, and writes plain ids', () => inFolder((f) => {
    shell(`mkdir -p ${f}/s/low/dir ${f}/s/up ${f}/s/work ${f}/at; cd ${f}/s/low; echo f > f; echo g > g; echo x > dir/x; chown 5:6 f; chown 70000:0 dir`);
    const overlay = (named: readonly Operation[]): Operation[] => [
      op.makeUserNamespace({ ...maps, out: 'u' }), op.openTree({ source: `${f}/s`, out: 's' }), op.idmapMount({ mount: 's', userns: 'u' }), op.moveMount({ mount: 's', target: `${f}/s` }), ...named,
      op.overlayByMount({ base: `${f}/s`, scratch: `${f}/at`, lowers: ['low'], upper: 'up', work: 'work', options: ['index=off'], out: 'o' }),
      op.fileIds({}), op.unmount({ path: `${f}/s`, flags: 2 }), op.moveMount({ mount: 'o', target: `${f}/at` }),
    ];
    const script = `cd ${f}/at; stat -c '%n %u' * dir/x; exec setpriv --reuid 100000 --regid 200000 --clear-groups --inh-caps=-all sh -c 'echo new > new; echo changed >> f; rm g; echo $?' 2>&1`;
    expect(init(overlay([]), script).output).toMatch(/Read-only/);
    shell(`chown 100000:200000 ${f}/s/low`); // not yet anybody's: as root inside
    shell(`chown 0:0 ${f}/s/low; chmod 777 ${f}/s/up; chmod 666 ${f}/s/low/f`);
    const done = init(overlay([op.fileIds({ like: 's' })]), script);
    expect(done.failures).toEqual([]);
    expect(done.output).toMatch(/^dir 65534\nf 100005\ng 100000\ndir\/x 100000\n0\n/);
    expect(shell(`cd ${f}/s/up; stat -c '%n %u %g %F' f g new; cat f`)).toBe('f 5 6 regular file\ng 0 0 character special file\nnew 0 0 regular file\nf\nchanged\n');
    // maps without a root
    expect(run([op.makeUserNamespace({ ...maps, uidMap: '1 100001 10\n', out: 'u' }), op.openTree({ source: f, out: 's' }), op.idmapMount({ mount: 's', userns: 'u' }), op.fileIds({ like: 's' })]).failures)
      .toMatchObject([{ index: 3, errno: E.EOVERFLOW, detail: expect.stringMatching(/no root/) }]);
  }));

  it('file ids are given back: later files are root\'s, with all capabilities', () => inFolder((f) => {
    const done = run([
      op.mkdir({ path: `${f}/like`, mode: 0o700, uid: 100000, gid: 200000 }), op.open({ path: `${f}/like`, flags: 0o10200000, out: 'like' }), op.fileIds({ like: 'like' }), op.mkdir({ path: `${f}/inside`, mode: 0o755 }),
      op.fileIds({}), op.mkdir({ path: `${f}/outside`, mode: 0o755 }), op.mkdir({ path: `${f}/other`, mode: 0o755, uid: 3 }),
    ]);
    expect(done.failures).toEqual([]);
    expect(shell(`cd ${f}; stat -c '%n %u %g' inside outside other`)).toBe('inside 100000 200000\noutside 0 0\nother 3 0\n');
  }));
});

describe.skipIf(!canRun)('shiftTree', () => {
  beforeAll(() => void build('interpret'), 120_000);

  it('gives all to the ids of the maps; set-id bits, capabilities, access lists and links stay what they are', () => inFolder((f) => {
    makeTree(`${f}/t`);
    const before = seen(`${f}/t`);
    expect(shift(`${f}/t`).failures).toEqual([]);
    const after = seen(`${f}/t`);
    expect(Object.keys(after)).toEqual(Object.keys(before));
    for (const [path, [uid, gid, mode]] of Object.entries(before)) expect(after[path]?.slice(0, 3), path).toEqual([uid + 100000, gid + 200000, mode]);
    expect(after['ping']?.[3]).toEqual({ 'security.capability': CAPABILITY_3, 'user.note': '00ff' });
    expect(after['acl']?.[3]).toEqual({ 'system.posix_acl_access': acl(100005, 200006) });
    expect(after['d/e']?.[3]).toEqual({ 'system.posix_acl_default': acl(100009, 200010) });
    expect(shell(`stat -c %h ${f}/t/h1`)).toBe('2\n');
    expect(shell('stat -c %u /etc/passwd')).toBe('0\n');
    // again changes nothing, and back is what it was
    expect(shift(`${f}/t`).failures).toEqual([]);
    expect(seen(`${f}/t`)).toEqual(after);
    expect(shift(`${f}/t`, { back: 1 }).failures).toEqual([]);
    expect(seen(`${f}/t`)).toEqual(before);
    expect(shift(`${f}/t`, { back: 1 }).failures).toEqual([]);
    expect(seen(`${f}/t`)).toEqual(before);
  }));

  it('maps whose sides overlap: each file once, also one with several names', () => inFolder((f) => {
    shell(`mkdir ${f}/t; cd ${f}/t; for i in 0 1 2 3 4 5 6 7; do echo $i > a$i; ln a$i b$i; ln a$i c$i; chown $i:$i a$i; done`);
    expect(shift(`${f}/t`, { uidMap: '0 1 1000\n', gidMap: '0 2 4\n4 0 1\n5 6 3\n' }).failures).toEqual([]);
    expect(shell(`cd ${f}/t; stat -c '%u:%g' a? | tr '\\n' ' '`)).toBe('1:2 2:3 3:4 4:5 5:0 6:6 7:7 8:8 ');
  }));

  it('an id that the maps do not have is named, with its path; bad maps are refused', () => inFolder((f) => {
    shell(`mkdir -p ${f}/t/deep/er; touch ${f}/t/deep/er/file; chown 65536 ${f}/t/deep/er/file`);
    expect(shift(`${f}/t`).failures).toMatchObject([{ errno: E.ERANGE, detail: `${f}/t/deep/er/file belongs to user 65536, which the maps do not have` }]);
    shell(`chown 0:70000 ${f}/t/deep/er/file`);
    expect(shift(`${f}/t`).failures).toMatchObject([{ errno: E.ERANGE, detail: expect.stringMatching(/group 70000/) }]);
    for (const bad of ['', '0 0', '0 0 0\n', 'a b c\n', '0 1 2 3\n', '-1 0 1\n', `0 0 ${2 ** 32}\n`, '0 4294967295 1\n', '1 4294967294 2\n']) {
      expect(shift(`${f}/t`, { uidMap: bad }).failures, bad).toMatchObject([{ errno: E.EINVAL, detail: expect.stringMatching(/map of ids/) }]);
    }
    expect(shift(`${f}/none`).failures).toMatchObject([{ errno: E.ENOENT }]);
    expect(shift(`${f}/t/deep/er/file`).failures).toMatchObject([{ errno: E.ENOTDIR }]);
  }));

  it('never enters what is mounted in the tree, and is not led away by a link in its place', () => inFolder((f) => {
    shell(`mkdir -p ${f}/t/in ${f}/outside; touch ${f}/outside/file; ln -s ${f}/outside ${f}/t/away; ln -s ${f}/outside ${f}/link`);
    expect(init([op.openTree({ source: `${f}/outside`, out: 'o' }), op.moveMount({ mount: 'o', target: `${f}/t/in` }), op.shiftTree({ path: `${f}/t`, ...maps })], 'true').failures).toEqual([]);
    expect(shell(`stat -c %u ${f}/outside ${f}/outside/file ${f}/t`)).toBe('0\n0\n100000\n');
    expect(shift(`${f}/link`).failures).toMatchObject([{ errno: expect.any(Number) }]);
    expect(shell(`stat -c %u ${f}/outside/file`)).toBe('0\n');
  }));

  it('a race that exchanges a folder for a link wins nothing', { timeout: 60_000 }, () => inFolder((f) => {
    shell(`mkdir -p ${f}/t/a ${f}/outside; for i in $(seq 50); do touch ${f}/t/a/f$i ${f}/outside/f$i; done`);
    whileExchanging(`${f}/t`, 'a', 'b', `${f}/outside`, () => {
      for (let i = 0; i < 20; i++) shift(`${f}/t`, { back: i % 2 });
    });
    expect(shell(`find ${f}/outside ! -user 0`)).toBe('');
  }));

  it('hard links keep being one file through an overlay, whose lower layer is left alone', () => inFolder((f) => {
    shell(`mkdir -p ${f}/low/d ${f}/up ${f}/work ${f}/at ${f}/scratch; cd ${f}/low; echo one > a; ln a d/b; ln a c; chmod 4755 a; chown 3:3 d`);
    const done = init([
      op.overlayByMount({ base: f, scratch: `${f}/scratch`, lowers: ['low'], upper: 'up', work: 'work', options: ['index=on'], out: 'o' }), op.moveMount({ mount: 'o', target: `${f}/at` }), op.shiftTree({ path: `${f}/at`, ...maps }),
    ], `cd ${f}/at; stat -c '%n %u %a %h' a c d/b`);
    expect(done.failures).toEqual([]);
    expect(done.output).toBe('a 100000 4755 3\nc 100000 4755 3\nd/b 100000 4755 3\n');
    shell(`rm -rf ${f}/work/index`);
    expect(shell(`cd ${f}/up; stat -c '%n %u %a %h' a c d d/b; find ${f}/low ! -user 0 ! -user 3`)).toBe('a 100000 4755 3\nc 100000 4755 3\nd 100003 755 2\nd/b 100000 4755 3\n');
  }));

  it('a killed one is finished by the next, but for the set-id bits of the very file that it had in hand', { timeout: 60_000 }, async () => {
    const f = shell('mktemp -d').trim();
    try {
      shell(`mkdir ${f}/t; cd ${f}/t; for d in $(seq 100); do mkdir $d; (cd $d; seq 100 | xargs touch; chmod 4755 1; ln 1 l); done; chown -R 9:9 50`);
      const plan = join(f, 'plan');
      writeFileSync(plan, encode([['helper.main', op.shiftTree({ path: `${f}/t`, ...maps })]]));
      for (const after of [3, 8, 20]) {
        const child = spawn(build('interpret'), ['helper', plan], { stdio: 'ignore' });
        const ended = new Promise((resolve) => child.once('exit', resolve));
        await sleep(after);
        child.kill('SIGKILL');
        await ended;
      }
      expect(shift(`${f}/t`).failures).toEqual([]);
      expect(shell(`cd ${f}/t; find . ! -user 100000 ! -user 100009; find . -user 100009 | wc -l`)).toBe('102\n');
      const names = Number(shell(`cd ${f}/t; find . -perm 4755 -links 2 | wc -l`));
      expect(names).toBeGreaterThanOrEqual(194);
    } finally {
      shell(`rm -rf ${f}`);
    }
  });

  it('a tree a thousand folders deep, and names that are no text', () => inFolder((f) => {
    execFileSync('python3', ['-c', `
import os
os.mkdir('${f}/t'); os.chdir('${f}/t')
open(b'\\xff%s\\n','w').close()
for i in range(1000): os.mkdir('d'); os.chdir('d')
open('end','w').close()`]);
    expect(shift(`${f}/t`).failures).toEqual([]);
    expect(shell(`cd ${f}/t; find . ! -user 100000 | wc -l; find . -name end | wc -l`)).toBe('0\n1\n');
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(f);
  }));

  it('in a user namespace of its own nobody gives away what is not his', () => inFolder((f) => {
    shell(`mkdir ${f}/t; touch ${f}/t/file`);
    const done = runBytes('shim', encode([['shim.spawn', op.spawn({ flags: NEW_NS | NEW_USER, pid: 'pid', pidfd: 'pidfd' })], ['init.exec', op.shiftTree({ path: `${f}/t`, ...maps })]]));
    expect(done.failures.length + done.exit).not.toBe(0);
    expect(shell(`stat -c %u ${f}/t/file`)).toBe('0\n');
  }));
});
