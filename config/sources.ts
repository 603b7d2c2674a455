import { readdirSync, realpathSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fail } from '@engine/core/errors';
import { readEnvironment, readFlags, type Flags } from './ambient.ts';
import { hostMatches, readHostFacts, type HostFacts } from './hosts.ts';
import { escapePointer, isRecord, validate } from './json-schema.ts';
import { merge, type Origins } from './merge.ts';
import { dataExtensions, executableExtensions, readConfigFile } from './read-file.ts';
import { refuseUntrusted } from './restrict.ts';
import { defaults, schema, type Config, type ConfigFile } from './schema.ts';
import { defaultPlaces, trustedFolders, type Places } from './trust.ts';

export interface LoadOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly flags?: Flags;
  readonly places?: Places;
  /** As if this were the machine's name: `engine config --host`. */
  readonly hostname?: string;
  /** What `hosts:` blocks are matched against, besides the hostname; read from the machine when needed. */
  readonly facts?: (root: string) => HostFacts;
}
export interface LoadedConfig {
  readonly value: Config;
  readonly origins: Origins;
  /** Files that were read, in order. */
  readonly files: readonly string[];
  readonly warnings: readonly string[];
  /** Relative entries of `plugins` are relative to this folder, and packages are looked for from it. */
  readonly pluginBase: string;
}

type Kind = 'system' | 'user' | 'project';
interface Source {
  readonly label: string;
  readonly data: Record<string, unknown>;
  readonly folder: string;
}

/**
 * The configuration from all its sources, later over earlier: built-in, system, user, project, environment, flags.
 * Errors: ERR_CONFIG_INVALID (with file, place and what was probably meant), ERR_CONFIG_UNTRUSTED.
 */
export async function loadConfig(options: LoadOptions = {}): Promise<LoadedConfig> {
  const env = options.env ?? process.env;
  const cwd = options.cwd ?? process.cwd();
  const places = options.places ?? defaultPlaces(env);
  const { data: fromEnvironment, origins: environmentOrigins } = readEnvironment(env);
  const fromFlags = readFlags(options.flags ?? {}, cwd);

  const files: string[] = [];
  const ambient = [
    ...(Object.keys(fromEnvironment).length > 0 ? [{ label: 'environment', data: fromEnvironment, folder: cwd }] : []),
    ...(Object.keys(fromFlags).length > 0 ? [{ label: 'flags', data: fromFlags, folder: cwd }] : []),
  ];
  for (const { label, data } of ambient) await check(label, data);

  const machineSources: Source[] = [];
  for (const [kind, folder, stem] of [
    ['system', places.system, 'enginerc'],
    ['user', places.user, 'enginerc'],
  ] as const) {
    const file = folder === undefined ? undefined : findFile(folder, stem);
    if (file !== undefined) {
      files.push(file);
      machineSources.push({ label: file, data: await readSource(kind, file), folder: dirname(realpathSync(file)) });
    }
  }
  const trusted = trustedFolders(places);
  const project = findProjectFile(cwd, trusted);
  let projectSource: Source | undefined;
  if (project) {
    files.push(project.file);
    projectSource = { label: project.file, data: await readSource('project', project.file), folder: dirname(realpathSync(project.file)) };
  }

  const everything = [...machineSources, ...(projectSource ? [projectSource] : []), ...ambient];
  const root =
    everything
      .map(({ data }) => data.root)
      .filter((value) => typeof value === 'string')
      .at(-1) ?? defaults.root;
  const facts = memo(async () => ({
    ...(options.facts?.(root) ?? readHostFacts(root)),
    ...(options.hostname === undefined ? {} : { hostname: options.hostname }),
  }));

  const origins: Origins = new Map();
  let value = merge({}, defaults, 'built-in', origins);
  let pluginBase = cwd;
  const lay = (source: Source, label = source.label): void => {
    if (Object.hasOwn(source.data, 'plugins')) pluginBase = source.folder;
    value = merge(value, anchored(source), label, origins);
  };
  for (const source of machineSources) {
    const { hosts, $schema: _, ...body } = source.data as ConfigFile & Record<string, unknown>;
    lay({ ...source, data: body });
    for (const [index, { match, ...rest }] of (hosts ?? []).entries()) {
      if (hostMatches(match ?? {}, await facts())) lay({ ...source, data: rest }, `${source.label}#/hosts/${index}`);
    }
  }
  if (projectSource && project) {
    const { $schema: _, ...data } = projectSource.data;
    if (!project.trusted) refuseUntrusted(data, value as unknown as Config, projectSource.label);
    lay({ ...projectSource, data });
  }
  for (const source of ambient) lay(source, source.label === 'flags' ? 'flag' : source.label);
  for (const [pointer, name] of environmentOrigins) if (origins.get(pointer) === 'environment') origins.set(pointer, `environment ${name}`);
  return { value: value as unknown as Config, origins, files, warnings: [], pluginBase };
}

