import * as fs from 'node:fs';
import { join } from 'node:path';
import { decodePlan } from '../plan/decode.ts';
import { FRAME, RUN_FILES } from '../plan/protocol.ts';
import { type Part } from '../plan/slots.ts';
import { type FakePeer } from './fake-connection.ts';
import { type FakeProcess } from './fake-handover.ts';
import { errno } from './fake-entries.ts';
import { errnoNumber } from './fake-operations.ts';
import { failure, startTime, type Perform, type RunProgram } from './fake-shim.ts';

/** A helper (also of mode `host`) or an undo. */
export async function fakeHelper(mode: 'undo' | 'helper', plan: Uint8Array, peer: FakePeer, perform: Perform, folder: string | undefined): Promise<'ended' | 'killed'> {
  let told = false;
  // a helper ends as soon as anything reaches it
  if (mode === 'helper') peer.onFrame(() => (told = true));
  const part: Part = mode === 'undo' ? 'after' : 'helper';
  const failures: unknown[] = [];
  for (const step of decodePlan(plan).steps.filter((candidate) => candidate.part === part)) {
    try {
      if (told || (await perform(step, part)) === null || told) return peer.close(), 'killed';
    } catch (error) {
      const { payload, json } = failure(step, part, error);
      if (mode === 'undo' || step.operation.flags?.optional) peer.send(FRAME.warning, { payload });
      else {
        peer.send(FRAME.failed, { payload });
        peer.send(FRAME.error, { argument: json.errno });
        return peer.close(), 'ended';
      }
      if (!step.operation.flags?.optional) failures.push(json);
    }
  }
  if (mode === 'undo' && folder !== undefined) fs.writeFileSync(join(folder, RUN_FILES.undone), JSON.stringify({ failures }));
  if (failures.length > 0) peer.send(FRAME.error, { argument: errnoNumber('EREMOTEIO'), payload: Buffer.from('something could not be undone') });
  else peer.send(FRAME.ok);
  peer.close();
  return 'ended';
}

/** Mode `exec`: a session of its own in the container that `init` is the first process of; undefined: it has ended. */
export async function fakeExec(plan: Uint8Array, peer: FakePeer, perform: Perform, program: RunProgram, init: FakeProcess | undefined, make: () => FakeProcess): Promise<void> {
  const steps = decodePlan(plan).steps.filter(({ part }) => part === 'shim' || part === 'exec');
  const [first] = steps;
  if (!first) return peer.close();
  if (!init) {
    peer.send(FRAME.failed, { payload: failure(first, 'exec', errno('ESRCH', 'the container is not running')).payload });
    return peer.close();
  }
  for (const step of steps) {
    try {
      if ((await perform(step, step.part)) === null || peer.closed) return peer.close();
    } catch (error) {
      peer.send(step.operation.flags?.optional ? FRAME.warning : FRAME.failed, { payload: failure(step, step.part, error).payload });
      if (!step.operation.flags?.optional) return peer.close();
    }
    if (step.operation.name !== 'exec') continue;
    const session = make();
    session.become(step, program);
    void init.ended.then(() => session.signal(9));
    peer.send(FRAME.started, { argument: session.pid, payload: startTime });
  }
  peer.close();
}
