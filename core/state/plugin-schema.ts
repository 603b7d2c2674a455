import { type StateSchema } from '../contracts/common/index.ts';
import { fail, isEngineError } from '../errors/index.ts';
import { type Database } from './database.ts';
import { pluginState } from './tables.ts';

/** What a plugin has whose state was never given a version. */
const FIRST = 1;

/**
 * Bring a plugin's state to the version its code knows, in one transaction. Called before the plugin is created. Errors: ERR_STATE when it
 * was written by a newer version of the plugin, ERR_PLUGIN_FAILED when `migrate` throws; the state is then as it was.
 */
export async function ensureStateSchema(db: Database, plugin: string, schema: StateSchema | undefined): Promise<void> {
  const wanted = schema?.schemaVersion ?? FIRST;
  if (!Number.isInteger(wanted) || wanted < FIRST) throw fail('ERR_PLUGIN_INVALID', `plugin ${plugin} declares state with schemaVersion ${String(wanted)}: it must be 1 or more`, { plugin });
  const written = (): number | undefined => {
    const row = db.get('SELECT version FROM plugin_schemas WHERE plugin = ?', plugin);
    if (row) return Number(row['version']);
    if (wanted === FIRST) return FIRST;
    return db.get('SELECT 1 FROM plugin_state WHERE plugin = ? LIMIT 1', plugin) && FIRST;
  };
  if (written() === wanted) return;
  await db.write(() => {
    // another engine may have been faster
    const from = written();
    if (from === wanted) return;
    if (from !== undefined && from > wanted) throw fail('ERR_STATE', `the state of plugin ${plugin} was written by a newer version of it (schema ${from}, this one knows ${wanted})`, { plugin, hint: `install the newer version of ${plugin}` });
    if (from !== undefined) migrate(db, plugin, schema, from);
    db.run('INSERT INTO plugin_schemas VALUES (?, ?) ON CONFLICT DO UPDATE SET version = excluded.version', plugin, wanted);
  });
}

function migrate(db: Database, plugin: string, schema: StateSchema | undefined, from: number): void {
  try {
    if (!schema?.migrate) throw new TypeError(`there is no way from schema ${from} to ${schema?.schemaVersion ?? FIRST}`);
    if ((schema.migrate(pluginState(db, plugin), from) as unknown) instanceof Promise) throw new TypeError('migrate must not return a promise: it runs inside a transaction');
  } catch (cause) {
    if (isEngineError(cause)) throw cause;
    throw fail('ERR_PLUGIN_FAILED', `plugin ${plugin} failed to migrate its state from schema ${from}`, { plugin, operation: 'migrate', cause, hint: '' });
  }
}
