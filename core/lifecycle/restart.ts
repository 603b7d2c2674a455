import { fail, isEngineError } from '../errors/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { settled } from './finish.ts';
import { endRun, type StopOptions } from './running.ts';
import { startContainer } from './start.ts';

/** Errors: ERR_NOT_SUPPORTED for one that goes with its run, and those of start. */
export async function restartContainer(core: Core, ref: string, options: StopOptions = {}): Promise<void> {
  const record = await settled(core, ref);
  await core.request('restart', { container: record.id, ...options });
  if (record.request.autoRemove && record.starts > 0) throw fail('ERR_NOT_SUPPORTED', `cannot restart container ${record.name}: it goes with its run (--rm)`, { operation: 'restart', path: record.name, hint: 'make it without --rm', exitCode: 1 });
  await endRun(core, record, 'restart', options);
  try {
    (await startContainer(core, record.id)).detach();
  } catch (error) {
    // whoever was faster has done what was asked for
    if (!isEngineError(error, 'ERR_ALREADY_RUNNING')) throw error;
  }
  core.emit('container', 'restart', record.id, eventAttributes(record));
}
