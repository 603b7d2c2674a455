import { describe, expect, it } from 'vitest';
import { pino, type Logger } from 'pino';
import { type ContainerRecord } from '../api/types.ts';
import { type RunContext } from '../contracts/common/index.ts';
import { fail } from '../errors/index.ts';
import { op, step } from '../plan/build.ts';
import { type Spec } from '../spec/index.ts';
import { whoAsked } from './attribution.ts';
import { hookTable, type HookName } from './declare.ts';
import { createHooks, onBehalf, type Hooks, type RunBase } from './runner.ts';
import { type Trace } from './trace.ts';
import { addSteps, createPlanCollector } from './writer.ts';

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function setUp(defaultDeadline = 1000): { hooks: Hooks; lines: Record<string, unknown>[]; log: Logger } {
  const lines: Record<string, unknown>[] = [];
  const log = pino({}, { write: (line: string) => lines.push(JSON.parse(line) as Record<string, unknown>) });
  return { hooks: createHooks({ log, defaultDeadline }), lines, log };
}
function base(spec: Spec = { ociVersion: '1.2.0' }, asked?: ReadonlyMap<string, string>): RunBase {
  return { container: { id: 'x' } as ContainerRecord, run: { run: 'r' } as RunContext, spec, plan: createPlanCollector(asked ? { asked } : {}) };
}
const shutdown = {} as Record<string, never>;
const container = { id: 'x' } as ContainerRecord;

describe('series hooks', () => {
  it('call taps in order, each with a context of its own', async () => {
    const { hooks, lines } = setUp();
    const seen: string[] = [];
    for (const plugin of ['a', 'b']) {
      hooks.tapFor(plugin)('pause', async (context, value) => {
        await wait(1);
        seen.push(`${context.plugin} ${context.hook} ${value.container.id} ${context.signal.aborted}`);
        context.log.info('hello');
      });
    }
    await hooks.call('pause', { container });
    expect(seen).toEqual(['a pause x false', 'b pause x false']);
    expect(lines.map(({ plugin, hook, msg }) => [plugin, hook, msg])).toEqual([['a', 'pause', 'hello'], ['b', 'pause', 'hello']]);
  });

  it('fail closed: a throw names the plugin and keeps the cause, the rest is not called', async () => {
    const { hooks } = setUp();
    const cause = new TypeError('boom');
    let called = false;
    hooks.tapFor('bad')('pause', () => { throw cause; });
    hooks.tapFor('later')('pause', () => { called = true; });
    await expect(hooks.call('pause', { container })).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', plugin: 'bad', operation: 'pause', cause });
    expect(called).toBe(false);
  });

  it('let errors of the engine through as they are, also those of another copy of it', async () => {
    const { hooks } = setUp();
    const denied = fail('ERR_DENIED', 'no');
    hooks.tapFor('policy')('pause', async () => { throw denied; });
    await expect(hooks.call('pause', { container })).rejects.toBe(denied);
    const other = setUp().hooks;
    const foreign = Object.assign(new Error('no'), { code: 'ERR_DENIED', hint: '' });
    other.tapFor('policy')('pause', () => { throw foreign; });
    await expect(other.call('pause', { container })).rejects.toBe(foreign);
  });

  it('name whoever overruns, and abort its signal', async () => {
    const { hooks } = setUp();
    let reason: unknown;
    hooks.tapFor('slow')('pause', (context) => new Promise<void>((_resolve, reject) => {
      context.signal.addEventListener('abort', () => {
        reason = context.signal.reason;
        reject(new Error('a late failure that nobody hears'));
      });
    }), { deadline: 10 });
    await expect(hooks.call('pause', { container })).rejects.toMatchObject({ code: 'ERR_PLUGIN_TIMEOUT', plugin: 'slow', operation: 'pause', message: 'plugin slow took longer than 10 ms in hook pause' });
    await wait(1);
    expect(reason).toMatchObject({ code: 'ERR_PLUGIN_TIMEOUT' });
  });

  it('give every tap the same value, which none can change', async () => {
    const { hooks } = setUp();
    const request = { verb: 'run', arguments: { image: 'x' }, caller: { uid: 0, pid: 1 }, config: [] };
    hooks.tapFor('bad')('request', (_context, value) => { (value.arguments as { image: string }).image = 'y'; });
    await expect(hooks.call('request', request)).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', plugin: 'bad' });
    expect(Object.isFrozen(request.arguments)).toBe(false);
  });
});

