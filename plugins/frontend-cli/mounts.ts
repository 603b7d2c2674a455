import { isAbsolute, normalize, resolve } from 'node:path';
import { type MountRequest } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { csvFields, invalid, parseBytes } from './units.ts';

const PROPAGATIONS = new Set(['shared', 'slave', 'private', 'rshared', 'rslave', 'rprivate']);
const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

function target(flag: string, text: string, whole: string): string {
  if (!isAbsolute(text)) throw invalid(flag, whole, 'the path inside the container must be absolute');
  const path = normalize(text).replace(/(.)\/$/, '$1');
  if (path === '/') throw invalid(flag, whole, 'nothing can be mounted on / of the container');
  return path;
}

/** `-v [SOURCE:]TARGET[:OPTIONS]`; a relative source must start with a dot, else it is a volume's name. */
export function parseVolume(text: string, cwd: string): MountRequest {
  const parts = text.split(':');
  if (parts.length > 3 || parts.some((part) => part === '')) throw invalid('-v', text, '[SOURCE:]TARGET[:OPTIONS] is expected');
  const [first = '', second, third] = parts;
  const hasSource = second !== undefined && (third !== undefined || second.startsWith('/'));
  const path = hasSource ? (second ?? '') : first;
  const options = hasSource ? third : second;
  const mount: MountRequest = { type: 'volume', target: target('-v', path, text), readonly: false, createSource: true, noCopy: false };
  if (hasSource) {
    if (/^[./~]/.test(first)) {
      mount.type = 'bind';
      mount.source = resolve(cwd, first);
    } else {
      if (!VOLUME_NAME.test(first)) throw invalid('-v', text, `"${first}" is neither a path nor a volume name ([a-zA-Z0-9][a-zA-Z0-9_.-])`);
      mount.source = first;
    }
  }
  for (const option of options?.split(',') ?? []) applyOption(mount, option, text);
  return mount;
}

/** Podman's `idmap=uids=…;gids=…`. */
const MAPS_OF_ITS_OWN = 'idmap takes the maps of the container, and none of its own';

function applyOption(mount: MountRequest, option: string, whole: string): void {
  if (option === 'ro' || option === 'readonly') mount.readonly = true;
  else if (option === 'nocopy' && mount.type === 'volume') mount.noCopy = true;
  else if (PROPAGATIONS.has(option) && mount.type === 'bind') mount.propagation = option;
  else if (option === 'idmap') mount.idmap = true;
  else if (option.startsWith('idmap=')) throw invalid('-v', whole, MAPS_OF_ITS_OWN);
  else if (!['rw', 'z', 'Z', 'consistent', 'cached', 'delegated'].includes(option)) throw invalid('-v', whole, `unknown option "${option}"`);
}

const truth = (text: string): boolean => text === '' || /^(1|true)$/i.test(text);
type Setter = (mount: MountRequest, value: string, cwd: string, whole: string) => void;
const setSource: Setter = (mount, value) => void (mount.source = value);
const setTarget: Setter = (mount, value, _, whole) => void (mount.target = target('--mount', value, whole));
const setReadonly: Setter = (mount, value) => void (mount.readonly = truth(value));
const setters: Readonly<Record<string, Setter>> = {
  type: () => {},
  source: setSource,
  src: setSource,
  target: setTarget,
  dst: setTarget,
  destination: setTarget,
  readonly: setReadonly,
  ro: setReadonly,
  'bind-propagation': (mount, value, _, whole) => {
    if (!PROPAGATIONS.has(value)) throw invalid('--mount', whole, `unknown propagation "${value}"`);
    mount.propagation = value;
  },
  'bind-nonrecursive': (mount, value) => void (mount.nonRecursive = truth(value)),
  'volume-nocopy': (mount, value) => void (mount.noCopy = truth(value)),
  'volume-driver': (mount, value) => void (mount.volumeDriver = value),
  'volume-opt': (mount, value) => {
    const at = value.indexOf('=');
    mount.volumeOptions = { ...mount.volumeOptions, [at < 0 ? value : value.slice(0, at)]: at < 0 ? '' : value.slice(at + 1) };
  },
  idmap: (mount, value, _, whole) => {
    if (/[=;@]/.test(value)) throw invalid('--mount', whole, MAPS_OF_ITS_OWN);
    mount.idmap = truth(value);
  },
  'tmpfs-size': (mount, value) => void (mount.tmpfsSize = parseBytes('tmpfs-size', value)),
  'tmpfs-mode': (mount, value, _, whole) => {
    if (!/^[0-7]{1,5}$/.test(value)) throw invalid('--mount', whole, 'tmpfs-mode is octal');
    mount.tmpfsMode = parseInt(value, 8);
  },
  consistency: () => {},
};

/** `--mount type=bind|volume|tmpfs,source=…,target=…,…`. */
export function parseMount(text: string, cwd: string): MountRequest {
  const fields = csvFields('--mount', text).map((field) => {
    const at = field.indexOf('=');
    return [at < 0 ? field : field.slice(0, at), at < 0 ? '' : field.slice(at + 1)] as const;
  });
  const type = fields.find(([name]) => name === 'type')?.[1] ?? 'volume';
  if (type !== 'bind' && type !== 'volume' && type !== 'tmpfs') throw invalid('--mount', text, `unknown type "${type}" (bind, volume or tmpfs)`);
  const mount: MountRequest = { type, target: '', readonly: false, createSource: false, noCopy: false };
  for (const [name, value] of fields) {
    const set = setters[name];
    const prefix = /^(bind|volume|tmpfs)-/.exec(name)?.[1];
    if (!set) throw invalid('--mount', text, `unknown key "${name}"`);
    if (prefix && prefix !== type) throw invalid('--mount', text, `"${name}" does not fit type ${type}`);
    set(mount, value, cwd, text);
  }
  return checkMount(mount, text, cwd);
}

function checkMount(mount: MountRequest, text: string, cwd: string): MountRequest {
  if (mount.target === '') throw invalid('--mount', text, 'a target is needed');
  if (mount.type === 'bind') {
    if (!mount.source) throw invalid('--mount', text, 'type bind needs a source');
    mount.source = resolve(cwd, mount.source);
  } else if (mount.type === 'tmpfs' && mount.source) throw invalid('--mount', text, 'type tmpfs has no source');
  else if (mount.type === 'tmpfs' && mount.idmap) throw invalid('--mount', text, 'a tmpfs has the ids of the container anyway');
  else if (mount.source && !VOLUME_NAME.test(mount.source)) throw invalid('--mount', text, `"${mount.source}" is not a volume name; for a path use type=bind`);
  return mount;
}

/** `--tmpfs TARGET[:OPTIONS]`. */
export function parseTmpfs(text: string): { target: string; options: string[] } {
  const at = text.indexOf(':');
  return { target: target('--tmpfs', at < 0 ? text : text.slice(0, at), text), options: at < 0 ? [] : text.slice(at + 1).split(',').filter(Boolean) };
}

/** Two mounts on one path are a mistake. */
export function refuseDuplicates(targets: readonly string[]): void {
  const seen = new Set<string>();
  for (const path of targets) {
    if (seen.has(path)) throw fail('ERR_INVALID_VALUE', `more than one mount on ${path}`, { path, hint: 'remove one of them' });
    seen.add(path);
  }
}
