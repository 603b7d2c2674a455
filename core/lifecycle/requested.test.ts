import { describe, expect, it } from 'vitest';
import { isEngineError } from '../errors/index.ts';
import { type Spec } from '../spec/index.ts';
import { request } from './engine.fixture.ts';
import { type Core } from './core.ts';
import { newName } from './create.ts';
import { checkName, newId, randomName } from './names.ts';
import { planVolumes } from './requested.ts';
import { checkSections } from './sections.ts';

const invalid = (work: () => unknown, text?: RegExp | string): void => {
  expect(work).toThrow(text);
  try { work(); } catch (error) { expect(isEngineError(error, 'ERR_INVALID_VALUE')).toBe(true); }
};

describe('volumes and names', () => {
  it('make volumes for VOLUME unless something covers it', () => {
    let n = 0;
    const name = () => `v${n++}`;
    const mount = { type: 'volume' as const, source: 'data', target: '/one/', readonly: true, createSource: true, noCopy: true };
    expect(planVolumes(request({ mounts: [mount], tmpfs: [{ target: '/two', options: [] }] }), { Volumes: { '/one': {}, '/two': {}, three: {} } }, name)).toMatchObject([
      { name: 'data', target: '/one', anonymous: false, readonly: true, copyUp: false }, { name: 'v0', target: '/three', anonymous: true, copyUp: true },
    ]);
    invalid(() => planVolumes(request({ mounts: [mount, { ...mount, source: 'other' }] }), {}, name), 'duplicate mount point');
    invalid(() => planVolumes(request({ tmpfs: [{ target: '/', options: [] }] }), {}, name));
    invalid(() => planVolumes(request({ tmpfs: [{ target: 'x', options: [] }] }), {}, name));
  });
  it('of containers and volumes', () => {
    expect(newId()).toMatch(/^[0-9a-f]{64}$/);
    expect(randomName(undefined, () => false)).toMatch(/^[a-z]+_[a-z]+$/);
    for (const bad of ['', 'a', '.x', 'a/b', 'a b']) invalid(() => checkName('volume', bad));
    checkName('container', 'a.b-c_D1');
  });
  it('are not given to two that are made at the same time', () => {
    const core = { recentNames: new Set(), parts: { state: { containers: { byName: () => undefined } } } } as unknown as Core;
    expect(new Set(Array.from({ length: 400 }, () => newName(core))).size).toBe(400);
    for (let i = 0; i < 400; i++) newName(core);
    expect(core.recentNames.size).toBe(500);
  });
});

describe('sections', () => {
  const owners = new Map([['process', 'p'], ['mounts', 'm'], ['linux.devices', 'd']]);
  const base: Spec = { ociVersion: '1', process: { cwd: '/', user: {} }, linux: { namespaces: [{ type: 'mount' }], devices: [{ type: 'c', path: '/x' }], sysctl: {}, maskedPaths: [], resources: { memory: {} } } };
  it('that are empty need nobody', () => checkSections(base, owners, false));
  it.each([
    [{ ...base, linux: { ...base.linux, seccomp: { defaultAction: 'x' } } }, 'linux.seccomp'],
    [{ ...base, linux: { ...base.linux, intelRdt: { closID: 'a' } } }, 'linux.intelRdt'],
    [{ ...base, hooks: { prestart: [{}] } }, 'hooks.prestart'],
    [{ ...base, linux: { resources: { pids: { limit: 3 } } } }, 'linux.resources'],
  ])('that are set need an owner', (spec, name) => {
    expect(() => checkSections(spec as Spec, owners, false)).toThrow(name);
  });
  it('of resources are the cgroup driver\'s', () => checkSections({ ...base, linux: { resources: { pids: { limit: 3 } } } }, owners, true));
});
