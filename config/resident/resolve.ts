import { createHash } from 'node:crypto';
import { lstatSync, realpathSync, statSync, type BigIntStats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { reach } from '@engine/core/contracts/common';
import { type Flags } from '../ambient.ts';
import { loadConfig, type LoadedConfig } from '../sources.ts';
import { defaultPlaces, trustedFolders, type Places } from '../trust.ts';

/** What the configuration of a caller depends on, besides files. */
export interface Ambience {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly flags: Flags;
}
export interface Resolved {
  readonly config: LoadedConfig;
  /** Equal for callers who can be served by one engine. */
  readonly digest: string;
  readonly ambience: Ambience;
}

/** A file that was changed this shortly before it was read may change again without its times telling, ms. */
const UNSURE = 100;
const MOST = 256;

interface Look {
  readonly path: string;
  /** content: whatever changes it; owner: only who could write there; device: what it lies on. */
  readonly kind: 'content' | 'link' | 'owner' | 'device';
}

const statOf = ({ path, kind }: Look): BigIntStats | undefined => {
  try {
    // not there is an answer too
    return (kind === 'link' || kind === 'owner' ? lstatSync : statSync)(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
};
function signature(looks: readonly Look[]): string {
  let text = hostname();
  for (const look of looks) {
    const stat = statOf(look);
    if (!stat) text += '|-';
    else if (look.kind === 'device') text += `|${stat.dev}`;
    else if (look.kind === 'owner') text += `|${stat.dev}:${stat.ino}:${stat.uid}:${stat.mode}`;
    else text += `|${stat.dev}:${stat.ino}:${stat.uid}:${stat.mode}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}`;
  }
  return text;
}

function ancestors(path: string): string[] {
  const found: string[] = [];
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    found.push(folder);
    if (folder === dirname(folder)) return found;
  }
}

/** Everything that loadConfig looked at, or would have if it had been there. */
function looksOf(cwd: string, places: Places, config: LoadedConfig): Look[] {
  const looks = new Map<string, Look>();
  const add = (kind: Look['kind'], path: string): void => void looks.set(`${kind} ${path}`, { kind, path });
  const owners = (path: string): void => {
    for (const folder of ancestors(path)) add('owner', folder);
  };
  for (const place of [places.system, places.user]) {
    if (place === undefined) continue;
    // a new entry shows in its folder
    add('content', place);
    add('content', join(place, 'trust.json'));
  }
  add('content', cwd);
  let trusted = new Set<string>();
  try {
    trusted = trustedFolders(places);
  } catch {
    // the next load says what is wrong with it
  }
  const real = tryReal(cwd);
  for (const folder of ancestors(real)) if (trusted.has(folder)) add('content', folder);
  for (const file of config.files) {
    add('content', file);
    add('link', file);
    owners(file);
    const target = tryReal(file);
    if (target !== file) owners(target);
  }
  add('device', config.value.root);
  return [...looks.values()];
}
function tryReal(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

function digestOf({ value, pluginBase }: LoadedConfig): string {
  // packages are looked for from there; of no use without any
  const base = value.plugins.length > 0 ? pluginBase : '';
  return createHash('sha256').update(JSON.stringify([value, base, process.geteuid?.()])).digest('hex');
}

export interface Resolver {
  /** Errors: those of loadConfig. */
  resolve(ambience: Ambience): Promise<Resolved>;
}

/** When each folder last gave an answer, ms. */
const answered = new Map<string, number>();
/**
 * What follows looks at these folders synchronously: one on a dead network mount is asked first, without blocking. Once a second is enough. Errors:
 * ERR_TIMEOUT.
 */
async function reachFolders(folders: readonly (string | undefined)[]): Promise<void> {
  const now = Date.now();
  const wanted = folders.filter((folder) => folder !== undefined && folder !== '/' && now - (answered.get(folder) ?? 0) > 1000) as string[];
  if (wanted.length === 0) return;
  await Promise.all(wanted.map((folder) => reach('stat', folder, () => stat(folder).catch(() => undefined), 'caller')));
  if (answered.size > 1000) answered.clear();
  for (const folder of wanted) answered.set(folder, Date.now());
}

/**
 * The configuration of a caller: as loadConfig gives it, but when nothing has changed of what that looked at, for the price of a dozen stat(2).
 */
export function createResolver(load: typeof loadConfig = loadConfig): Resolver {
  const known = new Map<string, { readonly looks: readonly Look[]; readonly signature: string; readonly resolved: Resolved }>();
  return {
    async resolve(asked) {
      const env = relevant(asked.env);
      const ambience = { cwd: asked.cwd, env, flags: asked.flags };
      const key = JSON.stringify([asked.cwd, env, asked.flags]);
      await reachFolders([asked.cwd, asked.env['HOME']]);
      const before = known.get(key);
      if (before && signature(before.looks) === before.signature) return before.resolved;
      known.delete(key);
      const began = Date.now();
      const places = defaultPlaces(env);
      const config = await load({ cwd: asked.cwd, env, flags: asked.flags, places });
      const resolved = { config, digest: digestOf(config), ambience };
      const looks = looksOf(asked.cwd, places, config);
      if (!changedSince(looks, began - UNSURE)) {
        known.set(key, { looks, signature: signature(looks), resolved });
        const [oldest] = known.keys();
        if (known.size > MOST && oldest !== undefined) known.delete(oldest);
      }
      return resolved;
    },
  };
}

function changedSince(looks: readonly Look[], time: number): boolean {
  return looks.some((look) => {
    if (look.kind !== 'content' && look.kind !== 'link') return false;
    const stat = statOf(look);
    return stat !== undefined && Number((stat.mtimeNs > stat.ctimeNs ? stat.mtimeNs : stat.ctimeNs) / 1_000_000n) >= time;
  });
}

/** Variables that can change the configuration. */
function relevant(env: Readonly<Record<string, string>>): Record<string, string> {
  const names = Object.keys(env).filter((name) => name.startsWith('ENGINE_') || name === 'HOME' || name === 'XDG_CONFIG_HOME');
  return Object.fromEntries(names.sort().map((name) => [name, env[name] ?? '']));
}
