import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { type Invocation } from '@engine/core/contracts/frontend';
import { afterAll, describe, expect, it } from 'vitest';
import { op, step, type PlannedStep } from '@engine/core/plan';
import { explainJson, explainText } from './explain.ts';
import { DetachScanner, parseDetachKeys } from './attach.ts';
import { createCli } from './driver.ts';
import { parseMount, parseTmpfs, parseVolume } from './mounts.ts';
import { parse } from './parse.ts';
import { buildRequest } from './request.ts';
import { runFlags } from './run-flags.ts';
import { compileTemplate } from './template.ts';
import { humanDuration, humanSize } from './text.ts';
import { parseBytes, parseCpus, parseDuration, parseTime } from './units.ts';

const folder = mkdtempSync(join(tmpdir(), 'engine-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

const request = (...argv: string[]): ReturnType<typeof buildRequest> => {
  const { flags, args } = parse('run', runFlags, argv, { passThrough: true });
  return buildRequest(flags, args, { cwd: '/here', env: { SET: 'yes' }, cpus: 2 });
};

/** Run the command line against nothing: what needs the engine fails with the text below. */
async function cli(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const streams = { stdout: new PassThrough(), stderr: new PassThrough() };
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) streams[name].on('data', (data: Buffer) => (text[name] += data.toString()));
  const invocation = { argv, cwd: '/', env: {}, stdin: new PassThrough(), ...streams, version: '0.0.1', commands: [{ name: 'config', usage: 'config', summary: 'print the configuration', run: async () => 7 }] } as unknown as Invocation;
  const code = await createCli().run(() => Promise.reject(new Error('the engine was opened')), invocation);
  return { code, out: text.stdout, err: text.stderr };
}

describe('namespaces of ids and clocks', () => {
  it('are taken as they are: what they mean is for the core to say', () => {
    expect(request('--userns', 'auto:size=5', 'i')).toMatchObject({ userns: 'auto:size=5' });
    expect(request('--uidmap', '0:1:2,2:5:1', '--uidmap', '3:9:1', '--gidmap', '0:7:9', 'i')).toMatchObject({ uidMaps: ['0:1:2', '2:5:1', '3:9:1'], gidMaps: ['0:7:9'] });
    for (const key of ['userns', 'uidMaps', 'gidMaps', 'timeOffsets']) expect(request('--userns=', 'i')).not.toHaveProperty(key);
  });
  it.each([
    ['boottime=5', { boottime: { secs: 5, nanosecs: 0 } }], ['monotonic=+5.25', { monotonic: { secs: 5, nanosecs: 250_000_000 } }], ['monotonic=-5', { monotonic: { secs: -5, nanosecs: 0 } }],
    ['monotonic=-5.25', { monotonic: { secs: -6, nanosecs: 750_000_000 } }], ['boottime=-0.000000001', { boottime: { secs: -1, nanosecs: 999_999_999 } }],
  ])('--time-offset %s', (text, timeOffsets) => expect(request('--time-offset', text, 'i').timeOffsets).toEqual(timeOffsets));
  it.each(['realtime=5', 'boottime', 'boottime=', 'boottime=1e3', 'boottime=1.0000000001', 'boottime=99999999999'])('--time-offset %s is refused', (text) => expect(() => request('--time-offset', text, 'i')).toThrow(/monotonic=SECONDS or boottime=SECONDS/));
});

describe('parse', () => {
  it('takes clusters, values glued on, repetitions and false', () => {
    const wanted = request('-itm512m', '-e', 'A=1', '--env=B=2', '--rm=false', '--name', 'x', 'image', '-it', '--rm', 'sh');
    expect(wanted).toMatchObject({ terminal: true, openStdin: true, limits: { memory: 512 * 1024 ** 2 }, env: ['A=1', 'B=2'], autoRemove: false, name: 'x', image: 'image', command: ['-it', '--rm', 'sh'] });
  });
  it('leaves everything after the image alone, also what looks like a flag of ours', () => {
    expect(request('image', '--no-such-flag', '-v')).toMatchObject({ command: ['--no-such-flag', '-v'], mounts: [] });
    expect(request('--', 'image', '--', 'x')).toMatchObject({ image: 'image', command: ['--', 'x'] });
  });
  it.each([
    [['--nam', 'x', 'i'], /unknown flag: --nam \(did you mean --name\?\)/],
    [['--rm=perhaps', 'i'], /true or false/],
    [['i', '-m'], undefined],
  ])('says what is wrong with %j', (argv, message) => {
    if (message) expect(() => request(...argv)).toThrow(message);
    else expect(() => request(...argv)).not.toThrow();
  });
});

describe('values', () => {
  it('reads restart policies as Docker does', () => {
    const restart = (policy: string): unknown => request('--restart', policy, 'i').restart;
    expect(['no', '', 'always', 'unless-stopped', 'on-failure', 'on-failure:3'].map(restart)).toEqual([
      { policy: 'no', maximum: 0 }, { policy: 'no', maximum: 0 }, { policy: 'always', maximum: 0 }, { policy: 'unless-stopped', maximum: 0 }, { policy: 'on-failure', maximum: 0 }, { policy: 'on-failure', maximum: 3 },
    ]);
    expect(request('i').restart).toBeUndefined();
    for (const bad of ['sometimes', 'always:1', 'on-failure:x', 'on-failure:-1', 'on-failure:1:2', 'Always']) expect(() => restart(bad), bad).toThrow(/invalid value .* for --restart/);
    expect(() => request('--rm', '--restart', 'always', 'i')).toThrow('conflicting options: --restart and --rm');
    expect(request('--rm', '--restart', 'no', 'i')).toMatchObject({ autoRemove: true });
  });
  it('reads sizes', () => {
    expect([parseBytes('x', '1'), parseBytes('x', '2k'), parseBytes('x', '1.5g'), parseBytes('x', '64MB'), parseBytes('x', '1GiB')]).toEqual([1, 2048, 1.5 * 1024 ** 3, 64 * 1024 ** 2, 1024 ** 3]);
    for (const bad of ['', '-1', 'm', '1x', '1e9', '99999999p']) expect(() => parseBytes('--memory', bad), bad).toThrow(/invalid value .* for --memory/);
  });
  it('reads CPUs, durations and times', () => {
    expect(parseCpus('1.5', 2)).toBe(1.5e9);
    for (const bad of ['3', '0.001', '-1', 'x', '0.0000000001']) expect(() => parseCpus(bad, 2), bad).toThrow(/--cpus/);
    expect([parseDuration('1h30m'), parseDuration('1.5s'), parseDuration('10'), parseDuration('')]).toEqual([5_400_000, 1500, undefined, undefined]);
    expect(parseTime('x', '2026-01-02').toISOString()).toBe('2026-01-02T00:00:00.000Z');
    expect(parseTime('x', '100').getTime()).toBe(100_000);
    expect(() => parseTime('--since', 'yesterday')).toThrow(/--since/);
  });
  it('reads -v', () => {
    expect(parseVolume('/data', '/here')).toMatchObject({ type: 'volume', target: '/data' });
    expect(parseVolume('/data', '/here').source).toBeUndefined();
    expect(parseVolume('name:/data:ro', '/here')).toMatchObject({ type: 'volume', source: 'name', target: '/data', readonly: true });
    expect(parseVolume('./a:/b:rslave,ro', '/here')).toMatchObject({ type: 'bind', source: '/here/a', target: '/b', propagation: 'rslave', readonly: true, createSource: true });
    expect(parseVolume('/a:/b:idmap,ro', '/')).toMatchObject({ type: 'bind', idmap: true, readonly: true });
    for (const bad of ['a:b', '/a:/b:idmap=uids=0-1-10', '/a:/', ':/x', '/a:/b:what', '/a:/b:ro:rw', '-x:/b', 'name:/x:rshared']) expect(() => parseVolume(bad, '/here'), bad).toThrow(/invalid value/);
  });
  it('reads --mount', () => {
    expect(parseMount('type=bind,src=/a,"dst=/b,c",ro', '/')).toMatchObject({ type: 'bind', source: '/a', target: '/b,c', readonly: true, createSource: false });
    expect(parseMount('type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777', '/')).toMatchObject({ type: 'tmpfs', tmpfsSize: 1048576, tmpfsMode: 0o1777 });
    expect(parseMount('type=bind,src=/a,dst=/b,idmap', '/').idmap).toBe(true);
    expect(parseMount('type=bind,src=/a,dst=/b,idmap=false', '/').idmap).toBe(false);
    for (const bad of ['type=bind,target=/x', 'type=tmpfs,target=/x,idmap', 'type=bind,src=/a,dst=/b,idmap=uids=0-1-10', 'type=no,target=/x', 'target=/x,color=red', 'type=tmpfs,source=a,target=/x', 'type=volume,target=/x,tmpfs-size=1', 'src=/a,target=/x', '"target=/x']) expect(() => parseMount(bad, '/'), bad).toThrow(/invalid value/);
    expect(parseTmpfs('/t:size=1m,mode=700')).toEqual({ target: '/t', options: ['size=1m', 'mode=700'] });
    expect(() => request('-v', 'a1:/x', '--tmpfs', '/x/', 'i')).toThrow(/more than one mount on \/x/);
  });
  it('reads the rest of the flags', () => {
    writeFileSync(join(folder, 'env'), '# comment\nFROM_FILE=a b\nSET\nUNSET\nA=file\n');
    expect(request('--env-file', join(folder, 'env'), '-e', 'A=flag', '-e', 'SET', 'i').env).toEqual(['FROM_FILE=a b', 'SET=yes', 'A=flag']);
    expect(request('--device', '/dev/null:/dev/x:r', '--ulimit', 'nofile=10:20', '--add-host', 'h:[::1]', 'i')).toMatchObject({
      devices: [{ source: '/dev/null', target: '/dev/x', access: 'r' }], rlimits: [{ name: 'nofile', soft: 10, hard: 20 }], addHosts: ['h:::1'],
    });
    expect(request('--entrypoint', '', 'i').entrypoint).toEqual(['']);
    expect(request('-d', 'i').attach).toEqual({ stdin: false, stdout: false, stderr: false });
    expect(request('-a', 'STDERR', 'i').attach).toEqual({ stdin: false, stdout: false, stderr: true });
    for (const bad of [['--device', 'dev/x'], ['--ulimit', 'nofile=20:10'], ['--ulimit', 'files=1'], ['--add-host', 'h'], ['-a', 'x'], ['-w', 'rel'], ['--cpuset-cpus', '1-'], ['--oom-score-adj', '2000'], ['--pid', 'no'], ['--pids-limit', 'x'], ['-e', '=x'], ['--env-file', '/no/such'], ['--security-opt', 'seccomp=/no/such']])
      expect(() => request(...bad, 'i'), bad.join(' ')).toThrow(/invalid|cannot read|expected/);
  });
});

describe('detach keys', () => {
  it('are found across chunks and passed on when not completed', () => {
    const scanner = new DetachScanner(parseDetachKeys('ctrl-p,ctrl-q'));
    expect(scanner.scan(Buffer.from('a\x10'))).toEqual({ pass: Buffer.from('a'), detach: false });
    expect(scanner.scan(Buffer.from('b\x10\x10'))).toEqual({ pass: Buffer.from('\x10b\x10'), detach: false });
    expect(scanner.scan(Buffer.from('\x11rest')).detach).toBe(true);
    expect(() => parseDetachKeys('ctrl-')).toThrow(/detach key/);
    expect(new DetachScanner([]).scan(Buffer.from('\x10\x11'))).toEqual({ pass: Buffer.from('\x10\x11'), detach: false });
  });
});

describe('templates', () => {
  const value = { Id: 'abc', State: { Running: true, ExitCode: 0 }, List: [{ N: 'a' }, { N: 'b' }], Map: { x: 1, y: null }, Empty: [], Get: (name: string) => `got ${name}` };
  it.each([
    ['{{.Id}}', 'abc'], ['{{ .State.Running }}', 'true'], ['{{json .State}}', '{"Running":true,"ExitCode":0}'], ['{{range .List}}<{{.N}}>{{end}}', '<a><b>'],
    ['{{range $k, $v := .Map}}{{$k}}={{$v}} {{end}}', 'x=1 y=<nil> '], ['{{if .State.Running}}up{{else}}down{{end}}', 'up'], ['{{if .Empty}}x{{else if eq .Id "abc"}}y{{end}}', 'y'],
    ['{{index .List 1}}', 'map[N:b]'], ['{{(index .List 0).N}}', 'a'], ['{{.State.Nope}}', '<no value>'], ['{{index .Map "no"}}', ''], ['{{slice .Id 1}}', 'bc'], ['{{.Get "a"}}', 'got a'], ['{{.Id | upper | printf "%5s!"}}', '  ABC!'], ['a {{- .Id -}} b', 'aabcb'],
    ['{{with .State}}{{.ExitCode}}{{$.Id}}{{end}}', '0abc'], ['{{range .Empty}}x{{else}}none{{end}}', 'none'], ['{{len .List}}{{/* c */}}', '2'], ['{{$x := .Id}}{{$x}}', 'abc'], ['{{and true .Id}}{{not .Empty}}', 'abctrue'],
  ])('%s', (template, expected) => expect(compileTemplate(template)(value)).toBe(expected));
  it.each(['{{.Id', '{{nope .Id}}', '{{if .Id}}x', '{{end}}', '{{.Id | "x"}}', '{{$y}}', '{{.Id.Sub}}', '{{.Nope}}'])('refuses %s', (template) => expect(() => compileTemplate(template)(value)).toThrow(/template/));
});

it('prints sizes and durations as people know them', () => {
  expect([humanSize(0), humanSize(4_261_550), humanSize(1e9)]).toEqual(['0B', '4.26MB', '1GB']);
  expect([0, 1500, 59_000, 61_000, 3_600_000, 86_400_000 * 3].map(humanDuration)).toEqual(['Less than a second', '1 second', '59 seconds', 'About a minute', 'About an hour', '3 days']);
});

describe('dispatch', () => {
  it('answers help and version without the engine', async () => {
    expect((await cli('--help')).out).toMatch(/Usage: engine[^]*run[^]*config/);
    expect(await cli('run', '--help')).toMatchObject({ code: 0, err: '' });
    expect((await cli('help', 'volume', 'ls')).out).toMatch(/engine volume ls/);
    expect((await cli('version')).out).toMatch(/^engine 0\.0\.1 /);
    expect((await cli('exec', '-h')).code).toBe(0);
    expect((await cli('config')).code).toBe(7);
    expect((await cli()).code).toBe(1);
  });
  it('does not take the help of the container\'s command for its own', async () => {
    expect((await cli('run', 'image', '--help')).err).toContain('the engine was opened');
    expect((await cli('run', '-h', 'name', 'image')).err).toContain('the engine was opened');
  });
  it.each([
    [['rnu'], /unknown command: rnu \(did you mean run\?\)/], [['volume', 'lss'], /unknown command: volume lss \(did you mean volume ls\?\)/], [['--debug'], /unknown flag/], [['ps', 'x'], /takes exactly 0 arguments, got 1/],
    [['run'], /takes at least 1 argument, got 0/], [['run', '--bundle', '/x', 'sh'], /go with --explain/], [['ps', '-f', 'nam=x'], /did you mean name/], [['exec', 'c'], /a container and a command/], [['run', '-it', 'x'], /not a terminal/],
  ])('one line and 125 for %j', async (argv, message) => {
    const { code, err, out } = await cli(...argv);
    expect({ code, out }).toEqual({ code: 125, out: '' });
    expect(err).toMatch(message);
    expect(err.trimEnd().split('\n')).toHaveLength(1);
  });
});

describe('explain', () => {
  const origin = { plugin: 'test', hook: 'applyLimits' };
  const planned = (...steps: ReturnType<typeof step>[]): PlannedStep[] => steps.map((s) => ({ ...s, origin }));
  const steps = planned(step('shim.cgroup', op.mkdir({ path: '/cg', mode: 0o755 }), op.rmdir({ path: '/cg' })), step('init.exec', op.resolveExec({ name: 'sh', env: ['A=1'], out: 'program' })));
  it('names slot, operation, undo and plugin', () => {
    expect(explainText(steps)).toContain('cgroup     mkdir path=/cg mode=0755  (test)  undo: rmdir');
    const json = JSON.parse(explainJson(steps)) as { part: string; origin: object }[];
    expect(json.map((s) => s.part)).toEqual(['shim', 'init']);
    expect(json[0]?.origin).toEqual(origin);
  });
});
