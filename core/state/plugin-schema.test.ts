import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFixture, type Fixture } from './state.fixture.ts';

let fixture: Fixture;
beforeEach(() => { fixture = createFixture(); });
afterEach(() => fixture.remove());

describe('the state of a plugin', () => {
  it('is migrated once, from what the older version wrote', async () => {
    const old = await fixture.open();
    await old.ensureStateSchema('p', undefined);
    old.pluginState('p').set('a', 1);
    old.pluginState('q').set('a', 1);
    const from: number[] = [];
    const migrate = (state: ReturnType<typeof old.pluginState>, version: number): void => {
      from.push(version);
      for (const { key, value } of state.list()) state.set(key, { value });
    };
    for (let start = 0; start < 2; start++) await (await fixture.open()).ensureStateSchema('p', { schemaVersion: 3, migrate });
    expect(from).toEqual([1]);
    expect([old.pluginState('p').get('a'), old.pluginState('q').get('a')]).toEqual([{ value: 1 }, 1]);
    await (await fixture.open()).ensureStateSchema('p', { schemaVersion: 4, migrate });
    expect(from).toEqual([1, 3]);
  });
  it('that is empty needs no migration, but has a version from then on', async () => {
    const state = await fixture.open();
    await state.ensureStateSchema('p', { schemaVersion: 2, migrate: () => { throw new Error('called'); } });
    await expect(state.ensureStateSchema('p', undefined)).rejects.toMatchObject({ code: 'ERR_STATE', plugin: 'p', message: expect.stringContaining('newer version') as string });
  });
  it('stays as it was when the migration fails or is missing', async () => {
    const state = await fixture.open();
    state.pluginState('p').set('a', 1);
    const broken = (own: ReturnType<typeof state.pluginState>): void => {
      own.set('a', 2);
      throw new Error('boom');
    };
    await expect(state.ensureStateSchema('p', { schemaVersion: 2, migrate: broken })).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', plugin: 'p' });
    await expect(state.ensureStateSchema('p', { schemaVersion: 2 })).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', cause: { message: 'there is no way from schema 1 to 2' } });
    await expect(state.ensureStateSchema('p', { schemaVersion: 2, migrate: (async () => {}) as () => void })).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED' });
    await expect(state.ensureStateSchema('p', { schemaVersion: 0 })).rejects.toMatchObject({ code: 'ERR_PLUGIN_INVALID' });
    expect(state.pluginState('p').get('a')).toBe(1);
    await state.ensureStateSchema('p', undefined);
  });
});
