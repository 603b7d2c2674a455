import { fail } from '../errors/index.ts';
import { decodePlan, encodePlan, FRAME, orderSteps, type PlannedStep } from '../plan/index.ts';
import { type Frame, type ShimConnection } from '../native/index.ts';
import { type Core } from './core.ts';
import { readBarrier } from './frames.ts';
import { type RunPlan } from './plan-run.ts';

const EIO = 5;
/** Of a barrier that the plan says nothing of, ms. */
const DEADLINE = 10_000;

/** The shim stands at a barrier: run the named handler, hand over what it adds to init's part. Returns its failure. */
export async function answerBarrier(core: Core, connection: ShimConnection, frame: Frame, { bytes, deadlines }: Pick<RunPlan, 'bytes' | 'deadlines'>): Promise<Error | undefined> {
  const { index, handler: name, input, pid } = readBarrier(frame.payload);
  try {
    const { plugin, handler } = await core.registry.handler(name);
    const steps = (await handler({ input: JSON.parse(input || 'null') as unknown, pid, signal: AbortSignal.timeout(deadlines.get(index) ?? DEADLINE) })) ?? [];
    // init runs what is added when it goes on from its network slot: anywhere else it would silently be out of order
    const foreign = steps.find((s) => s.slot !== 'init.netns');
    if (foreign) throw fail('ERR_PLUGIN_FAILED', `barrier handler ${name} adds to slot ${foreign.slot}: only init.netns can be added to`, { plugin });
    const planned = steps.map((s): PlannedStep => ({ ...s, origin: { plugin, hook: `barrier ${name}` } }));
    await connection.send(FRAME.barrierReply, { argument: 0, payload: planned.length > 0 ? encodePlan({ steps: orderSteps(planned) }, decodePlan(bytes).registers) : new Uint8Array(0) });
    return undefined;
  } catch (error) {
    core.parts.log.debug({ err: error, handler: name }, 'barrier failed');
    await connection.send(FRAME.barrierReply, { argument: EIO }).catch(() => {});
    return error instanceof Error ? error : new Error(String(error));
  }
}
