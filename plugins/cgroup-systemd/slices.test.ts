import { describe, expect, it } from 'vitest';
import { escapeUnit, folderOfSlice, folderOfUnit, isSlice, objectPath, parsePlace, unitOfFolder } from './slices.ts';

describe('names', () => {
  it('of slices: each part is the child of what is before it', () => {
    expect(['-.slice', 'a.slice', 'a-b.slice', 'a-b-c.slice', 'system-getty.slice'].map(folderOfSlice)).toEqual(['', 'a.slice', 'a.slice/a-b.slice', 'a.slice/a-b.slice/a-b-c.slice', 'system.slice/system-getty.slice']);
    for (const name of ['-.slice', 'a.slice', 'a-b.slice', 'user-1000.slice', 'x\\x2dy.slice', `${'a'.repeat(249)}.slice`]) expect([name, isSlice(name)]).toEqual([name, true]);
    for (const name of ['', '.slice', 'a', 'a.scope', '-a.slice', 'a-.slice', 'a--b.slice', 'a b.slice', 'a/b.slice', 'ä.slice', `${'a'.repeat(250)}.slice`]) expect([name, isSlice(name)]).toEqual([name, false]);
  });
  it('of folders: not to be taken for files of the kernel', () => {
    const units = ['web.scope', 'memory.scope', 'cpu.slice', '_x.scope', '.x.scope', 'cgroup.x.scope', 'memoryless.scope'];
    expect(units.map(folderOfUnit)).toEqual(['web.scope', '_memory.scope', '_cpu.slice', '__x.scope', '_.x.scope', '_cgroup.x.scope', 'memoryless.scope']);
    expect(units.map((unit) => unitOfFolder(folderOfUnit(unit)))).toEqual(units);
  });
  it('escape what a unit cannot have', () => {
    expect([escapeUnit('web-1_2.x:y'), escapeUnit('a+b/c'), escapeUnit('.x'), escapeUnit('ä\\')]).toEqual(['web-1_2.x:y', 'a\\x2bb\\x2fc', '\\x2ex', '\\xc3\\xa4\\x5c']);
    expect(objectPath('container-a.scope')).toBe('/org/freedesktop/systemd1/unit/container_2da_2escope');
  });
});

describe('a parent', () => {
  it('is a slice by its name, by its path, or with a name for the scope', () => {
    expect(parsePlace(undefined, 'system.slice')).toEqual({ slice: 'system.slice' });
    expect(parsePlace('', 'system.slice')).toEqual({ slice: 'system.slice' });
    expect(parsePlace('a-b.slice', 'x.slice')).toEqual({ slice: 'a-b.slice' });
    expect(parsePlace('/a.slice/a-b.slice/', 'x.slice')).toEqual({ slice: 'a-b.slice' });
    expect(parsePlace('/', 'x.slice')).toEqual({ slice: '-.slice' });
    expect(parsePlace('machine.slice:libpod:1f', 'x.slice')).toEqual({ slice: 'machine.slice', scope: 'libpod-1f.scope' });
    expect(parsePlace(':engine:a+b', 'x.slice')).toEqual({ slice: 'x.slice', scope: 'engine-a\\x2bb.scope' });
    expect(parsePlace('::web', 'x.slice')).toEqual({ slice: 'x.slice', scope: 'web.scope' });
  });
  it.each(['a', '/a/b', 'a.slice/b.slice', '/a-b.slice', '../a.slice', 'a.scope', 'a:b', 'a:b:c:d', 'a.slice:b:', 'x:y:z', `a.slice:${'b'.repeat(250)}:c`])('is not %s', (path) => {
    expect(() => parsePlace(path, 'x.slice')).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE' }) as Error);
  });
  it('says how it would be right', () => {
    expect(() => parsePlace('/docker', 'x.slice')).toThrow(expect.objectContaining({ hint: expect.stringContaining('--cgroup-parent mine.slice') as string }) as Error);
    expect(() => parsePlace('a.slice:b:c.slice', 'x.slice')).toThrow(expect.objectContaining({ code: 'ERR_NOT_SUPPORTED' }) as Error);
  });
});
