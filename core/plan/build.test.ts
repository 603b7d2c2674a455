import { describe, expect, it } from 'vitest';
import { effect, op, step } from './build.ts';

const path = '/x';

// the point of these is that they compile: each @ts-expect-error is an error when its line has none
describe('what the types demand', () => {
  it('an undo for every change outside the container', () => {
    // @ts-expect-error a changing operation in a host slot
    step('shim.cgroup', op.mkdir({ path, mode: 0o755 }));
    // @ts-expect-error a changing operation in a helper
    step('helper.main', op.writeFile({ path, data: new Uint8Array() }));
    // @ts-expect-error a changing effect
    effect(op.unlink({ path }));
    step('init.mounts', op.mkdir({ path, mode: 0o755 }));
    step('stage.mounts', op.unmount({ path, flags: 2 }));
    step('shim.cgroup', op.open({ path, flags: 0, out: 'fd' }));
    effect(op.syncFs({ path }));
    expect(step('shim.cgroup', op.mkdir({ path, mode: 0o755 }), op.rmdir({ path })).undo).toEqual([op.rmdir({ path })]);
    expect(effect(op.mkdir({ path, mode: 0o755 }), [op.unlink({ path }), op.rmdir({ path })]).undo).toHaveLength(2);
    expect(effect(op.removeTree({ path }), { none: 'it is a removal' })).toMatchObject({ undo: [], noUndo: 'it is a removal' });
  });

  it('the arguments of the table', () => {
    // @ts-expect-error mode is missing
    op.mkdir({ path });
    // @ts-expect-error no such argument
    op.rmdir({ path, recursive: true });
    // @ts-expect-error a 64-bit number is a bigint
    op.unshare({ flags: 1 });
    // @ts-expect-error a register is named, not numbered
    op.close({ fd: 3 });
    // @ts-expect-error no such flag
    op.rmdir({ path }, { force: true });
    // @ts-expect-error no such slot
    step('init.nothing', op.reach({ point: 1 }));
    // @ts-expect-error an empty reason is no undo
    step('shim.cgroup', op.mkdir({ path, mode: 0o755 }), {});
    expect(op.rmdir({ path }, { okMissing: true })).toEqual({ name: 'rmdir', args: { path }, flags: { okMissing: true } });
  });
});
