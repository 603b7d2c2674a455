import { contractKinds, type ContractName } from '@engine/core/plugin';
import { fail } from '@engine/core/errors';
import { didYouMean, isRecord, validate, type JsonSchema } from './json-schema.ts';
import { readPackage, type Package } from './read-package.ts';
import { version } from './version.ts';

const names = { type: 'array', items: { type: 'string', minLength: 1 } } as const;

/** What the `engine` block of a plugin's package.json may hold. */
export const manifestSchema = {
  type: 'object',
  additionalProperties: false,
  required: ['name', 'main'],
  properties: {
    name: { type: 'string', pattern: '^[a-z0-9][a-z0-9.-]*$', description: 'lower case letters, digits, dots and dashes' },
    version: { type: 'string' },
    main: { type: 'string', pattern: '^\\./', description: 'a path that starts with ./' },
    provides: {
      type: 'array',
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['contract', 'driver'],
        properties: {
          contract: { enum: Object.keys(contractKinds) },
          driver: { type: 'string', pattern: '^[a-z0-9][a-z0-9.-]*$', description: 'lower case letters, digits, dots and dashes' },
          features: names,
        },
      },
    },
    requires: { type: 'array', items: { enum: ['machine', 'state', 'engine'] } },
    sections: {
      type: 'array',
      items: { type: 'string', pattern: '^[A-Za-z]+(\\.[A-Za-z]+)*$', description: 'a dotted path in the OCI spec' },
    },
    taps: names,
    handlers: names,
    service: { type: 'string', pattern: '^\\./', description: 'a path that starts with ./' },
    repeatable: { type: 'boolean' },
    options: { type: 'object' },
    core: { type: 'string' },
  },
} as const satisfies JsonSchema;

/**
 * The manifest in a parsed package.json, filled in from the package's own fields (version, the peer range on `@engine/core`).
 * Checked before any code of the package is loaded. Errors: ERR_PLUGIN_INVALID names the package and the reason.
 */
export async function checkManifest(packageJson: unknown, where: string): Promise<Package> {
  const name = isRecord(packageJson) && typeof packageJson.name === 'string' ? packageJson.name : where;
  const invalid = (reason: string, hint?: string): never => {
    throw fail('ERR_PLUGIN_INVALID', `plugin ${name}: ${reason}`, {
      operation: 'load plugin',
      path: where,
      plugin: name,
      ...(hint ? { hint } : {}),
    });
  };
  if (!isRecord(packageJson)) return invalid('package.json does not hold an object');
  if (!isRecord(packageJson.engine) || typeof packageJson.engine.name !== 'string') {
    return invalid(
      'package.json has no "engine" block',
      'it is not a plugin of this engine; its author adds {"engine": {"name": ..., "main": ...}}',
    );
  }
  const problem = (await validate(manifestSchema, packageJson.engine))[0];
  if (problem)
    return invalid(
      `"engine"${problem.pointer.replaceAll('/', '.')}: ${problem.message}${nearContract(packageJson.engine, problem.pointer)}`,
    );
  const { manifest } = readPackage(packageJson);
  if (!manifest.version) return invalid('it has no version');
  const seen = new Set<string>();
  for (const { contract, driver } of manifest.provides ?? []) {
    if (seen.has(`${contract} ${driver}`)) return invalid(`${contract} driver ${driver} is provided twice`);
    seen.add(`${contract} ${driver}`);
  }
  if (new Set(manifest.sections).size !== (manifest.sections?.length ?? 0)) return invalid('a section is named twice');
  for (const key of ['main', 'service'] as const) {
    if (manifest[key]?.split('/').includes('..')) return invalid(`"${key}" leads out of the package`);
  }
  const { default: semver } = await import('semver');
  const range = manifest.core;
  if (range === undefined)
    return invalid('it does not say which @engine/core it works with', 'its author adds "peerDependencies": {"@engine/core": "^0.1.0"}');
  const plain = range.replace(/^workspace:/, '').replace(/^[\^~*]?$/, '*');
  if (semver.validRange(plain) === null) return invalid(`"${range}" is not a version range`);
  if (!semver.satisfies(version, plain, { includePrerelease: true })) {
    return invalid(`it works with @engine/core ${range}, this is ${version}`, 'install a version of the plugin that fits');
  }
  return { name, manifest };
}

function nearContract(block: Record<string, unknown>, pointer: string): string {
  const [, list, index, key] = pointer.split('/');
  if (list !== 'provides' || key !== 'contract' || !Array.isArray(block.provides)) return '';
  const entry: unknown = block.provides[Number(index)];
  const near = isRecord(entry) ? didYouMean(String(entry.contract), Object.keys(contractKinds) as ContractName[]) : undefined;
  return near ? `, did you mean "${near}"?` : '';
}
