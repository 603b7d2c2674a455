import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadConfig, printConfig, type LoadOptions } from './sources.ts';
import { setTrust } from './trust.ts';

let base: string;
let cwd: string;
let options: LoadOptions & { places: { system: string; user: string } };

beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'engine-config-')));
  cwd = join(base, 'project');
  for (const folder of ['system', 'user', 'project/sub/deep']) mkdirSync(join(base, folder), { recursive: true });
  options = { cwd, env: {}, places: { system: join(base, 'system'), user: join(base, 'user') } };
});
afterEach(() => rmSync(base, { recursive: true }));

const write = (name: string, text: string, mode = 0o644): string => {
  const file = join(base, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
};
const code = (expected: string, message?: RegExp) =>
  expect.objectContaining({ code: expected, ...(message ? { message: expect.stringMatching(message) } : {}) });

describe('sources', () => {
  test('without files the built-in values stand', async () => {
    const { value, origins, files } = await loadConfig(options);
    expect(value.drivers.storage).toBe('auto');
    expect(value.root).toBe('/var/lib/engine');
    expect(origins.get('/drivers/storage')).toBe('built-in');
    expect(files).toEqual([]);
  });

  test('later sources lie over earlier ones, key by key, and each value knows its source', async () => {
    const system = write('system/enginerc', 'drivers: { storage: vfs, cgroup: v1, log: none }\nroot: /srv/a\n');
    const user = write('user/enginerc.yaml', 'drivers: { cgroup: other }\n');
    const project = write('project/.enginerc.json', '{"drivers": {"storage": "btrfs"}}');
    const { value, origins, files } = await loadConfig({
      ...options,
      env: { ENGINE_DRIVERS_VOLUME: 'local', ENGINE_RUN_ROOT: '/run/x' },
      flags: { root: 'here', set: ['drivers.log=cri', 'options.storage-btrfs.quota=10'] },
    });
    expect(value).toMatchObject({
      root: join(cwd, 'here'),
      runRoot: '/run/x',
      drivers: { storage: 'btrfs', cgroup: 'other', log: 'cri', volume: 'local', network: 'auto' },
      options: { 'storage-btrfs': { quota: 10 } },
    });
    expect(Object.fromEntries(origins)).toMatchObject({
      '/root': 'flag',
      '/runRoot': 'environment ENGINE_RUN_ROOT',
      '/drivers/storage': project,
      '/drivers/cgroup': user,
      '/drivers/log': 'flag',
      '/drivers/volume': 'environment ENGINE_DRIVERS_VOLUME',
      '/drivers/network': 'built-in',
      '/options/storage-btrfs/quota': 'flag',
    });
    expect(files).toEqual([system, user, project]);
  });

  test('arrays replace', async () => {
    write('system/enginerc', 'plugins: [a, b]');
    write('user/enginerc', 'plugins: [c]');
    expect((await loadConfig(options)).value.plugins).toEqual(['c']);
  });

  test('paths are relative to their file', async () => {
    write('user/enginerc', 'plugins: [./mine, "@x/y"]\nsecurity: { seccomp: ./p.json }');
    const { value, pluginBase } = await loadConfig(options);
    expect(value.plugins).toEqual([join(base, 'user/mine'), '@x/y']);
    expect(value.security.seccomp).toBe(join(base, 'user/p.json'));
    expect(pluginBase).toBe(join(base, 'user'));
  });

  test('an empty file, and one of comments only, say nothing', async () => {
    write('system/enginerc', '');
    write('user/enginerc', '# nothing\n');
    expect((await loadConfig(options)).files).toHaveLength(2);
  });
});

describe('mistakes', () => {
  test.each([
    ['drivers: { storge: vfs }', /enginerc: drivers\.storge: unknown key "storge", did you mean "storage"\?/],
    ['driver: {}', /driver: unknown key "driver", did you mean "drivers"\?/],
    ['root: 5', /root: 5 is not a string/],
    ['root: here', /root: "here" is not an absolute path/],
    ['security: { capabilities: some }', /security\.capabilities: "some" is none of: "default", "none"; a list of capabilities/],
    ['drivers: { security: none }', /drivers\.security: "none" is none of: "auto"; a list of drivers/],
    ['a: 1\n b: 2', /enginerc:\d+:\d+: /],
    ['root: /a\nroot: /b', /enginerc:2:1: map keys must be unique/],
    ['- a', /does not hold keys and values/],
    ['$import: ./x.js', /key "\$import" is not allowed/],
    ['options: { a: { __proto__: { x: 1 } } }', /key "__proto__" is not allowed/],
    ['hosts: [{ drivers: {} }]', /hosts\.0: misses "match"/],
    ['a: &a [1]\nb: [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [' + '*b,'.repeat(60) + ']', /cannot be read|unknown key/],
  ])('%s', async (text, message) => {
    write('system/enginerc', text);
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_INVALID', message));
  });

  test('broken JSON names line and column', async () => {
    write('project/.enginerc.json', '{\n  "root": "/a",\n  "x" 1\n}');
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_INVALID', /\.enginerc\.json:3:/));
  });

  test('a misspelt variable is an error, a foreign one is none', async () => {
    await expect(loadConfig({ ...options, env: { ENGINE_RUNROOT: '/x' } })).rejects.toEqual(
      code('ERR_CONFIG_INVALID', /did you mean ENGINE_RUN_ROOT/),
    );
    await loadConfig({ ...options, env: { ENGINE_COLOUR_OF_CAR: 'red' } });
  });

  test('two files in one folder', async () => {
    write('project/.enginerc', '');
    write('project/.enginerc.yaml', '');
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_INVALID', /\.enginerc and \.enginerc\.yaml/));
  });

  test('a bad flag names itself', async () => {
    await expect(loadConfig({ ...options, flags: { set: ['drivers.storag=x'] } })).rejects.toEqual(
      code('ERR_CONFIG_INVALID', /flags: .*did you mean "storage"/),
    );
  });
});

describe('hosts', () => {
  const facts = () => ({ hostname: 'db-1', fs: 'btrfs', kernel: '6.1.0-13-amd64', arch: 'x86_64', cgroup: 'v2' });
  const text = `
drivers: { storage: vfs }
hosts:
  - { match: { hostname: "db-*", fs: btrfs }, drivers: { storage: btrfs } }
  - { match: { hostname: "web-?" }, drivers: { storage: overlay } }
  - { match: { kernel: ">=6.0", arch: x86_64 }, drivers: { log: none } }
  - { match: { kernel: "<6.1" }, drivers: { log: never } }
`;
  test('all that match apply, in order', async () => {
    const file = write('system/enginerc', text);
    const { value, origins } = await loadConfig({ ...options, facts });
    expect(value.drivers).toMatchObject({ storage: 'btrfs', log: 'none' });
    expect(origins.get('/drivers/storage')).toBe(`${file}#/hosts/0`);
  });
  test('another host can be asked about', async () => {
    write('user/enginerc', text);
    expect((await loadConfig({ ...options, facts, hostname: 'WEB-7' })).value.drivers.storage).toBe('overlay');
  });
  test("not in a project's file", async () => {
    write('project/.enginerc', text);
    await expect(loadConfig({ ...options, facts })).rejects.toEqual(code('ERR_CONFIG_INVALID', /"hosts" counts in/));
  });
});

describe('config as code (SECURITY.md)', () => {
  const bait = (marker: string) => `require('node:fs').writeFileSync(${JSON.stringify(marker)}, 'x'); module.exports = {};`;

  test.each(['.enginerc.js', '.enginerc.cjs', '.enginerc.mjs', '.enginerc.ts'])('%s is refused and not run', async (name) => {
    const marker = join(base, 'ran');
    write(`project/${name}`, bait(marker));
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_INVALID', /data, not code/));
    expect(existsSync(marker)).toBe(false);
  });

  test("cosmiconfig's own meta-configuration in the cwd is not run", async () => {
    const marker = join(base, 'ran');
    for (const name of ['config.js', 'config.cjs', 'config.json'])
      write(`project/.config/${name}`, name.endsWith('json') ? '{' : bait(marker));
    write('project/.enginerc', 'drivers: { storage: vfs }');
    const before = process.cwd;
    process.cwd = () => cwd;
    try {
      expect((await loadConfig(options)).value.drivers.storage).toBe('vfs');
    } finally {
      process.cwd = before;
    }
    expect(existsSync(marker)).toBe(false);
  });

  test.each([
    ['plugins: [./evil]', /plugins decides which code is run/],
    ['security: { seccomp: unconfined }', /security\.seccomp would lower security/],
    ['security: { seccomp: ./mine.json }', /security\.seccomp would lower security/],
    ['security: { capabilities: [SYS_ADMIN] }', /security\.capabilities/],
    ['drivers: { security: [] }', /drivers\.security/],
    ['drivers: { network: host }', /drivers\.network/],
    ['root: /tmp/x', /root is for trusted sources only/],
    ['options: { storage-vfs: {} }', /options is for trusted sources only/],
  ])('an untrusted folder may not say %s', async (text, message) => {
    write('project/.enginerc', text);
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED', message));
    setTrust(cwd, true, options.places);
    await loadConfig(options);
    setTrust(cwd, false, options.places);
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED'));
  });

  test('it may choose drivers and raise security', async () => {
    write('project/.enginerc', 'drivers: { storage: vfs }\nsecurity: { capabilities: none, seccomp: default }');
    expect((await loadConfig(options)).value.security.capabilities).toBe('none');
  });

  test('a stricter profile of the system is not weakened to the default', async () => {
    write('system/enginerc', 'security: { seccomp: /etc/strict.json }');
    write('project/.enginerc', 'security: { seccomp: default }');
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED'));
  });

  test('ids of their own can be given to containers by anybody, taken from them by who is trusted, and are never a map of somebody', async () => {
    write('project/.enginerc', 'security: { userns: "auto:size=1000" }');
    expect((await loadConfig(options)).value.security.userns).toBe('auto:size=1000');
    write('system/enginerc', 'security: { userns: auto }');
    expect((await loadConfig(options)).value.security.userns).toBe('auto:size=1000');
    write('project/.enginerc', 'security: { userns: host }');
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED', /security\.userns would lower security/));
    setTrust(cwd, true, options.places);
    expect((await loadConfig(options)).value.security.userns).toBe('host');
    for (const map of ['0:0:1000', 'auto:uidmapping=0:0:1', 'auto:size=10,gidmapping=0:0:1']) {
      write('project/.enginerc', `security: { userns: "${map}" }`);
      await expect(loadConfig(options), map).rejects.toEqual(code('ERR_CONFIG_INVALID'));
    }
  });

  test("an ancestor's file counts only when its folder is trusted, and one only", async () => {
    write('project/.enginerc', 'drivers: { storage: vfs }');
    write('.enginerc', 'drivers: { storage: btrfs, log: none }');
    const deep = { ...options, cwd: join(cwd, 'sub/deep') };
    expect((await loadConfig(deep)).value.drivers.storage).toBe('auto');
    setTrust(base, true, options.places);
    expect((await loadConfig(deep)).value.drivers.storage).toBe('btrfs');
    setTrust(cwd, true, options.places, { system: true });
    expect((await loadConfig(deep)).value.drivers).toMatchObject({ storage: 'vfs', log: 'auto' });
  });

  test('a file that others may write is refused, in each source', async () => {
    for (const name of ['system/enginerc', 'user/enginerc', 'project/.enginerc', 'system/trust.json']) {
      const file = write(name, name.endsWith('json') ? '{"folders": []}' : '', 0o666);
      await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED', /can be written by others/));
      rmSync(file);
    }
  });

  test('a folder that others may write is refused, sticky or not', async () => {
    write('project/.enginerc', '');
    for (const mode of [0o777, 0o1777, 0o775]) {
      chmodSync(cwd, mode);
      await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED', /project can be written by others/));
      expect(() => setTrust(cwd, true, options.places)).toThrow(/can be written by others/);
    }
    chmodSync(cwd, 0o755);
    chmodSync(base, 0o777);
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED'));
  });

  test.skipIf(process.getuid?.() !== 0)('a file or folder of another user is refused, behind a symlink too', async () => {
    const file = write('project/.enginerc', '');
    chownSync(file, 1000, 1000);
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED', /belongs to uid 1000/));
    chownSync(file, 0, 0);
    chownSync(cwd, 1000, 1000);
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED', /belongs to uid 1000/));
    chownSync(cwd, 0, 0);
    rmSync(file);
    write('theirs/rc', '');
    chownSync(join(base, 'theirs'), 1000, 1000);
    symlinkSync('../theirs/rc', file);
    await expect(loadConfig(options)).rejects.toEqual(code('ERR_CONFIG_UNTRUSTED', /theirs belongs to uid 1000/));
  });
});

test('the printed configuration is YAML with the origin of each value', async () => {
  const file = write('system/enginerc', 'drivers: { storage: vfs }\noptions: { "storage-vfs": { reflink: true } }');
  const text = printConfig(await loadConfig(options));
  expect(text).toMatch(new RegExp(`^  storage: vfs +# ${file}$`, 'm'));
  expect(text).toMatch(/^root: \/var\/lib\/engine +# built-in$/m);
  const { parse } = await import('yaml');
  expect(parse(text)).toEqual((await loadConfig(options)).value);
});
