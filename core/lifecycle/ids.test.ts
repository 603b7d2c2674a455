import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ContainerRecord } from '../api/index.ts';
import { type Machine } from '../contracts/common/index.ts';
import { type IdMapping } from '../spec/index.ts';
import { Database } from '../state/database.ts';
import { idTable, insertIds, isIdConflict } from '../state/ids.ts';
import { rowChanges } from '../state/tables.ts';
import { type State } from '../state/index.ts';
import { chooseIds, idPool, idReport, overlapWarnings, withIds, type ChosenIds } from './ids.ts';

const machine = (files: Readonly<Record<string, string>> = {}, idMaps: Machine['idMaps'] = []) => ({ read: (path: string) => files[path], idMaps });
let folder: string;
let db: Database;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'engine-ids-'));
  db = await Database.open(join(folder, 'state.db'));
});
afterEach(() => {
  db.close();
  rmSync(folder, { recursive: true });
});
const state = (database = db): State => ({ ids: idTable(database) }) as unknown as State;
const choose = (userns: string, files?: Readonly<Record<string, string>>, more: { uidMaps?: string[]; gidMaps?: string[] } = {}): ChosenIds => {
  const chosen = chooseIds(state(), machine(files), { userns, ...more });
  if (!chosen) throw new Error('none chosen');
  return chosen;
};
let count = 0;
const recordOf = ({ uidMappings, gidMappings, leased }: ChosenIds): ContainerRecord => {
  const id = `c${process.pid}-${count++}`;
  return { id, name: id, created: '', volumes: [], networks: [], ids: leased, spec: { ociVersion: '1.2.0', linux: { uidMappings, gidMappings } } } as unknown as ContainerRecord;
};
const claim = async (chosen: ChosenIds, database = db): Promise<string> => {
  const record = recordOf(chosen);
  await database.write(() => rowChanges(database).rows.insertContainer(record));
  return record.id;
};
const overlaps = (ranges: readonly { first: number; size: number }[]): boolean => [...ranges].sort((a, b) => a.first - b.first).some((r, i, all) => i > 0 && (all[i - 1]?.first ?? 0) + (all[i - 1]?.size ?? 0) > r.first);

describe('what is asked for', () => {
  it('host and nothing are the ids of the host', () => {
    for (const userns of [undefined, '', 'host']) expect(chooseIds(state(), machine(), { ...(userns !== undefined && { userns }) })).toBeUndefined();
  });
  it('maps are taken as they are', () => {
    const one: IdMapping[] = [{ containerID: 0, hostID: 100000, size: 1000 }, { containerID: 1000, hostID: 5, size: 1 }];
    expect(choose('0:100000:1000,1000:5')).toEqual({ uidMappings: one, gidMappings: one, leased: [] });
    expect(choose('', {}, { uidMaps: ['0:1:2'] })).toMatchObject({ uidMappings: [{ hostID: 1 }], gidMappings: [{ hostID: 1 }] });
    expect(choose('', {}, { uidMaps: ['0:1:2'], gidMaps: ['0:7:2'] })).toMatchObject({ uidMappings: [{ hostID: 1 }], gidMappings: [{ hostID: 7 }] });
  });
  it.each([
    ['0:100000', /^$/], ['0', /invalid mapping/], ['0:1:0', /size 0/], ['0:4294967295:1', /not an id/], ['0:99999999999:1', /invalid mapping/], ['0:4294967290:10', /beyond the last id/],
    ['5000000000:0:1', /invalid mapping|not an id/], ['1:100000:5', /nobody is root/], ['0:1:10,5:100:10', /container id 5 is mapped twice/], ['0:1:10,10:5:10', /host id 5 is mapped twice/],
    ['0:-1:5', /invalid mapping/], ['0:1:5;', /invalid mapping/], ['0x0:1:5', /invalid mapping/], ['keep-id', /do not run as root/], ['keep-id:uid=5', /do not run as root/], ['nomap', /do not run as root/],
    ['ns:/proc/1/ns/user', /cannot be joined/], ['container:x', /cannot be joined/], ['private', /does not say which/], ['hots', /invalid mode hots/], ['auto:size=0', /invalid size/], ['auto:size=x', /invalid size/],
    ['auto:size=4294967296', /invalid size/], ['auto:sizes=1', /unknown option "sizes"/], ['auto:uidmapping=5', /uidmapping: invalid mapping/], [Array.from({ length: 341 }, (_, i) => `${i}:${i + 5}:1`).join(','), /341 mappings, the kernel takes 340/],
  ])('%s', (userns, message) => {
    if (message.source === '^$') expect(choose(userns).uidMappings).toEqual([{ containerID: 0, hostID: 100000, size: 1 }]);
    else expect(() => choose(userns)).toThrow(message);
  });
  it('two ways to say it exclude each other', () => {
    expect(() => choose('auto', {}, { uidMaps: ['0:1:1'] })).toThrow(/conflicting options/);
  });
});

