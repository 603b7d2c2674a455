import { type RunView } from '../state/index.ts';
import { type Core } from './core.ts';
import { catchUp, finishRun } from './finish.ts';
import { watch } from './running.ts';

/** To the end of its undo. */
async function follow(core: Core, view: RunView): Promise<void> {
  const watched = await watch(core, view);
  await watched?.connection.closed;
  await finishRun(core, view.record.container, view.record.run);
}

/** See System.supervise. `followed`: ids of the runs that are looked after already. */
export async function supervise(core: Core, followed: Set<string>): Promise<readonly string[]> {
  const done = await catchUp(core);
  for (const view of core.parts.state.runs.list()) {
    const { run } = view.record;
    // one that is being started has an engine, whose end would wake us again
    if (!view.alive || !view.started || followed.has(run)) continue;
    followed.add(run);
    void follow(core, view).catch((error: unknown) => core.closing || core.parts.log.warn({ err: error, container: view.record.container }, 'its run could not be collected')).finally(() => followed.delete(run));
  }
  return done;
}
