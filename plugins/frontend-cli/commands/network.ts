import { type Engine, type NetworkInfo } from '@engine/core/api';
import { type EndpointWish, type NetworkRecord } from '@engine/core/contracts/network';
import { fail, isEngineError } from '@engine/core/errors';
import { command } from '../command.ts';
import { askYes } from '../confirm.ts';
import { refused } from '../exit-one.ts';
import { parseAlias, parseDriverOption, parseIp, parseMac } from '../network-flag.ts';
import { parsePools } from '../network-pools.ts';
import { formatRows, formatTable } from '../output.ts';
import { parsePort } from '../ports.ts';
import { shortId } from '../text.ts';
import { parsePairs, parseTime, splitOnce } from '../units.ts';

export const networkCreateCommand = command({
  name: 'network create', usage: '[FLAGS] NETWORK', summary: 'make a network', args: [1, 1],
  flags: {
    attachable: { type: 'boolean', help: "accepted for Docker's sake: every network is" },
    'aux-address': { type: 'list', value: 'NAME=IP', help: 'an address that somebody else has' },
    driver: { type: 'string', short: 'd', value: 'NAME', help: 'network driver (bridge)' },
    gateway: { type: 'list', value: 'IP', help: "the host's address on it" },
    internal: { type: 'boolean', help: 'no way out of it and none in' },
    'ip-range': { type: 'list', value: 'CIDR', help: 'give addresses out of this part of the subnet only' },
    ipv6: { type: 'boolean', help: 'IPv6 too' },
    label: { type: 'list', value: 'NAME[=VALUE]', help: 'set a label' },
    opt: { type: 'list', short: 'o', value: 'NAME=VALUE', help: 'option of the driver, e.g. mtu=1400' },
    subnet: { type: 'list', value: 'CIDR', help: 'its addresses; one of IPv4 and one of IPv6 at most' },
  },
  async run(context, flags, [name = '']) {
    if (flags.attachable) context.warn('--attachable means nothing here: containers can be attached to every network');
    return refused(async () => {
      const pools = parsePools(flags);
      const { record } = await (await context.open()).networks.create({
        name, ...(flags.driver === undefined ? {} : { driver: flags.driver }), pools, internal: flags.internal, ipv6: flags.ipv6 || pools.some(({ subnet }) => subnet?.includes(':')),
        labels: parsePairs('--label', flags.label), options: parsePairs('-o', flags.opt),
      });
      await context.print(`${record.id}\n`);
      return 0;
    });
  },
});

type Test = (info: NetworkInfo) => boolean;
const labelTest = (value: string): Test => {
  const [label, text] = splitOnce(value, '=');
  return ({ record: { labels } }) => label in labels && (text === undefined || labels[label] === text);
};
const truth = (name: string, value: string): boolean => {
  if (/^(1|t|true)$/i.test(value)) return true;
  if (/^(0|f|false)$/i.test(value)) return false;
  throw fail('ERR_INVALID_VALUE', `invalid filter '${name}=${value}'`, { operation: '--filter' });
};
const listTests: Readonly<Record<string, (value: string) => Test>> = {
  name: (value) => ({ record }) => record.name.includes(value),
  id: (value) => ({ record }) => record.id.includes(value),
  driver: (value) => ({ record }) => record.drivers.network.driver === value,
  label: labelTest,
  scope: (value) => () => value === 'local',
  type: (value) => {
    if (value !== 'custom' && value !== 'builtin') throw fail('ERR_INVALID_VALUE', `invalid filter: 'type'='${value}'`, { operation: '--filter', hint: 'custom or builtin' });
    return ({ record }) => record.predefined === (value === 'builtin');
  },
  dangling: (value) => {
    const wanted = truth('dangling', value);
    return ({ record, containers }) => (!record.predefined && containers.length === 0) === wanted;
  },
};
const pruneTests: Readonly<Record<string, (value: string) => Test>> = {
  until: (value) => {
    const until = parseTime('--filter until', value).toISOString();
    return ({ record }) => record.created < until;
  },
  label: labelTest,
  'label!': (value) => (info) => !labelTest(value)(info),
};

/** Filters of one name are alternatives, labels and different names must all hold. */
function compile(items: readonly string[], known: Readonly<Record<string, (value: string) => Test>>): Test {
  const groups = new Map<string, Test[]>();
  for (const item of items) {
    const [name, value] = item.includes('!=') ? [`${splitOnce(item, '!=')[0]}!`, splitOnce(item, '!=')[1]] : splitOnce(item, '=');
    const make = known[name];
    if (!make || value === undefined) throw fail('ERR_INVALID_VALUE', `invalid filter '${item}'`, { operation: '--filter', hint: `NAME=VALUE with one of ${Object.keys(known).join(' ')}` });
    groups.set(name, [...(groups.get(name) ?? []), make(value)]);
  }
  return (info) => [...groups].every(([name, tests]) => (name.startsWith('label') ? tests.every((test) => test(info)) : tests.some((test) => test(info))));
}

