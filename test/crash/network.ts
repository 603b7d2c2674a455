import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { type ContainerRequest, type Engine, type NetworkRequest } from '@engine/core/api';
import { entries } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';
import { request, type Files, type Scenario } from './scenario.ts';

const network = (name: string): NetworkRequest => ({ name, pools: [], internal: false, ipv6: true, labels: {}, options: {} });
const hasNetwork = async (engine: Engine, name: string): Promise<boolean> => (await engine.networks.list()).some(({ record }) => record.name === name);
const ensureNetwork = async (engine: Engine, name: string): Promise<void> => {
  if (!(await hasNetwork(engine, name))) await engine.networks.create(network(name));
};
const ensure = async (engine: Engine, over: Partial<ContainerRequest>): Promise<void> => {
  if ((await engine.containers.list({ all: true })).length === 0) await engine.containers.create(request(over));
};
const isRunning = async (engine: Engine): Promise<boolean> => (await engine.containers.resolve('cc')).state === 'running';
async function runs(engine: Engine, over: Partial<ContainerRequest>): Promise<void> {
  await ensure(engine, over);
  if (!(await isRunning(engine))) (await engine.containers.start('cc')).detach();
}
function agree(condition: boolean, what: string): void {
  if (!condition) throw new Error(`neither the state before nor the state after: ${what}`);
}
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
/** Links in the container's network namespace. */
const linksOf = (pid: number): string[] => execFileSync('nsenter', [`--net=/proc/${pid}/ns/net`, 'ip', '-o', 'link'], { encoding: 'utf8' }).split('\n').filter(Boolean).map((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? '');

/** To its end and again: nothing of the run that was cut off is in the way, neither its port nor its address. */
const whole = (over: (files: Files) => Partial<ContainerRequest>, ...networks: string[]): Scenario => ({
  async before(engine, files) {
    for (const name of networks) await ensureNetwork(engine, name);
    await ensure(engine, over(files));
  },
  async verb(engine) {
    const session = await engine.containers.start('cc');
    await session.exit;
    await session.gone;
  },
  async check(engine) {
    const { state } = await engine.containers.resolve('cc');
    agree(state !== 'running' || (await engine.containers.wait('cc')).code === 0, 'it runs to its end');
    const session = await engine.containers.start('cc');
    agree((await session.exit).code === 0, 'the next run is whole');
    await session.gone;
  },
});
const ports = ({ port }: Files): ContainerRequest['ports'] => [{ hostPort: port, containerPort: 80, protocol: 'tcp' }, { hostAddress: '127.0.0.1', hostPort: port + 100, containerPort: 53, protocol: 'udp' }];
const sleeping: Partial<ContainerRequest> = { command: ['sleep', '1000'], network: 'one', endpoints: [{ network: 'one', aliases: ['first'] }] };

/** Is the wish to be on `two` kept exactly when the container has the link? */
async function connected(engine: Engine): Promise<boolean> {
  const { record, run } = await engine.containers.resolve('cc');
  const { record: { id } } = await engine.networks.resolve('two');
  const wished = record.networks.some((wish) => wish.network === id);
  if (run) agree(linksOf(run.pid).includes('eth1') === wished, `a link of ${wished ? 'a wish' : 'none'}: ${linksOf(run.pid).join(' ')}`);
  return wished;
}

export const networkScenarios: Readonly<Record<string, Scenario>> = {
  'bridge with ports': whole((files) => ({ command: ['true'], network: 'bridge', ports: ports(files) })),
  'two networks with names': whole((files) => ({ command: ['true'], network: 'one', endpoints: [{ network: 'one', aliases: ['a', 'b'] }, { network: 'two', aliases: [] }], ports: ports(files) }), 'one', 'two'),
  'network create': {
    before: async (engine) => {
      if (await hasNetwork(engine, 'made')) await engine.networks.remove('made');
    },
    verb: async (engine) => void (await engine.networks.create(network('made'))),
    async check(engine) {
      if (!(await hasNetwork(engine, 'made'))) return;
      const { id } = await engine.containers.create(request({ name: 'on-made', command: ['true'], network: 'made' }));
      const session = await engine.containers.start(id);
      agree((await session.exit).code === 0, 'a network that is there works');
      await session.gone;
      await engine.containers.remove(id, { force: true, volumes: true });
      await engine.networks.remove('made');
    },
  },
  'network rm': {
    before: (engine) => ensureNetwork(engine, 'goes'),
    verb: async (engine) => void (await engine.networks.remove('goes')),
    async check(engine) {
      if (!(await hasNetwork(engine, 'goes'))) return;
      const { id } = await engine.containers.create(request({ name: 'on-goes', command: ['true'], network: 'goes' }));
      const session = await engine.containers.start(id);
      agree((await session.exit).code === 0, 'a network that is there still works');
      await session.gone;
      await engine.containers.remove(id, { force: true, volumes: true });
    },
  },
  'network connect': {
    async before(engine) {
      for (const name of ['one', 'two']) await ensureNetwork(engine, name);
      await runs(engine, sleeping);
      if (await connected(engine)) await engine.networks.disconnect('two', 'cc', { force: false });
    },
    verb: (engine) => engine.networks.connect('two', 'cc', { aliases: ['second'] }),
    check: async (engine) => void (await connected(engine)),
  },
  'network disconnect': {
    async before(engine) {
      for (const name of ['one', 'two']) await ensureNetwork(engine, name);
      await runs(engine, sleeping);
      if (!(await connected(engine))) await engine.networks.connect('two', 'cc', { aliases: ['second'] });
    },
    verb: (engine) => engine.networks.disconnect('two', 'cc', { force: false }),
    check: async (engine) => void (await connected(engine)),
  },
};

const isVeth = (name: string): boolean => /^v\d+-/.test(name);

/** What of networks nobody accounts for; `quiet`: no container runs. */
export async function networkLeftOver(engine: Engine, { runRoot, instance, quiet }: { readonly runRoot: string; readonly instance: string; readonly quiet: boolean }): Promise<string[]> {
  const networks = await engine.networks.list();
  const kept = new Set(networks.map(({ record }) => record.id));
  // by alias: the instance, and the network's or the run's id
  const links = (): { ifname: string; ifalias: string }[] => (JSON.parse(ip('-j', 'link')) as { ifname: string; ifalias?: string }[]).flatMap(({ ifname, ifalias }) => (ifalias?.includes(instance) ? [{ ifname, ifalias }] : []));
  const problems = links().filter(({ ifname, ifalias }) => !isVeth(ifname) && ![...kept].some((id) => ifalias.includes(id.slice(0, 12)))).map(({ ifname, ifalias }) => `bridge ${ifname} (${ifalias})`);
  for (const plugin of entries(runRoot)) {
    problems.push(...entries(join(runRoot, plugin, 'networks')).filter((name) => ![...kept].some((id) => name.startsWith(id.slice(0, 12)))).map((name) => `file ${plugin}/networks/${name}`));
  }
  if (!quiet) return problems;
  const gone = await until('veths to be gone', () => !links().some(({ ifname }) => isVeth(ifname)), 5000).catch(() => false);
  if (!gone) problems.push(...links().filter(({ ifname }) => isVeth(ifname)).map(({ ifname, ifalias }) => `veth ${ifname} (${ifalias})`));
  for (const { record, containers } of networks) problems.push(...containers.flatMap(({ id, endpoint }) => (endpoint ? [`lease ${endpoint.addresses.map(({ address }) => address).join(' ')} of ${id} on ${record.name}`] : [])));
  for (const plugin of entries(runRoot)) for (const folder of ['containers', 'bindings']) problems.push(...entries(join(runRoot, plugin, folder)).map((name) => `file ${plugin}/${folder}/${name}`));
  return [...problems, ...bindings(instance).map((element) => `rule ${element}`)];
}

/** Published ports in maps of our table. */
function bindings(instance: string): string[] {
  if (!execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' }).includes(instance)) return [];
  const { nftables } = JSON.parse(execFileSync('nft', ['-j', 'list', 'table', 'inet', instance], { encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'ignore'] })) as { nftables: { map?: { name: string; elem?: unknown[] } }[] };
  return nftables.flatMap(({ map }) => (map?.elem ?? []).filter((element) => JSON.stringify(element).includes('concat')).map((element) => `${map?.name ?? ''} ${JSON.stringify(element)}`));
}
