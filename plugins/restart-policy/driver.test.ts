import { type ContainerRecord } from '@engine/core/api';
import { isEngineError } from '@engine/core/errors';
import { describe, expect, it } from 'vitest';
import { type RestartPolicy } from './driver.ts';
import { checkPolicy, nextDelay, wantsRestart, type Policy } from './policy.ts';
import { world } from './world.fixture.ts';

describe('a policy', () => {
  it.each<[Policy['policy'], number, boolean]>([
    ['no', 1, false], ['always', 0, true], ['always', 1, true], ['unless-stopped', 0, true], ['unless-stopped', 1, true], ['on-failure', 0, false], ['on-failure', 1, true],
  ])('%s after exit %i: %s', async (name, code, again) => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', name));
    w.end('c', code);
    await w.clock.pass(1000);
    expect([w.isUp('c'), w.starts.length]).toEqual(again ? [true, 2] : [false, 1]);
  });
  it('must make sense, at creation and in update', () => {
    expect(() => checkPolicy({ autoRemove: true })).not.toThrow();
    expect(() => checkPolicy({ restart: { policy: 'on-failure', maximum: 3 }, autoRemove: false })).not.toThrow();
    expect(() => checkPolicy({ restart: { policy: 'always', maximum: 1 }, autoRemove: false })).toThrow("maximum retry count cannot be used with restart policy 'always'");
    expect(() => checkPolicy({ restart: { policy: 'on-failure', maximum: -1 }, autoRemove: false })).toThrow('cannot be negative');
    const w = world();
    const policy = w.engine();
    const request = { restart: { policy: 'always', maximum: 0 }, autoRemove: true };
    expect(() => policy.creating({ verb: 'create', arguments: { request }, caller: { uid: 0, pid: 1 }, config: [] })).toThrow('--restart and --rm');
    w.make('c', 'always');
    expect(() => w.update(policy, 'c', { policy: 'no', maximum: 3 })).toThrow("restart policy 'no'");
  });
  it('counts failures up to N', () => {
    const three: Policy = { policy: 'on-failure', maximum: 3 };
    expect([0, 1, 2, 3, 4].map((count) => wantsRestart(three, true, count))).toEqual([true, true, true, false, false]);
  });
  it('on-failure:3 tries three times, and the count stays to be seen', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', 'on-failure', 3));
    for (let i = 0; i < 6; i++) {
      if (w.isUp('c')) w.end('c', 1);
      await w.clock.pass(60_000);
    }
    expect([w.starts.length, w.count(policy, 'c'), w.next(policy, 'c')]).toEqual([4, 3, undefined]);
    expect(policy.needed()).toEqual([]);
    w.start(policy, 'c');
    expect(w.count(policy, 'c')).toBe(0);
  });
});

