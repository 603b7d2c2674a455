import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTar, importBusybox } from '../helpers/busybox.ts';
import { type Result, type TestEngine } from '../helpers/engine.ts';
import { makeBusyboxImage } from '../helpers/images.ts';
import { makeWorld, type World } from '../helpers/world.ts';

const home = join(import.meta.dirname, '../..');

/** The commands of a page's `sh` blocks, without their comments. */
function commands(page: string): string[] {
  const text = readFileSync(join(home, page), 'utf8');
  return [...text.matchAll(/^```sh\n([^]*?)^```/gm)].flatMap((block) => (block[1] ?? '').split('\n')).map((line) => line.replace(/\s+#\s.*$/, '').trim()).filter((line) => line !== '' && !line.startsWith('#'));
}
/** Words of a line as a shell splits them. */
const words = (line: string): string[] => [...line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2] ?? match[3] ?? '');

let world: World;
let engine: TestEngine;
beforeAll(async () => {
  world = await makeWorld({ hosts: ['other'] });
  engine = world.engine({ resident: 'off' });
  await importBusybox(engine, 'image-of-yours', ['CMD ["sh", "-c", "echo serving; exec sleep 1000"]']);
});
afterAll(async () => expect(await world.close()).toEqual([]));

const replaced: Readonly<Record<string, () => string>> = { IMAGE: () => 'image-of-yours', 'image.tar': makeBusyboxImage, 'rootfs.tar': busyboxTar };
/** Run a line that begins with bin/engine, its stand-ins replaced by what there is. */
const run = (line: string): Promise<Result> => engine.run(words(line).slice(1).map((word) => replaced[word]?.() ?? word));
async function succeeds(line: string, output: RegExp): Promise<void> {
  const { code, stdout, stderr } = await run(line);
  expect({ line, code, stdout }, stderr).toEqual({ line, code: 0, stdout: expect.stringMatching(output) });
}
async function typed(line: string, input: string, output: RegExp): Promise<void> {
  const terminal = engine.terminal(words(line).slice(1));
  terminal.child.stdin.write(`${input}; exit 0\n`);
  await terminal.output(output);
  expect((await terminal.result).code).toBe(0);
}

/** How each line is tried. A line that is not here fails: a command in the documents is a promise. */
const tried: Readonly<Record<string, (line: string) => Promise<void>>> = {
  'npm start': async () => {
    const output = execFileSync('npm', ['start'], { cwd: home, encoding: 'utf8', env: { ...process.env, ...engine.env, ENGINE_DRIVERS_NETWORK: 'none', HOME: process.env['HOME'] ?? '/root' }, stdio: ['ignore', 'pipe', 'inherit'] });
    expect(output).toMatch(/^ +hostname +in-a-container/m);
    expect(output).toMatch(/^ +wrote .* no such file$/m);
  },
  // This is what runs now.
  'npm test': async () => expect((JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')) as { scripts: Record<string, string> }).scripts['test']).toMatch(/test\/run\.sh/),
  'bin/engine run -it host': (line) => typed(line, 'echo pid $$ of $(hostname | wc -c)', /pid 1 of 13/),
  'bin/engine run --rm --explain host true': (line) => succeeds(line, /exec .*true/),
  'bin/engine run --rm --trace start.html host true': async (line) => {
    await succeeds(line, /^$/);
    expect(readFileSync(join(engine.folder, 'cwd', 'start.html'), 'utf8')).toMatch(/<svg/);
  },
  'bin/engine load -i image.tar': (line) => succeeds(line, /^Loaded image: busybox:latest\n$/),
  'bin/engine run -d --name web -m 256m --cpus 0.5 IMAGE': (line) => succeeds(line, /^[0-9a-f]{64}\n$/),
  'bin/engine exec -it web sh': (line) => typed(line, 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes', /268435456/),
  'bin/engine logs -f web': async (line) => {
    const following = engine.start(words(line).slice(1), { input: '' });
    await following.output(/^serving\n$/);
    following.child.kill('SIGINT');
    await following.result;
  },
  'bin/engine diff web': (line) => succeeds(line, /^(C \/root\nA \/root\/.ash_history\n)?$/),
  'bin/engine run -d --restart unless-stopped IMAGE': async (line) => {
    await succeeds(line, /^[0-9a-f]{64}\n$/);
    const [id = ''] = (await engine.ok('ps', '-q', '--no-trunc', '-n', '1')).split('\n');
    expect(await engine.ok('inspect', '-f', '{{.HostConfig.RestartPolicy.Name}} {{.State.Running}}', id)).toBe('unless-stopped true');
    await engine.ok('rm', '-f', id);
  },
  'bin/engine run -d -p 8080:80 IMAGE': async (line) => {
    await succeeds(line, /^[0-9a-f]{64}\n$/);
    expect(await engine.ok('ps', '-n', '1', '--format', '{{.Ports}}')).toContain('0.0.0.0:8080->80/tcp');
  },
  'bin/engine network create shop': (line) => succeeds(line, /^[0-9a-f]{64}\n$/),
  'bin/engine run -d --name redis --network shop IMAGE': (line) => succeeds(line, /^[0-9a-f]{64}\n$/),
  'bin/engine run -d --network shop -p 127.0.0.1:5000:5000 IMAGE': async (line) => {
    await succeeds(line, /^[0-9a-f]{64}\n$/);
    const [id = ''] = (await engine.ok('ps', '-q', '-n', '1')).split('\n');
    expect(await engine.ok('exec', id, 'ping', '-c', '1', '-W', '5', 'redis')).toContain('1 packets received');
  },
  'bin/engine network why 5000': (line) => succeeds(line, /127\.0\.0\.1/),
  'bin/engine doctor': (line) => succeeds(line, /storage[^]*overlay/),
  'bin/engine-oci --help': (line) => {
    expect(execFileSync(join(home, words(line)[0] ?? ''), words(line).slice(1), { encoding: 'utf8', env: { ...process.env, ...engine.env } })).toMatch(/COMMANDS:[^]*create[^]*--systemd-cgroup/);
    return Promise.resolve();
  },
  'bin/engine import rootfs.tar mine': (line) => succeeds(line, /^sha256:[0-9a-f]{64}\n$/),
  'bin/engine run --rm mine echo hello': (line) => succeeds(line, /^hello\n$/),
  // apt-get may not be on this machine, and must not change it: the script ends well in any case
  "bin/engine run --name try host sh -c 'apt-get remove -y something; true'": (line) => succeeds(line, /^/),
  'bin/engine diff try': (line) => succeeds(line, /^/),
  'bin/engine rm try': (line) => succeeds(line, /^try\n$/),
};

for (const page of ['README.md', 'docs/guide/README.md']) {
  describe(page, () => {
    it.each(commands(page).map((line) => ({ line })))('$line', { timeout: 300_000 }, async ({ line }) => {
      const attempt = tried[line];
      if (!attempt) throw new Error(`${page} tells people to type "${line}": say in this test how that is tried`);
      await attempt(line);
    });
  });
}
it('tries no line that nobody is told to type', () => expect(Object.keys(tried).sort()).toEqual([...new Set(['README.md', 'docs/guide/README.md'].flatMap(commands))].sort()));
