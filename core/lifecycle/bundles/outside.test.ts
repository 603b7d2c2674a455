import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readMounts } from '../../contracts/common/index.ts';
import { type Spec } from '../../spec/index.ts';
import { leadsTo, outsideMounts } from './outside.ts';

let root: string;
beforeEach(() => (root = mkdtempSync('/tmp/engine-outside-')));
afterEach(() => rmSync(root, { recursive: true }));

it('follows links as they lead inside, and never out', () => {
  for (const folder of ['run/lock', 'data/deep']) mkdirSync(join(root, folder), { recursive: true });
  for (const [name, target] of [['var', '/'], ['absolute', '/run'], ['relative', 'data/../run'], ['out', '../../../etc'], ['loop', 'loop'], ['data/up', '..'], ['host', '/etc/passwd']] as const) symlinkSync(target, join(root, name));
  for (const [from, to] of [
    ['/', '/'], ['/run/', '/run'], ['/absolute/lock', '/run/lock'], ['/relative/./lock', '/run/lock'], ['/out', '/etc'], ['/data/up/run', '/run'], ['/host', '/etc/passwd'], ['/var/run/../data', '/data'], ['/not/there', '/not/there'],
    ['/../../x', '/x'],
  ] as const) expect(leadsTo(root, from), from).toBe(to);
  expect(leadsTo(root, '/loop')).toMatch(/^\/loop/);
});

const v1 = `1 0 8:1 /b/rootfs / rw - ext4 /dev/sda rw
2 1 0:30 / /sys/fs/cgroup rw - tmpfs tmpfs rw
3 2 0:31 /g /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
4 2 0:32 /g /sys/fs/cgroup/unknown ro - cgroup cgroup rw,cpu
5 1 0:40 / /run rw - tmpfs t rw
6 5 8:1 /srv/a /run/a rw - ext4 /dev/sda rw
7 6 8:1 /srv/a/b /run/a/b rw - ext4 /dev/sda rw
8 1 0:41 / /dev rw - tmpfs t rw
9 8 0:41 /null /dev/x rw - tmpfs t rw
10 8 0:42 / /dev/pts rw - devpts d rw
11 8 0:42 /0 /dev/console rw - devpts d rw
12 1 0:50 /g/x /sys/fs/cgroup2 rw - cgroup2 c rw
13 1 0:6 /null /hidden rw - devtmpfs d rw
`;

it('tells mounts of the host from those of the container', () => {
  const spec: Spec = {
    ociVersion: '1.0.2', linux: { maskedPaths: ['/hidden', '/dev/x'] },
    mounts: [{ destination: '/var/a', source: '/srv/a', options: ['bind'] }, { destination: '/run/a/b', type: 'bind', source: '/srv/other' }, { destination: '/run', type: 'tmpfs', source: 't' }],
  };
  const real = (destination: string): string => destination.replace('/var', '/run');
  expect(outsideMounts(spec, readMounts(v1), real, new Map([['memory', '/sys/fs/cgroup/memory/g']]))).toEqual([
    { target: '/sys/fs/cgroup/memory', name: '/sys/fs/cgroup/memory', source: '/sys/fs/cgroup/memory/g' },
    { target: '/run/a', name: '/run/a', source: '/srv/a' },
    { target: '/run/a/b', name: '/run/a/b', source: '/srv/other' },
    { target: '/hidden', name: '/dev/null', source: '/dev/null' },
  ]);
});
