import * as fs from 'node:fs';
import { fail, type EngineError } from '../errors/index.ts';
import { type Native, type SpawnShim } from '../native/index.ts';
import { decodePlan, readsAfter, type DecodedStep } from '../plan/decode.ts';
import { FRAME } from '../plan/protocol.ts';
import { parts } from '../plan/slots.ts';
import { type Span } from '../api/engine.ts';
import { errnoName } from './files.ts';

/** A failure that a shim reported. */
export interface Failure { readonly index: number; readonly errno: number; readonly detail: string }
export interface HelperResult {
  /** `gone`: the shim ended without a last word, so nobody knows how far it came. */
  readonly ended: 'ok' | 'error' | 'gone';
  readonly failures: readonly Failure[];
  readonly message: string;
}

/** Payload of `failed` and `warning` frames. */
export function readFailure(payload: Buffer): Failure {
  if (payload.length < 16) return { index: -1, errno: 0, detail: payload.toString('utf8') };
  const length = Math.min(payload.readUInt32LE(12), payload.length - 16);
  return { index: payload.readUInt32LE(4), errno: Math.abs(payload.readInt32LE(8)), detail: payload.toString('utf8', 16, 16 + length) };
}

/** The thing an operation is about, for messages. */
export function subjectOf(step: DecodedStep | undefined): string {
  const { path, to, target, from, source, fromRoot } = (step?.operation.args ?? {}) as Record<string, unknown>;
  return String(path ?? to ?? target ?? from ?? source ?? fromRoot ?? '');
}

/** Payload of a `trace` frame: a span per operation of `plan`, on the track of the part it belongs to. */
export function traceOperations(plan: Uint8Array, payload: Buffer, trace: (span: Span) => void): void {
  const { steps } = decodePlan(plan);
  for (let at = 0; at + 24 <= payload.length; at += 24) {
    const [track, index, begin, end] = [parts[payload.readUInt32LE(at)] ?? 'shim', payload.readUInt32LE(at + 4), payload.readBigUInt64LE(at + 8), payload.readBigUInt64LE(at + 16)];
    const step = steps.find((s) => s.index === index && s.part === track);
    const path = subjectOf(step);
    const details = { index: String(index), ...(step && { slot: step.slot, ...step.origin }), ...(path && { path }) };
    trace({ name: step?.operation.name ?? `operation ${index}`, kind: 'operation', track, begin, end: end < begin ? begin : end, details });
  }
}

/** A failure in words: `mkdir /x: EEXIST, detail [plugin y]`. */
export function describeFailure(failure: Failure, step: DecodedStep | undefined): string {
  const what = step ? `${step.operation.name} ${subjectOf(step)}`.trim() : `operation ${failure.index}`;
  return `${what}: ${errnoName(failure.errno)}${failure.detail ? `, ${failure.detail}` : ''}${step ? ` [plugin ${step.origin.plugin}]` : ''}`;
}

/** ERR_OPERATION_FAILED with operation, path, errno and plugin; `asked`: the field that wanted it. */
export function operationFailed(failure: Failure, step: DecodedStep | undefined, asked?: string): EngineError {
  const operation = step?.operation.name ?? 'operation';
  const path = subjectOf(step);
  const does = `${operation} ${path}`.trim();
  const text = asked === undefined ? does : `${asked}: ${does}`;
  return fail('ERR_OPERATION_FAILED', `${text} failed${failure.detail ? `: ${failure.detail}` : ''}`, {
    operation, errno: errnoName(failure.errno), ...(path && { path }), ...(step && { plugin: step.origin.plugin }), data: { index: failure.index, detail: failure.detail },
    ...hintFor(errnoName(failure.errno), step),
  });
}

/** What to change, where the operation tells more than its errno. */
function hintFor(errno: string, step: DecodedStep | undefined): { readonly hint?: string } {
  const { name, args } = step?.operation ?? {};
  if (name === 'shiftTree' && errno === 'ERANGE') return { hint: 'give the container more ids, e.g. --userns=auto:size=N' };
  if (name === 'timeOffsets' && errno === 'ERANGE') return { hint: 'no clock of a container can be set to before 0, which is when this machine was started, or further ahead than some 146 years' };
  if (name === 'sysctl' && errno === 'EINVAL') return { hint: `the kernel does not take ${JSON.stringify(String((args as { readonly value: string }).value).slice(0, 80))} for it` };
  if (name !== 'writeFile' || !step?.origin.pointer) return {};
  const asked = step.origin.pointer.slice(1).replaceAll('/', '.');
  if (errno === 'ENOENT') return { hint: `this kernel has no such file; leave out what asks for it in ${asked}` };
  const text = Buffer.from((args as { readonly data: Uint8Array }).data).toString('latin1');
  return errno === 'EINVAL' || errno === 'ERANGE' ? { hint: `the kernel does not take ${JSON.stringify(text.slice(0, 80))} there; change it in ${asked}` } : {};
}

/** The steps of a plan file by index; nothing when it cannot be read. */
export function stepsOf(planPath: string): ReadonlyMap<number, DecodedStep> {
  try {
    return new Map(decodePlan(fs.readFileSync(planPath)).steps.map((step) => [step.index, step]));
  } catch {
    return new Map();
  }
}

/**
 * Does a plan file hold something to undo? A look at its head, which every start and removal pays for. One that was cut short (it was being
 * written when the power went) holds nothing.
 */
export function hasAfter(planPath: string): boolean {
  try {
    return readsAfter(fs.readFileSync(planPath));
  } catch {
    return false;
  }
}

/**
 * Run a plan's helper part, or its after part (`undo`), and wait for the end. In `undo` every operation is tried and all failures are
 * collected; in `helper` the first ends it.
 */
export async function runShim(native: Native, request: SpawnShim, options: { onWarning?: (failure: Failure) => void; signal?: AbortSignal; trace?: ((span: Span) => void) | undefined } = {}): Promise<HelperResult> {
  const { trace } = options;
  const begin = trace && process.hrtime.bigint();
  const connection = native.spawnShim(trace ? { ...request, trace: true } : request);
  const failures: Failure[] = [];
  let ended: HelperResult['ended'] = 'gone';
  let message = '';
  connection.onFrame((frame) => {
    if (frame.type === FRAME.failed) failures.push(readFailure(frame.payload));
    else if (frame.type === FRAME.warning && request.mode === 'undo') failures.push(readFailure(frame.payload));
    else if (frame.type === FRAME.trace && trace) traceOperations(fs.readFileSync(request.plan), frame.payload, trace);
    else if (frame.type === FRAME.warning) options.onWarning?.(readFailure(frame.payload));
    else if (frame.type === FRAME.ok) {
      ended = 'ok';
      // then those of an undo were of optional operations
      if (request.mode === 'undo') failures.length = 0;
    }
    else if (frame.type === FRAME.error) {
      ended = 'error';
      message = `${errnoName(frame.argument)} ${frame.payload.toString('utf8')}`.trim();
    }
  });
  // a helper ends as soon as anything reaches it; the undo starts only after it has ended
  const abort = (): void => void connection.send(FRAME.signal, { argument: 9 }).catch(() => {});
  if (options.signal?.aborted) abort();
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    await connection.closed;
  } finally {
    options.signal?.removeEventListener('abort', abort);
    connection.close();
    if (begin !== undefined) trace?.({ name: `process for ${request.mode}`, kind: 'engine', track: 'helper', begin, end: process.hrtime.bigint() });
  }
  return { ended, failures, message };
}
