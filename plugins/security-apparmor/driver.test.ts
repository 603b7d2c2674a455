import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { fakeMachine, memoryState } from '@engine/core/contracts/common/bench';
import { type Machine } from '@engine/core/contracts/common';
import { plainSpec, securitySuite } from '@engine/core/contracts/security/suite';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { describe, expect, it } from 'vitest';
import { createAppArmor, profileOption, type AppArmorOptions } from './driver.ts';
import { loadedProfiles, parseLabel, whyUnusable, type Files } from './kernel.ts';
import { DEFAULT_NAME, namedProfile, profileText } from './template.ts';

const FOLDER = '/sys/kernel/security/apparmor';
const PARSER = '/usr/sbin/apparmor_parser';

/** A kernel with AppArmor, as its files have it. */
class FakeKernel {
  readonly files = new Map<string, string>([
    ['/sys/module/apparmor/parameters/enabled', 'Y\n'], [`${FOLDER}/features/domain/change_onexec`, 'yes\n'], ['/proc/self/attr/apparmor/current', 'unconfined\n'], [`${FOLDER}/.ns_level`, '0\n'], [PARSER, 'ELF'], ['/etc/apparmor.d/abi/3.0', ''],
  ]);
  #loads = 0;
  readonly #profiles = new Map<string, { folder: string; digest: string }>();
  load(name: string, digest: string, file = 'sha256'): void {
    const folder = this.#profiles.get(name)?.folder ?? `${FOLDER}/policy/profiles/${name}.${this.#loads++}`;
    this.#profiles.set(name, { folder, digest });
    this.files.set(`${folder}/name`, `${name}\n`);
    if (digest !== '') this.files.set(`${folder}/${file}`, `${digest}\n`);
  }
  remove(name: string): void {
    const { folder } = this.#profiles.get(name) ?? { folder: '' };
    for (const path of this.files.keys()) if (folder && path.startsWith(`${folder}/`)) this.files.delete(path);
    this.#profiles.delete(name);
  }
  readonly view: Files = {
    read: (path) => (path === `${FOLDER}/profiles` ? [...this.#profiles.keys()].map((name) => `${name} (enforce)\n`).join('') : this.files.get(path)),
    list: (path) => [...new Set([...this.files.keys()].filter((file) => file.startsWith(`${path}/`)).map((file) => file.slice(path.length + 1).split('/')[0] as string))],
    exists: (path) => this.files.has(path),
  };
  machine(more: Partial<Machine> = {}): Machine {
    return fakeMachine({ root: '/r', runRoot: '/rr', capabilities: ['CAP_MAC_ADMIN'], read: (path: string) => this.files.get(path), ...more });
  }
}
interface Warnings { readonly texts: string[] }
function driverOn(kernel: FakeKernel, options: AppArmorOptions = {}, { state = memoryState(), warnings = { texts: [] } as Warnings, machine = kernel.machine() } = {}) {
  const log = { debug() {}, warn: (text: string) => warnings.texts.push(text) } as never;
  return createAppArmor({ machine, state, log, files: kernel.view }, options);
}
const request = (options: readonly string[] = [], privileged = false) => ({ privileged, capAdd: [], capDrop: [], options });
const confined = { ...plainSpec(), process: { ...plainSpec().process!, apparmorProfile: DEFAULT_NAME } };
const run = { container: 'c', run: 'r', instance: 'engine-0', runFolder: '/rr', explain: false };
const plan = async (spec: typeof confined, more: { part?: 'init' | 'exec'; privilegedExec?: boolean } = {}) =>
  (await driverOn(new FakeKernel()).planProcess(spec, { part: 'init', noNewPrivileges: false, privilegedExec: false, ...more }, run)).map(({ slot, operation }) => [slot, operation.name, operation.args['label']]);

const suiteKernel = new FakeKernel();
describeSuite('apparmor on a fake machine', securitySuite, {
  bench: () => fakeBench({ machine: { capabilities: ['CAP_MAC_ADMIN'], read: (path: string) => suiteKernel.files.get(path) } }),
  create: (deps) => createAppArmor({ ...deps, files: suiteKernel.view }),
});
describeSuite('apparmor on a machine without it', securitySuite, {
  bench: () => fakeBench({ machine: { read: () => undefined } }),
  create: (deps) => createAppArmor({ ...deps, files: { read: () => undefined, list: () => [], exists: () => false } }),
});

describe('which profile', () => {
  it('reads --security-opt: the last one counts', () => {
    expect(profileOption(['apparmor=a', 'seccomp=x', 'apparmor:b'])).toBe('b');
    expect(profileOption(['apparmorx=a'])).toBeUndefined();
    for (const bad of ['apparmor', 'apparmor=', 'apparmor=a b', 'apparmor=a//&b', 'apparmor=:ns:a', 'apparmor=*', 'apparmor=a\n', 'apparmor=a"b', `apparmor=${'a'.repeat(401)}`, 'apparmor=-r']) expect(() => profileOption([bad]), bad).toThrow(/AppArmor profile|no profile is named/);
    for (const good of ['docker-default', '/usr/sbin/nginx', 'a//hat', 'x.y_z@1', 'lsb_release']) expect(profileOption([`apparmor=${good}`])).toBe(good);
  });
  it('is the default, none for --privileged unless one is named, and what the configuration says', async () => {
    const kernel = new FakeKernel();
    kernel.load('own', 'd1');
    const of = async (options: AppArmorOptions, ...asked: Parameters<typeof request>) => (await driverOn(kernel, options).configure(plainSpec(), request(...asked))).process?.apparmorProfile;
    expect([await of({}), await of({}, [], true), await of({}, ['apparmor=unconfined']), await of({}, ['apparmor=own']), await of({}, ['apparmor=own'], true), await of({ profile: 'own' }), await of({ profile: 'own' }, ['apparmor=engine-default']), await of({ profile: 'unconfined' }), await of({ profile: 'engine-default' })])
      .toEqual([DEFAULT_NAME, 'unconfined', 'unconfined', 'own', 'own', 'own', DEFAULT_NAME, 'unconfined', DEFAULT_NAME]);
  });
  it('that is not loaded is refused, before and at the start, with what to do', async () => {
    const driver = driverOn(new FakeKernel());
    for (const ask of [() => driver.check?.(request(['apparmor=gone'])), () => driver.configure(plainSpec(), request(['apparmor=gone'])), () => driver.ensure?.({ ...confined, process: { ...confined.process, apparmorProfile: 'gone' } })]) {
      expect(ask).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE', message: expect.stringContaining('gone is not loaded') as string, hint: expect.stringContaining('apparmor_parser') as string }));
    }
    expect(() => driver.check?.(request())).not.toThrow();
  });
  it('where AppArmor is missing: an error by name, one warning where only the default is meant', async () => {
    const kernel = new FakeKernel();
    kernel.files.set('/sys/module/apparmor/parameters/enabled', 'N\n');
    const warnings: Warnings = { texts: [] };
    const driver = driverOn(kernel, {}, { warnings });
    expect((await driver.configure(confined, request())).process).not.toHaveProperty('apparmorProfile');
    await driver.configure(confined, request());
    expect(warnings.texts).toHaveLength(1);
    for (const name of ['engine-default', 'own']) expect(() => driver.check?.(request([`apparmor=${name}`]))).toThrow(/has no AppArmor/);
    expect(() => driverOn(kernel, { profile: 'own' }).configure(plainSpec(), request())).toThrow(/has no AppArmor/);
    expect((await driver.configure(plainSpec(), request(['apparmor=unconfined']))).process).not.toHaveProperty('apparmorProfile');
    expect(await driver.probe(kernel.machine())).toMatchObject({ available: false });
    expect(await driver.probe(kernel.machine())).not.toHaveProperty('wanted');
    expect(await driverOn(kernel, { profile: 'own' }).probe(kernel.machine())).toMatchObject({ available: false, wanted: true });
  });
});

describe('the probe', () => {
  it('says why not', async () => {
    const why = async (change: (kernel: FakeKernel) => void, more: Partial<Machine> = {}) => {
      const kernel = new FakeKernel();
      change(kernel);
      return (await driverOn(kernel).probe(kernel.machine(more))).reasons.join();
    };
    expect(await why((k) => k.files.delete('/sys/module/apparmor/parameters/enabled'))).toMatch(/no AppArmor/);
    expect(await why((k) => k.files.delete(`${FOLDER}/features/domain/change_onexec`))).toMatch(/securityfs/);
    expect(await why((k) => k.files.set('/proc/self/attr/apparmor/current', 'docker-default (enforce)'))).toMatch(/itself is confined by profile docker-default/);
    expect(await why((k) => k.files.delete('/proc/self/attr/apparmor/current'))).toMatch(/another security module/);
    expect(await why((k) => k.files.delete(PARSER))).toMatch(/apparmor_parser .* not installed/);
    expect(await why(() => {}, { capabilities: [] })).toMatch(/CAP_MAC_ADMIN/);
    expect(await why((k) => { k.files.set(`${FOLDER}/.ns_level`, '1'); k.files.set(`${FOLDER}/.ns_name`, 'lxd-x'); })).toMatch(/namespace lxd-x/);
  });
  it('is taken without the parser too, so that the engine says what is not in force', async () => {
    const kernel = new FakeKernel();
    kernel.files.delete(PARSER);
    expect(await driverOn(kernel).probe(kernel.machine())).toMatchObject({ available: true });
    expect(driverOn(kernel).configure({ ociVersion: '1.2.0', process: { cwd: '/', user: {} } }, { privileged: false, capAdd: [], capDrop: [], options: [] })).toMatchObject({ process: { cwd: '/' } });
    expect(await driverOn(kernel, { profile: 'mine' }).probe(kernel.machine())).toMatchObject({ available: false, wanted: true });
  });
  it('works where the engine has a profile that confines nothing, whose signals the containers take', async () => {
    const kernel = new FakeKernel();
    kernel.files.set('/proc/self/attr/apparmor/current', 'node (unconfined)\n');
    expect(whyUnusable(kernel.machine())).toBeUndefined();
    const [load] = (await driverOn(kernel).ensure?.(confined)) ?? [];
    expect(Buffer.from(load?.operation.args['stdin'] as Uint8Array).toString()).toContain('signal (receive) peer="node",');
  });
  it('reads labels', () => {
    expect([parseLabel('unconfined\n'), parseLabel('a (b) (enforce)'), parseLabel('/usr/bin/x//y (complain)\n')]).toEqual([{ profile: 'unconfined', mode: undefined }, { profile: 'a (b)', mode: 'enforce' }, { profile: '/usr/bin/x//y', mode: 'complain' }]);
  });
});

describe('loading', () => {
  it('happens when the kernel does not have what this engine would load, and then no more', async () => {
    const kernel = new FakeKernel();
    const state = memoryState();
    const driver = driverOn(kernel, {}, { state });
    const [load, ...more] = (await driver.ensure?.(confined)) ?? [];
    expect([load?.operation.name, load?.operation.args['argv'], load?.undo, more]).toEqual(['execHost', [PARSER, '--skip-cache', '--replace', '--quiet'], [], []]);
    kernel.load(DEFAULT_NAME, 'aa');
    await driver.ensured?.(confined);
    expect(await driver.ensure?.(confined)).toEqual([]);
    // another process of the same root, and after a reboot
    expect(await driverOn(kernel, {}, { state }).ensure?.(confined)).toEqual([]);
    kernel.remove(DEFAULT_NAME);
    expect(await driver.ensure?.(confined)).toHaveLength(1);
    kernel.load(DEFAULT_NAME, 'aa');
    expect(await driver.ensure?.(confined)).toEqual([]);
    // somebody else's of this name
    kernel.load(DEFAULT_NAME, 'bb');
    expect(await driver.ensure?.(confined)).toHaveLength(1);
    // an engine that doesn't know where it comes from
    kernel.load(DEFAULT_NAME, 'aa');
    expect(await driverOn(kernel).ensure?.(confined)).toHaveLength(1);
  });
  it('happens again when the template has changed', async () => {
    const kernel = new FakeKernel();
    const state = memoryState();
    kernel.load(DEFAULT_NAME, 'aa', 'sha1');
    await driverOn(kernel, {}, { state }).ensured?.(confined);
    expect(await driverOn(kernel, {}, { state }).ensure?.(confined)).toEqual([]);
    // a release before this one, of the same name
    state.set(`loaded.${DEFAULT_NAME}`, { template: 'old', digest: 'aa' });
    expect(await driverOn(kernel, {}, { state }).ensure?.(confined)).toHaveLength(1);
  });
  it('goes under a name of its own where the template is another: engines do not replace each other\'s', async () => {
    const kernel = new FakeKernel();
    const plain = { state: memoryState() };
    const other = { state: memoryState(), machine: kernel.machine({ read: (path) => (path === '/proc/self/attr/apparmor/current' ? 'node (unconfined)\n' : kernel.files.get(path)) }) };
    const { name } = namedProfile({ engine: 'node', pinned: true });
    expect([namedProfile({ engine: undefined, pinned: true }).name, name]).toEqual([DEFAULT_NAME, expect.stringMatching(/^engine-default-[0-9a-f]{8}$/)]);
    for (const options of [plain, other]) expect(await driverOn(kernel, {}, options).ensure?.(confined)).toHaveLength(1);
    kernel.load(DEFAULT_NAME, 'aa');
    await driverOn(kernel, {}, plain).ensured?.(confined);
    kernel.load(name, 'bb');
    await driverOn(kernel, {}, other).ensured?.(confined);
    for (const options of [plain, other, plain]) expect(await driverOn(kernel, {}, options).ensure?.(confined)).toEqual([]);
    const [labelled] = await driverOn(kernel, {}, other).planProcess(confined, { part: 'init', noNewPrivileges: false, privilegedExec: false }, run);
    expect(labelled?.operation.args['label']).toBe(name);
  });
  it('says when the parser ended well and the kernel still does not have it', () => {
    expect(() => driverOn(new FakeKernel()).ensured?.(confined)).toThrow(/does not have it/);
  });
  it('is not needed for what is unconfined, and takes what is there where it cannot be done', async () => {
    const kernel = new FakeKernel();
    const driver = driverOn(kernel);
    expect([await driver.ensure?.(plainSpec()), await driver.ensure?.({ ...confined, process: { ...confined.process, apparmorProfile: 'unconfined' } })]).toEqual([[], []]);
    kernel.load(DEFAULT_NAME, 'xx');
    kernel.files.delete(PARSER);
    expect(await driver.ensure?.(confined)).toEqual([]);
    kernel.remove(DEFAULT_NAME);
    expect(() => driver.ensure?.(confined)).toThrow(/not installed/);
  });
  it('works where the kernel keeps no digests, and finds a profile among others of similar names', () => {
    const kernel = new FakeKernel();
    kernel.load(`${DEFAULT_NAME}.2`, 'other');
    kernel.load(DEFAULT_NAME, '');
    expect(loadedProfiles(kernel.view).digest(DEFAULT_NAME)).toBe('-');
    expect(loadedProfiles(kernel.view).digest('engine')).toBeUndefined();
  });
  it('state that cannot be read or written costs a load, no start', async () => {
    const kernel = new FakeKernel();
    const broken = { ...memoryState(), get: () => { throw new Error('busy'); }, set: () => { throw new Error('busy'); } };
    kernel.load(DEFAULT_NAME, 'aa');
    const driver = driverOn(kernel, {}, { state: broken });
    expect(await driver.ensure?.(confined)).toHaveLength(1);
    await driver.ensured?.(confined);
    expect(await driver.ensure?.(confined)).toEqual([]);
  });
});

it('plans the label for init and sessions alike; a privileged session has none', async () => {
  expect(await plan(confined)).toEqual([['init.label', 'execArmor', DEFAULT_NAME]]);
  expect(await plan(confined, { part: 'exec' })).toEqual([['exec.label', 'execArmor', DEFAULT_NAME]]);
  expect(await plan(confined, { part: 'exec', privilegedExec: true })).toEqual([['exec.label', 'execArmor', 'unconfined']]);
  await expect(plan({ ...confined, process: { ...confined.process, apparmorProfile: 'a b' } })).rejects.toThrow(/process.apparmorProfile: a b/);
});

describe('the template', () => {
  const text = profileText({ name: DEFAULT_NAME, engine: undefined, pinned: false });
  it('names itself wherever it speaks of its own, and includes nothing', () => {
    expect(text).not.toMatch(/include|@\{/);
    expect(text.match(/"engine-default"/g)?.length).toBe(1);
    expect(text.match(/peer="engine-default\{,-\*\}"/g)?.length).toBe(2);
    expect(text).not.toMatch(/^abi/m);
  });
  // a word of the parser is worth more than ours
  it.skipIf(!existsSync(PARSER) || !existsSync('/etc/apparmor.d/abi/3.0'))('is taken by apparmor_parser without a warning, for kernels old and new (skipped without the parser)', () => {
    for (const pinned of [false, true]) {
      const profile = profileText({ name: DEFAULT_NAME, engine: 'node', pinned });
      const args = ['-Q', '-K', '-T', '--features-file', '/etc/apparmor.d/abi/3.0', ...(pinned ? ['--warn=all', '--Werror=all'] : [])];
      expect(() => execFileSync(PARSER, args, { input: profile, stdio: ['pipe', 'pipe', 'pipe'] }), String(pinned)).not.toThrow();
    }
  });
});
