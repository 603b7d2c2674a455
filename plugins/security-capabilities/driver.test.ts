import { fakeMachine } from '@engine/core/contracts/common/bench';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { plainSpec, securitySuite } from '@engine/core/contracts/security/suite';
import { type Spec } from '@engine/core/spec';
import { describe, expect, it } from 'vitest';
import { createCapabilities, readNoNewPrivileges } from './driver.ts';
import { capabilities, canonicalName, chooseCapabilities, defaultCapabilities, maskOf } from './names.ts';

describeSuite('capabilities on a fake machine', securitySuite, { bench: () => fakeBench({ machine: { capabilities } }), create: (deps) => createCapabilities(deps) });

const run = { container: 'c', run: 'r', instance: 'i', runFolder: '/x', explain: false };
function driver(has: readonly string[] = capabilities, options = {}) {
  const warnings: string[] = [];
  const made = createCapabilities({ machine: fakeMachine({ root: '/', runRoot: '/' }, { capabilities: has }), log: { warn: (_: unknown, text: string) => warnings.push(text) } as never }, options);
  return { made, warnings };
}
const request = { privileged: false, capAdd: [] as string[], capDrop: [] as string[], options: [] as string[] };
const boundingOf = async (changes: Partial<typeof request>, has?: readonly string[]): Promise<string[]> => (await driver(has).made.configure(plainSpec(), { ...request, ...changes })).process?.capabilities?.bounding ?? [];

describe('choice', () => {
  it('starts from Docker\'s 14', async () => {
    expect((await boundingOf({})).toSorted()).toEqual([...defaultCapabilities].toSorted());
    expect(defaultCapabilities.length).toBe(14);
  });
  it('adds and drops, with and without CAP_, in any case', async () => {
    expect(await boundingOf({ capAdd: ['net_admin', 'CAP_SYS_TIME'] })).toEqual(expect.arrayContaining(['CAP_NET_ADMIN', 'CAP_SYS_TIME', 'CAP_KILL']));
    expect(await boundingOf({ capDrop: ['cap_kill'] })).not.toContain('CAP_KILL');
    expect(await boundingOf({ capDrop: ['ALL'] })).toEqual([]);
    expect(await boundingOf({ capDrop: ['all'], capAdd: ['CHOWN'] })).toEqual(['CAP_CHOWN']);
    expect((await boundingOf({ capAdd: ['ALL'], capDrop: ['SYS_ADMIN'] })).length).toBe(capabilities.length - 1);
    expect(await boundingOf({ privileged: true })).toEqual(capabilities);
  });
  it('refuses what it does not know', () => {
    for (const name of ['', 'NET', 'CAP_', 'SYS_ADMIN ;', '__proto__']) expect(() => canonicalName(name), name).toThrow(/unknown capability/);
    expect(() => chooseCapabilities([], [], ['NOPE'])).toThrow(/NOPE/);
  });
  it('leaves out what the engine lacks, and says so', async () => {
    const has = capabilities.filter((name) => name !== 'CAP_SYS_RESOURCE');
    const { made, warnings } = driver(has);
    const spec = await made.configure(plainSpec(), { ...request, capAdd: ['SYS_RESOURCE', 'NET_ADMIN'] });
    expect(spec.process?.capabilities?.bounding).toContain('CAP_NET_ADMIN');
    expect(spec.process?.capabilities?.bounding).not.toContain('CAP_SYS_RESOURCE');
    expect(warnings).toEqual([expect.stringContaining('--cap-add: left out CAP_SYS_RESOURCE')]);
    await made.configure(plainSpec(), { ...request, privileged: true });
    expect(warnings[1]).toContain('--privileged: left out CAP_SYS_RESOURCE');
  });
  it('takes another default from the configuration', async () => {
    expect((await driver(capabilities, { default: ['chown'] }).made.configure(plainSpec(), request)).process?.capabilities?.bounding).toEqual(['CAP_CHOWN']);
  });
});

describe('the five sets', () => {
  const planned = async (spec: Spec, part: 'init' | 'exec' = 'init', privilegedExec = false) => {
    const { made } = driver();
    const steps = await made.planProcess(await made.configure(spec, request), { part, noNewPrivileges: false, privilegedExec }, run);
    const of = (name: string) => steps.find(({ operation }) => operation.name === name)?.operation.args;
    return { bounds: of('capabilityBounds'), identity: of('identity') };
  };
  const mask = maskOf(defaultCapabilities);
  const as = (user: NonNullable<Spec['process']>['user']): Spec => ({ ...plainSpec(), process: { cwd: '/', user } });

  it('CVE-2022-29162: inheritable and ambient are empty', async () => {
    const { bounds, identity } = await planned(plainSpec());
    expect(bounds).toEqual({ bounding: mask });
    expect(identity).toMatchObject({ effective: mask, permitted: mask, inheritable: 0n, ambient: 0n, rootOnly: 1 });
  });
  it('somebody who is not root has none, known or not before the run', async () => {
    expect((await planned(as({ uid: 1000 }))).identity).toMatchObject({ effective: 0n, permitted: 0n });
    expect((await planned(as({ username: '1000:0' }))).identity).toMatchObject({ effective: 0n, permitted: 0n });
    expect((await planned(as({ username: 'nginx' }))).identity).toMatchObject({ effective: mask, rootOnly: 1 });
    expect((await planned(as({ username: '0:1000' }))).identity).toMatchObject({ effective: mask });
  });
  it('exec --privileged has all there are', async () => {
    const { bounds, identity } = await planned(plainSpec(), 'exec', true);
    expect([bounds?.['bounding'], identity?.['effective']]).toEqual([maskOf(capabilities), maskOf(capabilities)]);
  });
  it('a bundle\'s ambient set is kept, with what it needs', async () => {
    const { made } = driver();
    const spec: Spec = { ...plainSpec(), process: { cwd: '/', user: { uid: 1000 }, capabilities: { bounding: ['CAP_NET_RAW'], permitted: ['CAP_NET_RAW'], inheritable: ['CAP_NET_RAW'], effective: ['CAP_NET_RAW'], ambient: ['CAP_NET_RAW'] } } };
    const steps = await made.planProcess(spec, { part: 'init', noNewPrivileges: false, privilegedExec: false }, run);
    expect(steps.find(({ operation }) => operation.name === 'identity')?.operation.args).toMatchObject({ permitted: 1n << 13n, inheritable: 1n << 13n, ambient: 1n << 13n, rootOnly: 0 });
  });
});

describe('no-new-privileges', () => {
  it('is read in all its spellings', () => {
    expect(['no-new-privileges', 'no-new-privileges:true', 'no-new-privileges=true', 'no-new-privileges:false'].map((option) => readNoNewPrivileges([option]))).toEqual([true, true, true, false]);
    expect(readNoNewPrivileges(['seccomp=x'])).toBeUndefined();
    expect(() => readNoNewPrivileges(['no-new-privileges:yes'])).toThrow(/neither true nor false/);
  });
  it('is set before the identity changes, and once', async () => {
    const { made } = driver();
    const spec = await made.configure(plainSpec(), { ...request, options: ['no-new-privileges'] });
    const names = (await made.planProcess(spec, { part: 'init', noNewPrivileges: true, privilegedExec: false }, run)).map(({ slot, operation }) => `${slot} ${operation.name}`);
    expect(names).toEqual(['init.bounds capabilityBounds', 'init.identity noNewPrivileges', 'init.identity identity']);
  });
});