describe('auto', () => {
  it('takes 65536 ids of a range that nobody else uses, the same for users and groups', () => {
    const { uidMappings, gidMappings, leased } = choose('auto');
    expect(uidMappings).toEqual([{ containerID: 0, hostID: expect.any(Number) as number, size: 65536 }]);
    expect(gidMappings).toEqual(uidMappings);
    expect(leased.map(({ kind, size }) => [kind, size])).toEqual([['uid', 65536], ['gid', 65536]]);
    // above those of SSSD, systemd and shadow, below systemd's foreign ones
    const first = uidMappings[0]?.hostID ?? 0;
    expect(first).toBeGreaterThan(2_000_200_000);
    expect(first + 65536).toBeLessThanOrEqual(2_147_352_576);
  });
  it('takes it from /etc/subuid and /etc/subgid of user engine, then containers', () => {
    const files = { '/etc/subuid': 'bob:100000:65536\ncontainers:500000:65536\n', '/etc/subgid': '# ours\nengine:700000:65536\ncontainers:500000:65536\n' };
    expect(choose('auto', files)).toMatchObject({ uidMappings: [{ hostID: 500000 }], gidMappings: [{ hostID: 700000 }] });
    expect(() => choose('auto:size=65537', files)).toThrow(expect.objectContaining({ code: 'ERR_NO_ADDRESS', message: expect.stringContaining('/etc/subuid, user containers') as string, hint: expect.stringContaining('engine') as string }));
  });
  it('leaves out other users, their ranges, existing ids, and what this engine has not itself', () => {
    const { ranges } = idPool(machine({ '/etc/subuid': 'bob:2000224256:65536\neve:2147000000:1000000\n', '/etc/passwd': 'root:x:0:0::/:/bin/sh\njoe:x:2000300000:5::/:/bin/sh\n' }), 'uid');
    expect(ranges).toEqual([{ first: 2_000_289_792, size: 10_208 }, { first: 2_000_300_001, size: 146_699_999 }]);
    expect(idPool(machine({ '/proc/self/uid_map': '         0     100000      65536\n' }), 'uid').ranges).toEqual([]);
    expect(idPool(machine({ '/etc/subuid': 'engine:0:1000\n' }), 'uid').ranges).toEqual([{ first: 1, size: 999 }]);
    // what is written there may be wrong
    expect(idPool(machine({ '/etc/subuid': 'nonsense\nengine:4294967000:65536\nengine:9999999999:1\n' }), 'uid').ranges).toEqual([{ first: 4_294_967_000, size: 295 }]);
  });
  it('keeps what it is told to keep, and fills the holes', () => {
    const { uidMappings, leased } = choose('auto:size=100,uidmapping=10:4000:5', { '/etc/subuid': 'engine:5000:200\n', '/etc/subgid': 'engine:5000:200\n' });
    expect(uidMappings.map(({ containerID, size }) => [containerID, size])).toEqual([[0, 10], [10, 5], [15, 85]]);
    expect(uidMappings[1]?.hostID).toBe(4000);
    expect(leased.filter(({ kind }) => kind === 'uid').map(({ size }) => size)).toEqual([10, 85]);
  });
  it('never gives the same id twice, whatever sizes are asked for, until all are given', async () => {
    const files = { '/etc/subuid': 'engine:100000:5000\nengine:300000:1000\n', '/etc/subgid': 'engine:100000:6000\n' };
    let random = 7;
    const next = (n: number): number => (random = (random * 48271) % 2147483647) % n;
    const alive: string[] = [];
    let refused = 0;
    for (let i = 0; i < 300; i++) {
      if (alive.length > 0 && next(3) === 0) {
        const [gone] = alive.splice(next(alive.length), 1);
        await db.write(() => db.run('DELETE FROM containers WHERE id = ?', gone ?? ''));
        continue;
      }
      try {
        alive.push(await claim(choose(`auto:size=${1 + next(700)}`, files)));
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_NO_ADDRESS' });
        refused++;
      }
      for (const kind of ['uid', 'gid'] as const) {
        const ranges = idTable(db).list(kind);
        expect(overlaps(ranges)).toBe(false);
        expect(new Set(ranges.map(({ container }) => container))).toEqual(new Set(alive));
        for (const { first, size } of ranges) expect(first >= 100000 && (first + size <= 106000 || first >= 300000)).toBe(true);
      }
    }
    expect(refused).toBeGreaterThan(3);
  });
  it('keeps clear of maps that somebody wrote down; who writes one down has it, even twice', async () => {
    const files = { '/etc/subuid': 'engine:1000:30\n', '/etc/subgid': 'engine:1000:30\n' };
    await claim(choose('0:1000:10'));
    await claim(choose('0:1005:10'));
    expect(choose('auto:size=15', files).uidMappings[0]?.hostID).toBe(1015);
    expect(() => choose('auto:size=16', files)).toThrow(/no range of 16 uids is free/);
  });
  it('keeps clear of what processes of other engines have, whoever has all ids excepted', () => {
    const files = { '/etc/subuid': 'engine:1000:30\n', '/etc/subgid': 'engine:1000:30\n' };
    const others = machine(files, [{ uid: '         0       1000         15\n', gid: '         0       1015         15\n' }, { uid: '         0          0 4294967295\n', gid: '         0          0 4294967295\n' }]);
    expect(chooseIds(state(), others, { userns: 'auto:size=15' })).toMatchObject({ uidMappings: [{ hostID: 1015 }], gidMappings: [{ hostID: 1000 }] });
    expect(() => chooseIds(state(), others, { userns: 'auto:size=16' })).toThrow(/no range of 16 uids is free/);
  });
});