describe('notification hooks', () => {
  it('call every tap, collect and log failures and overruns', async () => {
    const { hooks, lines } = setUp();
    const called: string[] = [];
    hooks.tapFor('a')('shutdown', () => { throw new Error('boom'); });
    hooks.tapFor('b')('shutdown', () => wait(50), { deadline: 5 });
    hooks.tapFor('c')('shutdown', () => { called.push('c'); });
    const failures = await hooks.call('shutdown', shutdown);
    expect(failures).toMatchObject([{ plugin: 'a', error: { code: 'ERR_PLUGIN_FAILED' } }, { plugin: 'b', error: { code: 'ERR_PLUGIN_TIMEOUT' } }]);
    expect(called).toEqual(['c']);
    expect(lines.map((line) => line['plugin'])).toEqual(['a', 'b']);
  });

  it('clean up in reverse order', async () => {
    const { hooks } = setUp();
    for (const plugin of ['a', 'b', 'c']) hooks.tapFor(plugin)('postExitCleanup', () => {});
    expect(hooks.taps('postExitCleanup').map((tap) => tap.plugin)).toEqual(['c', 'b', 'a']);
  });
});

describe('waterfall hooks', () => {
  const spec = (): Spec => ({ ociVersion: '1.2.0', process: { cwd: '/', args: ['sh'], user: { uid: 0 } }, mounts: [{ destination: '/a' }, { destination: '/b' }] });

  it('hand on what a tap returned, frozen, and record who asked', async () => {
    const { hooks } = setUp();
    hooks.tapFor('observer')('configure', () => {});
    hooks.tapFor('one')('configure', (_context, value) => ({ ...value, hostname: 'h', mounts: [...(value.mounts ?? []), { destination: '/c' }] }));
    hooks.tapFor('two')('configure', async (_context, value) => {
      expect(Object.isFrozen(value.mounts?.[2])).toBe(true);
      return { ...value, mounts: (value.mounts ?? []).slice(1), process: { ...value.process, cwd: '/x', user: { uid: 1 } } };
    });
    const original = spec();
    const { value, asked } = await hooks.callWaterfall('configure', original, base());
    expect(value).toEqual({ ...spec(), hostname: 'h', mounts: [{ destination: '/b' }, { destination: '/c' }], process: { cwd: '/x', args: ['sh'], user: { uid: 1 } } });
    expect(original).toEqual(spec());
    expect([...asked].sort()).toEqual([['/hostname', 'one'], ['/mounts/-', 'two'], ['/mounts/1', 'one'], ['/process/cwd', 'two'], ['/process/user/uid', 'two']]);
    expect([whoAsked(asked, '/mounts/1/destination'), whoAsked(asked, '/mounts/0'), whoAsked(asked, '/process/user'), whoAsked(asked, '/mounts')]).toEqual(['one', undefined, 'two', 'one, two']);
  });

  it('refuse an edit in place, and what is not plain data', async () => {
    const { hooks } = setUp();
    hooks.tapFor('editor')('configure', (_context, value) => { value.hostname = 'h'; });
    await expect(hooks.callWaterfall('configure', spec(), base())).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', plugin: 'editor', cause: expect.any(TypeError) as Error });
    const cyclic: Record<string, unknown> = {};
    cyclic['self'] = cyclic;
    for (const value of [{ f: () => {} }, { m: new Map() }, cyclic]) {
      const other = setUp().hooks;
      other.tapFor('odd')('configure', (_context, current) => ({ ...current, annotations: value as unknown as Record<string, string> }));
      await expect(other.callWaterfall('configure', spec(), base())).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', plugin: 'odd', cause: { code: 'ERR_INVALID_VALUE' } });
    }
  });

  it('name each driver for its own part when one tap speaks for several', async () => {
    const { hooks } = setUp();
    hooks.tapFor('core')('configure', async (context, value) => {
      let result = await onBehalf(context, 'security-a', () => ({ ...value, hostname: 'a' }));
      result = await onBehalf(context, 'security-b', async () => ({ ...result, domainname: 'b' }));
      return { ...result, ociVersion: 'c' };
    });
    const { value, asked } = await hooks.callWaterfall('configure', spec(), base());
    expect(value).toMatchObject({ hostname: 'a', domainname: 'b', ociVersion: 'c' });
    expect([...asked].sort()).toEqual([['/domainname', 'security-b'], ['/hostname', 'security-a'], ['/ociVersion', 'core']]);
  });

  it('do not share what they return with the plugin that made it', async () => {
    const { hooks } = setUp();
    const mount = { destination: '/c' };
    hooks.tapFor('one')('configure', (_context, value) => ({ ...value, mounts: [mount] }));
    const { value } = await hooks.callWaterfall('configure', spec(), base());
    mount.destination = '/etc';
    expect(value.mounts).toEqual([{ destination: '/c' }]);
  });

  it('name a key with its pointer escaped, and one that was removed', async () => {
    const { hooks } = setUp();
    hooks.tapFor('one')('configure', (_context, value) => ({ ...value, annotations: { 'a/b~c': 'x' } }));
    hooks.tapFor('two')('configure', ({ spec: _spec }, { process: _process, ...value }) => ({ ...value, annotations: { ...value.annotations, d: 'y' } }));
    const { asked } = await hooks.callWaterfall('configure', spec(), base());
    expect([...asked].sort()).toEqual([['/annotations', 'one'], ['/annotations/d', 'two'], ['/process', 'two']]);
    expect(whoAsked(asked, '/annotations/a~1b~0c')).toBe('one');
  });
});

