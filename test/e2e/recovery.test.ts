import { createHash } from 'node:crypto';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createNative } from '@engine/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxRootfs, importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine();
  await importBusybox(engine);
});
afterAll(async () => expect(await engine.close()).toEqual([]));
const state = (name: string): Promise<string> => engine.ok('inspect', '-f', '{{.State.Status}}', name);
const oneLine = (text: string): void => expect(text.trimEnd().split('\n'), text).toHaveLength(1);

describe('a container whose plugin is gone', () => {
  const plugin = (): string => join(engine.folder, 'cwd', 'mystore');
  afterAll(() => engine.configure(''));
  it('is shown, killed, undone and removed; what needs the plugin names it', async () => {
    await engine.ok('plugin', 'new', 'mystore');
    engine.configure(`plugins: [${plugin()}]\ndrivers: { storage: mystore }\n`);
    await engine.ok('run', '-d', '--name', 'left', 'busybox', 'sh', '-c', 'echo up | tee /file; exec sleep 1000');
    await engine.ok('run', '-d', '--name', 'left2', 'busybox', 'sleep', '1000');
    expect(readdirSync(join(engine.root, 'mystore'))).not.toEqual([]);
    engine.configure('');
    expect(await engine.ok('ps', '--format', '{{.Names}}')).toBe('left2\nleft');
    expect(await engine.ok('inspect', '-f', '{{.Driver}}', 'left')).toBe('mystore');
    expect(await engine.ok('logs', 'left')).toBe('up');
    expect(await engine.ok('exec', 'left', 'cat', '/file')).toBe('up');
    await engine.ok('kill', 'left');
    expect(await state('left')).toBe('exited');
    const { code, stderr } = await engine.run(['start', 'left']);
    expect([code, stderr]).toEqual([125, expect.stringContaining('plugin mystore')]);
    oneLine(stderr);
    expect((await engine.run(['diff', 'left'])).stderr).toMatch(/plugin mystore/);
    const removed = await engine.run(['rm', 'left']);
    expect(removed).toMatchObject({ code: 0, stdout: 'left\n' });
    expect(removed.stderr).toMatch(/plugin mystore.*left behind/);
    expect((await engine.run(['rm', '-f', 'left2'])).code).toBe(0);
    expect(await engine.ok('ps', '-aq')).toBe('');
  });
});

describe('a state of a plugin', () => {
  it('that a newer version wrote keeps the older one from loading, and is migrated the other way round', async () => {
    const folder = join(engine.folder, 'cwd', 'counter');
    mkdirSync(folder);
    const write = (version: number): void => {
      writeFileSync(join(folder, 'package.json'), JSON.stringify({
        name: 'counter', version: `${version}.0.0`, type: 'module', peerDependencies: { '@engine/core': '^0.1.0' }, engine: { name: 'counter', main: './plugin.ts', requires: ['state'] },
      }));
      writeFileSync(join(folder, 'plugin.ts'), `
        import { definePlugin } from '@engine/core/plugin';
        export default definePlugin({
          state: { schemaVersion: ${version}, migrate: (state, from) => state.set('log', [...state.get('log'), 'from ' + from]) },
          create({ tap, state }) {
            tap('create', ({ record }) => { state.set('log', [...(state.get('log') ?? []), 'v${version}']); record.set({ log: state.get('log') }); });
            return {};
          },
        });`);
    };
    engine.configure(`plugins: [${folder}]\n`);
    for (const version of [1, 3]) {
      write(version);
      await engine.ok('create', '--name', `c${version}`, 'busybox');
    }
    write(2);
    const { code, stderr } = await engine.run(['create', 'busybox']);
    expect([code, stderr]).toEqual([125, expect.stringMatching(/^engine: the state of plugin counter was written by a newer version of it \(schema 3, this one knows 2\)/)]);
    oneLine(stderr);
    write(3);
    await engine.ok('create', '--name', 'last', 'busybox');
    engine.configure('');
    await engine.ok('rm', 'c1', 'c3', 'last');
  });
});