it('a map that somebody wrote down is told which containers have ids of it', async () => {
  const named = (): State => ({ ids: idTable(db), containers: { get: (id: string) => ({ name: `name-of-${id}` }) } }) as unknown as State;
  const warnings = (chosen: ChosenIds, more = {}): readonly string[] => overlapWarnings(named(), { ...recordOf(chosen), name: 'new', ...more });
  const first = await claim(choose('0:1000:10'));
  const files = { '/etc/subuid': 'engine:5000:20\n', '/etc/subgid': 'engine:7000:20\n' };
  const auto = await claim(choose('auto:size=20', files));
  expect(warnings(choose('0:1010:10,10:990:10'))).toEqual([]);
  expect(warnings(choose('0:1009:10'))).toEqual([`container new shares uids from 1009 to 1009 of this machine with container name-of-${first}; --userns=auto gives ids that nobody else has`]);
  expect(warnings(choose('', {}, { uidMaps: ['0:20000:5'], gidMaps: ['0:7019:5'] }))).toEqual([expect.stringContaining(`gids from 7019 to 7019 of this machine with container name-of-${auto};`) as string]);
  expect(warnings(choose('0:900:9000')).map((text) => /name-of-\S+(?=;)/.exec(text)?.[0]).sort()).toEqual([first, auto].map((id) => `name-of-${id}`).sort());
  // two that share files
  expect(warnings(choose('0:1000:10'))).toEqual([]);
  expect(warnings({ ...choose(`0:5000:20`), leased: [] }).length).toBe(1);
  // its own ranges, and those that are leased, of which the database takes care
  expect(warnings(choose('0:1000:10'), { id: first })).toEqual([]);
  expect(warnings({ ...choose('0:1000:10'), leased: [{ kind: 'uid', first: 1000, size: 10 }, { kind: 'gid', first: 1000, size: 10 }] })).toEqual([]);
});

