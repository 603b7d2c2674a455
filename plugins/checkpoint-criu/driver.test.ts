import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DumpRequest, type RestoreRequest } from '@engine/core/contracts/checkpoint';
import { createCriu } from './driver.ts';
import plugin from './plugin.ts';
import { decodeRequest, encode, encodeResponse, TYPE, type Response } from './rpc.ts';

let folder: string;
let program: string;
beforeAll(() => {
  folder = mkdtempSync('/tmp/engine-criu-');
  program = join(folder, 'criu');
  writeFileSync(program, '', { mode: 0o755 });
});
afterAll(() => rmSync(folder, { recursive: true }));

const common = { images: 9, root: '/r', annotations: {}, tcpEstablished: false, externalSockets: false, shellJob: false, fileLocks: false, lazyPages: false, autoDedup: false, groupsMode: 'soft', emptyNetwork: false } as const;
const dump: DumpRequest = { ...common, pid: 7, leaveRunning: false, preDump: false, mounts: {}, namespaces: [] };
const restore: RestoreRequest = { ...common, mounts: {}, namespaces: [], join: [], streams: [], groups: [] };
const version: Response = { type: TYPE.version, success: true, version: { major: 3, minor: 17 } };
const criu = () => createCriu({ program });
/** What it is asked once its version is known. */
const options = (talk: ReturnType<ReturnType<typeof criu>['dump']>) => decodeRequest(talk.hear(encodeResponse(version)).reply ?? new Uint8Array());

