/**
 * The same config.json under engine-oci, under runc and under crun: what a process finds inside must be the same. FUZZ_SEED chooses other random ones, FUZZ_RUNS how many
 * (`FUZZ_RUNS=2000 vitest run --project e2e test/e2e/oci-property.test.ts` soaks). What differs for a reason is in DIFFERENCES and CRUN, and in docs/engine-oci-differences.md.
 */
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { removeParent, unified } from '../helpers/cgroup.ts';
import { TestEngine } from '../helpers/engine.ts';
import { which } from '../helpers/peers.ts';
import { chosenConfigs, random, randomConfig, type Config } from './oci-property-specs.ts';

const seed = Number(process.env['FUZZ_SEED'] ?? 6);
const runs = Number(process.env['FUZZ_RUNS'] ?? 40);
const runc = which('runc');
const missing = runc === undefined ? 'runc is not installed' : process.getuid?.() !== 0 ? 'needs root' : process.arch !== 'x64' ? 'the filters name calls of x86-64' : undefined;
/** Compared with on v1 only: of v2 each runtime makes its own. */
const crun = unified ? undefined : which('crun');
type Peer = 'runc' | 'crun';
const ours = join(import.meta.dirname, '..', '..', 'bin', 'engine-oci');
const source = join(import.meta.dirname, '..', 'helpers', 'programs', 'oci-probe.c');

/** Compiled once per machine. */
function probe(): string {
  const path = join(tmpdir(), `engine-test-oci-probe-${createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 8)}`);
  if (!existsSync(path)) {
    execFileSync('gcc', ['-std=gnu11', '-static', '-O2', '-Wall', '-Wextra', '-o', `${path}.${process.pid}`, source], { stdio: ['ignore', 'ignore', 'pipe'] });
    renameSync(`${path}.${process.pid}`, path);
  }
  return path;
}

interface Seen { readonly code: number; readonly stderr: string; lines(peer: Peer): readonly string[] }
const TYPES = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'];
const own = Object.fromEntries(TYPES.map((type) => [`ns.${type}`, existsSync(`/proc/self/ns/${type}`) ? readlinkSync(`/proc/self/ns/${type}`) : '']));

/** Superblock options that say how the runtime mounts, not what one may do there. */
const words = (text: string): string => text.split(',').sort().join(',');
interface MountLine { readonly target: string; readonly text: string }
function mountsIn(lines: readonly string[], config: Config, replaced: (text: string) => string): readonly MountLine[] {
  const found = lines.map((line) => {
    const [head = '', tail = ''] = line.split(' - ');
    const [id = '', parent = '', , root = '', target = '', options = '', ...propagation] = head.split(' ');
    const [type = '', , superOptions = ''] = tail.split(' ');
    return { id, parent, root, target, options, propagation: propagation.map((text) => text.replace(/:\d+$/, '')), type, superOptions };
  });
  const targetOf = new Map(found.map(({ id, target }) => [id, target]));
  const masked = new Set(((config.linux['maskedPaths'] ?? []) as string[]));
  return found.map(({ parent, root, target, options, propagation, type, superOptions }): MountLine => {
    if (masked.has(target)) return { target, text: `${target} masked` };
    const top = target === '/sys/fs/cgroup' && type === 'tmpfs';
    const settings = ['tmpfs', 'devpts', 'proc'].includes(type) ? words(superOptions.split(',').filter((word) => !['ro', 'rw', 'inode64'].includes(word)).join(',')) : '';
    return { target, text: [target, 'in', target === '/' ? '' : targetOf.get(parent) ?? 'outside', replaced(root), top ? '' : words(options), propagation.join(','), type, settings].join(' ') };
  });
}

interface Difference { readonly why: string; readonly edit: (line: string, config: Config) => string | undefined }
/**
 * What is not the same, each for a reason (docs/engine-oci-differences.md tells them all): the line of either side as it is compared.
 */