describe('tapping', () => {
  it('refuses duplicates, unknown hooks and unknown names to run before, and everything after the seal', async () => {
    const { hooks } = setUp();
    const tap = hooks.tapFor('a');
    tap('pause', () => {});
    expect(() => tap('pause', () => {})).toThrow(expect.objectContaining({ code: 'ERR_HOOK_DUPLICATE', plugin: 'a' }) as Error);
    tap('pause', () => {}, { name: 'a second one' });
    expect(() => tap('nothing' as 'pause', () => {})).toThrow(expect.objectContaining({ code: 'ERR_HOOK_UNKNOWN' }) as Error);
    expect(() => tap('toString' as 'pause', () => {})).toThrow(expect.objectContaining({ code: 'ERR_HOOK_UNKNOWN' }) as Error);
    hooks.tapFor('b')('resume', () => {}, { before: 'nobody' });
    expect(() => hooks.seal()).toThrow(expect.objectContaining({ code: 'ERR_HOOK_UNKNOWN', plugin: 'b' }) as Error);
    await expect(hooks.call('resume', { container })).rejects.toMatchObject({ code: 'ERR_HOOK_UNKNOWN' });
    hooks.tapFor('nobody')('resume', () => {});
    hooks.seal();
    expect(() => tap('stats', () => {})).toThrow(expect.objectContaining({ code: 'ERR_HOOK_SEALED' }) as Error);
  });

  it('orders by `before`, whoever comes first', () => {
    const { hooks } = setUp();
    hooks.tapFor('a')('pause', () => {});
    hooks.tapFor('c')('pause', () => {}, { before: 'd' });
    hooks.tapFor('b')('pause', () => {}, { before: 'a' });
    hooks.tapFor('d')('pause', () => {});
    expect(hooks.taps('pause').map((tap) => tap.name)).toEqual(['b', 'a', 'c', 'd']);
  });

  it('has a hook for every line of the table', () => {
    const { hooks } = setUp();
    for (const name of Object.keys(hookTable)) expect(hooks.taps(name as HookName)).toEqual([]);
  });
});

describe('the plan of a run', () => {
  it('collects steps in order, with who wrote and who asked', async () => {
    const { hooks } = setUp();
    const run = base({ ociVersion: '1' }, new Map([['/process/cwd', 'asker']]));
    hooks.tapFor('late')('applyLimits', ({ plan }) => {
      plan.at('/process/cwd').add('init.workdir', op.chdir({ path: '/x' }));
      plan.at('/hostname').add('init.hostname', op.setHostname({ name: 'h' }));
    });
    hooks.tapFor('early')('applyLimits', ({ plan, spec, container: { id } }) => {
      expect([Object.isFrozen(spec), id]).toEqual([true, 'x']);
      plan.add('shim.cgroup', op.mkdir({ path: '/x', mode: 0o755 }), op.rmdir({ path: '/x' }));
    });
    await hooks.call('applyLimits', {}, run);
    expect(run.plan.steps().map(({ slot, origin }) => [slot, origin])).toEqual([
      ['shim.cgroup', { plugin: 'early', hook: 'applyLimits' }],
      ['init.hostname', { plugin: 'late', hook: 'applyLimits', pointer: '/hostname' }],
      ['init.workdir', { plugin: 'late', hook: 'applyLimits', pointer: '/process/cwd', asked: 'asker' }],
    ]);
  });

  it('blames the driver that an adapter speaks for', async () => {
    const { hooks, lines } = setUp();
    hooks.tapFor('core')('prepareRootfs', async (context) => {
      await onBehalf(context, 'storage-x', async (driver) => {
        driver.log.info('working');
        addSteps(driver.plan, [step('shim.rootfs', op.mkdir({ path: '/y', mode: 0o700 }), { none: 'a test' }), step('init.rootfs', op.noNewPrivileges({}))]);
        await Promise.resolve();
      });
      context.plan.add('init.mounts', op.reach({ point: 1 }));
    });
    const run = base();
    await hooks.call('prepareRootfs', {}, run);
    expect(run.plan.steps().map((each) => [each.origin.plugin, each.noUndo])).toEqual([['storage-x', 'a test'], ['storage-x', undefined], ['core', undefined]]);
    expect(lines[0]).toMatchObject({ plugin: 'storage-x' });

    hooks.tapFor('core')('attachNetwork', (context) => onBehalf(context, 'network-x', () => { throw new Error('boom'); }));
    await expect(hooks.call('attachNetwork', { endpoints: [], networks: [], resolvers: [], folder: '/' }, run)).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', plugin: 'network-x' });
    hooks.tapFor('core')('applyLimits', (context) => onBehalf(context, 'cgroup-x', () => wait(50)), { deadline: 5 });
    await expect(hooks.call('applyLimits', {}, run)).rejects.toMatchObject({ code: 'ERR_PLUGIN_TIMEOUT', plugin: 'cgroup-x' });
  });

  it('takes nothing from a tap that has ended, or once it is finished', async () => {
    const { hooks } = setUp();
    let kept: { add(): void } | undefined;
    hooks.tapFor('leaky')('applyLimits', ({ plan }) => { kept = { add: () => plan.add('init.exec', op.reach({ point: 1 })) }; });
    hooks.tapFor('last')('beforeStart', ({ plan }) => { plan.add('init.exec', op.reach({ point: 1 })); });
    const run = base();
    await hooks.call('applyLimits', {}, run);
    expect(() => kept?.add()).toThrow(expect.objectContaining({ code: 'ERR_NOT_SUPPORTED', plugin: 'leaky' }) as Error);
    run.plan.close();
    await expect(hooks.call('beforeStart', { steps: run.plan.steps() }, run)).rejects.toMatchObject({ code: 'ERR_NOT_SUPPORTED', plugin: 'last' });
  });
});

