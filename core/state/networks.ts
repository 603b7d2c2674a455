import { fail } from '../errors/index.ts';
import { type Endpoint, type NetworkRecord } from '../contracts/network/index.ts';
import { fromJson, isConstraint, toJson, type Database } from './database.ts';
import { type EndpointTable, type NetworkTable, type Rows } from './types.ts';

type Row = Record<string, unknown>;
const toNetwork = (row: Row): NetworkRecord => fromJson(String(row['record'])) as NetworkRecord;
const toEndpoint = (row: Row): Endpoint => fromJson(String(row['record'])) as Endpoint;

export function networkTable(db: Database): NetworkTable {
  const found = (row: Row | undefined): NetworkRecord | undefined => row && toNetwork(row);
  const get: NetworkTable['get'] = (id) => found(db.get('SELECT record FROM networks WHERE id = ?', id));
  const byName: NetworkTable['byName'] = (name) => found(db.get('SELECT record FROM networks WHERE name = ?', name));
  return {
    get,
    byName,
    list: () => db.all('SELECT record FROM networks ORDER BY created, id').map(toNetwork),
    users: (id) => db.all('SELECT container FROM container_networks WHERE network = ? ORDER BY container', id).map((row) => String(row['container'])),
    resolve(ref) {
      const exact = get(ref) ?? byName(ref);
      if (exact) return exact;
      const rows = /^[0-9a-f]+$/.test(ref) ? db.all('SELECT record FROM networks WHERE id >= ? AND id < ? LIMIT 3', ref, `${ref}g`).map(toNetwork) : [];
      if (rows[0] && rows.length === 1) return rows[0];
      if (rows.length > 1) throw fail('ERR_AMBIGUOUS', `more than one network has an id that starts with ${ref}: ${rows.map((r) => r.name).join(', ')}`, { path: ref });
      throw fail('ERR_NO_SUCH_NETWORK', `network ${ref} not found`, { path: ref, hint: 'see: engine network ls' });
    },
  };
}

const TAKEN = Symbol('an address is taken');
/** Inside a write: nobody may come to a network that was removed a moment ago. */
export function requireNetwork(db: Database, id: string): void {
  if (!db.get('SELECT 1 FROM networks WHERE id = ?', id)) throw fail('ERR_NO_SUCH_NETWORK', `network ${id.slice(0, 12)} not found: it has been removed`, { path: id, hint: 'see: engine network ls' });
}

/** Rows of endpoints and leases, inside a write. */
function endpointRows(db: Database) {
  return {
    insert(endpoint: Endpoint): void {
      const { network, container, run } = endpoint;
      requireNetwork(db, network);
      for (const { address, family } of endpoint.addresses) {
        if (db.run('INSERT OR IGNORE INTO leases VALUES (?, ?, ?, ?)', network, address, container, run) === 0) throw TAKEN;
        db.run('INSERT INTO last_addresses VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET address = excluded.address', network, family, address);
      }
      // one that was disconnected, whose link is still there, has the same name: the kernel says so
      db.run('INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?, 0, ?)', container, run, network, toJson(endpoint));
    },
    delete({ container, run, network }: Endpoint, ended: 0 | 1): void {
      const found = db.run('DELETE FROM endpoints WHERE container = ? AND run = ? AND network = ? AND ended = ?', container, run, network, ended);
      if (found > 0) db.run('DELETE FROM leases WHERE container = ? AND run = ? AND network = ?', container, run, network);
    },
  };
}

export function endpointTable(db: Database): EndpointTable {
  const rows = endpointRows(db);
  return {
    of: (container) => db.all('SELECT record FROM endpoints WHERE container = ? AND ended = 0', container).map(toEndpoint).sort((a, b) => a.interface.length - b.interface.length || (a.interface < b.interface ? -1 : 1)),
    list: () => db.all('SELECT record FROM endpoints WHERE ended = 0').map(toEndpoint),
    ended: (networks, limit = -1) => db.all(`SELECT record FROM endpoints WHERE ended = 1 AND network IN (${networks.map(() => '?').join()}) LIMIT ?`, ...networks, limit).map(toEndpoint),
    holder(network, address) {
      const row = db.get('SELECT e.record, e.ended FROM leases l JOIN endpoints e ON e.container = l.container AND e.run = l.run AND e.network = l.network WHERE l.network = ? AND l.address = ?', network, address);
      return row && { ended: row['ended'] === 1, get endpoint() { return toEndpoint(row); } };
    },
    last(network, family) {
      const row = db.get('SELECT address FROM last_addresses WHERE network = ? AND family = ?', network, family);
      return row && String(row['address']);
    },
    async claim(endpoints, gone) {
      try {
        await db.write(() => {
          // one that had ended may be in use again, when a container was connected once more
          for (const endpoint of gone) rows.delete(endpoint, 1);
          for (const endpoint of endpoints) rows.insert(endpoint);
        });
        return true;
      } catch (error) {
        if (error === TAKEN) return false;
        throw error;
      }
    },
    end: (endpoints, isGone) => db.write(() => {
      for (const endpoint of endpoints) {
        if (isGone(endpoint)) rows.delete(endpoint, 0);
        else db.run('UPDATE endpoints SET ended = 1 WHERE container = ? AND run = ? AND network = ?', endpoint.container, endpoint.run, endpoint.network);
      }
    }),
  };
}

/** Row changes of networks inside a transaction; `check` at its end. */
export function networkChanges(db: Database): { readonly rows: Pick<Rows, 'insertNetwork' | 'deleteNetwork' | 'updateEndpoint'>; check(): void } {
  const gone = new Map<string, string>();
  return {
    rows: {
      insertNetwork(record) {
        try {
          db.run('INSERT INTO networks VALUES (?, ?, ?, ?)', record.id, record.name, record.created, toJson(record));
        } catch (error) {
          if (isConstraint(error)) throw fail('ERR_NAME_TAKEN', `network with name ${record.name} already exists`, { path: record.name, hint: '' });
          throw error;
        }
      },
      deleteNetwork({ id, name }) {
        db.run('DELETE FROM networks WHERE id = ?', id);
        for (const table of ['leases', 'endpoints', 'last_addresses']) db.run(`DELETE FROM ${table} WHERE network = ?${table === 'endpoints' ? ' AND ended = 1' : ''}`, id);
        gone.set(id, name);
      },
      updateEndpoint: (endpoint) => void db.run('UPDATE endpoints SET record = ? WHERE container = ? AND run = ? AND network = ?', toJson(endpoint), endpoint.container, endpoint.run, endpoint.network),
    },
    check() {
      for (const [id, name] of gone) {
        const user = db.get('SELECT container FROM container_networks WHERE network = ? UNION SELECT container FROM endpoints WHERE network = ?', id, id);
        if (user) throw fail('ERR_IN_USE', `network ${name} is in use by container ${String(user['container']).slice(0, 12)}`, { path: name });
      }
    },
  };
}
