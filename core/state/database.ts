import * as fs from 'node:fs';
import { promisify } from 'node:util';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { fail } from '../errors/index.ts';
import { sleep } from './files.ts';
import { idMigration } from './ids-schema.ts';

/** Applied in order, each once; the number applied is the database's `user_version`. Append only. */
const migrations: readonly string[] = [
  `CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL, record TEXT NOT NULL) STRICT;
   CREATE TABLE container_volumes (container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE, volume TEXT NOT NULL, PRIMARY KEY (container, volume)) STRICT, WITHOUT ROWID;
   CREATE INDEX container_volumes_by_volume ON container_volumes (volume);
   CREATE TABLE volumes (name TEXT PRIMARY KEY, created TEXT NOT NULL, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE plugin_state (plugin TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (plugin, key)) STRICT, WITHOUT ROWID;
   CREATE TABLE committed (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
   CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;`,
  'CREATE TABLE plugin_schemas (plugin TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;',
  'CREATE TABLE shared (digest TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;',
  `CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE container_networks (container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE, network TEXT NOT NULL, PRIMARY KEY (container, network)) STRICT, WITHOUT ROWID;
   CREATE INDEX container_networks_by_network ON container_networks (network);
   CREATE TABLE endpoints (container TEXT NOT NULL, run TEXT NOT NULL, network TEXT NOT NULL, ended INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (container, run, network)) STRICT, WITHOUT ROWID;
   CREATE INDEX endpoints_ended ON endpoints (ended) WHERE ended = 1;
   CREATE TABLE leases (network TEXT NOT NULL, address TEXT NOT NULL, container TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY (network, address)) STRICT, WITHOUT ROWID;
   CREATE INDEX leases_by_run ON leases (container, run, network);
   CREATE TABLE last_addresses (network TEXT NOT NULL, family INTEGER NOT NULL, address TEXT NOT NULL, PRIMARY KEY (network, family)) STRICT, WITHOUT ROWID;
   UPDATE containers SET record = json_set(record, '$.networks', json('[]'));`,
  idMigration,
];

const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;
function isBusy(error: unknown): boolean {
  const code = error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : 0;
  return code === SQLITE_BUSY || code === SQLITE_LOCKED;
}
/** Unique and primary key violations. */
export function isConstraint(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && (Number(error.errcode) & 0xff) === 19;
}

/** How long a writer is waited for, ms. Writers hold the lock for one synchronous transaction. */
const PATIENCE = 10_000;
const cell = new Int32Array(new SharedArrayBuffer(4));

type Row = Record<string, unknown>;
type Value = string | number | bigint | null;

/** Checkpoints the WAL of the database at this path, on another thread and by a connection of its own. */
export type Compact = (path: string) => Promise<void>;
/** Commits between two of them; one writes 1 to 5 pages. */
const COMPACT_EVERY = 250;

/**
 * The SQLite database of a root. WAL, so that readers never wait. SQLite's own busy time-out is 0, because it would block the event
 * loop: writers that find it locked come again from the event loop.
 *
 * Durability: `synchronous=NORMAL` may lose the newest transactions in a power cut (never in a crash of a process), which is right for
 * exits and counters. A journalled transaction waits for {@link sync} before its journal is deleted: a commit lost together with its
 * journal would leave files that nobody knows of. Not `FULL`, whose fsync would hold the event loop: what `sync` does is the same, on
 * another thread.
 */
export class Database {
  readonly #path: string;
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #compact: Compact | undefined;
  #commits = 0;
  #wal: number | undefined;
  #syncing: Promise<void> | undefined;
  #nextSync: Promise<void> | undefined;

  private constructor(path: string, db: DatabaseSync, compact: Compact | undefined) {
    this.#path = path;
    this.#db = db;
    this.#compact = compact;
  }