/** `enginerc` or `.enginerc`, with or without an extension. Two at once are an error, because one would silently lose. */
function findFile(folder: string, stem: string): string | undefined {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return undefined;
  }
  const wanted = new Set([...dataExtensions, ...executableExtensions].map((extension) => stem + extension));
  const found = names.filter((name) => wanted.has(name)).sort();
  if (found.length > 1) {
    throw fail('ERR_CONFIG_INVALID', `${folder} holds ${found.join(' and ')}, only one of them can count`, {
      operation: 'config',
      path: folder,
    });
  }
  return found[0] === undefined ? undefined : join(folder, found[0]);
}

/** The file of the cwd, whatever its folder; else that of the nearest ancestor that is trusted. */
function findProjectFile(cwd: string, trusted: ReadonlySet<string>): { file: string; trusted: boolean } | undefined {
  let start: string;
  try {
    start = realpathSync(cwd);
  } catch {
    return undefined;
  }
  const own = findFile(start, '.enginerc');
  if (own !== undefined) return { file: own, trusted: trusted.has(start) };
  for (let folder = dirname(start), last = start; folder !== last; last = folder, folder = dirname(folder)) {
    if (!trusted.has(folder)) continue;
    const file = findFile(folder, '.enginerc');
    if (file !== undefined) return { file, trusted: true };
  }
  return undefined;
}

async function readSource(kind: Kind, file: string): Promise<Record<string, unknown>> {
  const data = await readConfigFile(file);
  if (kind === 'project' && Object.hasOwn(data, 'hosts')) {
    throw fail('ERR_CONFIG_INVALID', `${file}: "hosts" counts in the system's and the user's file only`, {
      operation: 'config',
      path: file,
    });
  }
  await check(file, data);
  return data;
}

async function check(label: string, data: Record<string, unknown>): Promise<void> {
  // The two that nearly every invocation of a test or a second engine has; the validator takes longer to load than all the rest here.
  if (
    Object.entries(data).every(
      ([key, value]) =>
        ((key === 'root' || key === 'runRoot') && typeof value === 'string' && value.startsWith('/')) ||
        (key === 'resident' && (value === 'off' || value === 'auto')),
    )
  )
    return;
  const problems = await validate(schema, data);
  const first = problems[0];
  if (!first) return;
  const where = first.pointer.slice(1).replaceAll('/', '.');
  throw fail(
    'ERR_CONFIG_INVALID',
    `${label}: ${where ? `${where}: ` : ''}${first.message}${problems.length > 1 ? ` (and ${problems.length - 1} more)` : ''}`,
    {
      operation: 'config',
      path: label,
      data: { problems },
    },
  );
}

/** Paths in a source are relative to its file. */
function anchored({ data, folder }: Source): Record<string, unknown> {
  const copy = structuredClone(data);
  const security = copy.security;
  if (isRecord(security) && typeof security.seccomp === 'string' && /^\.{1,2}\//.test(security.seccomp))
    security.seccomp = resolve(folder, security.seccomp);
  if (Array.isArray(copy.plugins))
    copy.plugins = copy.plugins.map((entry: string) => (/^\.{1,2}(\/|$)/.test(entry) ? resolve(folder, entry) : entry));
  return copy;
}

function memo<T>(make: () => Promise<T>): () => Promise<T> {
  let value: Promise<T> | undefined;
  return () => (value ??= make());
}

/** The result with the origin of every value, one line each, as YAML with comments. */
export function printConfig({ value, origins }: Pick<LoadedConfig, 'value' | 'origins'>): string {
  const lines: [text: string, origin: string][] = [];
  const walk = (node: unknown, pointer: string, depth: number): void => {
    for (const [key, child] of Object.entries(node as object)) {
      const at = `${pointer}/${escapePointer(key)}`;
      const name = `${'  '.repeat(depth)}${/^[\w.-]+$/.test(key) ? key : JSON.stringify(key)}:`;
      if (isRecord(child) && Object.keys(child).length > 0) {
        lines.push([name, '']);
        walk(child, at, depth + 1);
      } else lines.push([`${name} ${scalar(child)}`, origins.get(at) ?? 'built-in']);
    }
  };
  walk(value, '', 0);
  const width = Math.min(48, Math.max(...lines.map(([text]) => text.length)));
  return lines.map(([text, origin]) => (origin ? `${text.padEnd(width)}  # ${origin}` : text)).join('\n') + '\n';
}
const scalar = (value: unknown): string =>
  typeof value === 'string' && /^[\w./-]*[a-z/][\w./-]*$/i.test(value) && !/^(true|false|null|yes|no|on|off)$/i.test(value)
    ? value
    : JSON.stringify(value);