describe('back-off', () => {
  it('doubles from 100 ms to a minute, and starts over after a run of ten seconds', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', 'always'));
    const waits: number[] = [];
    for (let i = 0; i < 12; i++) {
      const ended = w.clock.now();
      w.end('c', 0);
      const next = Date.parse(w.next(policy, 'c') ?? '') || (await w.clock.pass(0), Date.parse(w.next(policy, 'c') ?? ''));
      waits.push(next - ended);
      await w.clock.pass(next - ended);
      expect(w.isUp('c')).toBe(true);
    }
    expect(waits).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
    await w.clock.pass(10_000);
    const ended = w.clock.now();
    w.end('c', 0);
    await w.clock.pass(0);
    expect(Date.parse(w.next(policy, 'c') ?? '') - ended).toBe(100);
    expect([nextDelay(0), nextDelay(100), nextDelay(60_000), nextDelay(60_000, 9999), nextDelay(60_000, 10_000)]).toEqual([100, 200, 60_000, 60_000, 100]);
  });
  it('is shown with the time of the next start and why an engine is needed', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', 'always'));
    await w.clock.pass(1500);
    expect(policy.needed()).toEqual(['container c is to be started again when it ends']);
    w.end('c', 1);
    await w.clock.pass(50);
    expect(policy.needed()).toEqual(['container c waits for its next start']);
    expect([w.next(policy, 'c'), w.count(policy, 'c')]).toEqual([new Date(w.clock.now() + 50).toISOString(), 1]);
    await w.clock.pass(50);
    expect([w.next(policy, 'c'), w.count(policy, 'c')]).toEqual([undefined, 1]);
  });
  it('ends when somebody starts the container, and counts anew', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', 'always'));
    for (let i = 0; i < 4; i++) {
      w.end('c', 1);
      await w.clock.pass(i < 3 ? 10_000 - 1 : 10);
    }
    w.start(policy, 'c');
    await w.clock.pass(60_000);
    expect([w.starts.length, w.count(policy, 'c')]).toEqual([5, 0]);
    w.end('c', 1);
    await w.clock.pass(100);
    expect([w.starts.length, w.count(policy, 'c')]).toEqual([6, 1]);
  });
  it('ends with a removal', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', 'always'));
    w.end('c', 1);
    await w.clock.pass(0);
    await expect(policy.removing({ verb: 'remove', arguments: { container: 'c' }, caller: { uid: 0, pid: 1 }, config: [] })).rejects.toThrow('it is restarting');
    w.containers.delete('c');
    await w.clock.pass(60_000);
    expect([w.starts.length, policy.needed(), w.clock.pending(), w.state.list()]).toEqual([1, [], 0, []]);
  });
});

describe('what a user stops', () => {
  it.each(['always', 'unless-stopped', 'on-failure'] as const)('stays down with %s, running or waiting, in this engine and the next', async (name) => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', name));
    w.ask(policy, 'c', 'stop');
    w.end('c', 143);
    await w.clock.pass(120_000);
    expect(w.starts).toHaveLength(1);
    w.start(policy, 'c');
    w.end('c', 1);
    await w.clock.pass(50);
    expect(w.next(policy, 'c')).toBeDefined();
    w.ask(policy, 'c', 'stop');
    expect([w.next(policy, 'c'), policy.needed()]).toEqual([undefined, []]);
    w.close(policy);
    const later = w.engine();
    later.takeUp();
    await w.clock.pass(120_000);
    expect(w.starts).toHaveLength(2);
    // what was stopped once runs under its policy again when it is started
    w.start(later, 'c');
    w.end('c', 1);
    await w.clock.pass(1000);
    expect(w.starts).toHaveLength(4);
  });
  it('by kill: with a signal that ends, not with one that asks for something else; restart does not count', async () => {
    const w = world();
    const policy = w.engine();
    for (const [signal, again] of [[9, false], [15, false], [2, false], [1, true], [10, true]] as const) {
      w.start(policy, w.make(`c${signal}`, 'always'));
      w.ask(policy, `c${signal}`, 'kill', signal);
      w.end(`c${signal}`, 128 + signal);
      await w.clock.pass(1000);
      expect([signal, w.isUp(`c${signal}`)]).toEqual([signal, again]);
    }
    w.start(policy, w.make('r', 'unless-stopped'));
    w.ask(policy, 'r', 'restart');
    w.end('r', 143);
    await w.clock.pass(1000);
    expect(w.isUp('r'), 'restart starts it itself').toBe(false);
    w.start(policy, 'r');
    expect(w.count(policy, 'r')).toBe(0);
    // an engine that dies between the two halves of restart leaves the second to the policy
    w.ask(policy, 'r', 'restart');
    w.end('r', 143);
    await w.clock.pass(10_000);
    expect([w.isUp('r'), w.count(policy, 'r')]).toEqual([true, 0]);
  });
  it('while it is on its way up', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', 'always'));
    w.end('c', 1);
    w.meanwhile = () => w.ask(policy, 'c', 'stop');
    await w.clock.pass(120_000);
    expect([w.isUp('c'), w.starts.length, policy.needed()]).toEqual([false, 2, []]);
  });
  it('by another engine, while it waits here', async () => {
    const w = world();
    const [here, there] = [w.engine(), w.engine()];
    w.start(here, w.make('c', 'always'));
    w.end('c', 1, [here]);
    await w.clock.pass(50);
    w.ask(there, 'c', 'stop');
    await w.clock.pass(120_000);
    expect(w.starts).toHaveLength(1);
  });
});