const DIFFERENCES: readonly Difference[] = [
  { why: 'the caller\'s streams are handed in; runc run copies them through pipes', edit: (line) => (line.startsWith('fd\t') ? line.split(' ')[0] : line) },
  { why: 'a process without a pid namespace of its own has another number each time', edit: (line, config) => (line.startsWith('pid\t') && !(config.linux['namespaces'] as { type: string }[]).some(({ type }) => type === 'pid') ? line.replace(/\d+ /, 'N ') : line) },
  { why: 'on a hybrid machine runc makes a group on v2 too, in which nothing is limited', edit: (line) => (line.startsWith('cgroup\t0::') ? undefined : line) },
  { why: '/dev/core is made whether this kernel has /proc/kcore or not', edit: (line) => (line.startsWith('dev\tcore ') ? undefined : line) },
  { why: 'runc 1.1 lets containers make and use /dev/net/tun without being asked (1.2 does not)', edit: (line) => (line.endsWith('devices.list\tc 10:200 rwm') ? undefined : line) },
  { why: 'runc 1.1 does not know linux.personality', edit: (line, config) => (config.linux['personality'] && /^(machine|personality)\t/.test(line) ? undefined : line) },
  { why: 'an ipc namespace is born by the host\'s root, whose mqueue then is nobody\'s in a user namespace; neither lets anybody make one in its folder', edit: (line) => line.replace(/^((?:dev\tmqueue|path\t\/dev\/mqueue) \d+) (?:0|65534):65534/, '$1 OWNER') },
  { why: 'runc lets others of the same user look at the session keyring', edit: (line) => (line.startsWith('keyring\t') ? line.replace(/;[0-9a-f]{8};_ses\..*$/, ';PERM;_ses.ID') : line) },
  { why: 'a masked file is the host\'s checked null device, a masked folder one empty tmpfs for all', edit: (line, config) => {
    const path = /^path\t(\S+) /.exec(line)?.[1];
    return path !== undefined && ((config.linux['maskedPaths'] ?? []) as string[]).includes(path) ? `path\t${path} masked` : line;
  } },
];

/** Where crun 1.8 goes its own way, and runc and we do the same; mounts too. */
const CRUN: readonly Difference[] = [
  { why: 'the session keyring has the name of the container, and belongs to its user', edit: (line) => (line.startsWith('keyring\t') ? undefined : line) },
  { why: 'a null device that is standard input is given to the user', edit: (line) => line.replace(/^(dev\tnull \d+) \d+:\d+/, '$1 OWNER') },
  { why: 'every device is allowed where no rule is asked for, and the console always', edit: (line, config) => ((config.linux['resources'] as { devices?: unknown } | undefined)?.devices ? !line.endsWith('devices.list\tc 5:1 rwm') : !/^group \S*devices\.list\t/.test(line)) ? line : undefined },
  { why: 'a tmpfs with tmpcopyup has its own mode, not that of the folder it covers', edit: (line, config) => (line.startsWith('path\t/full ') && JSON.stringify(config).includes('tmpcopyup') ? 'path\t/full MODE' : line) },
  { why: 'an ipc namespace is born in the user namespace', edit: (line) => line.replace(/^((?:dev\tmqueue|path\t\/dev\/mqueue) \d+) (?:\d+:\d+|OWNER)/, '$1 OWNER') },
  { why: 'the tmpfs that holds hierarchies has a size', edit: (line) => line.replace(/^(mount\t\/sys\/fs\/cgroup in \/sys .* tmpfs) .*$/, '$1') },
  { why: 'a mount that is read-only loses nosuid, nodev and noexec', edit: (line) => (/^mount\t.*\bro\b/.test(line) ? line.replaceAll(/\b(?:nosuid|nodev|noexec),/g, '') : line) },
  { why: 'devices that are bound into a user namespace keep the options of the host\'s /dev', edit: (line) => (/^mount\t\/dev\/\w+ in \/dev /.test(line) ? line.replaceAll(/\b(?:nosuid|noexec),/g, '') : line) },
];

function normalised(output: string, config: Config, id: string, folder: string, peer: Peer): readonly string[] {
  const replaced = (text: string): string => text.replaceAll(`/${id}`, '/GROUP').replace(/\/GROUP\/engine-[0-9a-f-]+/, '/GROUP').replaceAll(folder, 'FOLDER');
  const lines = output.split('\n').filter(Boolean);
  const of = (name: string): string[] => lines.filter((line) => line.startsWith(`${name}\t`)).map((line) => line.slice(name.length + 1));
  const others = lines.filter((line) => !line.startsWith('mount\t')).map((line) => {
    const [name = '', value = ''] = line.split('\t');
    if (name.startsWith('ns.')) return `${name}\t${value === own[name] ? 'host' : 'own'}`;
    return replaced(`${name}\t${value.replaceAll(/\s+/g, ' ').trim()}`);
  });
  const edited = (texts: readonly string[], differences: readonly Difference[]): string[] => texts.map((line) => differences.reduce<string | undefined>((text, { edit }) => (text === undefined ? undefined : edit(text, config)), line)).filter((line) => line !== undefined);
  const all = [...edited(others, DIFFERENCES), ...mountsIn(of('mount'), config, replaced).map(({ text }) => `mount\t${text}`)];
  return (peer === 'crun' ? edited(all, CRUN) : all).sort();
}

