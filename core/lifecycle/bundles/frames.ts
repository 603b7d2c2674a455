import { FRAME } from '../../plan/index.ts';
import { fail } from '../../errors/index.ts';
import { type ShimConnection } from '../../native/index.ts';
import { answerBarrier } from '../barrier.ts';
import { endWithEngine, type Core } from '../core.ts';
import { blame, warningText } from '../frames.ts';
import { type RunPlan } from '../plan-run.ts';

/**
 * Until a shim has handed over what it started, and has ended: then its processes are the caller's. Resolves with the pid. Errors: what failed, undone
 * by the shim; ERR_SHIM_GONE.
 */
export async function awaitHandOver(core: Core, connection: ShimConnection, { bytes, deadlines = new Map() }: Pick<RunPlan, 'bytes'> & Partial<Pick<RunPlan, 'deadlines'>>, onWarning: (text: string) => void): Promise<number> {
  let pid: number | undefined;
  let failure: Error | undefined;
  let barrier: Promise<Error | undefined> | undefined;
  endWithEngine(core, connection);
  connection.onFrame((frame) => {
    if (frame.type === FRAME.warning) onWarning(warningText(bytes, frame.payload));
    else if (frame.type === FRAME.started) pid = frame.argument;
    else if (frame.type === FRAME.failed) failure ??= blame(bytes, frame.payload);
    else if (frame.type === FRAME.barrier) barrier = answerBarrier(core, connection, frame, { bytes, deadlines });
    else if (frame.type === FRAME.error) failure ??= fail('ERR_SHIM_PROTOCOL', `the shim refused: ${frame.payload.toString('utf8') || frame.argument}`, { operation: 'start' });
  });
  await connection.closed;
  const cause = await barrier;
  const error = cause ?? failure ?? connection.failure;
  if (error) throw error;
  if (pid === undefined) throw fail('ERR_SHIM_GONE', 'the shim ended before all was ready');
  return pid;
}
