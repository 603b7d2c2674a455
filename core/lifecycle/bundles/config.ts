import * as fs from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { fail } from '../../errors/index.ts';
import { reach } from '../../contracts/common/index.ts';
import { checkProcess as checkProcessFields, checkSpec } from '../../spec/check.ts';
import { type Process, type Spec } from '../../spec/index.ts';
import { invalid } from '../../spec/values.ts';

/** Larger than any config.json that is one; its parse blocks everybody else. */
const MAX_SIZE = 16 << 20;

/** Fields that the spec knows where a runtime for Linux looks. Others must be ignored (config.md, Extensibility), and are told. */
const KNOWN: Readonly<Record<string, readonly string[]>> = {
  '': ['ociVersion', 'process', 'root', 'hostname', 'domainname', 'mounts', 'hooks', 'annotations', 'linux', 'vm', 'solaris', 'windows', 'zos'],
  process: ['terminal', 'consoleSize', 'cwd', 'env', 'args', 'rlimits', 'apparmorProfile', 'selinuxLabel', 'capabilities', 'noNewPrivileges', 'oomScoreAdj', 'scheduler', 'ioPriority', 'execCPUAffinity', 'user'],
  'process.user': ['uid', 'gid', 'umask', 'additionalGids', 'username'],
  root: ['path', 'readonly'],
  linux: ['namespaces', 'uidMappings', 'gidMappings', 'timeOffsets', 'devices', 'netDevices', 'cgroupsPath', 'resources', 'rootfsPropagation', 'seccomp', 'sysctl', 'maskedPaths', 'readonlyPaths', 'mountLabel', 'personality', 'intelRdt', 'memoryPolicy'],
};
type Fields = Record<string, unknown>;
const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Without the fields nobody knows, and without what is null, which Go writes for what is not there. */
function keepKnown(value: unknown, at: string, onUnknown: (field: string) => void): unknown {
  if (Array.isArray(value)) return value.map((item, i) => keepKnown(item, `${at}[${i}]`, onUnknown));
  if (!isFields(value)) return value;
  const known = KNOWN[at];
  return Object.fromEntries(Object.entries(value).flatMap(([key, child]) => {
    const name = at === '' ? key : `${at}.${key}`;
    if (child === null || child === undefined) return [];
    if (known && !known.includes(key)) return onUnknown(name), [];
    return [[key, keepKnown(child, name, onUnknown)]];
  }));
}

/** `process` of a container or a session, as it comes from outside. Errors: ERR_INVALID_VALUE names the field. */
export function checkProcess(given: unknown, onUnknown: (field: string) => void = () => {}): Process {
  const process = keepKnown(given, 'process', onUnknown);
  checkProcessFields(process);
  if (!process.args?.length) throw invalid('process.args', 'no command specified');
  if (process.args[0] === '') throw invalid('process.args', 'the name of the program is empty');
  return { ...process, user: (process.user as Process['user'] | undefined) ?? {} };
}

const NUMBER = /[:[,]\s*-?\d{16,}/;
/** Arguments of seccomp rules that a double cannot hold become bigints. */
export function parseExact(text: string): unknown {
  if (!NUMBER.test(text)) return JSON.parse(text) as unknown;
  const reviver = (key: string, value: unknown, context?: { source?: string }): unknown =>
    (key === 'value' || key === 'valueTwo') && typeof value === 'number' && !Number.isSafeInteger(value) && /^\d+$/.test(context?.source ?? '') ? BigInt(context?.source ?? 0) : value;
  return JSON.parse(text, reviver as (key: string, value: unknown) => unknown) as unknown;
}
/** Its reverse. */
export function exactJson(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    // a bigint, which is rare; a function that is asked about each value takes ten times as long
  }
  const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? rawJSON(String(item)) : item));
}

/** Version of a spec that tells none. */
const UNSAID = '1.0.0';

/** A spec from its text. Errors: ERR_INVALID_VALUE names file and field. */
export function parseSpec(text: string, file: string, onUnknown: (field: string) => void = () => {}): Spec {
  let value: unknown;
  try {
    value = parseExact(text);
  } catch (cause) {
    throw fail('ERR_INVALID_VALUE', `${file} is not JSON: ${(cause as Error).message}`, { operation: 'config', path: file });
  }
  if (!isFields(value)) throw fail('ERR_INVALID_VALUE', `${file} is not a JSON object`, { operation: 'config', path: file });
  const { process: given, ...rest } = keepKnown(value, '', onUnknown) as Fields;
  // one that is missing is taken, as runc does
  const known: unknown = { ...rest, ociVersion: rest['ociVersion'] ?? UNSAID };
  checkSpec(known);
  const spec: Spec = known;
  const [, major] = /^(\d+)\.\d+(\.\d+|$)/.exec(spec.ociVersion) ?? [];
  if (major === undefined) throw invalid('ociVersion', `not a version: ${JSON.stringify(spec.ociVersion)}`);
  if (Number(major) > 1) throw invalid('ociVersion', `version ${spec.ociVersion} of the runtime spec is not known, 1.x is`);
  if (!spec.root) throw invalid('root', 'it is not set');
  if (given === undefined) throw invalid('process', 'it is not set');
  const annotations = Object.fromEntries(Object.entries(spec.annotations ?? {}).filter(([key]) => {
    // by these we tell ourselves things: nobody else may
    const isInternal = key.startsWith('engine.internal/');
    if (isInternal) onUnknown(`annotations.${key}`);
    return !isInternal;
  }));
  return { ...spec, process: checkProcess(given, onUnknown), ...(spec.annotations && { annotations }) };
}

function readText(file: string): string {
  let fd: number | undefined;
  try {
    fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    const found = fs.fstatSync(fd);
    if (!found.isFile()) throw fail('ERR_INVALID_VALUE', `${file} is not a file`, { operation: 'config', path: file });
    if (found.size > MAX_SIZE) throw fail('ERR_INVALID_VALUE', `${file} has more than ${MAX_SIZE >> 20} MiB`, { operation: 'config', path: file });
    return fs.readFileSync(fd, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined || code.startsWith('ERR_')) throw error;
    const missing = code === 'ENOENT' ? `JSON specification file ${file} not found` : `cannot read ${file}: ${message}`;
    throw fail('ERR_INVALID_VALUE', missing, { operation: 'config', path: file, errno: code });
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
}

/** config.json of a bundle, or another file in its place. Errors: ERR_INVALID_VALUE, ERR_TIMEOUT. */
export async function readConfig(bundle: string, config: string | undefined, onWarning: (text: string) => void): Promise<Spec> {
  const file = config === undefined ? path.join(bundle, 'config.json') : path.resolve(bundle, config);
  // each turn through a thread costs more than all of the reading: it is asked once whether anybody answers there
  await reach('stat', file, () => stat(file).catch(() => undefined));
  return parseSpec(readText(file), file, (field) => onWarning(`${file}: ${field} is not known, and ignored`));
}