describe('a plugin that misbehaves', () => {
  it('in a tap is named, in one line, and nothing is left of the verb; what only listens stops nobody', async () => {
    const folder = join(engine.folder, 'cwd', 'odd');
    mkdirSync(folder);
    writeFileSync(join(folder, 'package.json'), JSON.stringify({
      name: 'odd', version: '1.0.0', type: 'module', peerDependencies: { '@engine/core': '^0.1.0' }, engine: { name: 'odd', main: './plugin.ts' },
    }));
    const tap = (code: string): void => writeFileSync(join(folder, 'plugin.ts'), `export default { create({ tap }) { ${code} return {}; } };`);
    engine.configure(`plugins: [${folder}]\n`);
    const start = ['run', '--name', 'odd', 'busybox', 'true'];
    for (const [code, said] of [
      ["tap('configure', () => new Promise(() => {}), { deadline: 200 });", /^engine: plugin odd took longer than 200 ms in hook configure/],
      ["tap('attachNetwork', () => { throw new TypeError('boom'); });", /^engine: plugin odd failed in hook attachNetwork: boom/],
      ["tap('create', async () => { throw new Error('boom'); });", /^engine: plugin odd failed in hook create: boom/],
      ["tap('request', (_, { verb }) => { if (verb === 'create') throw Object.assign(new Error('not here'), { code: 'ERR_DENIED', hint: '' }); });", /^engine: not here/],
      ["tap('configure', (_, spec) => { spec.hostname = 'x'; });", /^engine: plugin odd failed in hook configure: .*read.only/],
      ["tap('nope', () => {});", /^engine: plugin odd taps nope, but there is no such hook/],
    ] as const) {
      tap(code);
      const { code: exit, stderr } = await engine.run(start);
      expect([exit, stderr]).toEqual([125, expect.stringMatching(said)]);
      oneLine(stderr);
      tap('');
      await engine.run(['rm', 'odd']);
      expect(readdirSync(join(engine.runRoot, 'runs'))).toEqual([]);
    }
    tap("tap('exited', () => { throw new Error('boom'); }); tap('event', () => new Promise(() => {}), { deadline: 100 });");
    const result = await engine.run(start);
    expect(result.code).toBe(0);
    expect(result.stderr).toMatch(/odd.*exited|exited.*odd/s);
    engine.configure('');
    await engine.ok('rm', 'odd');
  });
});

describe('a barrier', () => {
  it('runs its handler in the engine while init waits, adds what it answers, and stops the start when it refuses', async () => {
    const folder = join(engine.folder, 'cwd', 'waiter');
    mkdirSync(folder);
    writeFileSync(join(folder, 'package.json'), JSON.stringify({
      name: 'waiter', version: '1.0.0', type: 'module', peerDependencies: { '@engine/core': '^0.1.0' }, engine: { name: 'waiter', main: './plugin.ts', handlers: ['waiter.lease'] },
    }));
    writeFileSync(join(folder, 'plugin.ts'), `
      import { op, step } from '@engine/core/plan';
      import { definePlugin } from '@engine/core/plugin';
      export default definePlugin({
        create({ tap }) {
          tap('attachNetwork', ({ plan, spec }) => {
            const input = Buffer.from(JSON.stringify({ refuse: spec.process.args[0] === 'false', slot: spec.process.args[0] === 'cat' ? 'init.netns' : 'init.identity' }));
            plan.add('shim.attach', op.barrier({ handler: 'waiter.lease', input, deadline: 5000 }), { none: 'nothing was leased' });
          });
          return { handlers: { 'waiter.lease': async ({ input, pid }) => {
            if (input.refuse) throw new Error('no lease left');
            return [step(input.slot, op.writeFile({ root: 'rootfs', path: '/added', data: Buffer.from(pid > 0 ? 'by the handler' : 'too early'), mode: 0o644, how: 1 }))];
          } } };
        },
      });`);
    engine.configure(`plugins: [${folder}]\n`);
    expect(await engine.ok('run', '--rm', 'busybox', 'cat', '/added')).toBe('by the handler');
    expect((await engine.run(['run', '--rm', 'busybox', 'true'])).stderr).toMatch(/^engine: barrier handler waiter.lease adds to slot init.identity: only init.netns can be added to.*\n$/);
    const { code, stderr } = await engine.run(['run', '--rm', 'busybox', 'false']);
    expect([code, stderr]).toEqual([125, expect.stringMatching(/no lease left/)]);
    expect(readdirSync(join(engine.runRoot, 'runs'))).toEqual([]);
    engine.configure('');
  });
});

