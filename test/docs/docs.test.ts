import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { catalogue } from '@engine/core/errors';
import { describe, expect, it } from 'vitest';
import { current, rendered } from './render.ts';

const root = join(import.meta.dirname, '..', '..');
const tracked = execFileSync('git', ['-c', 'safe.directory=*', 'ls-files', '-z', '-co', '--exclude-standard'], { cwd: root, encoding: 'utf8' }).split('\0').filter(Boolean);

describe('docs', () => {
  it.each(rendered)('%s says what the code says', (file, table) => {
    expect(current(file), `run: node test/docs/render.ts`).toBe(table());
  });

  it('lead nowhere that is not there', () => {
    const broken: string[] = [];
    for (const file of tracked.filter((name) => name.endsWith('.md'))) {
      for (const [, target = ''] of readFileSync(join(root, file), 'utf8').matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
        if (!/^[a-z]+:/.test(target) && !existsSync(join(root, dirname(file), target))) broken.push(`${file}: ${target}`);
      }
    }
    expect(broken).toEqual([]);
  });

  it('has a page for every driver', () => {
    const plugins = tracked.filter((name) => /^plugins\/[^/]+\/package\.json$/.test(name)).map(dirname);
    const missing = plugins.filter((folder) => {
      const { engine } = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8')) as { engine?: { provides?: { contract: string }[] } };
      return engine?.provides?.some(({ contract }) => contract !== 'frontend') && !folder.endsWith('/sample') && !existsSync(join(root, 'docs/drivers', `${folder.slice('plugins/'.length)}.md`));
    });
    expect(missing).toEqual([]);
  });
});

describe('error codes', () => {
  const sources = tracked.filter((name) => /^(core|native\/ts|config|plugins)\/.*\.ts$/.test(name) && !name.endsWith('.test.ts') && name !== 'core/errors/catalogue.ts' && existsSync(join(root, name)));
  const used = new Set(sources.flatMap((name) => [...readFileSync(join(root, name), 'utf8').matchAll(/\bERR_[A-Z_]+\b/g)].map(([code]) => code)));

  it('that the sources use are in the catalogue', () => {
    // Node's own codes look alike
    const node = /^ERR_(MODULE_|PACKAGE_|UNKNOWN_FILE|UNSUPPORTED_|INVALID_ARG|STREAM_|SOCKET_|SQLITE_|PARSE_ARGS)/;
    expect([...used].filter((code) => !(code in catalogue) && !node.test(code) && !code.endsWith('_'))).toEqual([]);
  });
  it('of the catalogue are all used', () => {
    expect(Object.keys(catalogue).filter((code) => !used.has(code))).toEqual([]);
  });
});
