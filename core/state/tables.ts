import { createHash } from 'node:crypto';
import { fail } from '../errors/index.ts';
import { type ContainerRecord } from '../api/types.ts';
import { type PluginState } from '../contracts/common/index.ts';
import { fromJson, isConstraint, toJson, type Database } from './database.ts';
import { insertIds } from './ids.ts';
import { networkChanges, requireNetwork } from './networks.ts';
import { type Containers, type Rows, type VolumeRecord, type VolumeTable } from './types.ts';

type Row = Record<string, unknown>;

/**
 * The seccomp profile is most of a row and the same in almost all of them: it is kept once, by its digest, and the row says which. What was read is
 * shared too: records are never changed in place.
 */
interface Shared { readonly $shared: string }
const profileOf = ({ spec }: ContainerRecord): object | undefined => spec?.linux?.seccomp as object | undefined;
const withProfile = (record: ContainerRecord, seccomp: object): ContainerRecord => ({ ...record, spec: { ...record.spec, linux: { ...record.spec.linux, seccomp: seccomp as never } } });
const digests = new WeakMap<object, { readonly digest: string; readonly json: string }>();
function digestOf(profile: object): { readonly digest: string; readonly json: string } {
  let known = digests.get(profile);
  if (!known) {
    const json = toJson(profile);
    digests.set(profile, (known = { json, digest: createHash('sha256').update(json).digest('hex') }));
  }
  return known;
}
/** A record as its row has it. */
export function rowJson(record: ContainerRecord): string {
  const profile = profileOf(record);
  return toJson(profile === undefined ? record : withProfile(record, { $shared: digestOf(profile).digest } satisfies Shared));
}
function reader(db: Database): (row: Row) => ContainerRecord {
  const profiles = new Map<string, object>();
  return (row) => {
    const record = fromJson(String(row['record'])) as ContainerRecord;
    const { $shared: digest } = (profileOf(record) ?? {}) as Partial<Shared>;
    if (digest === undefined) return record;
    let profile = profiles.get(digest);
    if (!profile) {
      const found = db.get('SELECT value FROM shared WHERE digest = ?', digest);
      if (!found) throw fail('ERR_STATE', `container ${record.id.slice(0, 12)} has lost its seccomp profile`, { path: record.id });
      profile = fromJson(String(found['value'])) as object;
      profiles.set(digest, profile);
    }
    return withProfile(record, profile);
  };
}
/** Inside a write: what the row of `record` refers to. */
function share(db: Database, record: ContainerRecord): void {
  const profile = profileOf(record);
  if (profile === undefined) return;
  const { digest, json } = digestOf(profile);
  if (db.get('SELECT 1 FROM shared WHERE digest = ?', digest) === undefined) db.run('INSERT INTO shared VALUES (?, ?)', digest, json);
}
const toVolume = (row: Row): VolumeRecord => fromJson(String(row['record'])) as VolumeRecord;

/** First hex digits of an id, as Docker shows them. */
const short = (id: string): string => id.slice(0, 12);

export function containerTable(db: Database): Containers {
  const toContainer = reader(db);
  const found = (row: Row | undefined): ContainerRecord | undefined => row && toContainer(row);
  const get: Containers['get'] = (id) => found(db.get('SELECT record FROM containers WHERE id = ?', id));
  const byName: Containers['byName'] = (name) => found(db.get('SELECT record FROM containers WHERE name = ?', name));
  return {
    get,
    byName,
    list: () => db.all('SELECT record FROM containers ORDER BY created, id').map(toContainer),
    ids: () => db.all('SELECT id FROM containers ORDER BY created, id').map((row) => String(row['id'])),
    resolve(ref) {
      const exact = get(ref) ?? byName(ref.startsWith('/') ? ref.slice(1) : ref);
      if (exact) return exact;
      // 'g' is the first character after the hex digits
      const rows = /^[0-9a-f]+$/.test(ref) ? db.all('SELECT record FROM containers WHERE id >= ? AND id < ? LIMIT 3', ref, `${ref}g`).map(toContainer) : [];
      if (rows[0] && rows.length === 1) return rows[0];
      if (rows.length > 1) throw fail('ERR_AMBIGUOUS', `more than one container has an id that starts with ${ref}: ${rows.map((r) => short(r.id)).join(', ')}`, { path: ref });
      throw fail('ERR_NO_SUCH_CONTAINER', `no such container: ${ref}`, { path: ref });
    },
  };
}

