import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../config/open.ts';
import { request } from '../../core/lifecycle/engine.fixture.ts';
import { busyboxRootfs } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { which } from '../helpers/peers.ts';

const top = '/sys/fs/cgroup/devices';
const mayNot = process.getuid?.() !== 0 || !existsSync(join(top, 'devices.list')) || !which('runc');
const kmsg = { allow: true, type: 'c', major: 1, minor: 11, access: 'r' };
const lists: readonly (readonly [string, object | undefined])[] = [
  ['no resources', undefined], ['no list', {}], ['an empty list', { devices: [] }], ['a list without the defaults', { devices: [kmsg] }],
  ['a list that denies them', { devices: [{ allow: false, access: 'rwm' }, { allow: false, type: 'c', major: 1, minor: 3, access: 'rwm' }] }],
  ['one that allows everything', { devices: [{ allow: true, access: 'rwm' }] }], ['and denies one', { devices: [{ allow: true, access: 'rwm' }, { ...kmsg, allow: false }] }],
];

describe.skipIf(mayNot)('devices of an OCI bundle are those of runc', () => {
  const engine = new TestEngine();
  let bundle = '';
  let config: { mounts: { type: string }[]; process: { terminal: boolean; args: string[]; capabilities?: unknown }; linux: { resources?: unknown; cgroupsPath?: string } };
  beforeAll(() => {
    bundle = mkdtempSync('/var/tmp/engine-bundle-');
    mkdirSync(join(bundle, 'rootfs'));
    busyboxRootfs(join(bundle, 'rootfs'));
    execFileSync('runc', ['spec'], { cwd: bundle });
    config = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as typeof config;
    config.process.terminal = false;
    delete config.process.capabilities;
    config.mounts = config.mounts.filter(({ type }) => type !== 'cgroup');
    config.process.args = ['sh', '-c', 'echo x >/dev/null && echo up && exec sleep 1000'];
  });
  afterAll(async () => {
    rmSync(bundle, { recursive: true, force: true });
    expect(await engine.close()).toEqual([]);
  });

  it.each(lists)('with %s', async (_, resources) => {
    const write = (cgroupsPath?: string): void => {
      const { resources: _r, cgroupsPath: _c, ...linux } = config.linux;
      writeFileSync(join(bundle, 'config.json'), JSON.stringify({ ...config, linux: { ...linux, ...(resources && { resources }), ...(cgroupsPath && { cgroupsPath }) } }));
    };
    const rules = (group: string): string[] => readFileSync(join(top, group, 'devices.list'), 'utf8').trim().split('\n').sort();
    const peer = `engine-test-runc-${process.pid}`;
    const state = join(bundle, 'state');
    write(`/${peer}`);
    let theirs: string[];
    try {
      const { status, stderr } = spawnSync('sh', ['-c', `exec runc --root ${state} run -d --bundle ${bundle} ${peer} >/dev/null </dev/null`], { encoding: 'utf8', stdio: ['ignore', 'ignore', 'inherit'] });
      expect([status, stderr]).toEqual([0, null]);
      theirs = rules(peer);
    } finally {
      spawnSync('runc', ['--root', state, 'delete', '-f', peer]);
    }
    write();
    // the command line leaves running a bundle to engine-oci
    const { engine: own } = await openEngine({ flags: { root: engine.root, runRoot: engine.runRoot }, env: { ...engine.env }, cwd: '/' });
    try {
      const session = await own.containers.run(request({ name: 'bundled', bundle, autoRemove: true }));
      session.detach();
      const { pid } = session;
      const group = /:devices:(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1] ?? '';
      expect(group).toContain(engine.instance);
      // crun and runc 1.2.0 to 1.2.3: no tunnels unless they are asked for
      expect(rules(group)).toEqual(theirs.filter((rule) => rule !== 'c 10:200 rwm'));
    } finally {
      await own.close();
      await engine.run(['rm', '-f', 'bundled']);
    }
  });
});
