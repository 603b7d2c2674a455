import { describe, expect, it } from 'vitest';
import { decodePlan, effect, encodePlan, op, operations, orderSteps, slots, step, undoSteps, type OperationEntry, type PlannedStep } from './index.ts';

const origin = { plugin: 'test', hook: 'applyLimits' };
const planned = (...steps: ReturnType<typeof step>[]): PlannedStep[] => steps.map((s) => ({ ...s, origin }));
const table: [string, OperationEntry][] = Object.entries(operations);

/** A value of every field type that is not its default. */
const sample: Record<string, unknown> = { u32: 7, i32: -7, u64: 2n ** 63n, i64: -(2n ** 40n), str: 'täxt', bytes: Buffer.from([1, 0, 2]), strs: ['a', '', 'bcd'], reg: 'fd3', out: 'own.result' };

describe('operation table', () => {
  it('gives every operation a code of its own', () => {
    const codes = table.map(([, entry]) => entry.code);
    expect(new Set(codes).size).toBe(codes.length);
  });

  it.each(table)('encodes and decodes every field of %s', (name, entry) => {
    const args = Object.fromEntries(Object.entries(entry.fields).map(([field, type]) => [field, sample[type.replace('?', '')]]));
    const bytes = encodePlan({ steps: [{ slot: 'init.mounts', operation: { name: name as 'mkdir', args, flags: { optional: true } }, undo: [], origin }] });
    expect(bytes.length % 4).toBe(0);
    const [back] = decodePlan(bytes).steps;
    expect(back).toMatchObject({ part: 'init', slot: 'init.mounts', origin, operation: { name, args, flags: { optional: true } } });
  });
});

describe('encodePlan', () => {
  it('refuses wrong arguments by operation and field', () => {
    const bad = (name: string, args: object): unknown => encodePlan({ steps: [{ slot: 'init.mounts', operation: { name: name as 'mkdir', args: args as Record<string, unknown> }, undo: [], origin }] });
    expect(() => bad('mkdir', { path: '/a\0b', mode: 1 })).toThrow(/mkdir: field path contains a NUL/);
    expect(() => bad('mkdir', { path: '/a' })).toThrow(/field mode is missing/);
    expect(() => bad('mkdir', { path: '/a', mode: -1 })).toThrow(/field mode is not a u32/);
    expect(() => bad('mkdir', { path: '/a', mode: 2 ** 32 })).toThrow(/u32/);
    expect(() => bad('mkdir', { path: '/a', mode: 1, mood: 1 })).toThrow(/field mood is unknown/);
    expect(() => bad('spawn', { flags: -1n, pid: 'a', pidfd: 'b' })).toThrow(/u64/);
    expect(() => bad('nonsense', {})).toThrow(/unknown operation/);
  });

  it('writes text of any length and alphabet as it is', () => {
    for (const text of ['', 'a', 'abc', 'abcd', 'ä', 'abcä', `${'x'.repeat(126)}é`, 'y'.repeat(127), 'y'.repeat(128), '漢'.repeat(200)]) {
      const paths = [text, 'after', `${text}${text}`];
      const [back] = decodePlan(encodePlan({ steps: planned(step('init.exec', op.exec({ program: 'fd0', argv: paths, env: [text] }))) })).steps;
      expect(back?.operation.args).toMatchObject({ argv: paths, env: [text] });
    }
  });

  it('refuses steps out of order, and orderSteps puts them right', () => {
    const steps = planned(step('init.exec', op.chdir({ path: '/' })), step('init.mounts', op.procHandle({ out: 'proc' })));
    expect(() => encodePlan({ steps })).toThrow(/out of order/);
    expect(decodePlan(encodePlan({ steps: orderSteps(steps) })).steps.map((s) => s.slot)).toEqual(['init.mounts', 'init.exec']);
  });

  it('numbers registers by first use after the preset ones', () => {
    const bytes = encodePlan({ steps: planned(step('init.mounts', op.procHandle({ out: 'proc' })), step('init.pivot', op.pivotRoot({ root: 'rootfs' }))) });
    expect(decodePlan(bytes).registers.slice(8)).toEqual(['proc', 'rootfs']);
  });
});

describe('decodePlan', () => {
  it('refuses what is no plan, a newer format, and a truncated one', () => {
    const bytes = Buffer.from(encodePlan({ steps: planned(step('init.hostname', op.setHostname({ name: 'x' }))) }));
    expect(() => decodePlan(Buffer.from('hello world, no plan'))).toThrow(/not a plan/);
    const newer = Buffer.from(bytes);
    newer.writeUInt32LE(99, 4);
    expect(() => decodePlan(newer)).toThrow(/format 99/);
    expect(() => decodePlan(bytes.subarray(0, bytes.length - 4))).toThrow(/length/);
  });
});

describe('undo', () => {
  it('runs newest first, in the order given within a step', () => {
    const steps = planned(
      step('shim.cgroup', op.mkdir({ path: '/a', mode: 0o755 }), [op.cgroupKill({ path: '/a', deadline: 1 }), op.cgroupRemove({ path: '/a', deadline: 1 })]),
      step('shim.limits', op.writeFile({ path: '/a/x', data: Buffer.from('1') }), { none: 'goes with the cgroup' }),
      step('shim.rootfs', op.mkdir({ path: '/b', mode: 0o755 }), op.rmdir({ path: '/b' })),
    );
    expect(undoSteps(steps).map((s) => s.operation.name)).toEqual(['rmdir', 'cgroupKill', 'cgroupRemove']);
  });

  it('is demanded by the type of a changing operation on the host', () => {
    // @ts-expect-error a changing operation in a host slot needs an undo
    step('shim.cgroup', op.mkdir({ path: '/a', mode: 0o755 }));
    // @ts-expect-error the same for an effect
    effect(op.mkdir({ path: '/a', mode: 0o755 }));
    // @ts-expect-error arguments come from the table
    op.mkdir({ path: '/a', mode: '755' });
    // @ts-expect-error slots are known
    step('init.nowhere', op.setHostname({ name: 'x' }));
    expect(step('init.mounts', op.mkdir({ path: '/a', mode: 0o755 })).undo).toEqual([]);
  });
});

it('keeps fewer than 32 slots in a part, as the numbering needs', () => {
  for (const names of Object.values(slots)) expect(names.length).toBeLessThan(32);
});
