import { type Socket } from 'node:net';
import type { MessageBus } from 'dbus-native';

/** systemd on the bus: <org.freedesktop.systemd1(5)>. */
export const SYSTEMD = { name: 'org.freedesktop.systemd1', path: '/org/freedesktop/systemd1', manager: 'org.freedesktop.systemd1.Manager', unit: 'org.freedesktop.systemd1.Unit' } as const;

/** One call of a method on systemd's manager or one of its units. */
export interface Call {
  readonly path?: string;
  readonly interface?: string;
  readonly member: string;
  readonly signature?: string;
  readonly body?: readonly unknown[];
  readonly signal?: AbortSignal;
}
/** A connection to systemd. */
export interface Bus {
  /** Errors: the library's, with `dbusName` where systemd has answered. */
  call<T = unknown>(call: Call): Promise<T>;
  /** A job is over: its path and result. */
  onJob(listener: (job: string, result: string) => void): void;
  /** Resolves once nobody can be called any more. */
  readonly closed: Promise<void>;
  close(): Promise<void>;
}
/** `direct`: systemd itself listens there, not a bus. */
export interface BusAddress { readonly socket: string; readonly direct: boolean }

/**
 * systemd's own socket first, as systemctl does for root: one hop less, and it is there without a bus daemon. Then the system bus.
 */
export const ADDRESSES: readonly BusAddress[] = [
  { socket: '/run/systemd/private', direct: true },
  { socket: '/run/dbus/system_bus_socket', direct: false },
];

/** A bus that does not answer at all is not waited for. */
const CONNECT_MS = 10_000;

/** Errors: those of the socket and of the handshake. */
async function connect({ socket, direct }: BusAddress): Promise<Bus> {
  const { createClient } = await import('dbus-native');
  const bus: MessageBus = createClient({ socket, direct, authMethods: ['EXTERNAL'], fdTransport: false });
  const { connection } = bus;
  const closed = Promise.withResolvers<void>();
  const connected = Promise.withResolvers<void>();
  const late = setTimeout(() => connected.reject(new Error(`${socket} does not answer`)), CONNECT_MS);
  connection.on('connect', () => connected.resolve());
  connection.on('error', (error: Error) => connected.reject(error));
  connection.on('end', () => closed.resolve());
  connection.on('close', (error?: Error) => {
    connected.reject(error ?? new Error(`${socket} was closed`));
    closed.resolve();
  });
  // neither a bus nor a peer that misbehaves may end the engine
  connection.on('handlerError', () => {});
  try {
    await connected.promise;
  } catch (error) {
    connection.end();
    throw error;
  } finally {
    clearTimeout(late);
  }
  if (!direct) await bus.addMatch(MATCH);
  const socketOf = (): Partial<Pick<Socket, 'ref' | 'unref'>> => connection.stream as Partial<Socket>;
  socketOf().unref?.();
  let pending = 0;
  const call = async <T>({ path = SYSTEMD.path, interface: name = SYSTEMD.manager, signal, body, ...message }: Call): Promise<T> => {
    // an engine that waits for nothing but this answer must not end
    if (pending++ === 0) socketOf().ref?.();
    try {
      return await bus.invoke<T>(
        { destination: SYSTEMD.name, path, interface: name, ...message, ...(body && { body: [...body] }) },
        { timeout: 0, ...(signal && { signal }) },
      );
    } finally {
      if (--pending === 0) socketOf().unref?.();
    }
  };
  return {
    call,
    onJob: (listener) => void bus.signals.on(bus.mangle(SYSTEMD.path, SYSTEMD.manager, 'JobRemoved'), ([, job, , result]: [number, string, string, string]) => listener(job, result)),
    closed: closed.promise,
    // nobody is to wait for the other side's end: nothing else may keep this process
    async close() {
      connection.stream.destroy();
      await closed.promise;
    },
  };
}

/** The first that answers, and told to say when jobs are over. Errors: an AggregateError of what each said. */
export async function connectBus(addresses: readonly BusAddress[] = ADDRESSES): Promise<Bus> {
  const errors: unknown[] = [];
  for (const address of addresses) {
    try {
      const bus = await connect(address);
      await bus.call({ member: 'Subscribe' });
      return bus;
    } catch (error) {
      errors.push(error);
    }
  }
  throw new AggregateError(errors, errors.map((error) => (error instanceof Error ? error.message : String(error))).join('; '));
}
const MATCH = `type='signal',sender='${SYSTEMD.name}',path='${SYSTEMD.path}',interface='${SYSTEMD.manager}',member='JobRemoved'`;