describe.skipIf(missing !== undefined)(`a config.json means the same to engine-oci, to runc and to crun${missing ? ` (skipped: ${missing})` : ''}`, () => {
  let engine: TestEngine;
  let folder: string;
  let counter = 0;

  beforeAll(async () => {
    engine = new TestEngine({ resident: 'auto' });
    folder = realpathSync(mkdtempSync('/var/tmp/engine-property-'));
    chmodSync(folder, 0o755); // runc looks into it as the container's root
    for (const path of ['source/folder', 'source/tree/sub', 'state', 'runc', 'crun']) mkdirSync(join(folder, path), { recursive: true });
    writeFileSync(join(folder, 'source/folder/seed'), 'seed\n');
    writeFileSync(join(folder, 'source/file'), 'file\n');
    // below it another mount, so that what is said of all below shows
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k,nosuid', 'below', join(folder, 'source/tree/sub')]);
    writeFileSync(join(folder, 'source/tree/sub/seed'), 'below\n');
    await engine.startEngined();
  });
  afterAll(async () => {
    execFileSync('umount', [join(folder, 'source/tree/sub')]);
    rmSync(folder, { recursive: true });
    expect(await engine.close()).toEqual([]);
  });

  /** A rootfs of its own for each: what one leaves the other must not find. */
  function bundle(config: Config, id: string): string {
    const path = join(folder, id);
    for (const name of ['proc', 'sys', 'dev', 'tmp', 'data', 'full', 'real', 'work', 'bin']) mkdirSync(join(path, 'rootfs', name), { recursive: true });
    chmodSync(join(path, 'rootfs/tmp'), 0o1777);
    chmodSync(join(path, 'rootfs/full'), 0o751);
    writeFileSync(join(path, 'rootfs/full/seed'), 'full\n');
    writeFileSync(join(path, 'rootfs/file'), 'own\n');
    symlinkSync('/real', join(path, 'rootfs/link'));
    copyFileSync(probe(), join(path, 'rootfs/probe'));
    chmodSync(join(path, 'rootfs/probe'), 0o755);
    chmodSync(path, 0o755);
    writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, linux: { ...config.linux, cgroupsPath: `/${id}` } }));
    return path;
  }
  /** crun refuses a tree with controllers on v2 beside v1: it sees v1 alone. */
  const commands: Readonly<Record<'ours' | Peer, () => readonly string[]>> = {
    ours: () => [ours, '--root', join(folder, 'state')],
    runc: () => [runc as string, '--root', join(folder, 'runc')],
    crun: () => ['unshare', '-m', '--propagation', 'slave', 'sh', '-c', '! test -e /sys/fs/cgroup/unified/cgroup.controllers || umount /sys/fs/cgroup/unified; exec "$@"', 'sh', crun as string, '--cgroup-manager', 'cgroupfs', '--root', join(folder, 'crun')],
  };
  async function seenBy(runtime: 'ours' | Peer, config: Config): Promise<Seen> {
    const id = `prop-${process.pid}-${++counter}`;
    const path = bundle(config, id);
    const [program, ...args] = commands[runtime]();
    const child = spawn(program as string, [...args, 'run', '--bundle', path, id], { env: { ...process.env, ...engine.env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
    const code = await new Promise<number>((resolve) => child.once('close', (status) => resolve(status ?? 255)));
    clearTimeout(timer);
    rmSync(path, { recursive: true });
    await removeParent(id);
    return { code, stderr, lines: (peer) => normalised(stdout, config, id, path, peer) };
  }
  async function compare(config: Config, name: string, peers: readonly Peer[]): Promise<void> {
    const mine = await seenBy('ours', config);
    for (const peer of peers) {
      const theirs = await seenBy(peer, config);
      const where = `${name}\n${JSON.stringify(config)}\n${peer}: ${theirs.stderr}\nengine-oci: ${mine.stderr}`;
      expect(mine.code === 0, where).toBe(theirs.code === 0);
      const [our, their] = [mine.lines(peer), theirs.lines(peer)];
      const [only, lacking] = [our.filter((line) => !their.includes(line)), their.filter((line) => !our.includes(line))];
      if (only.length + lacking.length > 0) throw new Error(`${where}\nengine-oci has:\n  ${only.join('\n  ')}\n${peer} has:\n  ${lacking.join('\n  ')}`);
      if (theirs.code === 0) expect(our.length, where).toBeGreaterThan(50);
    }
  }
  const both: readonly Peer[] = ['runc', ...(crun === undefined ? [] : ['crun' as const])];

  const chosen = Object.keys(chosenConfigs('/'));
  it.each(chosen)('chosen: %s', async (name) => {
    await compare(chosenConfigs(join(folder, 'source'))[name] as Config, name, both);
  });

  it(`random: ${runs} from seed ${seed}`, async () => {
    const failures: string[] = [];
    for (let i = 0; i < runs; i++) await compare(randomConfig(random(seed * 100_003 + i), join(folder, 'source')), `seed ${seed}, number ${i}`, i % 2 === 0 ? both : ['runc']).catch((error: Error) => failures.push(error.message));
    expect(failures.length, failures.slice(0, 5).join('\n\n')).toBe(0);
  }, 60_000 + runs * 5000);
});
