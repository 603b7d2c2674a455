import { type EngineError, fail } from '../errors/index.ts';
import { decodePlan, type DecodedStep } from '../plan/index.ts';
import { type ExitRecord } from '../api/index.ts';
import { type Frame } from '../native/index.ts';
import { errnoName } from '../state/files.ts';
import { operationFailed, readFailure, type Failure } from '../state/helper.ts';
import { parseExit } from '../state/run-files.ts';

/** Payload of an `exit` frame: the run's exit file. A shim that says less still gives the code. */
export function readExitFrame(frame: Frame, run: string, startedAt?: string): ExitRecord {
  let said: Record<string, unknown> | undefined;
  try {
    said = JSON.parse(frame.payload.toString('utf8')) as Record<string, unknown>;
  } catch { /* the code is in the head */ }
  return parseExit(said, run, startedAt) ?? { run, code: frame.argument, finishedAt: new Date().toISOString(), ...(startedAt ? { startedAt } : {}) };
}

/** Payload of a `barrier` frame. */
export function readBarrier(payload: Buffer): { readonly index: number; readonly pid: number; readonly handler: string; readonly input: string } {
  const handlerLength = payload.readUInt32LE(8);
  const at = 12 + handlerLength;
  return { index: payload.readUInt32LE(0), pid: payload.readUInt32LE(4), handler: payload.toString('utf8', 12, at), input: payload.toString('utf8', at + 4, at + 4 + payload.readUInt32LE(at)) };
}

/** One run may have many warnings. */
const decoded = new WeakMap<Uint8Array, readonly DecodedStep[]>();
function stepsIn(plan: Uint8Array): readonly DecodedStep[] {
  const known = decoded.get(plan) ?? decodePlan(plan).steps;
  decoded.set(plan, known);
  return known;
}
export function stepOf(plan: Uint8Array, failure: Failure): DecodedStep | undefined {
  return stepsIn(plan).find((s) => s.index === failure.index);
}

const execReasons: Readonly<Record<string, string>> = { EACCES: 'permission denied', EPERM: 'permission denied', EISDIR: 'is a directory', ENOEXEC: 'exec format error', ENOTDIR: 'not a directory', ETXTBSY: 'text file busy', E2BIG: 'argument list too long', ELOOP: 'too many levels of symbolic links' };

const IN_USER_NAMESPACE = 'in a user namespace, folders of the host belong to nobody; show one with the container\'s owners by the mount option idmap (-v SOURCE:TARGET:idmap)';
/** For what is forbidden to a container in a user namespace, and why a mount has no other owners. */
function ownersHint(plan: Uint8Array, step: DecodedStep | undefined, errno: string, storage: string | undefined): { readonly path?: string; readonly hint?: string } {
  if (step === undefined || !['EACCES', 'EPERM', 'EINVAL', 'EOVERFLOW'].includes(errno)) return {};
  const steps = stepsIn(plan);
  if (step.operation.name === 'idmapMount') {
    const source = steps.findLast(({ index, operation }) => index < step.index && operation.name === 'openTree' && operation.args['out'] === step.operation.args['mount']);
    const path = String(source?.operation.args['source'] ?? '');
    return { ...(path && { path }), hint: step.origin.plugin === storage ? `set options.${storage}.idmap to never: containers made from then on get copies` : 'leave out the mount option idmap' };
  }
  return errno !== 'EINVAL' && steps.some(({ operation }) => operation.name === 'becomeRoot') ? { hint: IN_USER_NAMESPACE } : {};
}

/** What failed, in the words people know from Docker where there are some; operation, path, errno and plugin in any case. `storage`: the plugin that made the container's root. */
export function blame(plan: Uint8Array, said: Buffer | Failure, storage?: string): EngineError {
  const failure = Buffer.isBuffer(said) ? readFailure(said) : said;
  const step = stepOf(plan, failure);
  const plain = operationFailed(failure, step);
  const errno = errnoName(failure.errno);
  const args = (step?.operation.args ?? {}) as Record<string, unknown>;
  const details = { operation: plain.operation ?? 'run', errno, ...(step && { plugin: step.origin.plugin }), ...(plain.data && { data: plain.data }) };
  if (step?.operation.name === 'resolveExec' || step?.operation.name === 'exec') {
    const argv = step.operation.name === 'exec' ? (args['argv'] as string[] | undefined)?.[0] : (args['name'] as string);
    const name = argv ?? '';
    const quoted = JSON.stringify(name);
    if (errno === 'ENOENT') {
      const why = name.includes('/') ? (step.operation.name === 'exec' ? `no such file or directory: the interpreter or loader that ${quoted} asks for is missing` : `stat ${name}: no such file or directory`) : 'executable file not found in $PATH';
      return fail('ERR_EXEC_NOT_FOUND', `exec: ${quoted}: ${why}`, { ...details, path: name });
    }
    return fail('ERR_EXEC_FAILED', `exec: ${quoted}: ${execReasons[errno] ?? failure.detail ?? errno}`, { ...details, path: name, ...(step.operation.name === 'exec' && ownersHint(plan, step, errno, storage)) });
  }
  if (step?.operation.name === 'resolveUser' && (errno === 'EINVAL' || errno === 'ERANGE')) {
    return fail('ERR_OPERATION_FAILED', `invalid user "${String(args['user'])}": ${failure.detail || errno}`, { ...details, path: String(args['user']), hint: 'give a name or a number, and a group after a colon' });
  }
  if (step?.operation.name === 'resolveUser' && errno === 'ENOENT') {
    return fail('ERR_OPERATION_FAILED', `unable to find user ${String(args['user'])}: ${failure.detail || 'no matching entries in passwd file'}`, { ...details, path: String(args['user']) });
  }
  if (step?.operation.name === 'chdir' || step?.operation.name === 'ensureWorkdir') {
    return fail('ERR_OPERATION_FAILED', `chdir to cwd (${JSON.stringify(args['path'])}) failed${failure.detail ? `: ${failure.detail}` : ''}`, { ...details, path: String(args['path']), exitCode: 126, ...ownersHint(plan, step, errno, storage) });
  }
  if (step?.operation.name === 'idmapMount') {
    const more = ownersHint(plan, step, errno, storage);
    return fail('ERR_OPERATION_FAILED', `cannot show ${more.path ?? 'a mount'} with the owners of a user namespace: ${failure.detail || errno}`, { ...details, ...more });
  }
  return plain;
}

/** A warning in one line. */
export function warningText(plan: Uint8Array, payload: Buffer): string {
  const failure = readFailure(payload);
  const error = operationFailed(failure, stepOf(plan, failure));
  return `${error.message} (${errnoName(failure.errno)})`;
}
