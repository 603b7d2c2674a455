import * as fs from 'node:fs';
import { join } from 'node:path';
import { type ExitRecord } from '../api/types.ts';
import { RUN_FILES } from '../plan/protocol.ts';
import { errnoName, ifPresent, readJson, writeAtomic } from './files.ts';
import { describeFailure, stepsOf } from './helper.ts';
import { type RunRecord, type RunView } from './types.ts';

type Loose = Record<string, unknown> | undefined;
const read = (folder: string, file: string): Loose => {
  const value = readJson(join(folder, file));
  return typeof value === 'object' && value !== null ? (value as Loose) : undefined;
};

/** Nanoseconds since the epoch (text or number) as RFC 3339 with nanoseconds, as Docker writes times. */
export function isoTime(nanoseconds: unknown): string {
  const ns = typeof nanoseconds === 'string' && /^\d+$/.test(nanoseconds) ? BigInt(nanoseconds) : BigInt(Math.trunc(Number(nanoseconds) || 0));
  const fraction = String(ns % 1_000_000_000n).padStart(9, '0');
  return new Date(Number(ns / 1_000_000n)).toISOString().replace(/\.\d+Z$/, `.${fraction}Z`);
}
const nowNs = (): string => String(BigInt(Date.now()) * 1_000_000n);

export function readRecord(folder: string): RunRecord | undefined {
  const value = read(folder, RUN_FILES.record);
  const fields = ['run', 'container', 'instance', 'boot', 'created'] as const;
  return value && fields.every((field) => typeof value[field] === 'string') ? (value as unknown as RunRecord) : undefined;
}

const STALE_STARTED = `${RUN_FILES.started}.stale`;
/** Of another boot: the process that now has its pid must not be taken for it by whoever runs the undo. */
export function forgetProcess(folder: string): void {
  ifPresent(() => fs.renameSync(join(folder, RUN_FILES.started), join(folder, STALE_STARTED)));
}
export function readStarted(folder: string): RunView['started'] {
  const value = read(folder, RUN_FILES.started) ?? read(folder, STALE_STARTED);
  if (!value || typeof value['pid'] !== 'number') return undefined;
  // few ask when it was
  return { pid: value['pid'], startTime: BigInt(String(value['startTime'] ?? 0)), get startedAt() { return isoTime(value['startedAt']); } };
}

/** Another process is the run's first from now on. */
export function writeStarted(folder: string, { pid, startTime }: { readonly pid: number; readonly startTime: bigint }): void {
  writeAtomic(join(folder, RUN_FILES.started), `{"pid":${pid},"startTime":${startTime},"startedAt":"${nowNs()}"}`);
}

export function readFailed(folder: string): RunView['failed'] {
  const value = read(folder, RUN_FILES.failed);
  if (!value || typeof value['index'] !== 'number') return undefined;
  return { part: String(value['part'] ?? ''), index: value['index'], errno: Math.abs(Number(value['errno'] ?? 0)), detail: String(value['detail'] ?? '') };
}

/** As the shim wrote it, or {@link writeExit} in its place. */
export function readExit(folder: string, run: string, startedAt: string | undefined): ExitRecord | undefined {
  return parseExit(read(folder, RUN_FILES.exit), run, startedAt);
}

/** The JSON of an exit file, which is also the payload of an `exit` frame. */
export function parseExit(value: Loose, run: string, startedAt?: string): ExitRecord | undefined {
  if (!value || typeof value['code'] !== 'number') return undefined;
  const oom = value['oom'] as ExitRecord['oom'];
  const exit: ExitRecord = { run, code: value['code'], finishedAt: isoTime(value['finishedAt']) };
  if (typeof value['signal'] === 'number' && value['signal'] !== 0) exit.signal = value['signal'];
  if (value['coreDumped'] === true) exit.coreDumped = true;
  if (oom?.killed) exit.oom = oom;
  if (typeof value['error'] === 'string') exit.error = value['error'];
  if (startedAt) exit.startedAt = startedAt;
  if (typeof value['dropped'] === 'number' && value['dropped'] > 0) exit.droppedLogBytes = value['dropped'];
  return exit;
}

/** The exit of a run whose shim left none, in the shim's format. */
export function writeExit(folder: string, exit: ExitRecord): void {
  const finishedAt = String(BigInt(Date.parse(exit.finishedAt)) * 1_000_000n);
  writeAtomic(join(folder, RUN_FILES.exit), JSON.stringify({ code: exit.code, signal: exit.signal ?? 0, coreDumped: false, oom: { killed: false }, finishedAt, dropped: 0, error: exit.error }));
}

/** Operations that look for and start the user's program: their failure has Docker's exit code. */
const PROGRAM = new Set(['resolveExec', 'exec']);

/**
 * How a run that is over ended. `ran` is false when the plan never came as far as the program or its failure: nothing of it is then
 * recorded.
 */
export function exitOf(view: RunView): { readonly exit: ExitRecord; readonly ran: boolean } {
  if (view.exit) return { exit: view.exit, ran: true };
  const exit: ExitRecord = { run: view.record.run, code: 137, finishedAt: isoTime(nowNs()) };
  if (view.started) exit.startedAt = view.started.startedAt;
  if (view.failed) {
    const { failed } = view;
    const step = stepsOf(join(view.folder, RUN_FILES.plan)).get(failed.index);
    const errno = errnoName(failed.errno);
    const program = step !== undefined && PROGRAM.has(step.operation.name);
    return { exit: { ...exit, code: program ? (errno === 'ENOENT' ? 127 : 126) : 125, error: describeFailure(failed, step) }, ran: true };
  }
  if (view.stale) return { exit: { ...exit, error: 'the machine was restarted' }, ran: view.started !== undefined };
  if (view.started) return { exit: { ...exit, signal: 9, error: 'the shim was killed' }, ran: true };
  return { exit: { ...exit, code: 125, error: 'the engine was stopped before the container had started' }, ran: false };
}
