import { fail } from '@engine/core/errors';
import { type LogDriver } from '@engine/core/contracts/log';

/** No log: output goes to attached clients and nowhere else. */
export function createNoneLog(): LogDriver {
  return {
    name: 'none',
    features: new Set(),
    options: new Set(),
    probe: () => ({ available: true, score: 0, reasons: ['keeps nothing: only when asked for'] }),
    planLog: () => ({ logDir: '', maxSize: 0n, maxFiles: 0, ring: 0 }),
    read() {
      throw fail('ERR_FEATURE_MISSING', 'the log driver none keeps nothing that could be read', { plugin: 'log-none', hint: 'run the container with --log-driver cri' });
    },
    remove: () => [],
  };
}
