import { describe, expect, it } from 'vitest';
import { decodePlan, encodePlan, op, type PlannedStep } from '../plan/index.ts';
import { blame } from './frames.ts';

/** What the shim says of a failed operation: its part, its index, the errno, the length of a text. */
function failed(index: number, errno: number): Buffer {
  const payload = Buffer.alloc(16);
  payload.writeUInt32LE(index, 4);
  payload.writeInt32LE(-errno, 8);
  return payload;
}

describe('a mount that cannot be shown with other owners', () => {
  const origin = (plugin: string) => ({ plugin, hook: 'prepareRootfs' });
  const planOf = (plugin: string): Uint8Array => encodePlan({ steps: [
    { slot: 'stage.mounts', operation: op.openTree({ source: '/data', out: 'a.mount' }), undo: [], origin: origin(plugin) },
    { slot: 'stage.mounts', operation: op.idmapMount({ mount: 'a.mount', userns: 'userns' }), undo: [], origin: origin(plugin) },
  ] satisfies PlannedStep[] });
  const told = (plugin: string, storage?: string) => {
    const plan = planOf(plugin);
    return blame(plan, failed(decodePlan(plan).steps.find(({ operation }) => operation.name === 'idmapMount')?.index ?? -1, 22), storage);
  };

  it('is named, with the option of the storage plugin that made it, whatever that is called', () => {
    expect(told('acme', 'acme')).toMatchObject({ code: 'ERR_OPERATION_FAILED', path: '/data', errno: 'EINVAL', plugin: 'acme', hint: expect.stringContaining('options.acme.idmap') as string });
  });
  it('is named, with the option of the mount, where it is a bind', () => {
    for (const storage of ['acme', undefined]) expect(told('linux-base', storage)).toMatchObject({ path: '/data', plugin: 'linux-base', hint: expect.stringContaining('leave out the mount option') as string });
  });
});

describe('a value that the kernel refuses', () => {
  const told = (operation: PlannedStep['operation'], errno: number, pointer?: string) => {
    const origin = { plugin: 'acme', hook: 'applyLimits', ...(pointer !== undefined && { pointer }) };
    const plan = encodePlan({ steps: [{ slot: operation.name === 'timeOffsets' ? 'stage.namespaces' : 'shim.limits', operation, undo: [], origin }] });
    return blame(plan, failed(decodePlan(plan).steps[0]?.index ?? -1, errno));
  };
  const write = op.writeFile({ path: '/sys/fs/cgroup/a/misc.max', data: Buffer.from('sev x') });

  it('stands in the hint, with the field of the spec that asked for it', () => {
    expect(told(write, 22, '/linux/resources')).toMatchObject({ errno: 'EINVAL', path: '/sys/fs/cgroup/a/misc.max', hint: 'the kernel does not take "sev x" there; change it in linux.resources' });
    expect(told(write, 2, '/linux/resources')).toMatchObject({ errno: 'ENOENT', hint: 'this kernel has no such file; leave out what asks for it in linux.resources' });
    expect(told(write, 13, '/linux/resources').hint).toBe('');
    expect(told(op.timeOffsets({ offsets: 'boottime -9 0' }), 34, '/linux/timeOffsets').hint).toContain('before 0');
  });
});
