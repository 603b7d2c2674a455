import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { fail } from '../errors/index.ts';
import { sleep } from './files.ts';

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

/**
 * The SQLite database of a root. WAL, so that readers never wait. SQLite's own busy time-out is 0, because it would block the event
 * loop: writers that find it locked come again from the event loop.
 *
 * Durability: `synchronous=NORMAL` may lose the newest transactions in a power cut (never in a crash of a process), which is right for
 * exits and counters. The commit of a journalled transaction is `FULL`: right after it the journal is deleted, and a commit lost
 * together with its journal would leave files that nobody knows of.
 */
export class Database {
  readonly #path: string;
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  private constructor(path: string, db: DatabaseSync) {
    this.#path = path;
    this.#db = db;
  }

  /** Errors: ERR_STATE when it is damaged or newer than this engine. */
  static async open(path: string): Promise<Database> {
    let db: DatabaseSync | undefined;
    try {
      db = new DatabaseSync(path, { timeout: 0 });
      const database = new Database(path, db);
      // the change to WAL and the first read of a fresh WAL need the file alone for a moment
      await database.#patiently(() => database.#db.exec('PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON'));
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
  async write<T>(change: () => T, options: { durable?: boolean } = {}): Promise<T> {
    try {
      return await this.#patiently(() => {
        if (!options.durable) return this.#transaction(change);
        this.#db.exec('PRAGMA synchronous=FULL');
        try {
          return this.#transaction(change);
        } finally {
          this.#db.exec('PRAGMA synchronous=NORMAL');
        }
      });
    } catch (error) {
      throw databaseError(error, this.#path);
    }
  }
  /** One statement as a transaction of its own, waiting in place for other writers. */
  writeNow(sql: string, ...values: Value[]): void {
    this.#stubbornly(() => this.#prepare(sql).run(...values));
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
  if (!text.includes('"$bigint"')) return JSON.parse(text) as unknown;
  return JSON.parse(text, (_key, item: unknown) => (typeof item === 'object' && item !== null && '$bigint' in item ? BigInt(String(item.$bigint)) : item)) as unknown;
}
