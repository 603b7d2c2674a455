import { mkdtempSync, rmSync } from 'node:fs';
import { type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import dbus, { type DBusConnection, type Message } from 'dbus-native';
import { describe, expect, it } from 'vitest';
import { connectBus, SYSTEMD, type Bus, type Call } from './bus.ts';
import { createScopeHandler } from './scope.ts';
import { createSystemd, type ScopeRequest } from './systemd.ts';

const dbusError = (name: string, text: string): Error => Object.assign(new Error(text), { dbusName: name });
const EXISTS = dbusError('org.freedesktop.systemd1.UnitExists', 'Unit x.scope already exists.');
const LOST = dbusError('org.freedesktop.DBus.Error.NoReply', 'Remote peer disconnected');

/** A bus on which `answer` is systemd: what it returns is the result of the job, what it throws the error. */
function fakeBus(answer: (call: Call, say: (job: string, result: string) => void) => unknown): Bus & { end(): void } {
  let say: (job: string, result: string) => void = () => {};
  const closed = Promise.withResolvers<void>();
  return {
    async call<T>(call: Call): Promise<T> {
      return answer(call, say) as T;
    },
    onJob: (listener) => void (say = listener),
    closed: closed.promise,
    close: async () => closed.resolve(),
    end: () => closed.resolve(),
  };
}
const request: ScopeRequest = { unit: 'x.scope', properties: [['TasksMax', 't', 'infinity'], ['IODeviceWeight', 'a(st)', [['/dev/x', '7']]], ['PIDs', 'au', [42]]], isPlaced: () => false };
const soon = (run: () => void): void => void setTimeout(run, 5);
const patient = (): AbortSignal => AbortSignal.timeout(10_000);
const only = (bus: Bus) => createSystemd(async () => bus);

describe('a scope', () => {
  it('is asked for with its properties, and waited for', async () => {
    const calls: Call[] = [];
    await only(fakeBus((call, say) => {
      calls.push(call);
      soon(() => say('/job/1', 'done'));
      return '/job/1';
    })).startScope(request, patient());
    expect(calls).toMatchObject([{ member: 'StartTransientUnit', body: ['x.scope', 'fail', [['TasksMax', ['t', 2n ** 64n - 1n]], ['IODeviceWeight', ['a(st)', [['/dev/x', 7n]]]], ['PIDs', ['au', [42]]]], []] }]);
  });
  it('may be there before its job is known, and the word of it may be lost', async () => {
    await only(fakeBus((_call, say) => {
      say('/job/1', 'done');
      return '/job/1';
    })).startScope(request, patient());
    await only(fakeBus(({ member }) => (member === 'Get' ? 'active' : '/job/1'))).startScope(request, patient());
  });
  it('that cannot be made says why in systemd\'s words', async () => {
    const refused = only(fakeBus(() => { throw dbusError('org.freedesktop.DBus.Error.AccessDenied', 'Access denied'); })).startScope(request, patient());
    await expect(refused).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', message: 'systemd did not make scope x.scope: Access denied', operation: 'StartTransientUnit', path: 'x.scope', cause: { message: 'Access denied' } });
    const failed = only(fakeBus((_call, say) => (soon(() => say('/job/1', 'failed')), '/job/1'))).startScope(request, patient());
    await expect(failed).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', message: expect.stringContaining('its job ended as failed') as string, hint: expect.stringContaining('journalctl -u x.scope') as string });
  });
  it('of a name that is about to go is waited for, but not for ever', async () => {
    let times = 0;
    await only(fakeBus((_call, say) => {
      if (++times < 3) throw EXISTS;
      soon(() => say('/job/1', 'done'));
      return '/job/1';
    })).startScope(request, patient());
    expect(times).toBe(3);
    await expect(only(fakeBus(() => { throw EXISTS; })).startScope(request, patient())).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', message: expect.stringContaining('already exists') as string, hint: expect.stringContaining('another run') as string });
  });
  it('is asked for again when the answer was lost, unless it has been made', async () => {
    let times = 0;
    await only(fakeBus((_call, say) => {
      if (++times === 1) throw LOST;
      soon(() => say('/job/2', 'done'));
      return '/job/2';
    })).startScope(request, patient());
    expect(times).toBe(2);
    let placed = false;
    await only(fakeBus(() => {
      placed = true;
      throw LOST;
    })).startScope({ ...request, isPlaced: () => placed }, patient());
    // systemd executes itself anew while the job is waited for
    const opened: ReturnType<typeof fakeBus>[] = [];
    await createSystemd(async () => {
      const bus: ReturnType<typeof fakeBus> = fakeBus((_call, say) => (soon(() => (opened.length === 1 ? bus.end() : say('/job/3', 'done'))), '/job/3'));
      opened.push(bus);
      return bus;
    }).startScope(request, patient());
    expect(opened).toHaveLength(2);
  });
  it('is not waited for longer than the barrier lasts', async () => {
    await expect(only(fakeBus(() => '/job/1')).startScope(request, AbortSignal.timeout(30))).rejects.toMatchObject({ code: 'ERR_TIMEOUT', hint: expect.stringContaining('systemctl') as string });
  });
  it('has nobody to make it where nobody answers', async () => {
    await expect(createSystemd(() => connectBus([{ socket: '/nonexistent/private', direct: true }, { socket: '/nonexistent/bus', direct: false }])).startScope(request, patient())).rejects.toMatchObject({ code: 'ERR_DRIVER_UNAVAILABLE', message: expect.stringMatching(/ENOENT.*private.*ENOENT.*bus/) as string });
  });
});

describe('the barrier', () => {
  const input = { unit: 'x.scope', folder: 'system.slice/x.scope', properties: [] };
  const systemd = { startScope: async () => {}, close: async () => {} };
  it('passes when the shim is where it is to be', async () => {
    const asked: ScopeRequest[] = [];
    await createScopeHandler({ ...systemd, startScope: async (one) => void asked.push(one) }, () => '0::/system.slice/x.scope\n')({ input, pid: 42, signal: patient() });
    expect(asked).toMatchObject([{ unit: 'x.scope', properties: [['PIDs', 'au', [42]]] }]);
  });
  it('says when it is not', async () => {
    await expect(createScopeHandler(systemd, () => '1:name=systemd:/\n0::/elsewhere\n')({ input, pid: 42, signal: patient() })).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', message: expect.stringContaining('into /elsewhere, not into /system.slice/x.scope') as string });
  });
});

describe('a connection', () => {
  it('speaks to systemd itself, ends with it, and is made again', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'engine-bus-'));
    const seen: string[] = [];
    let ends: (() => void)[] = [];
    let [serial, number] = [1000, 0];
    const { server } = dbus.createServer((connection: DBusConnection) => {
      ends.push(() => void connection.stream.destroy());
      const send = (message: Message): void => void connection.message({ serial: serial++, ...message });
      connection.on('message', ({ member = '', serial: replySerial = 0, body = [] }) => {
        seen.push(member);
        if (member === 'Subscribe') return send({ type: 2, replySerial });
        if (body[0] === 'bad.scope') return send({ type: 3, replySerial, errorName: 'org.freedesktop.DBus.Error.InvalidArgs', signature: 's', body: ['Unit name is not valid.'] });
        const job = `/org/freedesktop/systemd1/job/${++number}`;
        send({ type: 2, replySerial, signature: 'o', body: [job] });
        send({ type: 4, path: SYSTEMD.path, interface: SYSTEMD.manager, member: 'JobRemoved', signature: 'uoss', body: [number, job, 'x.scope', 'done'] });
      });
    }) as unknown as { readonly server: Server };
    const socket = join(folder, 'private');
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      const systemd = createSystemd(() => connectBus([{ socket: join(folder, 'none'), direct: true }, { socket, direct: true }]));
      await Promise.all([systemd.startScope(request, patient()), systemd.startScope(request, patient())]);
      await expect(systemd.startScope({ ...request, unit: 'bad.scope' }, patient())).rejects.toMatchObject({ message: expect.stringContaining('Unit name is not valid.') as string });
      expect(seen).toEqual(['Subscribe', 'StartTransientUnit', 'StartTransientUnit', 'StartTransientUnit']);
      for (const end of ends) end();
      ends = [];
      await systemd.startScope(request, patient());
      expect(ends).toHaveLength(1);
      await systemd.close();
    } finally {
      server.close();
      rmSync(folder, { recursive: true });
    }
  });
});
