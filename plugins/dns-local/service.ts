import { defineService, type ServiceContext } from '@engine/core/plugin';
import { addressKey } from './address.ts';
import { createForwarder } from './forward.ts';
import { createListener, type Listener } from './listener.ts';
import { createResolver } from './resolver.ts';
import { createHostResolvers, parseUpstreams } from './resolvers.ts';
import { createStore } from './store.ts';
import { createZone } from './zone.ts';

/** Options of the plugin. */
export interface Options {
  readonly resolvers?: readonly string[];
}
/** Longest time that the start waits for its sockets; an address may not be there yet, ms. */
const PATIENCE = 100;

/** Answers names on the gateways of all networks that its folder tells of. */
export async function serveNames({ serviceFolder, options, log, socketsChanged = () => {} }: Pick<ServiceContext<Options>, 'serviceFolder' | 'options' | 'log' | 'socketsChanged'>): Promise<{ stop(): Promise<void> }> {
  const zone = createZone();
  const listeners = new Map<string, Listener>();
  let own: ReadonlySet<string> = new Set();
  const isOwn = (key: string): boolean => own.has(key);
  const listed = parseUpstreams(options.resolvers ?? []);
  for (const text of options.resolvers ?? []) if (parseUpstreams([text]).length === 0) log.warn(`not a name server: ${text}`);
  const host = createHostResolvers();

  const listen = (): void => {
    const wanted = new Map<string, { readonly network: string; readonly address: string }>(zone.networks().flatMap(({ id, gateways }) => gateways.map((address) => [`${id} ${address}`, { network: id, address }] as const)));
    own = new Set([...wanted.values()].flatMap(({ address }) => addressKey(address) ?? []));
    for (const [key, listener] of listeners) {
      if (wanted.has(key)) continue;
      listeners.delete(key);
      void listener.close();
    }
    for (const [key, { network, address }] of wanted) if (!listeners.has(key)) listeners.set(key, createListener({ network, address, resolve, log, onSockets: socketsChanged }));
  };
  const resolve = createResolver({
    zone,
    forwarder: createForwarder({ isOwn }),
    upstreams: listed.length > 0 ? () => listed : host,
    refresh: () => store.refresh(),
    isOwn,
    log,
  });
  const store = createStore(serviceFolder, zone, () => listen());
  listen();
  for (const end = Date.now() + PATIENCE; [...listeners.values()].some(({ bound }) => !bound) && Date.now() < end; ) await new Promise((done) => setTimeout(done, 5));
  return {
    async stop() {
      store.close();
      await Promise.all([...listeners.values()].map((listener) => listener.close()));
      listeners.clear();
    },
  };
}

export default defineService<Options>({ start: serveNames });
