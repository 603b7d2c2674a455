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