export const networkListCommand = command({
  name: 'network ls', aliases: ['network list'], usage: '[FLAGS]', summary: 'list networks', args: [0, 0],
  flags: {
    filter: { type: 'list', short: 'f', value: 'NAME=VALUE', help: `only those that match: ${Object.keys(listTests).join(', ')}` }, format: { type: 'string', value: 'FORMAT', help: 'json, a Go template, or "table TEMPLATE"' },
    'no-trunc': { type: 'boolean', help: 'whole ids' }, quiet: { type: 'boolean', short: 'q', help: 'only ids' },
  },
  run: (context, flags) => refused(async () => {
    const test = compile(flags.filter, listTests);
    const networks = (await (await context.open()).networks.list()).filter(test).sort((a, b) => (a.record.name < b.record.name ? -1 : 1));
    const rows = networks.map(({ record }) => ({
      ID: flags['no-trunc'] ? record.id : shortId(record.id), Name: record.name, Driver: record.drivers.network.driver, Scope: 'local', CreatedAt: record.created, IPv4: String(record.pools.some(({ family }) => family === 4)), IPv6: String(record.ipv6), Internal: String(record.internal),
      Labels: Object.entries(record.labels).map(([name, value]) => `${name}=${value}`).join(','), Label: (name: string) => record.labels[name] ?? '',
    }));
    const columns = { ID: 'NETWORK ID', Name: 'NAME', Driver: 'DRIVER', Scope: 'SCOPE' };
    const more = { ...columns, CreatedAt: 'CREATED AT', IPv4: 'IPV4', IPv6: 'IPV6', Internal: 'INTERNAL', Labels: 'LABELS', Label: (name: string) => name };
    if (flags.quiet) await context.print(rows.map((row) => `${row.ID}\n`).join(''));
    else await context.print(flags.format && flags.format !== 'table' ? formatRows(rows, flags.format, more) : formatTable(rows, columns));
    return 0;
  }),
});

export const networkRemoveCommand = command({
  name: 'network rm', aliases: ['network remove'], usage: '[FLAGS] NETWORK...', summary: 'remove networks', args: [1, Infinity], flags: { force: { type: 'boolean', short: 'f', help: 'a missing one is no error' } },
  async run(context, flags, refs) {
    const engine = await context.open();
    return context.forEach(refs, (ref) => refused(async () => {
      try {
        await engine.networks.remove(ref);
      } catch (error) {
        if (flags.force && isEngineError(error, 'ERR_NO_SUCH_NETWORK')) return;
        throw error;
      }
      await context.print(`${ref}\n`);
    }));
  },
});

export const networkPruneCommand = command({
  name: 'network prune', usage: '[FLAGS]', summary: 'remove all networks that no container is on', args: [0, 0],
  flags: { all: { type: 'boolean', short: 'a', help: "the engine's own default network too; it is made again when it is needed" }, filter: { type: 'list', value: 'NAME=VALUE', help: 'only those that match: until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE]' }, force: { type: 'boolean', short: 'f', help: 'do not ask' } },
  run: (context, flags) => refused(async () => {
    const test = compile(flags.filter, pruneTests);
    if (!flags.force && !(await askYes(context, 'WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] '))) return 1;
    const names = await (await context.open()).networks.prune({ filter: (record: NetworkRecord) => test({ record, containers: [] }), predefined: flags.all });
    if (names.length > 0) await context.print(`Deleted Networks:\n${names.map((name) => `${name}\n`).join('')}\n`);
    return 0;
  }),
});

export const networkConnectCommand = command({
  name: 'network connect', usage: '[FLAGS] NETWORK CONTAINER', summary: 'connect a container with a network, running or not', args: [2, 2],
  flags: {
    alias: { type: 'list', value: 'NAME', help: 'another name of it there' }, 'driver-opt': { type: 'list', value: 'NAME=VALUE', help: 'option for the driver' },
    ip: { type: 'string', value: 'ADDRESS', help: 'its IPv4 address' }, ip6: { type: 'string', value: 'ADDRESS', help: 'its IPv6 address' }, 'mac-address': { type: 'string', value: 'MAC', help: 'its MAC address' },
  },
  run: (context, flags, [network = '', container = '']) => refused(async () => {
    const options = Object.fromEntries(flags['driver-opt'].map((text) => parseDriverOption('--driver-opt', text)));
    const wish: Omit<EndpointWish, 'network'> = {
      aliases: flags.alias.map((text) => parseAlias('--alias', text)), ...(flags.ip === undefined ? {} : { ip: parseIp('--ip', 4, flags.ip) }), ...(flags.ip6 === undefined ? {} : { ip6: parseIp('--ip6', 6, flags.ip6) }),
      ...(flags['mac-address'] === undefined ? {} : { mac: parseMac('--mac-address', flags['mac-address']) }), ...(flags['driver-opt'].length ? { options } : {}),
    };
    await (await context.open()).networks.connect(network, container, wish);
    return 0;
  }),
});

export const networkDisconnectCommand = command({
  name: 'network disconnect', usage: '[FLAGS] NETWORK CONTAINER', summary: 'take a container off a network', args: [2, 2], flags: { force: { type: 'boolean', short: 'f', help: 'also when it cannot be undone in the container itself' } },
  run: (context, flags, [network = '', container = '']) => refused(async () => {
    await (await context.open()).networks.disconnect(network, container, { force: flags.force });
    return 0;
  }),
});

export const networkWhyCommand = command({
  name: 'network why', usage: 'PORT[/PROTO]', summary: 'say who can reach a published port, and by which rule', args: [1, 1], flags: {},
  run: (context, _flags, [text = '']) => refused(async () => {
    const { port, protocol } = parsePort('network why', text);
    const lines = await (await context.open()).networks.why(port, text.includes('/') ? protocol : undefined);
    await context.print(lines.map((line) => `${line}\n`).join(''));
    return 0;
  }),
});

/** Names of networks by their ids, where anybody wants to see them. */
export async function networkNames(engine: Engine): Promise<ReadonlyMap<string, string>> {
  return new Map((await engine.networks.list()).map(({ record }) => [record.id, record.name]));
}
