import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { beforeAll, describe, expect, it } from 'vitest';
import { BITS, encodePlan, op, type Operation } from '@engine/core/plan';
import { build, canRun, encode, inFolder, origin, run, runBytes, type Result } from './harness.ts';

const E = constants.errno;
const passwd = [
  '# comment', '', 'root:x:0:0:root:/root:/bin/sh', 'www-data:x:33:33:www:/var/www:/usr/sbin/nologin', 'over:x:4294967296:0::/over:', 'minus:x:-1:0::/:', 'hex:x:0x10:0::/:', 'empty:x::0::/:',
  'none:x:4294967295:1::/:', 'last:x:4294967294:4294967294::/last:', 'short:x:7', 'app:x:1000:1000::/home/app:', 'app2:x:1000:1001::/home/second:', '123:x:5:5::/digits:', 'homeless:x:70:70:::',
].join('\n');
const group = ['root:x:0:', 'www-data:x:33:', 'adm:x:4:www-data,app', 'staff:x:50:app,www-data,app', 'long:x:4294967295:app', 'video:x:44:', 'nomembers:x:9'].join('\n');

/** Resolves below a rootfs with the given files and lets init show who it is. */
function resolve(f: string, user: string, extra: readonly string[] = []): { result: number; detail: string } {
  const done = run([op.open({ path: f, flags: 0o10200000, out: 'root' }), op.resolveUser({ root: 'root', user, extra, uid: 'u', gid: 'g', groups: 'gs' })]);
  return { result: done.result, detail: done.failures[0]?.detail ?? '' };
}
function become(f: string, user: string, extra: readonly string[] = [], caps = 0n, more: readonly Operation[] = [], shell = 'id -u; id -g; id -G; echo $HOME'): Result {
  const env = ['PATH=/bin:/usr/bin'];
  return runBytes('shim', encodePlan({
    steps: [
      ['shim.spawn', op.spawn({ flags: 0n, pid: 'pid', pidfd: 'pidfd' })] as const,
      ['init.exec', op.open({ path: f, flags: 0o10200000, out: 'root' })] as const,
      ['init.exec', op.resolveUser({ root: 'root', user, extra, uid: 'u', gid: 'g', groups: 'gs' })] as const,
      ['init.exec', op.pipes({})] as const, ...more.map((o) => ['init.exec', o] as const),
      ['init.exec', op.identity({ uid: 'u', gid: 'g', groups: 'gs', effective: caps, permitted: caps })] as const,
      ['init.exec', op.resolveExec({ name: 'sh', env, out: 'program' })] as const,
      ['init.exec', op.exec({ program: 'program', argv: ['sh', '-c', shell], env })] as const,
    ].map(([slot, operation]) => ({ slot, operation, undo: [], origin })),
  }), { fds: [2] });
}

