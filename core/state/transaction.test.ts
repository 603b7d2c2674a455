import * as fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { effect, op } from '../plan/build.ts';
import { type FakeNative, type Victim } from '../native/fake.ts';
import { checkpointNames } from './points.ts';
import { container, Crash, createFixture, type Fixture } from './state.fixture.ts';
import { type State } from './types.ts';

let fixture: Fixture;
beforeEach(() => { fixture = createFixture(); });
afterEach(() => fixture.remove());

const id = 'a'.repeat(64);
const path = (name: string): string => join(fixture.work, name);

/** Two calls, a removal on commit, rows, plugin state. */
async function verb(state: State): Promise<void> {
  const transaction = state.begin('create container x');
  const effects = transaction.effects('storage-test');
  try {
    await effects.run([
      effect(op.mkdir({ path: path('a'), mode: 0o700 }), op.removeTree({ path: path('a') })),
      effect(op.writeFile({ path: path('a/f'), data: Buffer.from('x'), how: 3, mode: 0o600 }), op.unlink({ path: path('a/f') })),
    ]);
    await effects.run([effect(op.rename({ from: path('source'), to: path('a/moved') }), op.rename({ from: path('a/moved'), to: path('source') }))]);
    effects.onCommit([
      effect(op.rename({ from: path('old'), to: path('old.trash') }), { none: 'a removal' }),
      effect(op.removeTree({ path: path('old.trash') }), { none: 'a removal' }),
    ]);
    effects.setState('key', { value: 1 });
    await transaction.commit((rows) => rows.insertContainer(container(id, 'x')));
  } catch (error) {
    if (!(error instanceof Crash)) await transaction.rollback();
    throw error;
  }
}
function prepare(): void {
  fs.mkdirSync(path('old/deep'), { recursive: true });
  fs.writeFileSync(path('source'), 's');
}
const before = ['old', 'old/deep', 'source'];
const after = ['a', 'a/f', 'a/moved'];

function found(state: State): 'before' | 'after' {
  const files = (fs.readdirSync(fixture.work, { recursive: true }) as string[]).sort();
  const row = state.containers.get(id);
  const value = state.pluginState('storage-test').get('key');
  expect(fixture.leftOver()).toEqual([]);
  if (row === undefined) {
    expect({ files, value }).toEqual({ files: before, value: undefined });
    return 'before';
  }
  expect({ files, value }).toEqual({ files: after, value: { value: 1 } });
  return 'after';
}
async function nextStart(native: FakeNative): Promise<'before' | 'after'> {
  const state = await fixture.open(native.restart());
  await state.reconcile();
  const result = found(state);
  expect(await state.reconcile()).toEqual([]);
  expect(await state.orphans()).toEqual([]);
  return result;
}
function reset(): void {
  fixture.remove();
  fixture = createFixture();
  prepare();
}