it('doctor says what there is, from where, and what of it is in use', async () => {
  const files = { '/etc/subuid': 'engine:1000:50\nengine:5000:50\n' };
  await claim(choose('auto:size=10', files));
  await claim(choose('0:7:10', files));
  expect(idReport(state(), machine(files))).toEqual([
    { kind: 'uid', source: '/etc/subuid, user engine', ids: 100, leased: 10, containers: 1 }, { kind: 'gid', source: 'built in', ids: 147_128_320, leased: 10, containers: 1 },
  ]);
});

describe('a claim', () => {
  it('of what another container has taken meanwhile fails, and another is chosen', async () => {
    const files = { '/etc/subuid': 'engine:1000:20\n', '/etc/subgid': 'engine:1000:20\n' };
    const first = choose('auto:size=10', files);
    await claim(first);
    await expect(claim(first)).rejects.toSatisfy(isIdConflict);
    let tries = 0;
    const id = await withIds(async () => claim(tries++ === 0 ? first : choose('auto:size=10', files)));
    expect(tries).toBe(2);
    expect(idTable(db).list('uid').map(({ container }) => container)).toContain(id);
    // nothing of the failed ones stays
    expect(idTable(db).list('gid')).toHaveLength(2);
    await expect(withIds(() => claim(first))).rejects.toMatchObject({ code: 'ERR_BUSY' });
  });
  it('ends with its container', async () => {
    const id = await claim(choose('auto'));
    await db.write(() => db.run('DELETE FROM containers WHERE id = ?', id));
    expect(idTable(db).list('uid')).toEqual([]);
    expect(() => insertIds(db, recordOf(choose('auto')))).toThrow(); // nobody claims for a container that there is not
  });
  it('holds among processes', async () => {
    const script = join(folder, 'claims.mjs');
    const here = import.meta.dirname;
    mkdirSync(join(folder, 'p'));
    writeFileSync(script, `
      import { Database } from ${JSON.stringify(join(here, '../state/database.ts'))};
      import { idTable } from ${JSON.stringify(join(here, '../state/ids.ts'))};
      import { rowChanges } from ${JSON.stringify(join(here, '../state/tables.ts'))};
      import { chooseIds, withIds } from ${JSON.stringify(join(here, 'ids.ts'))};
      const db = await Database.open(${JSON.stringify(join(folder, 'state.db'))});
      const files = { '/etc/subuid': 'engine:1000:640\\n', '/etc/subgid': 'engine:1000:640\\n' };
      for (let i = 0; i < 20; i++) await withIds(async () => {
        const { leased: ids, ...linux } = chooseIds({ ids: idTable(db) }, { read: (path) => files[path], idMaps: [] }, { userns: 'auto:size=8' });
        const id = process.pid + '-' + i;
        await db.write(() => rowChanges(db).rows.insertContainer({ id, name: id, created: '', volumes: [], networks: [], ids, spec: { linux } }));
      });
    `);
    const ends = await Promise.all([1, 2, 3, 4].map(() => new Promise<string>((resolve) => {
      const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script], { stdio: ['ignore', 'ignore', 'pipe'] });
      let text = '';
      child.stderr.on('data', (data: Buffer) => (text += data.toString()));
      child.on('close', (code) => resolve(`${code ?? ''}${text}`));
    })));
    expect(ends).toEqual(['0', '0', '0', '0']);
    // all that there is, each once
    for (const kind of ['uid', 'gid'] as const) {
      expect(idTable(db).list(kind)).toHaveLength(80);
      expect(overlaps(idTable(db).list(kind))).toBe(false);
    }
  });
});