describe('criu', () => {
  it('is found, or said to be missing', async () => {
    const missing = createCriu({ program: join(folder, 'none') });
    expect(await missing.probe({} as never)).toMatchObject({ available: false, score: 0, reasons: [expect.stringContaining('none is not installed: install criu')] });
    expect(() => missing.dump(dump)).toThrow(expect.objectContaining({ code: 'ERR_NOT_SUPPORTED', path: join(folder, 'none'), hint: expect.stringContaining('apt-get install criu') }));
    expect(await criu().probe({} as never)).toMatchObject({ available: true, reasons: [program] });
    expect(plugin.create({ options: { program } } as never).drivers).toMatchObject([{ name: 'criu' }]);
  });

  it('is asked for its version first, and refused when it is too old', () => {
    const talk = criu().dump(dump);
    expect([talk.program, talk.argv, talk.log]).toEqual([program, ['criu', 'swrk', '3'], 'dump.log']);
    // bytes as criu 3.17.1 takes and sends them: field 1 of type 10, keep_open
    expect(Buffer.from(talk.begin()).toString('hex')).toBe('080a2001');
    expect(talk.hear(Buffer.from('080a10015206080310112001', 'hex'))).toMatchObject({ occasion: 'other', reply: expect.any(Uint8Array) });
    expect(criu().dump(dump).hear(encodeResponse({ ...version, version: { major: 3, minor: 15 } }))).toEqual({ failed: 'criu 3.15 is too old: 3.16 or later is needed' });
    expect(criu().dump(dump).hear(encodeResponse({ type: TYPE.version, success: true }))).toMatchObject({ failed: expect.stringContaining('too old') });
  });

  it('is told all of a dump', () => {
    expect(options(criu().dump(dump))).toEqual({
      type: TYPE.dump, opts: {
        imagesDirFd: 9, pid: 7, leaveRunning: false, extUnixSk: false, tcpEstablished: false, shellJob: false, fileLocks: false, logLevel: 4, logFile: 'dump.log', notifyScripts: true, root: '/r', autoDedup: false,
        manageCgroups: true, manageCgroupsMode: 3, lazyPages: false, orphanPtsMaster: true,
      },
    });
    const { opts } = options(criu().dump({
      ...dump, work: 10, annotations: { 'org.criu.config': '/c' }, tcpEstablished: true, externalSockets: true, shellJob: true, fileLocks: true, lazyPages: true, autoDedup: true, groupsMode: 'ignore', emptyNetwork: true, leaveRunning: true, parent: '../p',
      pageServer: { address: '::1', port: 9 }, mounts: { '/a': '/a', '/p': '/dev/null' }, namespaces: [{ type: 'network', inode: 5, name: 'N' }, { type: 'pid', inode: 6, name: 'P' }], freezer: '/g',
    }));
    expect(opts).toMatchObject({
      workDirFd: 10, configFile: '/c', tcpEstablished: true, extUnixSk: true, shellJob: true, fileLocks: true, lazyPages: true, autoDedup: true, manageCgroupsMode: 0, emptyNs: 0x4000_0000, leaveRunning: true, parentImg: '../p', trackMem: true,
      ps: { address: '::1', port: 9 }, extMnt: [{ key: '/a', val: '/a' }, { key: '/p', val: '/dev/null' }], external: ['net[5]:N', 'pid[6]:P'], freezeCgroup: '/g',
    });
    expect(options(criu().dump({ ...dump, preDump: true, mounts: { '/a': '/a' } }))).toMatchObject({ type: TYPE.preDump, opts: expect.not.objectContaining({ extMnt: expect.anything() }) });
  });

  it('is told all of a restore', () => {
    expect(options(criu().restore({
      ...restore, mounts: { '/a': '/host/a' }, namespaces: [{ name: 'N', fd: 4 }], join: [{ type: 'mount', path: '/m' }, { type: 'ipc', path: '/i' }], streams: [{ name: 'pipe:[1]', fd: 1 }],
      groups: [{ controller: '', path: '/g' }], securityProfile: 'apparmor:p', mountContext: 'c',
    }))).toMatchObject({
      type: TYPE.restore, opts: {
        logFile: 'restore.log', rstSibling: true, evasiveDevices: true, extMnt: [{ key: '/a', val: '/host/a' }], inheritFd: [{ key: 'N', fd: 4 }, { key: 'pipe:[1]', fd: 1 }], joinNs: [{ ns: 'mnt', nsFile: '/m' }, { ns: 'ipc', nsFile: '/i' }],
        cgRoot: [{ ctrl: '', path: '/g' }], lsmProfile: 'apparmor:p', lsmMountContext: 'c',
      },
    });
  });

  it('has what it says turned into words of the contract', () => {
    const talk = criu().restore(restore);
    for (const [script, occasion] of [['setup-namespaces', 'namespaces'], ['post-restore', 'restored'], ['orphan-pts-master', 'terminal'], ['status-ready', 'ready'], ['network-lock', 'other']] as const) {
      const turn = talk.hear(encodeResponse({ type: TYPE.notify, success: true, notify: { script, pid: 8 } }));
      expect(turn).toMatchObject({ occasion, pid: 8 });
      expect(decodeRequest(turn.reply ?? new Uint8Array())).toEqual({ type: TYPE.notify, notifySuccess: true });
    }
    expect(talk.hear(encodeResponse({ type: TYPE.restore, success: true }))).toEqual({ done: true });
    expect(talk.hear(encodeResponse({ type: TYPE.restore, success: false, crErrno: 52, crErrmsg: 'no' }))).toEqual({ failed: 'criu failed: no (errno 52)' });
    expect(talk.hear(encodeResponse({ type: TYPE.dump, success: true }))).toMatchObject({ failed: expect.stringContaining('something else') });
    for (const noise of ['', 'ff', '08', '0a0b']) expect(() => talk.hear(Buffer.from(noise, 'hex')), noise).toThrow();
    expect(() => encode({ type: 'x' as never })).toThrow('criu is not to be told this');
  });

  it('has its log read for the reason', () => {
    const { explain } = criu().dump(dump);
    const log = `(00.000028) Version: 3.17.1 (gitid 0)
(00.095500) Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds
(00.095604)     12: Error (criu/mount.c:1): mnt: No root
(00.120000) Error (criu/third.c:1): third
(00.195604) Error (criu/cr-dump.c:2053): Dumping FAILED.
`;
    expect(explain(log)).toEqual({ reasons: ['vdso: Unexpected rt vDSO area bounds', 'mnt: No root'], hint: expect.stringContaining('Linux 6.13') });
    expect(explain('(00.1) all fine\n')).toEqual({ reasons: [] });
  });
});
