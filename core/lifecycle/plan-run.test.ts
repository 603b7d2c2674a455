import { describe, expect, it } from 'vitest';
import { op, step, type PlannedStep, type Step } from '../plan/index.ts';
import { ATTACHED, withSync } from './plan-run.ts';

const planned = (steps: readonly Step[]): readonly PlannedStep[] => withSync(steps.map((one) => ({ ...one, origin: { plugin: 'test', hook: 'attachNetwork' } })));
const names = (steps: readonly PlannedStep[]): string[] => steps.map(({ slot, operation: { name, args } }) => `${slot} ${name}${'point' in args ? ` ${String(args['point'])}` : ''}`);
const link = step('shim.attach', op.linkIndex({ name: 'eth0', out: 'x' }));
const own = [step('init.cgroup', op.reach({ point: 7 })), step('shim.attach', op.awaitPoint({ point: 7 })), step('shim.attach', op.release({ point: 7 }))];

describe('the sync point of the network', () => {
  it('is there when the host side has something to do', () => {
    expect(names(planned([link]))).toEqual(['shim.attach linkIndex', `shim.attach awaitPoint ${ATTACHED}`, `shim.attach release ${ATTACHED}`, `init.netns reach ${ATTACHED}`]);
    expect(names(planned([]))).toEqual([]);
  });
  it('is there beside that of a plugin, which comes first', () => {
    expect(names(planned([...own, link]))).toEqual(['shim.attach awaitPoint 7', 'shim.attach release 7', 'shim.attach linkIndex', `shim.attach awaitPoint ${ATTACHED}`, `shim.attach release ${ATTACHED}`, 'init.cgroup reach 7', `init.netns reach ${ATTACHED}`]);
    expect(names(planned(own)).filter((name) => name.includes(String(ATTACHED)))).toEqual([]);
  });
  it('is not made again when it is planned', () => {
    expect(names(planned([link, step('init.netns', op.reach({ point: ATTACHED })), step('shim.attach', op.awaitPoint({ point: ATTACHED }))])).filter((name) => name.includes('reach'))).toHaveLength(1);
  });
});
