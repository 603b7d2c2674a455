import * as fs from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { container, createFixture, type Fixture } from './state.fixture.ts';
import { isoTime } from './run-files.ts';
import { type Rows, type VolumeRecord } from './types.ts';

let fixture: Fixture;
beforeEach(() => { fixture = createFixture(); });
afterEach(() => fixture.remove());

const volume = (name: string): VolumeRecord => ({ name, driver: 'local', plugin: 'p', version: '1', created: 't', labels: {}, options: {}, anonymous: false });
const change = async (what: (rows: Rows) => void): Promise<void> => (await fixture.open()).begin('change').commit(what);

describe('state', () => {
  it('makes private folders and one instance id for every path to a root', async () => {
    const state = await fixture.open();
    expect(state.folders.instance).toMatch(/^engine-[0-9a-f]{8}$/);
    for (const folder of [state.folders.root, state.folders.runRoot, join(state.folders.root, 'inflight')]) expect(fs.statSync(folder).mode & 0o777).toBe(0o700);
  });

  it('resolves containers by name, id and prefix', async () => {
    const [a, b] = [`abc1${'0'.repeat(60)}`, `abc2${'0'.repeat(60)}`];
    await change((rows) => {
      rows.insertContainer(container(a, 'one'));
      rows.insertContainer(container(b, 'two'));
    });
    const { containers } = await fixture.open();
    expect(containers.resolve('one').id).toBe(a);
    expect(containers.resolve('/two').id).toBe(b);
    expect(containers.resolve('abc1').id).toBe(a);
    expect(containers.resolve(b).name).toBe('two');
    expect(() => containers.resolve('abc')).toThrow(expect.objectContaining({ code: 'ERR_AMBIGUOUS' }) as Error);
    for (const ref of ['abd', 'nobody', '', '%', 'ABC1']) expect(() => containers.resolve(ref)).toThrow(expect.objectContaining({ code: 'ERR_NO_SUCH_CONTAINER' }) as Error);
    expect(containers.list().map((record) => record.name)).toEqual(['one', 'two']);
  });

  it('keeps a seccomp profile once, however many containers have it', async () => {
    const profile = (arch: string): object => ({ defaultAction: 'SCMP_ACT_ERRNO', architectures: [arch], syscalls: [{ names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 1n << 40n, op: 'SCMP_CMP_EQ' }] }] });
    const made = ['one', 'two', 'three'].map((name, i) => ({ ...container(String(i).repeat(64), name), spec: { ociVersion: '1.2.0', linux: { seccomp: profile(i < 2 ? 'SCMP_ARCH_X86_64' : 'SCMP_ARCH_X86') } } }) as unknown as ReturnType<typeof container>);
    await change((rows) => made.forEach((record) => rows.insertContainer(record)));
    await change((rows) => rows.updateContainer({ ...(made[1] as ReturnType<typeof container>), starts: 1 }));
    const state = await fixture.open();
    expect(state.containers.list().map(({ name, spec }) => [name, spec.linux?.seccomp])).toEqual(made.map(({ name, spec }) => [name, spec.linux?.seccomp]));
    const db = new DatabaseSync(join(state.folders.root, 'state.db'), { readOnly: true });
    expect(db.prepare('SELECT count(*) AS n FROM shared').get()).toEqual({ n: 2 });
    expect(String(db.prepare("SELECT record FROM containers WHERE name = 'one'").get()?.['record'])).not.toContain('SCMP_ARCH');
    db.close();
  });

  it('keeps bigints of a spec', async () => {
    const record = { ...container('d'.repeat(64), 'big'), spec: { value: 1n << 63n } } as unknown as ReturnType<typeof container>;
    await change((rows) => rows.insertContainer(record));
    expect((await fixture.open()).containers.byName('big')?.spec).toEqual({ value: 1n << 63n });
  });

  it('refuses a name in use and rolls the other rows back', async () => {
    await change((rows) => rows.insertContainer(container('a'.repeat(64), 'x')));
    await expect(change((rows) => {
      rows.insertVolume(volume('v'));
      rows.insertContainer(container('b'.repeat(64), 'x'));
    })).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN', message: expect.stringContaining('aaaaaaaaaaaa') as string });
    expect((await fixture.open()).volumes.list()).toEqual([]);
  });

  it('refuses to delete a volume that is in use, whatever the order of the changes', async () => {
    const id = 'a'.repeat(64);
    await change((rows) => {
      rows.insertContainer(container(id, 'x', ['v']));
      rows.insertVolume(volume('v'));
    });
    const state = await fixture.open();
    expect(state.volumes.users('v')).toEqual([id]);
    await expect(change((rows) => rows.deleteVolume('v'))).rejects.toMatchObject({ code: 'ERR_IN_USE' });
    await change((rows) => {
      rows.deleteVolume('v');
      rows.deleteContainer(id);
    });
    expect([state.volumes.get('v'), state.containers.get(id)]).toEqual([undefined, undefined]);
  });

  it('keeps the state of plugins apart', async () => {
    const state = await fixture.open();
    const one = state.pluginState('one');
    one.set('a/1', { x: [1] });
    one.set('a/2', null);
    one.set('b%', true);
    state.pluginState('two').set('a/1', 'other');
    expect(one.get('a/1')).toEqual({ x: [1] });
    expect(one.list('a/')).toEqual([{ key: 'a/1', value: { x: [1] } }, { key: 'a/2', value: null }]);
    expect(one.list('b%')).toHaveLength(1);
    one.delete('a/1');
    expect(one.get('a/1')).toBeUndefined();
    expect(() => one.set('x', () => {})).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE' }) as Error);
  });

  it('locks one verb at a time, across engines', async () => {
    const [one, other] = [await fixture.open(), await fixture.open()];
    const lock = await one.lock('container', 'x');
    await expect(other.lock('container', 'x', { timeout: 20 })).rejects.toMatchObject({ code: 'ERR_BUSY' });
    const waiting = other.lock('container', 'x', { timeout: 2000 });
    const unrelated = await other.lock('name', 'x');
    unrelated.release();
    lock.release();
    lock.release();
    (await waiting).release();
    let holders = 0;
    await Promise.all(Array.from({ length: 20 }, async (_, i) => {
      const held = await (i % 2 ? one : other).lock('image', 'y');
      expect(++holders).toBe(1);
      await new Promise((resolve) => setImmediate(resolve));
      holders--;
      held.release();
    }));
    expect(fixture.leftOver()).toEqual([]);
  });

  it('lets several share, nobody in between, and dead engines hold nothing', async () => {
    const [one, other] = [await fixture.open(), await fixture.open()];
    const shared = await one.lock('image', 'x', { shared: true });
    (await one.lock('image', 'x', { shared: true })).release();
    (await other.lock('image', 'x', { shared: true })).release();
    await expect(other.lock('image', 'x', { timeout: 20 })).rejects.toMatchObject({ code: 'ERR_BUSY' });
    shared.release();
    // both keep it for the next sharer a little; whoever wants it alone gets it after that
    (await other.lock('image', 'x', { timeout: 5000 })).release();
    await one.lock('container', 'y');
    const next = await fixture.open(fixture.native.restart());
    (await next.lock('container', 'y', { timeout: 0 })).release();
    expect(await next.orphans()).toEqual([]);
    expect(fixture.leftOver()).toEqual([]);
  });

  it('refuses a damaged or newer database in one line', async () => {
    const state = await fixture.open();
    state.close();
    const path = join(state.folders.root, 'state.db');
    const db = new DatabaseSync(path);
    db.exec('PRAGMA user_version=99');
    db.close();
    await expect(fixture.open()).rejects.toMatchObject({ code: 'ERR_STATE', message: expect.stringContaining('newer engine') as string });
    fs.writeFileSync(path, 'x'.repeat(8192));
    await expect(fixture.open()).rejects.toMatchObject({ code: 'ERR_STATE', path });
  });

  it('takes no folder that is somebody else\'s, and leaves its mode alone', async () => {
    for (const name of ['root', 'run']) {
      const path = join(fixture.folder, name);
      fs.mkdirSync(path, { mode: 0o755 });
      await expect(fixture.open()).rejects.toMatchObject({ code: 'ERR_STATE', path, hint: expect.stringContaining('chmod 700') as string });
      fs.writeFileSync(join(path, 'systemd'), '');
      await expect(fixture.open()).rejects.toMatchObject({ code: 'ERR_STATE', path, message: expect.stringContaining('not made by the engine') as string });
      expect(fs.statSync(path).mode & 0o777).toBe(0o755);
      expect(fs.readdirSync(path)).toEqual(['systemd']);
      fs.unlinkSync(join(path, 'systemd'));
      fs.chmodSync(path, 0o700);
      (await fixture.open()).close();
      // its own, opened by somebody: closed again
      fs.chmodSync(path, 0o755);
      (await fixture.open()).close();
      expect(fs.statSync(path).mode & 0o777).toBe(0o700);
      fs.rmSync(join(fixture.folder, 'run'), { recursive: true });
    }
  });

  it('refuses a root that is a file', async () => {
    fs.writeFileSync(join(fixture.folder, 'root'), '');
    await expect(fixture.open()).rejects.toMatchObject({ code: 'ERR_STATE' });
  });

  it('writes times with nanoseconds', () => {
    expect(isoTime('1700000000123456789')).toBe('2023-11-14T22:13:20.123456789Z');
    expect(isoTime(undefined)).toBe('1970-01-01T00:00:00.000000000Z');
  });
});