describe('several engines, late and doubled news', () => {
  it('start once', async () => {
    const w = world();
    const engines = [w.engine(), w.engine(), w.engine()];
    const [first] = engines as [RestartPolicy];
    w.start(first, w.make('c', 'always'));
    for (const policy of engines) policy.takeUp();
    await w.clock.pass(1000);
    for (let i = 0; i < 3; i++) {
      w.end('c', 1);
      const { record } = w.containers.get('c') ?? {};
      for (const policy of engines) if (record) { policy.exited(record); policy.exited(record); }
      await w.clock.pass(10_000);
      expect([w.starts.length, w.count(first, 'c')]).toEqual([i + 2, i === 0 ? 1 : i + 1]);
    }
  });
  it('a container that ends at once is not started by two who waited for the same', async () => {
    const w = world();
    const [here, there] = [w.engine(), w.engine()];
    w.start(here, w.make('c', 'on-failure', 2));
    w.end('c', 1);
    await w.clock.pass(99);
    // both are about to; the program of the first is over before the second has the lock
    const before = w.starts.length;
    const watch = setInterval(() => {}, 1000);
    await w.clock.pass(1);
    if (w.isUp('c')) w.end('c', 1);
    await w.clock.pass(0);
    clearInterval(watch);
    expect(w.starts.length - before).toBe(1);
    await w.clock.pass(120_000);
    if (w.isUp('c')) w.end('c', 1);
    await w.clock.pass(120_000);
    expect([w.starts.length, w.count(there, 'c')]).toEqual([3, 2]);
  });
  it('news of an old end changes nothing of a container that runs', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', 'always'));
    w.end('c', 1);
    const old = w.containers.get('c')?.record;
    await w.clock.pass(1000);
    if (old) policy.exited(old);
    await w.clock.pass(120_000);
    expect(w.starts).toHaveLength(2);
  });
});

