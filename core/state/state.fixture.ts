import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { type ContainerRecord } from '../api/types.ts';
import { createFakeNative, type FakeNative, type FakeNativeOptions } from '../native/fake.ts';
import { encodePlan } from '../plan/encode.ts';
import { op } from '../plan/build.ts';
import { type Operation, type PlannedStep } from '../plan/types.ts';
import { type Slot } from '../plan/slots.ts';
import { type Checkpoint } from './points.ts';
import { openState } from './open.ts';
import { type State } from './types.ts';

export const silent = pino({ level: 'silent' });

/** Thrown by a checkpoint to stop the engine there. */
export class Crash extends Error {}

export interface Fixture {
  readonly folder: string;
  readonly work: string;
  readonly native: FakeNative;
  open(native?: FakeNative, checkpoint?: Checkpoint, discard?: (folder: string) => unknown): Promise<State>;
  /** Names in the folders that must be empty when nothing is in flight. */
  leftOver(): string[];
  remove(): void;
}
export function createFixture(options: Omit<FakeNativeOptions, 'prefix'> = {}): Fixture {
  const folder = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), 'engine-state-')));
  const work = join(folder, 'work');
  fs.mkdirSync(work);
  const root = join(folder, 'root');
  const runRoot = join(folder, 'run');
  const native = createFakeNative({ prefix: folder, ...options });
  const states: State[] = [];
  return {
    folder, work, native,
    async open(on = native, checkpoint, discard) {
      const state = await openState({ root, runRoot, native: on, log: silent, ...(checkpoint && { checkpoint }), ...(discard && { discard }) });
      states.push(state);
      return state;
    },
    leftOver() {
      const folders = [join(root, 'inflight'), join(root, 'trash'), join(runRoot, 'runs'), join(runRoot, 'leftovers'), join(runRoot, 'trash')];
      return folders.flatMap((path) => fs.readdirSync(path).map((name) => join(path, name)));
    },
    remove() {
      for (const state of states) {
        try {
          state.close();
        } catch {
          // its engine has been killed
        }
      }
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
}

export function container(id: string, name: string, volumes: readonly string[] = []): ContainerRecord {
  return {
    id, name, created: '2026-01-01T00:00:00Z', starts: 0,
    networks: [],
    volumes: volumes.map((volume) => ({ name: volume, target: '/v', driver: 'local', anonymous: false, readonly: false, copyUp: false })),
  } as unknown as ContainerRecord;
}

/** A plan of one operation per slot, and an undo. */
export function plan(steps: readonly { slot: Slot; operation: Operation }[]): Uint8Array {
  const origin = { plugin: 'test', hook: 'test' };
  return encodePlan({ steps: steps.map((step): PlannedStep => ({ ...step, undo: [], origin })) });
}
/** Makes `path`, starts `argv`, removes `path` again. */
export function simplePlan(path: string, argv: readonly string[]): Uint8Array {
  return plan([
    { slot: 'shim.cgroup', operation: op.mkdir({ path, mode: 0o755 }) },
    { slot: 'init.exec', operation: op.resolveExec({ name: argv[0] ?? '', env: [], out: 'program' }) },
    { slot: 'init.exec', operation: op.exec({ program: 'program', argv: [...argv], env: [] }) },
    { slot: 'after.undo', operation: op.cgroupKill({ path: '/sys/fs/cgroup/x', deadline: 100 }) },
    { slot: 'after.undo', operation: op.removeTree({ path }) },
  ]);
}
