import { fail, isEngineError } from '../errors/index.ts';
import { type ContainerRecord } from '../api/types.ts';
import { isConstraint, type Database } from './database.ts';
import { type IdLease, type IdTable } from './types.ts';

export function idTable(db: Database): IdTable {
  return {
    list: (kind) => db.all('SELECT * FROM id_ranges WHERE kind = ? ORDER BY first, container', kind)
      .map((row): IdLease => ({ container: String(row['container']), kind, first: Number(row['first']), size: Number(row['size']), leased: row['leased'] === 1 })),
  };
}

/** Inside a write: what `record` maps on the host. Errors: ERR_BUSY, see {@link isIdConflict}. */
export function insertIds(db: Database, { id, ids = [], spec }: ContainerRecord): void {
  for (const kind of ['uid', 'gid'] as const) {
    for (const { hostID: first, size } of spec?.linux?.[`${kind}Mappings`] ?? []) {
      const leased = ids.some((range) => range.kind === kind && range.first === first);
      try {
        db.run('INSERT INTO id_ranges VALUES (?, ?, ?, ?, ?)', id, kind, first, size, leased ? 1 : 0);
      } catch (error) {
        if (isConstraint(error)) throw fail('ERR_BUSY', `another container took the ${kind}s from ${first} on`, { operation: CLAIM, cause: error });
        throw error;
      }
    }
  }
}
const CLAIM = 'claim ids';
/** Was a range taken by somebody else between its choice and the write? Then another one is to be chosen. */
export const isIdConflict = (error: unknown): boolean => isEngineError(error, 'ERR_BUSY') && error.operation === CLAIM;
