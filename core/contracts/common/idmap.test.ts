import { expect, it } from 'vitest';
import { type Machine } from './index.ts';
import { fakeMachine } from './bench.ts';
import { idmapObstacle, obstacleBy } from './idmap.ts';

function machine(type: string, kernel: readonly [number, number]): Machine {
  const fake = fakeMachine({ root: '/var/lib/engine', runRoot: '/run/engine' });
  const [root] = fake.mounts;
  if (!root) throw new Error('a machine without mounts');
  return { ...fake, kernel, release: `${kernel.join('.')}.0`, mounts: [{ ...root, type: 'overlay' }, { ...root, id: 2, target: '/var/lib', type }] };
}

it.each<[string, readonly [number, number], 'mount' | 'layer', RegExp | undefined]>([
  ['ext4', [5, 12], 'mount', undefined], ['ext4', [5, 11], 'mount', /since Linux 5\.12, this is 5\.11\.0/], ['ext4', [5, 14], 'layer', /overlay takes layers.*5\.19/], ['ext4', [5, 19], 'layer', undefined],
  ['btrfs', [5, 14], 'mount', /btrfs can show.*5\.15/], ['xfs', [6, 1], 'layer', undefined], ['tmpfs', [6, 1], 'mount', /6\.3/], ['tmpfs', [6, 3], 'layer', undefined],
  ['9p', [6, 18], 'mount', /9p cannot/], ['overlay', [7, 0], 'mount', /overlay cannot/], ['nfs4', [6, 18], 'layer', /nfs4 cannot/],
  // its module's version counts, which the kernel's does not tell
  ['zfs', [6, 18], 'mount', /zfs cannot/],
])('%s on Linux %j as %s', (type, kernel, as, reason) => {
  const obstacle = idmapObstacle(machine(type, kernel), '/var/lib/engine/x', as);
  if (reason) expect(obstacle).toMatch(reason);
  else expect(obstacle).toBeUndefined();
});

it('what the configuration says counts; the first of several folders that cannot is named', () => {
  const on = machine('ext4', [6, 1]);
  expect(obstacleBy('always', on, ['/'])).toBeUndefined();
  expect(obstacleBy('never', on, ['/var/lib'])).toMatch(/never/);
  expect(obstacleBy(undefined, on, ['/var/lib', '/etc'], 'layer')).toMatch(/^overlay cannot/);
  expect(obstacleBy('auto', on, ['/var/lib/a', '/var/lib/b'], 'layer')).toBeUndefined();
});