export function volumeTable(db: Database): VolumeTable {
  return {
    get(name) {
      const row = db.get('SELECT record FROM volumes WHERE name = ?', name);
      return row && toVolume(row);
    },
    list: () => db.all('SELECT record FROM volumes ORDER BY name').map(toVolume),
    users: (name) => db.all('SELECT container FROM container_volumes WHERE volume = ? ORDER BY container', name).map((row) => String(row['container'])),
  };
}

export function pluginState(db: Database, plugin: string): PluginState {
  return {
    get(key) {
      const row = db.get('SELECT value FROM plugin_state WHERE plugin = ? AND key = ?', plugin, key);
      return row && fromJson(String(row['value']));
    },
    set: (key, value) => db.writeNow('INSERT INTO plugin_state VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value', plugin, key, stateJson(plugin, key, value)),
    delete: (key) => db.writeNow('DELETE FROM plugin_state WHERE plugin = ? AND key = ?', plugin, key),
    list: (prefix = '') =>
      db.all('SELECT key, value FROM plugin_state WHERE plugin = ? AND substr(key, 1, length(?)) = ? ORDER BY key', plugin, prefix, prefix)
        .map((row) => ({ key: String(row['key']), value: fromJson(String(row['value'])) })),
  };
}
/** Errors: ERR_INVALID_VALUE for what JSON cannot say. */
export function stateJson(plugin: string, key: string, value: unknown): string {
  const text = toJson(value) as string | undefined;
  if (text === undefined) throw fail('ERR_INVALID_VALUE', `the state ${key} of plugin ${plugin} is not plain JSON`, { plugin, path: key });
  return text;
}

/** Row changes inside a transaction of `db`; `check` at its end. */
export function rowChanges(db: Database): { readonly rows: Rows; check(): void } {
  const gone = new Set<string>();
  const named = (record: ContainerRecord, write: () => void): void => {
    try {
      write();
    } catch (error) {
      if (!isConstraint(error)) throw error;
      const holder = db.get('SELECT id FROM containers WHERE name = ?', record.name);
      throw fail('ERR_NAME_TAKEN', `the name ${record.name} is in use by container ${holder ? short(String(holder['id'])) : short(record.id)}`, { path: record.name });
    }
  };
  const uses = (record: ContainerRecord): void => {
    db.run('DELETE FROM container_volumes WHERE container = ?', record.id);
    for (const { name } of record.volumes) db.run('INSERT OR IGNORE INTO container_volumes VALUES (?, ?)', record.id, name);
    db.run('DELETE FROM container_networks WHERE container = ?', record.id);
    for (const { network } of record.networks) {
      requireNetwork(db, network);
      db.run('INSERT OR IGNORE INTO container_networks VALUES (?, ?)', record.id, network);
    }
  };
  const networks = networkChanges(db);
  const rows: Rows = {
    ...networks.rows,
    insertContainer(record, json = rowJson(record)) {
      share(db, record);
      named(record, () => db.run('INSERT INTO containers VALUES (?, ?, ?, ?)', record.id, record.name, record.created, json));
      uses(record);
      insertIds(db, record);
    },
    updateContainer(record) {
      let changed = 0;
      named(record, () => (changed = db.run('UPDATE containers SET name = ?, record = ? WHERE id = ?', record.name, rowJson(record), record.id)));
      share(db, record);
      if (changed === 0) throw fail('ERR_NO_SUCH_CONTAINER', `no such container: ${record.name}`, { path: record.id });
      uses(record);
    },
    deleteContainer: (id) => void db.run('DELETE FROM containers WHERE id = ?', id),
    insertVolume(record) {
      try {
        db.run('INSERT INTO volumes VALUES (?, ?, ?)', record.name, record.created, toJson(record));
      } catch (error) {
        if (isConstraint(error)) throw fail('ERR_NAME_TAKEN', `volume ${record.name} exists already`, { path: record.name, hint: '' });
        throw error;
      }
    },
    deleteVolume(name) {
      db.run('DELETE FROM volumes WHERE name = ?', name);
      gone.add(name);
    },
    countRemoval: () => void db.run("INSERT INTO counters VALUES ('removals', 1) ON CONFLICT DO UPDATE SET value = value + 1"),
  };
  return {
    rows,
    check() {
      networks.check();
      for (const name of gone) {
        const user = db.get('SELECT container FROM container_volumes WHERE volume = ?', name);
        if (user) throw fail('ERR_IN_USE', `volume ${name} is in use by container ${short(String(user['container']))}`, { path: name });
      }
    },
  };
}
