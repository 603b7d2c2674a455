/** docs/guide/networks.md from top to bottom, as it stands there: each block of commands in its order, on a machine of its own. */
import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { webTar } from '../helpers/debian.ts';
import { makeWorld } from '../helpers/world.ts';

const repository = join(import.meta.dirname, '..', '..');
const guide = readFileSync(join(repository, 'docs/guide/networks.md'), 'utf8');
const blocks = [...guide.matchAll(/^( *)```sh\n([^]*?)^ *```$/gm)].map(([, indent = '', text = '']) => text.split('\n').map((line) => line.slice(indent.length)).join('\n'));

interface Outcome { readonly out: string; readonly err: string; readonly code: number | null }
const times = (text: string, part: string): number => text.split(part).length - 1;
const nginx = 'Welcome to nginx!</h1>';

/** What a block begins with, and what is expected of it; 0 unless `fails`. */
const expected: readonly (readonly [begins: string, check: (outcome: Outcome) => void, fails?: 'fails'])[] = [
  ['bin/engine run -d --name site -p 8080:80', ({ out }) => expect(out).toMatch(/^[0-9a-f]{64}\n$/)],
  ['curl --retry 9 --retry-delay 1 --retry-connrefused http://127.0.0.1:8080/', ({ out }) => {
    expect(times(out, nginx)).toBe(4);
    expect(out).toMatch(/80\/tcp -> 0\.0\.0\.0:8080\n80\/tcp -> \[::\]:8080\nCONTAINER ID [^]*0\.0\.0\.0:8080->80\/tcp, \[::\]:8080->80\/tcp {3}site\n$/);
  }],
  ['bin/engine run --rm -p 8080:80', ({ err }) => expect(err).toContain('engine: port 0.0.0.0:8080/tcp is already allocated: container site has it'), 'fails'],
  ['mkdir -p app', () => {}],
  ['bin/engine network create shop', ({ out }) => expect(out).toMatch(/^([0-9a-f]{64}\n){3}1\n2\nredis\n3\n$/)],
  ['bin/engine exec counter', ({ out }) => expect(out).toMatch(/^10\.\d+\.\d+\.\d+\nnot from here\n$/)],
  ['bin/engine run -d --name blue', ({ out }) => expect(times(out, nginx)).toBe(2)],
  ['bin/engine network ls', ({ out }) => {
    expect(out).toMatch(/^NETWORK ID {5}NAME {6}DRIVER {4}SCOPE\n[0-9a-f]{12} {3}bridge {4}bridge {4}local\n[0-9a-f]{12} {3}shop {6}bridge {4}local\n\[\n {4}\{\n {8}"Name": "shop",/);
    for (const name of ['redis', 'counter', 'blue']) expect(out).toContain(`"Name": "${name}"`);
    expect(out).toMatch(/\n10\.\d+\.\d+\.\d+ \nCONTAINER ID [^]*blue\n[^]*counter\n[^]*redis\nCONTAINER ID .*\n.*0\.0\.0\.0:5000->5000\/tcp, \[::\]:5000->5000\/tcp {3}counter\n$/);
  }],
  ['bin/engine network why 5000', ({ out }) => expect(out).toMatch(/container counter on network shop[^]*container site on network bridge/)],
  ['bin/engine network create --internal vault', ({ out }) => expect(out).toMatch(new RegExp(`${nginx}[^]*no way out\\n$`))],
  ['bin/engine run -d --name gate', ({ out }) => expect(times(out, nginx)).toBe(2)],
  ['bin/engine network connect --alias safe', ({ out }) => expect(times(out, nginx)).toBe(1)],
  ['bin/engine network create --subnet 10.99.0.0/24', ({ out }) => expect(times(out, nginx)).toBe(1)],
  ['bin/engine network create --ipv6 six', ({ out }) => expect(out).toMatch(new RegExp(`^([0-9a-f]{64}\\n){2}fd[0-9a-f:]+\\n[^]*${nginx}`))],
  ['bin/engine run --rm --add-host', ({ out }) => expect(out).toMatch(/^10\.\d+\.\d+\.1 +me\n$/)],
  ['nft flush ruleset', ({ out }) => expect(times(out, nginx)).toBe(1)],
  ['bin/engine run --rm --network shop web cat', ({ out }) => expect(out).toMatch(/^nameserver (10\.\d+\.\d+\.1)\n[^]*options ndots:0\nnameserver \1\nsearch example\.org\noptions ndots:0\n$/)],
  ['bin/engine rm -f site', ({ out }) => expect(out.split('\n').filter(Boolean)).toEqual(['site', 'redis', 'counter', 'blue', 'secret', 'gate', 'printer', 'site6', 'shop', 'vault', 'office', 'six', 'redis-data'])],
];

it.skipIf(webTar() === undefined)('the guide to networks does what it says', { timeout: 600_000 }, async () => {
  const world = await makeWorld({ hosts: ['outside'] });
  let left: string[] | undefined;
  try {
    const engine = world.engine();
    const cwd = join(engine.folder, 'cwd');
    symlinkSync(join(repository, 'bin'), join(cwd, 'bin'));
    // the image is what the first block makes, without its minutes of downloads
    expect(blocks[0]).toMatch(/^debootstrap .*--include=nginx-light,redis-server,python3-flask,python3-redis,curl .*\n.*import - web\n$/);
    await engine.ok('import', webTar() ?? '', 'web');
    expect(blocks.slice(1).map((text) => text.split('\n')[0])).toEqual(expected.map(([begins]) => expect.stringContaining(begins) as string));
    for (const [i, [begins, check, fails]] of expected.entries()) {
      // the configuration is the user's own: that of other tests gives containers no network
      const env = { ...engine.env, ENGINE_DRIVERS_NETWORK: 'auto', LC_ALL: 'C.UTF-8' };
      const { stdout: out, stderr: err, code } = await world.machine.exec(['sh', '-ec', blocks[i + 1] ?? ''], { cwd, env, deadline: 120_000 });
      expect(code === 0, `${begins}: ${code ?? 'killed'}: ${err}${out}`).toBe(fails === undefined);
      check({ out, err, code });
    }
  } finally {
    left = await world.close();
  }
  // the default network's bridge stays until the machine is switched off, and what goes with it
  expect(left.filter((line) => !/^(link en-|address en-|route .* dev en-|nft inet engine-|sysctl )/.test(line))).toEqual([]);
});
