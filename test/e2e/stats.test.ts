import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { unified } from '../helpers/cgroup.ts';
import { openEngine } from '../../config/open.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine();
  await importBusybox(engine);
  await engine.ok('run', '-d', '--name', 'busy', '-m', '64m', 'busybox', 'sh', '-c', 'x=$(yes | head -c 8000000); while :; do :; done');
  await engine.ok('run', '-d', '--name', 'idle', 'busybox', 'sleep', '1000');
  await engine.ok('create', '--name', 'made', 'busybox');
});
afterAll(async () => {
  await engine.removeContainers();
  expect(await engine.close()).toEqual([]);
});

type Row = Record<'Name' | 'CPUPerc' | 'MemUsage' | 'MemPerc' | 'NetIO' | 'BlockIO' | 'PIDs' | 'ID' | 'Container', string>;
const rows = async (...argv: string[]): Promise<Row[]> => (await engine.ok('stats', '--no-stream', '--format', 'json', ...argv)).split('\n').filter(Boolean).map((line) => JSON.parse(line) as Row);

/** Page faults of the processes that this one has made and that have ended (proc(5), cminflt): each has some. */
const faultsOfChildren = (): number => Number(readFileSync('/proc/self/stat', 'latin1').replace(/^.*\) /s, '').split(' ')[8]);