describe('transaction', () => {
  it('commits', async () => {
    prepare();
    const state = await fixture.open();
    await verb(state);
    expect(found(state)).toBe('after');
    expect(fixture.native.operations.every((operation) => operation.origin.plugin === 'storage-test')).toBe(true);
  });

  it('spawns nothing and writes no journal for rows alone', async () => {
    const state = await fixture.open();
    const transaction = state.begin('rows');
    await transaction.effects('p').run([]);
    await transaction.commit((rows) => rows.insertContainer(container(id, 'x')));
    expect(fixture.native.operations).toEqual([]);
    expect(state.containers.byName('x')?.id).toBe(id);
    const idle = state.begin('nothing');
    await idle.rollback();
  });

  it('undoes what was done when an operation fails, and says who, what and why', async () => {
    for (let k = 0; k < 3; k++) {
      reset();
      const state = await fixture.open();
      fixture.native.failAt(k, { errno: 'ENOSPC', detail: 'disk full' });
      await expect(verb(state)).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', errno: 'ENOSPC', plugin: 'storage-test', operation: ['mkdir', 'writeFile', 'rename'][k] });
      expect(found(state)).toBe('before');
    }
  });

  it('leaves alone what existed already', async () => {
    prepare();
    const state = await fixture.open();
    const transaction = state.begin('twice');
    await expect(transaction.effects('p').run([
      effect(op.mkdir({ path: path('new'), mode: 0o700 }), op.removeTree({ path: path('new') })),
      effect(op.mkdir({ path: path('old'), mode: 0o700 }), op.removeTree({ path: path('old') })),
    ])).rejects.toMatchObject({ errno: 'EEXIST', path: path('old') });
    await transaction.rollback();
    expect(found(state)).toBe('before');
  });

  it('rolls back when the rows are refused', async () => {
    const state = await fixture.open();
    const first = state.begin('first');
    await first.commit((rows) => rows.insertContainer(container('b'.repeat(64), 'x')));
    prepare();
    await expect(verb(state)).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN' });
    expect(found(state)).toBe('before');
  });

  it('keeps trying a removal that fails after the commit', async () => {
    prepare();
    const state = await fixture.open();
    fixture.native.failAt(4, { errno: 'EBUSY' });
    await verb(state);
    expect(await state.orphans()).toMatchObject([{ kind: 'transaction', owner: 'create container x' }]);
    expect(fs.existsSync(path('old.trash'))).toBe(true);
    fixture.native.reset();
    expect(await state.reconcile()).toEqual(['finished: create container x']);
    expect(found(state)).toBe('after');
  });

  it('reports an undo that fails, and tries it again at the next start', async () => {
    prepare();
    const state = await fixture.open();
    const transaction = state.begin('make it');
    await transaction.effects('p').run([effect(op.mkdir({ path: path('a'), mode: 0o700 }), op.removeTree({ path: path('a') }))]);
    fixture.native.failAt(0, { errno: 'EBUSY' });
    await expect(transaction.rollback()).rejects.toMatchObject({ code: 'ERR_UNDO_FAILED' });
    fixture.native.reset();
    expect(await state.reconcile()).toEqual(['undone: make it']);
    expect(found(state)).toBe('before');
  });

  it('passes warnings of optional operations on', async () => {
    const state = await fixture.open();
    const warnings: string[] = [];
    const transaction = state.begin('optional');
    await transaction.effects('p').run([effect(op.rmdir({ path: path('nothing') }, { optional: true }), { none: 'x' })], { onWarning: (text) => warnings.push(text) });
    expect(warnings).toEqual([`rmdir ${path('nothing')}: ENOENT, ENOENT: no such file or directory, rmdir '${path('nothing')}' [plugin p]`]);
    await transaction.rollback();
  });

  it('stops when it is told to, and undoes what was done', async () => {
    prepare();
    const state = await fixture.open();
    const controller = new AbortController();
    const transaction = state.begin('long');
    const list = Array.from({ length: 20 }, (_, i) => effect(op.mkdir({ path: path(`n${i}`), mode: 0o700 }), op.rmdir({ path: path(`n${i}`) })));
    const run = transaction.effects('p').run(list, { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('enough')), 1);
    await expect(run).rejects.toThrow('enough');
    await expect(transaction.effects('p').run(list, { signal: controller.signal })).rejects.toThrow('enough');
    await transaction.rollback();
    expect(found(state)).toBe('before');
  });

  it('refuses use after the end', async () => {
    const state = await fixture.open();
    const transaction = state.begin('done');
    await transaction.commit(() => {});
    await expect(transaction.commit(() => {})).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    await expect(transaction.rollback()).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
  });
});