describe.skipIf(!canRun)('resolveUser', () => {
  beforeAll(() => void build('interpret'), 120_000);
  const rootfs = <T>(body: (f: string) => T): T => inFolder((f) => {
    mkdirSync(`${f}/etc`);
    writeFileSync(`${f}/etc/passwd`, passwd);
    writeFileSync(`${f}/etc/group`, group);
    return body(f);
  });

  it.each<[string, readonly string[], string]>([
    ['', [], '0 0 0 /root'], ['root', [], '0 0 0 /root'], ['0', [], '0 0 0 /root'], ['www-data', [], '33 33 33,4,50 /var/www'], ['33', [], '33 33 33,4,50 /var/www'],
    ['app', [], '1000 1000 1000,4,50 /home/app'], ['1000', [], '1000 1000 1000,4,50 /home/app'], ['app:video', [], '1000 44 44 /home/app'], ['app:77', [], '1000 77 77 /home/app'],
    ['4242', [], '4242 0 0 /'], ['4242:4343', [], '4242 4343 4343 /'], [':adm', [], '0 4 4 /root'], ['last', [], '4294967294 4294967294 4294967294 /last'],
    // an entry whose name is a number never wins over the uid, nor lends a number its id
    ['123', [], '123 0 0 /'], ['homeless', [], '70 70 70 /'], ['root', ['adm', '99', 'adm'], '0 0 0,4,99 /root'], ['app2', [], '1000 1001 1001 /home/second'],
  ])('finds %j with %j as Docker does', (user, extra, want) => rootfs((f) => {
    const done = become(f, user, extra);
    expect(done.failures).toEqual([]);
    const [uid, gid, groups, home] = done.output.trim().split('\n');
    expect(`${uid} ${gid} ${groups?.replaceAll(' ', ',')} ${home}`).toBe(want);
  }));

  it.each<[string, readonly string[], number]>([
    ['nobody-here', [], E.ENOENT], ['root:nogroup', [], E.ENOENT], ['a:b:c', [], E.EINVAL], ['root ', [], E.EINVAL], [' 0', [], E.EINVAL], ['root\n', [], E.EINVAL], ['root,adm', [], E.EINVAL], [':', [], E.EINVAL],
    // CVE-2024-40635, CVE-2026-47262: nothing wraps round to 0
    ['4294967296', [], E.ERANGE], ['4294967295', [], E.ERANGE], ['18446744073709551616', [], E.ERANGE], ['0:4294967296', [], E.ERANGE], ['99999999999999999999999999', [], E.ERANGE],
    // CVE-2026-30892: no sloppy numbers
    ['-1', [], E.ENOENT], ['+0', [], E.ENOENT], ['0x0', [], E.ENOENT], ['1e3', [], E.ENOENT], ['0a', [], E.ENOENT], ['0:-1', [], E.ENOENT],
    ['over', [], E.ENOENT], ['minus', [], E.ENOENT], ['hex', [], E.ENOENT], ['empty', [], E.ENOENT], ['none', [], E.ENOENT], ['short', [], E.ENOENT], ['#', [], E.ENOENT],
    ['root', ['nosuch'], E.ENOENT], ['root', ['1:2'], E.EINVAL], ['root', [''], E.EINVAL], ['root', ['4294967295'], E.ERANGE],
  ])('refuses %j with %j', (user, extra, errno) => rootfs((f) => {
    expect(resolve(f, user, extra).result).toBe(errno);
  }));

  it('needs no files for numbers, and does not trust what stands in their place', () => inFolder((f) => {
    expect(resolve(f, '5:6').result).toBe(0);
    expect(resolve(f, 'root')).toEqual({ result: E.ENOENT, detail: 'no such user or group: root' });
    mkdirSync(`${f}/etc`);
    symlinkSync('/etc/passwd', `${f}/etc/passwd`);
    expect(resolve(f, 'root').result).toBe(E.ELOOP);
    execFileSync('sh', ['-c', `rm ${f}/etc/passwd; mkfifo ${f}/etc/passwd`]);
    expect(resolve(f, 'root').result).toBe(E.EINVAL);
    execFileSync('rm', [`${f}/etc/passwd`]);
    writeFileSync(`${f}/etc/passwd`, '');
    truncateSync(`${f}/etc/passwd`, 1 << 30);
    expect(resolve(f, 'root').result).toBe(E.EFBIG);
  }));

  it('CVE-2022-29162: sets exactly the capabilities asked for, inheritable none', () => rootfs((f) => {
    const show = 'grep -E "^(Cap|NoNewPrivs|Groups)" /proc/self/status';
    const caps = (user: string, set: bigint, more: readonly Operation[] = []): string[] => (become(f, user, [], set, more, show).output.match(/Cap\w+:\t\w+/g) ?? []).map((line) => line.replace(':\t', ' '));
    expect(caps('root', 0x21n, [op.capabilityBounds({ bounding: 0xffn })])).toEqual(['CapInh 0000000000000000', 'CapPrm 0000000000000021', 'CapEff 0000000000000021', 'CapBnd 00000000000000ff', 'CapAmb 0000000000000000'].map((l) => (/Prm|Eff/.test(l) ? l.replace('21', 'ff') : l)));
    expect(caps('app', 0x21n, [op.capabilityBounds({ bounding: 0x21n })])).toEqual(['CapInh 0000000000000000', 'CapPrm 0000000000000000', 'CapEff 0000000000000000', 'CapBnd 0000000000000021', 'CapAmb 0000000000000000']);
  }));

  it('rootOnly: capabilities only for uid 0', () => rootfs((f) => {
    const effective = (user: string): string | undefined => {
      const env = ['PATH=/bin:/usr/bin'];
      const steps = [
        op.open({ path: f, flags: 0o10200000, out: 'root' }), op.resolveUser({ root: 'root', user, uid: 'u', gid: 'g', groups: 'gs' }), op.pipes({}),
        op.identity({ uid: 'u', gid: 'g', groups: 'gs', effective: 1n, permitted: 1n, inheritable: 1n, ambient: 1n, rootOnly: 1 }), op.resolveExec({ name: 'cat', env, out: 'p' }), op.exec({ program: 'p', argv: ['cat', '/proc/self/status'], env }),
      ];
      return /CapEff:\t(\w+)/.exec(runBytes('shim', encode([['shim.spawn', op.spawn({ flags: 0n, pid: 'pid', pidfd: 'pidfd' })], ...steps.map((o) => ['init.exec', o] as const)]), { fds: [2] }).output)?.[1];
    };
    expect([effective('app'), effective('root')?.endsWith('0')]).toEqual(['0000000000000000', false]);
  }));
});