describe('doctor', () => {
  it('lists what has no owner, with its kind, and --fix removes that and nothing else', async () => {
    const layers = join(engine.root, 'storage-overlay', 'layers');
    const before = readdirSync(layers);
    const orphan = '0'.repeat(64);
    mkdirSync(join(layers, orphan, 'diff'), { recursive: true });
    mkdirSync(join(engine.runRoot, 'runs', 'garbage'), { recursive: true });
    mkdirSync(join(engine.root, 'trash', 'junk'));
    // somebody deletes the run root under a container
    const id = await engine.ok('run', '-d', '--name', 'bare', 'busybox', 'sleep', '1000');
    const pid = await engine.ok('inspect', '-f', '{{.State.Pid}}', 'bare');
    rmSync(join(engine.runRoot, 'runs', id), { recursive: true });
    const shown = await engine.run(['doctor']);
    expect(shown.code).toBe(1);
    for (const line of [/v1 [0-9a-f]{16} +cgroup +no run/, /overlay sha256:0+ +layer +no image/, /runs\/garbage +run +unknown/]) expect(shown.stdout).toMatch(line);
    const { drivers } = JSON.parse((await engine.run(['doctor', '--format', 'json'])).stdout) as { drivers: { contract: string; driver: string; chosen: boolean; probe: { available: boolean; reasons: string[] } }[] };
    for (const { driver, probe } of drivers) expect(probe.available || probe.reasons.length > 0, driver).toBe(true);
    expect(drivers.filter(({ contract, chosen }) => contract === 'storage' && chosen)).toHaveLength(1);
    expect(await engine.run(['doctor', '--fix'])).toMatchObject({ code: 0 });
    await until('its end', () => !existsSync(`/proc/${pid}/exe`));
    await engine.ok('rm', 'bare');
    expect(await engine.ok('doctor')).toContain('nothing was left behind');
    expect(readdirSync(layers)).toEqual(before);
    expect(await engine.ok('run', '--rm', 'busybox', 'echo', 'well')).toBe('well');
  });
  it('is not needed for layers that a killed load left: the next start removes them', async () => {
    const layers = join(engine.root, 'storage-overlay', 'layers');
    const before = readdirSync(layers);
    mkdirSync(join(layers, '1'.repeat(64), 'diff'), { recursive: true });
    await engine.ok('ps');
    expect(readdirSync(layers)).toHaveLength(before.length + 1);
    mkdirSync(join(engine.root, 'inflight', 'zzz-killed'));
    writeFileSync(join(engine.root, 'inflight', 'zzz-killed', 'record.json'), JSON.stringify({ what: 'load images', created: '', pid: 1, startTime: '0' }));
    await engine.ok('ps');
    expect(readdirSync(layers)).toEqual(before);
  });
});

describe('a reboot', () => {
  it('ends what ran, voids its records, and what was --rm is gone', async () => {
    await engine.ok('run', '-d', '--name', 'kept', 'busybox', 'sleep', '1000');
    await engine.ok('run', '-d', '--rm', '--name', 'passing', 'busybox', 'sleep', '1000');
    for (const name of ['kept', 'passing']) {
      const [id, pid] = (await engine.ok('inspect', '-f', '{{.Id}} {{.State.Pid}}', name)).split(' ') as [string, string];
      const shim = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
      process.kill(shim, 'SIGKILL');
      await until('its end', () => !existsSync(`/proc/${shim}/exe`));
      const record = join(engine.runRoot, 'runs', id, 'record.json');
      writeFileSync(record, JSON.stringify({ ...JSON.parse(readFileSync(record, 'utf8')) as object, boot: '00000000-0000-0000-0000-000000000000' }));
    }
    expect(await engine.ok('ps', '-q')).toBe('');
    expect(await engine.ok('ps', '-a', '--format', '{{.Names}}')).toBe('kept');
    expect(await engine.ok('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}', 'kept')).toBe('exited 137 the machine was restarted');
    expect(readdirSync(join(engine.runRoot, 'runs'))).toEqual([]);
    await engine.ok('start', 'kept');
    expect(await state('kept')).toBe('running');
    await engine.ok('rm', '-f', 'kept');
  });
});

describe('verbs that meet', () => {
  it('ps and inspect wait for nobody; what changes the container waits for who holds it', async () => {
    await engine.ok('run', '-d', '--name', 'held', 'busybox', 'sleep', '1000');
    const id = await engine.ok('inspect', '-f', '{{.Id}}', 'held');
    // somebody in the middle of a verb: the container's byte of the lock file
    const byte = Math.floor(createHash('sha256').update(`container ${id}`).digest().readUIntBE(0, 6) / 2);
    const lock = createNative().tryLock(join(engine.root, 'locks', 'verbs'), { byte });
    try {
      expect(lock).toBeDefined();
      expect(await engine.ok('ps', '--format', '{{.Names}} {{.State}}')).toBe('held running');
      expect(await engine.ok('inspect', '-f', '{{.State.Running}}', 'held')).toBe('true');
      expect(await engine.ok('exec', 'held', 'echo', 'there')).toBe('there');
      const removal = engine.start(['rm', '-f', 'held'], { input: '' });
      expect(await Promise.race([removal.result, new Promise((resolve) => setTimeout(resolve, 500, 'waits'))])).toBe('waits');
      lock?.release();
      expect((await removal.result).code).toBe(0);
    } finally {
      lock?.release();
    }
  });
  it('two removals at once: the container is gone, and nothing else is wrong', async () => {
    for (let round = 0; round < 3; round++) {
      await engine.ok('run', '-d', '--name', 'twice', 'busybox', 'sleep', '1000');
      const results = await Promise.all([1, 2, 3].map(() => engine.run(['rm', '-f', 'twice'])));
      expect(results.some(({ code }) => code === 0)).toBe(true);
      for (const { code, stderr } of results) if (code !== 0) expect(stderr).toMatch(/^engine: no such container: twice/);
      expect(await engine.ok('ps', '-aq')).toBe('');
    }
  });
  it('stop while it starts, start while it ends', async () => {
    await engine.ok('create', '--name', 'race', 'busybox', 'sleep', '1000');
    for (let round = 0; round < 3; round++) {
      const results = await Promise.all([engine.run(['start', 'race']), engine.run(['stop', '-t', '0', 'race'])]);
      expect(results.map(({ code, stderr }) => [code, stderr])).toEqual([[0, ''], [0, '']]);
      await engine.ok('start', 'race');
      const [kill, start] = await Promise.all([engine.run(['kill', 'race']), engine.run(['start', 'race'])]);
      expect([kill?.code, start?.code, start?.stderr]).toEqual([0, 0, '']);
      await engine.ok('stop', '-t', '0', 'race');
      expect(await state('race')).toBe('exited');
    }
    const starts = await Promise.all([1, 2, 3].map(() => engine.run(['start', 'race'])));
    expect(starts.map(({ code, stderr }) => [code, stderr])).toEqual([[0, ''], [0, ''], [0, '']]);
    expect(await state('race')).toBe('running');
    await engine.ok('rm', '-f', 'race');
  });
});