describe('stats', () => {
  it('shows what runs, with the columns of Docker', async () => {
    const [heading = '', ...lines] = (await engine.ok('stats', '--no-stream')).split('\n');
    expect(heading).toMatch(/^CONTAINER ID {3}NAME {6}CPU % {5}MEM USAGE \/ LIMIT {3,}MEM % {5}NET I\/O {3}BLOCK I\/O {3,}PIDS$/);
    expect(lines.map((line) => line.split(/ {2,}/)[1]).sort()).toEqual(['busy', 'idle']);
  });
  it('tells who works from who sleeps, and who has memory from who has not', async () => {
    const [busy, idle] = await rows('busy', 'idle');
    expect(Number.parseFloat(busy?.CPUPerc ?? '')).toBeGreaterThan(5);
    expect(Number.parseFloat(idle?.CPUPerc ?? '')).toBeLessThan(3);
    expect(busy?.MemUsage).toMatch(/^[\d.]+MiB \/ 64MiB$/);
    expect(Number.parseFloat(busy?.MemUsage ?? '')).toBeGreaterThan(7);
    expect([busy?.PIDs, idle?.PIDs]).toEqual(['1', '1']);
    expect(Number.parseFloat(busy?.MemPerc ?? '')).toBeGreaterThan(10);
    expect([busy?.NetIO, busy?.Container]).toEqual(['0B / 0B', 'busy']);
  });
  it('takes names, ids, all of them, and refuses what is not there', async () => {
    const id = await engine.ok('inspect', '-f', '{{.Id}}', 'idle');
    expect((await rows(id.slice(0, 8)))[0]).toMatchObject({ Name: 'idle', ID: id.slice(0, 12) });
    expect((await rows('--no-trunc', 'idle'))[0]?.ID).toBe(id);
    expect((await rows('-a')).map(({ Name }) => Name).sort()).toEqual(['busy', 'idle', 'made']);
    expect((await rows('made'))[0]).toMatchObject({ CPUPerc: '0.00%', MemUsage: '0B / 0B', PIDs: '0' });
    expect(await engine.run(['stats', '--no-stream', 'nope'])).toMatchObject({ code: 1, stderr: expect.stringContaining('no such container: nope') as string });
    expect((await engine.run(['stats', '--no-stream', '--format', '{{.Nope}}', 'idle'])).code).not.toBe(0);
  });
  it('goes on, follows what comes and goes, and ends with its reader', async () => {
    const running = engine.start(['stats', '-i', '1', '--format', '{{.Name}}.'], { input: '' });
    await running.output(/busy\.[^]*busy\./);
    await engine.ok('run', '-d', '--name', 'late', 'busybox', 'sleep', '1000');
    await running.output(/late\./);
    await engine.ok('rm', '-f', 'late');
    const seen = running.stdout.length;
    await running.output(new RegExp(`^[^]{${seen},}busy\\.\nidle|^[^]{${seen},}idle\\.\nbusy`));
    running.child.stdout.destroy();
    await running.result;
    const one = engine.start(['stats', '-i', '1', '--format', '{{.Name}}.', 'busy'], { input: '' });
    await one.output(/busy\./);
    one.child.kill('SIGINT');
    await one.result;
  });
  it('draws over what it drew on a terminal', async () => {
    const running = engine.terminal(['stats', '-i', '1', 'idle']);
    await running.output(/\x1b\[H.*CONTAINER ID[^]*\x1b\[J[^]*\x1b\[H/);
    running.child.stdin.write('\x03');
    await running.result;
  });
  it('says pressure where the kernel tells it', async () => {
    const [line = ''] = (await engine.ok('stats', '--no-stream', '--pressure', '--format', '{{.CPUPressure}} {{.MemPressure}} {{.IOPressure}}', 'busy')).split('\n');
    expect(line).toMatch(unified ? /^[\d.]+% [\d.]+% [\d.]+%$/ : /^-- -- --$/);
    expect(await engine.ok('stats', '--no-stream', '--pressure', 'busy')).toMatch(/CPU PSI +MEM PSI +IO PSI/);
  });
  it('of twenty containers takes one look each, and no process', async () => {
    const names = Array.from({ length: 20 }, (_, i) => `many-${i}`);
    for (const name of names) await engine.ok('run', '-d', '--name', name, 'busybox', 'sleep', '1000');
    const { engine: own } = await openEngine({ flags: { root: engine.root, runRoot: engine.runRoot }, env: { ...engine.env }, cwd: '/' });
    try {
      const before = faultsOfChildren();
      const found = await Promise.all(names.map((name) => own.containers.stats(name)));
      expect(found.map(({ name }) => name)).toEqual(names);
      expect(found.every(({ group }) => group.pids === 1)).toBe(true);
      expect(faultsOfChildren()).toBe(before);
    } finally {
      await own.close();
    }
    await engine.ok('rm', '-f', ...names);
  });
});

describe('top', () => {
  it('shows every process of a container and no other, by the host\'s numbers', async () => {
    await engine.ok('run', '-d', '--name', 'family', 'busybox', 'sh', '-c', 'sleep 1001 & sleep 1002 & wait');
    await engine.ok('exec', '-d', 'family', 'sleep', '1003');
    const init = await engine.ok('inspect', '-f', '{{.State.Pid}}', 'family');
    const [heading = '', ...lines] = (await engine.ok('top', 'family')).split('\n');
    expect(heading.split(/\s+/)).toEqual(['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD']);
    expect(lines.map((line) => line.split(/\s+/).slice(7).join(' ')).sort()).toEqual(['sh -c sleep 1001 & sleep 1002 & wait', 'sleep 1001', 'sleep 1002', 'sleep 1003']);
    expect(lines.map((line) => line.split(/\s+/)[1])).toContain(init);
    expect((await engine.ok('top', 'family', '-o', 'pid,comm')).split('\n')[0]).toMatch(/^PID {17}COMMAND$/);
    expect((await engine.ok('container', 'top', 'family', 'aux')).split('\n')[0]).toMatch(/^USER +PID +%CPU/);
    await engine.ok('pause', 'family');
    expect((await engine.ok('top', 'family')).split('\n')).toHaveLength(5);
    await engine.ok('rm', '-f', 'family');
  });
  it('refuses what does not run, and options that ps refuses or that hide the pid', async () => {
    for (const [argv, said] of [[['top', 'made'], /not running/], [['top', 'nope'], /no such container/], [['top', 'idle', '-o', 'comm'], /PID field/], [['top', 'idle', '--nope'], /cannot run ps --nope/]] as const) {
      const { code, stderr } = await engine.run(argv);
      expect([code, stderr]).toEqual([1, expect.stringMatching(said)]);
    }
  });
});
