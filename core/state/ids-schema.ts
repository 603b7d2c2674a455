/** Ranges go with their container's row. One of `--userns=auto` overlaps with no other range, and none that comes later with it, unless somebody writes down which ids he wants. */
export const idMigration = `CREATE TABLE id_ranges (container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE, kind TEXT NOT NULL, first INTEGER NOT NULL, size INTEGER NOT NULL, leased INTEGER NOT NULL, PRIMARY KEY (container, kind, first)) STRICT, WITHOUT ROWID;
   CREATE INDEX id_ranges_by_first ON id_ranges (kind, first);
   CREATE TRIGGER id_ranges_leased_once BEFORE INSERT ON id_ranges WHEN NEW.leased = 1 AND EXISTS (
     SELECT 1 FROM id_ranges WHERE kind = NEW.kind AND first < NEW.first + NEW.size AND first + size > NEW.first) BEGIN SELECT RAISE(ABORT, 'these ids are taken'); END;`;