describe('a frozen container', () => {
  const freezer = (pid: string): string | undefined => {
    const path = /^\d+:freezer:(\/.+)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1];
    const file = path && `/sys/fs/cgroup/freezer${path}/freezer.state`;
    return file && existsSync(file) ? file : undefined;
  };
  it('takes no exec, and is stopped, killed and removed all the same', async (context) => {
    for (const verb of [['stop', '-t', '0', 'ice'], ['kill', 'ice'], ['rm', '-f', 'ice']]) {
      await engine.ok('run', '-d', '--name', 'ice', 'busybox', 'sleep', '1000');
      const file = freezer(await engine.ok('inspect', '-f', '{{.State.Pid}}', 'ice'));
      if (!file) {
        await engine.ok('rm', '-f', 'ice');
        return context.skip('the freezer of cgroup v1 is not mounted');
      }
      writeFileSync(file, 'FROZEN');
      await until('frost', () => readFileSync(file, 'utf8') === 'FROZEN\n');
      const { code, stderr } = await engine.run(['exec', 'ice', 'true'], { deadline: 10_000 });
      expect([code, stderr]).toEqual([1, 'engine: cannot exec in container ice: the container is paused; unpause it first\n']);
      expect(await engine.run(verb, { deadline: 15_000 })).toMatchObject({ code: 0 });
      await engine.run(['rm', '-f', 'ice']);
    }
  });
});

describe('--explain without root', () => {
  it('works for the host, a folder and a bundle that the caller may read', () => {
    const home = join(import.meta.dirname, '../..');
    const folder = realpathSync(mkdtempSync(join(tmpdir(), 'engine-nobody-')));
    try {
      chmodSync(folder, 0o755);
      busyboxRootfs(join(folder, 'rootfs'));
      execFileSync('cp', ['-a', join(folder, 'rootfs'), join(folder, 'bundle-rootfs')]);
      mkdirSync(join(folder, 'bundle'));
      execFileSync('cp', ['-a', join(folder, 'rootfs'), join(folder, 'bundle/rootfs')]);
      writeFileSync(join(folder, 'bundle/config.json'), JSON.stringify({
        ociVersion: '1.2.0', root: { path: 'rootfs' }, process: { args: ['/bin/sh'], cwd: '/', user: { uid: 0, gid: 0 }, env: ['PATH=/bin'] }, mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
        linux: { namespaces: [{ type: 'mount' }, { type: 'pid' }] },
      }));
      const run = (...args: string[]) => spawnSync(join(home, 'bin/engine'), ['run', ...args], { cwd: folder, encoding: 'utf8', uid: 65534, gid: 65534, env: { PATH: process.env['PATH'] ?? '', HOME: folder } });
      for (const what of [['host', 'true'], ['--rootfs', join(folder, 'rootfs'), '/bin/sh'], ['--bundle', join(folder, 'bundle')]]) {
        expect([what, run('--explain', ...what)]).toMatchObject([what, { status: 0, stderr: '', stdout: expect.stringMatching(/^shim:\n[^]*\bexec\b/) as string }]);
        const steps = JSON.parse(run('--explain=json', ...what).stdout) as { operation: string; origin: { plugin: string } }[];
        expect(steps.filter(({ origin }) => origin.plugin).length, what.join(' ')).toBeGreaterThan(10);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