describe.skipIf(!canRun)('exec', () => {
  const init = (operations: readonly Operation[], flags = 0n): Result =>
    runBytes('shim', encode([['shim.spawn', op.spawn({ flags, pid: 'pid', pidfd: 'pidfd' })], ...operations.map((o) => ['init.exec', o] as const)]), { fds: [2] });
  const env = ['PATH=/nowhere:/usr/bin:/bin', 'A=b'];
  const start = (...argv: string[]): Operation[] => [op.pipes({}), op.resolveExec({ name: argv[0] ?? '', env, out: 'p' }), op.exec({ program: 'p', argv, env })];

  it('finds programs by PATH and says what is wrong', () => inFolder((f) => {
    writeFileSync(`${f}/plain`, 'x');
    writeFileSync(`${f}/bad`, 'no program', { mode: 0o755 });
    writeFileSync(`${f}/script`, '#!/missing/interpreter\n', { mode: 0o755 });
    expect(init(start('env')).output.trim().split('\n')).toEqual(env);
    const errno = (...argv: string[]): number | undefined => init(start(...argv)).failures[0]?.errno;
    expect([errno('no-such-program'), errno('/no/such'), errno(''), errno(f), errno(`${f}/plain`), errno(`${f}/plain/x`), errno(`${f}/bad`), errno(`${f}/script`)]).toEqual([E.ENOENT, E.ENOENT, E.ENOENT, E.EISDIR, E.EACCES, E.ENOENT, E.ENOEXEC, E.ENOENT]);
    expect(init(start('sh', '-c', 'exit 7')).exit).toBe(7);
    expect(init(start('sh', '-c', 'kill -9 $$')).exit).toBe(137);
  }));

  it('starts with default signals, nothing blocked, nothing open', () => {
    expect(init(start('cat', '/proc/self/status')).output.match(/Sig(?:Blk|Ign|Cgt):\t\w+/g)).toEqual(['Blk', 'Ign', 'Cgt'].map((name) => `Sig${name}:\t0000000000000000`));
    expect(init([op.open({ path: '/', flags: 0o200000, out: 'leak' }), op.closeFds({ from: 3 }), ...start('sh', '-c', 'ls /proc/$$/fd')]).output.trim().split('\n').filter((n) => Number(n) > 2 && Number(n) < 10)).toEqual([]);
  });

  it('CVE-2024-21626: a working directory outside the root is refused', () => inFolder((f) => {
    mkdirSync(`${f}/root`);
    const done = init([
      op.setPropagation({ path: '/', flags: 0x44000 }), op.openTree({ source: `${f}/root`, out: 'm' }), op.reopenRoot({ mount: 'm', at: `${f}/root`, out: 'root' }),
      op.open({ path: '/etc', flags: 0o200000, out: 'leaked' }), op.mkdir({ root: 'root', path: '/proc', mode: 0o755 }), op.procHandle({ out: 'proc' }), op.moveMount({ mount: 'proc', root: 'root', target: '/proc' }),
      op.pivotRoot({ root: 'root' }), ...Array.from({ length: 40 }, (_, i) => op.chdir({ path: `/proc/self/fd/${i + 3}` }, { optional: true })), op.chdir({ path: '/proc' }),
    ], 0x20020000n);
    expect(done.output).toMatch(/warning 18 the working directory \/proc\/self\/fd\/\d+ lies outside the root/);
    expect(done.failures).toEqual([]);
  }));

  it('--init: reaps orphans, forwards signals, keeps the exit code', () => {
    expect(init([op.reaper({}), ...start('sh', '-c', '(sleep 0.05 &) ; sleep 0.2; ps -o stat= --ppid 1 | grep -c Z; exit 3')], 0x20000000n).exit).toBe(3);
    expect(init([op.reaper({}), ...start('sh', '-c', 'kill -TERM $$')], 0x20000000n).exit).toBe(143);
    const forwarded = init([op.pipes({}), op.reaper({}), op.resolveExec({ name: 'sh', env, out: 'p' }), op.exec({ program: 'p', argv: ['sh', '-c', 'trap "echo got; exit 9" USR1; kill -USR1 $PPID; while :; do sleep 0.05; done'], env })], 0x20000000n);
    expect([forwarded.exit, forwarded.output.trim()]).toEqual([9, 'got']);
  });

  it('sets what a process is born with', () => {
    const P = BITS.PROCESS;
    const done = init([
      op.procHandle({ out: 'proc' }), op.rlimit({ resource: 7, soft: 100n, hard: 200n }), op.sessionKeyring({ name: '_ses.test' }), op.noNewPrivileges({}),
      op.processAttributes({ what: P.umask | P.oomScoreAdj | P.nice | P.ioPriority | P.scheduler | P.personality, umask: 0o27, oomScoreAdj: 321, proc: 'proc', nice: 5, ioPriority: (2 << 13) | 6, schedPolicy: 3, schedPriority: 0, personality: 0x40000 }),
      ...start('sh', '-c', 'umask; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/self/personality; cut -d" " -f19,41 /proc/self/stat; grep NoNew /proc/self/status; ionice -p $$'),
    ]);
    expect(done.failures).toEqual([]);
    expect(done.output.split('\n')).toEqual(['0027', '100', '200', '321', '00040000', '5 3', 'NoNewPrivs:\t1', 'best-effort: prio 6', '']);
  });

  it('loads a filter', () => {
    const instruction = (code: number, jt: number, jf: number, k: number): Buffer => {
      const b = Buffer.alloc(8);
      b.writeUInt16LE(code, 0);
      b.writeUInt8(jt, 2);
      b.writeUInt8(jf, 3);
      b.writeUInt32LE(k, 4);
      return b;
    };
    // uname (63 on x86-64) gives EPERM
    const filter = Buffer.concat([instruction(0x20, 0, 0, 0), instruction(0x15, 0, 1, 63), instruction(6, 0, 0, 0x50001), instruction(6, 0, 0, 0x7fff0000)]);
    if (process.arch === 'x64') expect(init([op.noNewPrivileges({}), op.seccomp({ filter }), ...start('uname')]).output).toMatch(/not permitted/);
    expect(init([op.seccomp({ filter: filter.subarray(0, 9) }), ...start('true')]).failures).toMatchObject([{ errno: E.EINVAL }]);
  });

  it('execHost: bounded, with its last words', () => {
    expect(run([op.execHost({ argv: ['/bin/sh', '-c', 'read x; test "$x$A" = inb'], env: ['A=b'], stdin: Buffer.from('in\n'), deadline: 5000 })]).failures).toEqual([]);
    expect(run([op.execHost({ argv: ['/bin/sh', '-c', 'echo it is broken >&2; exit 4'], deadline: 5000 })]).failures).toMatchObject([{ errno: 121, detail: '/bin/sh exited with 4: it is broken\n' }]);
    expect(run([op.execHost({ argv: ['/bin/sleep', '10'], deadline: 100 })]).result).toBe(E.ETIMEDOUT);
    expect(run([op.execHost({ argv: ['/no/such'], deadline: 100 })]).result).toBe(E.ENOENT);
  });
});