describe('a trace', () => {
  type Told = Parameters<Trace>[0];
  const inOrder = (spans: readonly Told[]): string[] => spans.toSorted((a, b) => (a.begin < b.begin ? -1 : a.begin > b.begin ? 1 : a.end > b.end ? -1 : 1)).map(({ kind, name, details }) => `${kind} ${name}${details?.['plugin'] ? ` (${details['plugin']})` : ''}`);

  it('tells of the hook, each tap by name and plugin, and each driver, within each other', async () => {
    const { hooks } = setUp();
    hooks.tapFor('core')('applyLimits', (context) => onBehalf(context, 'cgroup-x', () => wait(2)), { name: 'cgroup' });
    hooks.tapFor('audit')('applyLimits', () => wait(1));
    const spans: Told[] = [];
    await hooks.call('applyLimits', {}, { ...base(), trace: (span) => spans.push(span) });
    expect(inOrder(spans)).toEqual(['hook applyLimits', 'tap core: cgroup (core)', 'driver cgroup-x (cgroup-x)', 'tap audit (audit)']);
    for (const { track, begin, end } of spans) expect([track, begin <= end]).toEqual(['engine', true]);
    const hook = spans.find(({ kind }) => kind === 'hook');
    for (const { begin, end } of spans) expect(hook && hook.begin <= begin && end <= hook.end).toBe(true);
    const [driver, tap] = ['driver', 'tap'].map((kind) => spans.find((span) => span.kind === kind));
    expect(driver && tap && tap.begin <= driver.begin && driver.end <= tap.end).toBe(true);
  });
  it('tells of a waterfall, and what failed in it and why', async () => {
    const { hooks } = setUp();
    hooks.tapFor('good')('configure', (_, spec) => ({ ...spec, hostname: 'x' }));
    hooks.tapFor('bad')('configure', () => { throw new Error('boom'); });
    const spans: Told[] = [];
    await expect(hooks.callWaterfall('configure', { ociVersion: '1.2.0' }, { ...base(), trace: (span) => spans.push(span) })).rejects.toMatchObject({ plugin: 'bad' });
    expect(inOrder(spans)).toEqual(['hook configure', 'tap good (good)', 'tap bad (bad)']);
    expect(spans.filter(({ details }) => details?.['error'] !== undefined).map(({ name, details }) => [name, details?.['error']])).toEqual([['bad', 'boom']]);
  });
  it('is not asked for: then no time is taken', async () => {
    const { hooks } = setUp();
    hooks.tapFor('a')('applyLimits', () => {});
    const clock = process.hrtime.bigint;
    let taken = 0;
    process.hrtime.bigint = () => (taken++, clock());
    try {
      await hooks.call('applyLimits', {}, base());
      await hooks.callWaterfall('configure', { ociVersion: '1.2.0' }, base());
    } finally {
      process.hrtime.bigint = clock;
    }
    expect(taken).toBe(0);
  });
});