describe('crash matrix of a transaction', () => {
  for (const victim of ['engine', 'shim', 'both'] as const satisfies Victim[]) {
    it(`${victim} killed before and after every operation`, async () => {
      const seen = new Set<string>();
      for (let k = 0; k < 5; k++) {
        for (const when of ['before', 'after'] as const) {
          reset();
          const state = await fixture.open();
          fixture.native.crashAt(k, { victim, when });
          const work = verb(state).catch((error: unknown) => error);
          await (victim === 'shim' ? work : Promise.race([work, fixture.native.crashed]));
          seen.add(await nextStart(fixture.native));
        }
      }
      expect([...seen].sort()).toEqual(['after', 'before']);
    });
  }

  it('engine killed at every record point', async () => {
    const seen = new Map<string, string>();
    for (let stop = 0; ; stop++) {
      reset();
      let calls = 0;
      let at = '';
      const state = await fixture.open(fixture.native, (name) => {
        expect(checkpointNames).toContain(name);
        if (calls++ !== stop) return;
        at = name;
        fixture.native.die();
        throw new Crash(name);
      });
      const result = await verb(state).catch((error: unknown) => error);
      if (at === '') break;
      expect(result).toBeInstanceOf(Crash);
      seen.set(at, await nextStart(fixture.native));
    }
    expect(seen.get('transaction.commit.before')).toBe('before');
    expect(seen.get('transaction.commit.after')).toBe('after');
    expect(seen.size).toBeGreaterThan(12);
  });

  it('killed again while it is undone', async () => {
    for (let stop = 0; stop < 6; stop++) {
      reset();
      const state = await fixture.open();
      fixture.native.crashAt(2, { victim: 'both', when: 'after' });
      void verb(state).catch(() => {});
      await fixture.native.crashed;
      let calls = 0;
      const second = fixture.native.restart();
      const again = await fixture.open(second, (name) => {
        if (calls++ !== stop) return;
        second.die();
        throw new Crash(name);
      });
      await again.reconcile().catch(() => {});
      expect(await nextStart(second)).toBe('before');
    }
  });
});

describe('two engines on one root', () => {
  it('never touch what the other has in flight', async () => {
    prepare();
    const one = await fixture.open();
    const other = await fixture.open(fixture.native);
    const transaction = one.begin('long work');
    await transaction.effects('p').run([effect(op.mkdir({ path: path('a'), mode: 0o700 }), op.removeTree({ path: path('a') }))]);
    expect(await other.reconcile()).toEqual([]);
    expect(await other.orphans()).toEqual([]);
    expect(fs.existsSync(path('a'))).toBe(true);
    await transaction.rollback();
    expect(found(other)).toBe('before');
  });

  it('write at the same time', async () => {
    const states = await Promise.all(Array.from({ length: 4 }, () => fixture.open()));
    await Promise.all(states.flatMap((state, s) => Array.from({ length: 5 }, async (_, i) => {
      const transaction = state.begin('parallel');
      const file = path(`${s}-${i}`);
      await transaction.effects('p').run([effect(op.mkdir({ path: file, mode: 0o700 }), op.rmdir({ path: file }))]);
      await transaction.commit((rows) => rows.insertContainer(container(`${s}${i}`.repeat(32), `c${s}${i}`)));
    })));
    expect(states[0]?.containers.list()).toHaveLength(20);
    const numbers = states.flatMap((state) => [state.nextEvent(), state.nextEvent()]);
    expect(new Set(numbers).size).toBe(8);
    expect(fixture.leftOver()).toEqual([]);
  });

  it('execute an undo once', async () => {
    prepare();
    const state = await fixture.open();
    fixture.native.crashAt(1, { victim: 'both' });
    void verb(state).catch(() => {});
    await fixture.native.crashed;
    const next = fixture.native.restart();
    next.reset();
    const states = await Promise.all([fixture.open(next), fixture.open(next), fixture.open(next)]);
    const done = await Promise.all(states.map((each) => each.reconcile()));
    expect(done.flat()).toEqual(['undone: create container x']);
    expect(next.operations.filter((operation) => operation.name === 'removeTree')).toHaveLength(1);
  });
});

describe('damage', () => {
  it('does not keep the engine from starting', async () => {
    const state = await fixture.open();
    const inflight = join(fixture.folder, 'root/inflight');
    fs.mkdirSync(join(inflight, 'garbage'));
    fs.writeFileSync(join(inflight, 'garbage/record.json'), '{"what":');
    fs.mkdirSync(join(inflight, 'torn'));
    fs.writeFileSync(join(inflight, 'torn/lock'), '');
    fs.writeFileSync(join(inflight, 'torn/effects-0000'), 'EPLN');
    fs.mkdirSync(join(inflight, '.tmp-old'));
    fs.writeFileSync(join(inflight, 'file'), '');
    const orphans = await state.orphans();
    expect(orphans.map((orphan) => orphan.kind)).toEqual(['transaction', 'transaction', 'transaction', 'transaction']);
    expect(await state.reconcile()).toHaveLength(3);
    expect(fs.readdirSync(inflight)).toEqual(['file']);
    expect(await state.orphans()).toMatchObject([{ kind: 'transaction', owner: 'unknown' }]);
  });
});
