import { effect, op } from '@engine/core/plan';
import { type LogDriver } from '@engine/core/contracts/log';
import { OPTIONS, parseOptions } from './options.ts';
import { readLog } from './reader.ts';

/** Logs in the CRI format, rotated by size, written by the shim into the container's log folder. */
export function createCriLog(): LogDriver {
  return {
    name: 'cri',
    features: new Set(['read', 'follow']),
    options: new Set(OPTIONS),
    probe: () => ({ available: true, score: 50, reasons: ['files in the CRI log format, rotated by size'] }),
    planLog: ({ folder, options }) => ({ logDir: folder, ...parseOptions(options) }),
    read: ({ folder, ...options }) => readLog(folder, options),
    remove: ({ folder }) => [effect(op.removeTree({ path: folder }), { none: 'a removal is repeated until it is done' })],
  };
}
