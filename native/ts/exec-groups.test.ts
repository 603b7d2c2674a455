import { expect, it } from 'vitest';
import { parseExecGroups, parseUnifiedExecGroup } from './exec-groups.ts';

it('names groups by controller, or for all', () => {
  expect([...parseExecGroups(['sub/deep'], '/c')]).toEqual([['', '/c/sub/deep']]);
  expect([...parseExecGroups(['cpu,cpuacct:/a', 'memory:b'], '/c')]).toEqual([['cpu', '/c/a'], ['cpuacct', '/c/a'], ['memory', '/c/b']]);
  expect(parseUnifiedExecGroup(['/sub'], '/c')).toBe('/c/sub');
});
it.each([[['a:b:c']], [['a', 'b']], [['cpu:a', 'cpu:b']], [['../x']], [['memory:a/../../x']]])('refuses %j', (asked) => expect(() => parseExecGroups(asked, '/c')).toThrow('invalid --cgroup argument'));
it.each([[['cpu:a']], [['a', 'b']], [['a/..']]])('refuses %j on v2', (asked) => expect(() => parseUnifiedExecGroup(asked, '/c')).toThrow('invalid --cgroup argument'));
