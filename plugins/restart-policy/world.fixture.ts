import { type ContainerRecord, type ContainerView, type Engine } from '@engine/core/api';
import { type DriverDeps, type PluginState } from '@engine/core/contracts/common';
import { fail } from '@engine/core/errors';
import { createRestartPolicy, type Clock, type RestartPolicy } from './driver.ts';
import { type Policy } from './policy.ts';

/** Time that passes when told so. */
function fakeClock(): Clock & { pass(ms: number): Promise<void>; pending(): number } {
  let now = Date.parse('2026-01-01T00:00:00Z');
  const timers = new Set<{ at: number; work(): void }>();
  const settle = async (): Promise<void> => { for (let i = 0; i < 50; i++) await Promise.resolve(); };
  return {
    now: () => now,
    after(ms, work) {
      const timer = { at: now + ms, work };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    async pass(ms) {
      const end = now + ms;
      await settle();
      for (;;) {
        const [first] = [...timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
        if (!first) break;
        timers.delete(first);
        now = Math.max(now, first.at);
        first.work();
        await settle();
      }
      now = end;
    },
    pending: () => timers.size,
  };
}

function fakeState(): PluginState {
  const rows = new Map<string, string>();
  return {
    get: (key) => (rows.has(key) ? (JSON.parse(rows.get(key) ?? '') as unknown) : undefined),
    set: (key, value) => void rows.set(key, JSON.stringify(value)),
    delete: (key) => void rows.delete(key),
    list: (prefix = '') => [...rows].filter(([key]) => key.startsWith(prefix)).map(([key, value]) => ({ key, value: JSON.parse(value) as unknown })),
  };
}

/** One root: containers, and the engines that look after them. */
export function world() {
  const clock = fakeClock();
  const state = fakeState();
  const containers = new Map<string, { record: ContainerRecord; run?: string; since: number }>();
  const engines = new Set<RestartPolicy>();
  const starts: { readonly id: string; readonly at: number }[] = [];
  let runs = 0;
  let boot = 'boot-1';
  let broken: string | undefined;
  /** While a container is on its way up. */
  let meanwhile: (() => void) | undefined;
  const born = clock.now();

  const box = (id: string) => {
    const found = containers.get(id);
    if (!found) throw fail('ERR_NO_SUCH_CONTAINER', `no such container: ${id}`);
    return found;
  };
  const view = (id: string, policy?: RestartPolicy): ContainerView => {
    const { record, run } = box(id);
    const restarts = policy?.restarts(record, run !== undefined);
    return { record, state: run !== undefined ? 'running' : record.starts > 0 ? 'stopped' : 'created', ...(restarts && { restarts }) };
  };
  const start = (policy: RestartPolicy, id: string): void => {
    const found = box(id);
    if (found.run !== undefined) throw fail('ERR_ALREADY_RUNNING', 'running already');
    const run = `run${++runs}`;
    let facts: unknown = found.record.plugins?.['restart-policy'];
    policy.starting({ container: found.record, run: { run, explain: false } as never, record: { get: () => facts, set: (value) => { facts = value; } } });
    meanwhile?.();
    if (broken !== undefined) throw new Error(broken);
    starts.push({ id, at: clock.now() - born });
    Object.assign(found, { run, since: clock.now(), record: { ...found.record, starts: found.record.starts + 1, plugins: { 'restart-policy': facts } } });
  };
  /** Its program ends, or is ended. `told`: who hears of it. */
  const end = (id: string, code: number, told: Iterable<RestartPolicy> = engines): void => {
    const found = box(id);
    const exit = { run: found.run ?? '', code, startedAt: new Date(found.since).toISOString(), finishedAt: new Date(clock.now()).toISOString() };
    delete found.run;
    found.record = { ...found.record, lastExit: exit };
    for (const policy of told) policy.exited(found.record);
  };
  const ask = (policy: RestartPolicy, id: string, verb: 'stop' | 'kill' | 'restart', signal = 15): void => {
    const { record, run } = box(id);
    policy.stopping({ container: record, verb, signal, ...(run !== undefined && { run }) });
  };
  return {
    clock, containers, starts, start, end, ask, state,
    set broken(value: string | undefined) { broken = value; },
    set meanwhile(value: (() => void) | undefined) { meanwhile = value; },
    reboot() { boot = 'boot-2'; },
    make(id: string, policy: Policy['policy'], maximum = 0): string {
      containers.set(id, { since: 0, record: { id, name: id, starts: 0, request: { restart: { policy, maximum } }, imageConfig: {} } as unknown as ContainerRecord });
      return id;
    },
    update(policy: RestartPolicy, id: string, restart: Policy) {
      const found = box(id);
      found.record = { ...found.record, request: { ...found.record.request, restart } };
      policy.updating(found.record);
    },
    engine(): RestartPolicy {
      const api = {
        containers: {
          resolve: async (id: string) => view(id, policy), list: async () => [...containers.keys()].map((id) => view(id, policy)),
          start: async (id: string) => {
            await Promise.resolve();
            start(policy, id);
            return { detach() {} };
          },
          stop: async (id: string) => {
            ask(policy, id, 'stop');
            if (box(id).run !== undefined) end(id, 143);
          },
        },
      } as unknown as Engine;
      const policy = createRestartPolicy({ machine: { read: () => boot }, log: { info() {}, warn() {}, error() {} }, state } as unknown as DriverDeps, { engine: async () => api, clock });
      engines.add(policy);
      return policy;
    },
    close(policy: RestartPolicy) {
      engines.delete(policy);
      policy.close();
    },
    count: (policy: RestartPolicy, id: string) => view(id, policy).restarts?.count,
    next: (policy: RestartPolicy, id: string) => view(id, policy).restarts?.next,
    isUp: (id: string) => box(id).run !== undefined,
  };
}
