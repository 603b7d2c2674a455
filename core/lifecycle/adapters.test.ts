import { describe, expect, it } from 'vitest';
import { type ContainerRecord } from '../api/index.ts';
import { type RunContext } from '../contracts/common/index.ts';
import { type Spec } from '../spec/index.ts';
import { groupRequest } from './adapters.ts';

describe('who owns the group of a bundle', () => {
  const maps = [{ containerID: 0, hostID: 100_000, size: 1000 }, { containerID: 5000, hostID: 300_000, size: 10 }];
  const mount = { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'rw'] };
  const spec = (over: Partial<Spec> = {}, linux: Partial<NonNullable<Spec['linux']>> = {}): Spec => ({
    ociVersion: '1.0.2', process: { cwd: '/', user: {}, args: ['x'] }, mounts: [mount], linux: { namespaces: [{ type: 'user' }, { type: 'cgroup' }], uidMappings: maps, gidMappings: maps, ...linux }, ...over,
  });
  const ownerOf = (of: Spec, isBundle = true): number | undefined => groupRequest({ request: {} as ContainerRecord['request'] }, of, isBundle ? { bundle: {} as NonNullable<RunContext['bundle']> } : {}).owner;
  const as = (uid: number): Spec => spec({ process: { cwd: '/', user: { uid }, args: ['x'] } });

  it('is its user, where it may write to it', () => {
    expect([ownerOf(spec()), ownerOf(as(999)), ownerOf(as(5003))]).toEqual([100_000, 100_999, 300_003]);
  });
  it('stays the host otherwise', () => {
    const not = [
      spec({ mounts: [{ ...mount, options: ['nosuid', 'ro'] }] }), spec({ mounts: [] }), spec({ mounts: [{ ...mount, destination: '/sys/fs' }] }), spec({ mounts: [{ ...mount, source: '/sys/fs/cgroup' }] }), as(1000),
      spec({}, { namespaces: [{ type: 'user' }] }), spec({}, { namespaces: [{ type: 'cgroup' }] }), spec({}, { namespaces: [{ type: 'user' }, { type: 'cgroup', path: '/proc/1/ns/cgroup' }] }),
      spec({}, { namespaces: [{ type: 'user', path: '/proc/1/ns/user' }, { type: 'cgroup' }] }),
    ];
    expect(not.map((one) => ownerOf(one))).toEqual(not.map(() => undefined));
    expect(ownerOf(spec(), false)).toBeUndefined();
  });
});
