import { type ContainerRecord } from '../api/types.ts';
import { fail } from '../errors/index.ts';

/** Plain JSON that a plugin keeps with a container; no other plugin's is reached through it. */
export interface PluginRecord {
  /** A copy of what was set last, undefined when nothing was. */
  get(): unknown;
  /**
   * Committed in the same instant as the container's row: in hook `create` with its creation, in the hooks of a run with its start (a
   * failed start changes nothing). undefined forgets it. Errors: ERR_NOT_SUPPORTED in other hooks, ERR_INVALID_VALUE for what isn't JSON.
   */
  set(value: unknown): void;
}

/** The records of one container while a verb runs. */
export interface RecordSet {
  of(plugin: string, hook: string, isOpen?: () => boolean): PluginRecord;
  /** All of them, when one was set: what is to be committed. */
  changed(): Readonly<Record<string, unknown>> | undefined;
}

function plainJson(plugin: string, operation: string, value: unknown): string {
  let cause: unknown;
  try {
    const text = JSON.stringify(value) as string | undefined;
    if (text !== undefined) return text;
  } catch (error) {
    cause = error;
  }
  throw fail('ERR_INVALID_VALUE', `the record of plugin ${plugin} is not plain JSON`, { plugin, operation, cause });
}

/** `writable`: somebody will commit what is set. */
export function createRecords(container: Pick<ContainerRecord, 'plugins'>, { writable = false } = {}): RecordSet {
  const values = new Map(Object.entries(container.plugins ?? {}).map(([plugin, value]) => [plugin, JSON.stringify(value)]));
  let touched = false;
  return {
    of: (plugin, hook, isOpen = () => true) => ({
      get: () => (values.has(plugin) ? (JSON.parse(values.get(plugin) ?? '') as unknown) : undefined),
      set(value) {
        if (!writable || !isOpen()) throw fail('ERR_NOT_SUPPORTED', `plugin ${plugin} sets its record in hook ${hook}, where nothing commits it`, { plugin, operation: hook });
        touched = true;
        if (value === undefined) values.delete(plugin);
        else values.set(plugin, plainJson(plugin, hook, value));
      },
    }),
    changed: () => (touched ? Object.fromEntries([...values].map(([plugin, text]) => [plugin, JSON.parse(text) as unknown])) : undefined),
  };
}
