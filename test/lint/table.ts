/**
 * Who may import whom. `uses`: at run time; `types`: besides those, `import type` only. A zone is a folder; inside it everything may import
 * everything. Names with @ are packages of ours; npm packages must stand in the zone's own package.json, whatever this table says.
 */
export interface Zone {
  readonly zone: string;
  readonly uses: readonly string[];
  readonly types?: readonly string[];
  /** npm packages that may be imported; undefined: all of the package's own dependencies. */
  readonly packages?: readonly string[];
}

const base = ['core/errors', 'core/plan', 'core/spec', 'core/native'];

/** From left to right inside core; whatever stands on the left knows nothing of what stands on the right. */
export const zones: readonly Zone[] = [
  { zone: 'core/errors', uses: [], packages: [] },
  { zone: 'core/spec', uses: ['core/errors'], packages: [] },
  { zone: 'core/plan', uses: ['core/errors'], packages: [] },
  { zone: 'core/native', uses: ['core/errors', 'core/plan'], packages: [] },
  { zone: 'core/contracts', uses: base, types: ['core/api'], packages: ['pino'] },
  { zone: 'core/api', uses: [...base, 'core/contracts'], types: ['core/plugin'], packages: [] },
  { zone: 'core/hooks', uses: [...base, 'core/contracts', 'core/api'], packages: ['tapable', 'pino'] },
  { zone: 'core/plugin', uses: [...base, 'core/contracts', 'core/api', 'core/hooks'], packages: [] },
  { zone: 'core/state', uses: [...base, 'core/contracts', 'core/api'], packages: ['pino'] },
  { zone: 'core/lifecycle', uses: [...base, 'core/contracts', 'core/api', 'core/hooks', 'core/plugin', 'core/state'], packages: ['pino'] },
  { zone: 'native', uses: ['@engine/core/errors', '@engine/core/plan', '@engine/core/native', '@engine/core/contracts'] },
  { zone: 'plugins', uses: ['@engine/core', '@engine/native'] },
  { zone: 'config', uses: ['@engine/core', '@engine/native', 'plugins', 'package.json', 'core/package.json'] },
];

/** Only this folder may know the container of the composition root. */
export const compositionRoot = 'config';
export const compositionPackages: readonly string[] = ['tsyringe', 'reflect-metadata'];

/** What a driver (plugins/, tests aside) may take from Node's fs: it reads; writing goes through effects. */
export const readingFs = new Set([
  'access',
  'accessSync',
  'closeSync',
  'close',
  'constants',
  'createReadStream',
  'Dirent',
  'exists',
  'existsSync',
  'fstat',
  'fstatSync',
  'lstat',
  'lstatSync',
  'open',
  'openSync',
  'opendir',
  'opendirSync',
  'read',
  'readFile',
  'readFileSync',
  'readSync',
  'readdir',
  'readdirSync',
  'readlink',
  'readlinkSync',
  'readv',
  'readvSync',
  'realpath',
  'realpathSync',
  'stat',
  'statSync',
  'statfs',
  'statfsSync',
  'Stats',
  'watch',
  'watchFile',
  'unwatchFile',
  'BigIntStats',
  'promises',
]);
/** Modules of Node with which a driver could act behind the plan's back. */
export const forbiddenInDrivers: readonly string[] = [
  'node:child_process',
  'node:cluster',
  'node:worker_threads',
  'node:inspector',
  'node:vm',
  'node:sqlite',
];
/** Frontends answer the user, not the machine: they write the files that the user names (`--cidfile`). */
export const writers: readonly string[] = ['plugins/frontend-cli', 'plugins/frontend-oci'];