describe('the next engine', () => {
  it('goes on with the wait, the count and the back-off of a dead one', async () => {
    const w = world();
    const dead = w.engine();
    w.start(dead, w.make('c', 'always'));
    for (let i = 0; i < 5; i++) {
      w.end('c', 1);
      await w.clock.pass(i < 4 ? 5000 : 600);
    }
    expect(w.starts).toHaveLength(5);
    w.close(dead);
    await w.clock.pass(200);
    const policy = w.engine();
    policy.takeUp();
    await w.clock.pass(799);
    expect(w.isUp('c')).toBe(false);
    await w.clock.pass(1);
    expect([w.isUp('c'), w.count(policy, 'c')]).toEqual([true, 5]);
    const ended = w.clock.now();
    w.end('c', 1);
    await w.clock.pass(0);
    expect(Date.parse(w.next(policy, 'c') ?? '') - ended).toBe(3200);
  });
  it('decides about an end that nobody was told of, and leaves alone what runs', async () => {
    const w = world();
    const dead = w.engine();
    for (const id of ['ended', 'runs', 'done']) w.start(dead, w.make(id, id === 'done' ? 'on-failure' : 'always'));
    w.close(dead);
    w.end('ended', 0, []);
    w.end('done', 0, []);
    const policy = w.engine();
    policy.takeUp();
    await w.clock.pass(5000);
    expect([w.starts.map(({ id }) => id).slice(3), w.isUp('runs'), policy.needed().length]).toEqual([['ended'], true, 2]);
  });
  it('takes over a start that was begun and never came to anything', async () => {
    const w = world();
    const dead = w.engine();
    w.start(dead, w.make('c', 'always'));
    w.end('c', 1);
    await w.clock.pass(0);
    w.state.set('next/c', { ...(w.state.get('next/c') as object), claim: { run: 'never', at: w.clock.now() } });
    w.close(dead);
    const policy = w.engine();
    policy.takeUp();
    await w.clock.pass(30_000);
    expect(w.starts).toHaveLength(1);
    await w.clock.pass(35_000);
    expect(w.starts).toHaveLength(2);
  });
  it('after a reboot starts always, unless-stopped unless it was stopped, on-failure as a failure', async () => {
    const w = world();
    const dead = w.engine();
    dead.takeUp();
    await w.clock.pass(1000);
    const names = ['always', 'unless-stopped', 'on-failure'] as const;
    for (const name of names) for (const how of ['ran', 'stopped']) w.start(dead, w.make(`${name} ${how}`, name));
    w.make('never started', 'always');
    for (const name of names) {
      w.ask(dead, `${name} stopped`, 'stop');
      w.end(`${name} stopped`, 143);
    }
    await w.clock.pass(1000);
    w.close(dead);
    w.reboot();
    for (const name of names) w.end(`${name} ran`, 137, []);
    const policy = w.engine();
    policy.takeUp();
    await w.clock.pass(5000);
    expect([...w.containers.keys()].filter((id) => w.isUp(id))).toEqual(['always ran', 'always stopped', 'unless-stopped ran', 'on-failure ran']);
    // and only once
    w.ask(policy, 'always stopped', 'stop');
    w.end('always stopped', 143);
    w.close(policy);
    w.engine().takeUp();
    await w.clock.pass(5000);
    expect(w.isUp('always stopped')).toBe(false);
  });
});

describe('a start that fails', () => {
  it('is a try, with its reason, and the last one of on-failure is the end', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('a', 'always'));
    w.start(policy, w.make('f', 'on-failure', 2));
    w.broken = 'its volume is gone';
    w.end('a', 1);
    w.end('f', 1);
    await w.clock.pass(100);
    expect(policy.restarts(w.containers.get('a')?.record as ContainerRecord, false)).toEqual({ count: 2, next: new Date(w.clock.now() + 200).toISOString(), error: 'its volume is gone' });
    await w.clock.pass(200);
    expect([w.count(policy, 'a'), w.count(policy, 'f'), w.next(policy, 'f')]).toEqual([3, 2, undefined]);
    expect(policy.restarts(w.containers.get('f')?.record as ContainerRecord, false)?.error).toBe('its volume is gone');
    w.broken = undefined;
    await w.clock.pass(60_000);
    expect([w.isUp('a'), w.count(policy, 'a'), w.isUp('f')]).toEqual([true, 3, false]);
  });
  it('of a user is told to the user, and tried no more', async () => {
    const w = world();
    const policy = w.engine();
    w.make('c', 'always');
    w.broken = 'no such program';
    try {
      w.start(policy, 'c');
    } catch (error) {
      expect(isEngineError(error)).toBe(false);
    }
    w.broken = undefined;
    await w.clock.pass(180_000);
    expect([w.starts, policy.needed()]).toEqual([[], []]);
  });
});

describe('a change of policy', () => {
  it('is for what will end, not for what has ended; no policy ends the wait', async () => {
    const w = world();
    const policy = w.engine();
    w.start(policy, w.make('c', 'no'));
    w.end('c', 1);
    w.update(policy, 'c', { policy: 'always', maximum: 0 });
    await w.clock.pass(60_000);
    expect(w.starts).toHaveLength(1);
    w.start(policy, 'c');
    w.end('c', 1);
    await w.clock.pass(1000);
    expect(w.starts).toHaveLength(3);
    w.end('c', 1);
    await w.clock.pass(50);
    w.update(policy, 'c', { policy: 'no', maximum: 0 });
    await w.clock.pass(60_000);
    expect([w.starts.length, w.state.list('next/')]).toEqual([3, []]);
  });
});