  /** Errors: ERR_STATE when it is damaged or newer than this engine. */
  static async open(path: string, compact?: Compact): Promise<Database> {
    let db: DatabaseSync | undefined;
    try {
      db = new DatabaseSync(path, { timeout: 0 });
      const database = new Database(path, db, compact);
      // the change to WAL and the first read of a fresh WAL need the file alone for a moment
      await database.#patiently(() => database.#db.exec('PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON'));
      if (compact) db.exec('PRAGMA wal_autocheckpoint=0');
      if ((await database.#patiently(() => database.#version())) !== migrations.length) await database.#migrate();
      return database;
    } catch (error) {
      db?.close();
      throw databaseError(error, path);
    }
  }

  #version(): number {
    return Number((this.#db.prepare('PRAGMA user_version').get() as Row)['user_version']);
  }
  async #migrate(): Promise<void> {
    await this.#begin(() => {
      const version = this.#version();
      if (version > migrations.length) throw fail('ERR_STATE', `${this.#path} was written by a newer engine (schema ${version}, this one knows ${migrations.length})`, { path: this.#path, hint: 'use the newer engine, or another root' });
      for (const sql of migrations.slice(version)) this.#db.exec(sql);
      this.#db.exec(`PRAGMA user_version=${migrations.length}`);
    });
  }

  async #patiently<T>(action: () => T): Promise<T> {
    const end = Date.now() + PATIENCE;
    for (let wait = 0; ; wait = Math.min(20, wait * 2 + 1)) {
      try {
        return action();
      } catch (error) {
        if (!isBusy(error) || Date.now() > end) throw error;
      }
      await sleep(wait * Math.random());
    }
  }
  /** Only for the few calls whose signature is synchronous, and for the rare read that meets a WAL being rebuilt. */
  #stubbornly<T>(action: () => T): T {
    const end = Date.now() + PATIENCE;
    for (;;) {
      try {
        return action();
      } catch (error) {
        if (!isBusy(error) || Date.now() > end) throw databaseError(error, this.#path);
      }
      Atomics.wait(cell, 0, 0, 1);
    }
  }
  #transaction<T>(change: () => T): T {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      const result = change();
      this.#db.exec('COMMIT');
      this.#committed();
      return result;
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }
  #begin<T>(change: () => T): Promise<T> {
    return this.#patiently(() => this.#transaction(change));
  }

  /** One transaction. `change` is synchronous and may be called again when the database was busy. */
  async write<T>(change: () => T): Promise<T> {
    try {
      return await this.#begin(change);
    } catch (error) {
      throw databaseError(error, this.#path);
    }
  }
  #committed(): void {
    if (this.#compact && ++this.#commits % COMPACT_EVERY === 0) void this.#compact(this.#path).catch(() => {});
  }
  /** Resolves when all that was committed before the call is on the disk. One fdatasync serves all who wait for the next. */
  sync(): Promise<void> {
    return (this.#nextSync ??= (this.#syncing ?? Promise.resolve()).catch(() => {}).then(() => {
      this.#nextSync = undefined;
      // the log stays the same file for as long as somebody has the database open
      this.#wal ??= fs.openSync(`${this.#path}-wal`, 'r');
      return (this.#syncing = promisify(fs.fdatasync)(this.#wal));
    }));
  }
  /** One statement as a transaction of its own, waiting in place for other writers. */
  writeNow(sql: string, ...values: Value[]): void {
    this.#stubbornly(() => this.#prepare(sql).run(...values));
    this.#committed();
  }
  /** Inside `write`. */
  run(sql: string, ...values: Value[]): number {
    return Number(this.#prepare(sql).run(...values).changes);
  }
  get(sql: string, ...values: Value[]): Row | undefined {
    return this.#stubbornly(() => this.#prepare(sql).get(...values) as Row | undefined);
  }
  all(sql: string, ...values: Value[]): Row[] {
    return this.#stubbornly(() => this.#prepare(sql).all(...values) as Row[]);
  }
  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, (statement = this.#db.prepare(sql)));
    return statement;
  }
  close(): void {
    if (this.#db.isOpen) this.#db.close();
    if (this.#wal !== undefined) fs.closeSync(this.#wal);
    this.#wal = undefined;
  }
}

function databaseError(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || !('errcode' in error)) return error;
  if (isBusy(error)) return fail('ERR_BUSY', 'the database is held by another process', { path, cause: error });
  return fail('ERR_STATE', `the database ${path} cannot be used`, { path, cause: error });
}

/** JSON that keeps bigints (seccomp arguments are 64 bits wide). */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? { $bigint: item.toString() } : item));
}
export function fromJson(text: string): unknown {
  const value = JSON.parse(text) as unknown;
  return text.includes('"$bigint"') ? revived(value) : value;
}
/** In place: a reviver would make parsing several times as slow. */
function revived(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if ('$bigint' in value) return BigInt(String(value.$bigint));
  if (Array.isArray(value)) for (let i = 0; i < value.length; i++) {
    if (typeof value[i] === 'object') value[i] = revived(value[i]);
  }
  else for (const key in value) {
    const item = (value as Record<string, unknown>)[key];
    if (typeof item === 'object') (value as Record<string, unknown>)[key] = revived(item);
  }
  return value;
}
