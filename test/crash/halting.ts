import { type OpenOptions } from '../../config/open.ts';
import { type Files } from './scenario.ts';
import { createNative } from '@engine/native';
import { join } from 'node:path';

/** Where to stop: operation `halt` of the `shim`th shim that is started, or the `nth` time that record point `point` is passed. */
export interface Cut {
  readonly shim?: number;
  /** `part:index:before|after`, as the shim's test build takes it. */
  readonly halt?: string;
  readonly point?: string;
  readonly nth?: number;
}
export interface Watch {
  /** A folder for the halt file (`halt`) and traces (`trace-N`). */
  readonly folder: string;
  readonly cut?: Cut;
  /** Called at every record point, with its name and how often it was passed. */
  readonly onPoint?: (name: string, nth: number) => void;
}

/** What a victim is told, as one line of JSON. */
export interface Order {
  readonly root: string;
  readonly runRoot: string;
  readonly folder: string;
  readonly scenario: string;
  readonly files: Files;
  readonly cut: Cut;
}

/** Options that open an engine with the shim's test build and a cut. */
export function watched(root: string, runRoot: string, watch: Watch): OpenOptions {
  const counts = new Map<string, number>();
  let shims = 0;
  return {
    flags: { root, runRoot }, env: { ENGINE_RESIDENT: 'off', HOME: '/nonexistent', PATH: process.env['PATH'] ?? '' }, cwd: '/',
    wrap: {
      native: () => {
        const native = createNative({ shimPath: join(import.meta.dirname, '../../dist/bin/engine-shim-test') });
        return {
          ...native,
          spawnShim(request) {
            const n = shims++;
            const env = { ENGINE_HALT_FILE: join(watch.folder, 'halt'), ENGINE_TRACE_FILE: join(watch.folder, `trace-${n}`), ...(watch.cut?.shim === n && watch.cut.halt ? { ENGINE_HALT: watch.cut.halt } : {}) };
            return native.spawnShim({ ...request, env: { ...request.env, ...env } });
          },
        };
      },
      checkpoint(name) {
        const nth = (counts.get(name) ?? 0) + 1;
        counts.set(name, nth);
        watch.onPoint?.(name, nth);
        if (watch.cut?.point === name && watch.cut.nth === nth) process.kill(process.pid, 'SIGKILL');
      },
    },
  } as OpenOptions;
}
