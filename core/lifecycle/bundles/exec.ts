import { createPlanCollector } from '../../hooks/index.ts';
import { fail, isEngineError } from '../../errors/index.ts';
import { type BundleExec, type BundleRef } from '../../api/index.ts';
import { BITS, op } from '../../plan/index.ts';
import { type Spec } from '../../spec/index.ts';
import { type Core } from '../core.ts';
import { planSession } from '../exec.ts';
import { ensureSecurity } from '../security.ts';
import { contextOf, recordFrom } from './compile.ts';
import { checkProcess } from './config.ts';
import { callerFds } from './create.ts';
import { awaitHandOver } from './frames.ts';
import { isFrozen } from './groups.ts';
import { withPlan } from './hooks.ts';
import { initOf, notRunning, requireInit } from './status.ts';
import { find, readSpec } from './store.ts';

export async function execInBundle(core: Core, ref: BundleRef, request: BundleExec): Promise<{ readonly pid: number }> {
  const { root, id } = ref;
  const { native, log } = core.parts;
  const onWarning = request.onWarning ?? ((text: string) => log.warn({ container: id }, text));
  const process = checkProcess(request.process, (field) => onWarning(`${field} is not known, and ignored`));
  const { cgroups, ignorePaused } = request;
  await core.request('bundle exec', { root, id, process, cgroups, ignorePaused });
  const found = find(core, ref);
  requireInit(core, found, 'exec');
  const paused = (): Error => fail('ERR_PAUSED', `cannot exec in container ${id}: it is paused`, { operation: 'exec', path: id, hint: 'resume it first, or use --ignore-paused' });
  if (!ignorePaused && (await isFrozen(core, found))) throw paused();
  const fds = callerFds(request, process.terminal ?? false);
  const spec: Spec = { ...readSpec(found), process };
  const record = recordFrom(found, spec);
  const { stored, folder } = found;
  const run = contextOf(found, id, stored.run, { bundle: stored.bundle, noNewKeyring: stored.noNewKeyring, noPivot: false }, cgroups);
  const plan = createPlanCollector();
  const { consoleSize } = process;
  plan.writer('core', 'exec').at('/process/terminal').add('shim.stdio', op.stdio({ flags: process.terminal ? BITS.STDIO.terminal : BITS.STDIO.inherit, ...(process.terminal && consoleSize && { rows: consoleSize.height, cols: consoleSize.width }) }));
  const bytes = await planSession(core, { container: record, run, spec, plan }, 1, process.args ?? []);
  await ensureSecurity(core, record, spec);
  return core.locked([], () => withPlan(folder, bytes, async (file) => {
    try {
      const connection = native.spawnShim({ mode: 'exec', plan: file, runFolder: folder, by: request.spawner, handOver: fds, ...(ignorePaused && { ignorePaused }), ...(core.parts.shimEnv && { env: core.parts.shimEnv }) });
      return { pid: await awaitHandOver(core, connection, { bytes }, onWarning) };
    } catch (error) {
      // a session fails in odd ways when its container ends under it: then it is that which is to be told
      if (!initOf(core, found)) throw notRunning(id, 'exec');
      if (isEngineError(error) && error.errno === 'EBUSY' && !ignorePaused && (await isFrozen(core, found))) throw paused();
      throw error;
    }
  }));
}
