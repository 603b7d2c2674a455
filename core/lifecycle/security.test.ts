import fs from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { fail } from '../errors/index.ts';
import { effect, op } from '../plan/index.ts';
import { type SecurityDriver } from '../contracts/security/index.ts';
import { type PluginEntry } from './parts.ts';
import { request, testEngine, type TestEngine, type TestOptions } from './engine.fixture.ts';

/** A driver whose profile is a file: there, or to be loaded. */
function profileDriver(at: { file: string }, said: string[], over: Partial<SecurityDriver> = {}): SecurityDriver {
  return {
    name: 'armor', option: 'armor', features: new Set(), probe: () => ({ available: true, score: 1, reasons: ['yes'] }), planProcess: () => [],
    configure: (spec) => ({ ...spec, process: { ...spec.process, cwd: '/', user: {}, apparmorProfile: 'p' } }),
    check({ options }) {
      if (options.includes('armor=gone')) throw fail('ERR_INVALID_VALUE', 'profile gone is not loaded');
    },
    ensure(spec) {
      said.push(`ensure ${spec.process?.apparmorProfile ?? ''}`);
      return fs.existsSync(at.file) ? [] : [effect(op.writeFile({ path: at.file, data: Buffer.from('x'), how: 3, mode: 0o600 }), { none: 'it stays' })];
    },
    ensured: () => void said.push('ensured'),
    ...over,
  };
}
const open: TestEngine[] = [];
afterEach(async () => {
  for (const { engine, fixture } of open.splice(0)) {
    await vi.waitUntil(() => fixture.leftOver().length === 0, 5000);
    await engine.close();
    fixture.remove();
  }
});
async function start(over: Partial<SecurityDriver> = {}, choice: 'auto' | readonly string[] = ['armor'], more: TestOptions = {}): Promise<TestEngine & { said: string[]; file: string }> {
  const said: string[] = [];
  const at = { file: '' };
  const driver = profileDriver(at, said, over);
  const entry: PluginEntry = { manifest: { name: 'armor', version: '1.0.0', main: './x.ts', provides: [{ contract: 'security', driver: 'armor' }] }, builtin: false, source: 'armor', optionsDigest: 'd', eager: false, load: async () => ({ drivers: [driver] }) };
  const made = await testEngine({ extra: () => [entry], parts: { choices: { storage: 'auto', cgroup: 'auto', log: 'fake', volume: 'auto', ipam: 'auto', firewall: 'auto', dns: 'auto', checkpoint: 'auto', security: choice } }, ...more });
  open.push(made);
  at.file = path.join(made.fixture.folder, 'profile');
  return { ...made, said, file: at.file };
}
const containers = (made: TestEngine) => made.engine.containers;

describe('what a security driver needs on the machine', () => {
  it('is made before a start, once, and looked at before each; again when somebody took it away', async () => {
    const made = await start();
    const { id } = await containers(made).create(request());
    expect([made.said, fs.existsSync(made.file)]).toEqual([[], false]);
    const run = async (): Promise<string[]> => {
      made.said.length = 0;
      await (await containers(made).start(id)).exit;
      return made.said;
    };
    expect(await run()).toEqual(['ensure p', 'ensure p', 'ensured']);
    expect(fs.existsSync(made.file)).toBe(true);
    expect(await run()).toEqual(['ensure p']);
    fs.rmSync(made.file);
    expect(await run()).toEqual(['ensure p', 'ensure p', 'ensured']);
    expect(made.state.containers.get(id)?.apparmorProfile).toBe('p');
  });
  it('is made for a container that is one plan with its run, also when that plan is remembered', async () => {
    const made = await start();
    for (let i = 0; i < 4; i++) {
      made.said.length = 0;
      fs.rmSync(made.file, { force: true });
      await (await containers(made).run(request({ autoRemove: true }))).exit;
      expect([i, fs.existsSync(made.file), made.said.at(-1)]).toEqual([i, true, 'ensured']);
    }
  });
  it('is not made to show a plan', async () => {
    const made = await start();
    await containers(made).explain(request());
    expect([made.said, fs.existsSync(made.file)]).toEqual([[], false]);
  });
  it('that cannot be had ends the start, and nothing is left', async () => {
    const made = await start({ ensure: () => { throw fail('ERR_INVALID_VALUE', 'no such profile'); } });
    await expect(containers(made).run(request({ autoRemove: true }))).rejects.toThrow('no such profile');
    expect(made.state.containers.ids()).toEqual([]);
    const { id } = await containers(made).create(request());
    await expect(containers(made).start(id)).rejects.toThrow('no such profile');
    expect((await containers(made).resolve(id)).state).toBe('created');
  });
});

describe('what a security driver refuses', () => {
  it('is refused before anything is made', async () => {
    const made = await start();
    for (const autoRemove of [true, false]) await expect(containers(made).run(request({ autoRemove, securityOptions: ['armor=gone'] }))).rejects.toThrow('profile gone is not loaded');
    await expect(containers(made).create(request({ securityOptions: ['armor=gone'] }))).rejects.toThrow('profile gone is not loaded');
    expect(made.state.containers.ids()).toEqual([]);
  });
  it('an option of a driver that is not available says why; switching it off is none', async () => {
    const made = await start({ probe: () => ({ available: false, score: 0, reasons: ['this kernel has none'] }) }, 'auto');
    await expect(containers(made).create(request({ securityOptions: ['armor=x'] }))).rejects.toThrow(/--security-opt armor=x: security driver armor is not available: this kernel has none/);
    await expect(containers(made).create(request({ securityOptions: ['other=x'] }))).rejects.toThrow(/invalid --security-opt: other=x/);
    await containers(made).create(request({ securityOptions: ['armor=unconfined'] }));
  });
  it('one that its options ask for outright is not left out when it is not available', async () => {
    const made = await start({ probe: () => ({ available: false, score: 0, reasons: ['this kernel has none'], wanted: true }) }, 'auto');
    await expect(containers(made).create(request())).rejects.toThrow(/security driver armor is not available: this kernel has none/);
  });
});
