import { type ContainerView } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { command } from '../command.ts';
import { networkNames } from './network.ts';
import { formatRows, formatTable } from '../output.ts';
import { didYouMean } from '../parse.ts';
import { displayPorts, parsePortRange, type ShownPort } from '../ports.ts';
import { humanDuration, shortId, truncate } from '../text.ts';
import { parseInteger, parseTime, splitOnce } from '../units.ts';

const COLUMNS = { ID: 'CONTAINER ID', Image: 'IMAGE', Command: 'COMMAND', RunningFor: 'CREATED', Status: 'STATUS', Ports: 'PORTS', Names: 'NAMES' };
const MORE = { ...COLUMNS, CreatedAt: 'CREATED AT', State: 'STATE', Label: (name: string) => name, Labels: 'LABELS', Mounts: 'MOUNTS', Networks: 'NETWORKS' };

/** Docker's words: what we call stopped is `exited` there. */
export const dockerState = (view: ContainerView): string => (view.restarts?.next ? 'restarting' : view.state === 'stopped' ? 'exited' : view.state === 'creating' ? 'created' : view.state);

function status(view: ContainerView): string {
  const { record, run, state } = view;
  if (run) return `Up ${humanDuration(Date.now() - Date.parse(run.startedAt))}${state === 'paused' ? ' (Paused)' : ''}`;
  if (!record.lastExit || state === 'created') return 'Created';
  return `${view.restarts?.next ? 'Restarting' : 'Exited'} (${record.lastExit.code}) ${humanDuration(Date.now() - Date.parse(record.lastExit.finishedAt))} ago`;
}

/** Ids of networks, or the mode. */
const networksOf = ({ record }: ContainerView): readonly string[] => (record.networks.length > 0 ? record.networks.map(({ network }) => network) : [record.request.network.split(':', 1)[0] ?? '']);
/** By id; modes stand for themselves. */
type Names = ReadonlyMap<string, string>;

/** What is published, and what is only exposed; nothing of a container that does not run, or has no network of its own. */
function portsOf({ record, endpoints = [] }: ContainerView): ShownPort[] {
  if (endpoints.length === 0) return [];
  const bound = endpoints.flatMap(({ ports }) => ports);
  const exposed = exposedOf(record).filter((port) => !bound.some((b) => b.containerPort === port.containerPort && b.protocol === port.protocol));
  return [...exposed, ...bound];
}
const exposedOf = ({ request, imageConfig }: ContainerView['record']): { readonly containerPort: number; readonly protocol: string }[] =>
  [...new Set([...(request.expose ?? []), ...Object.keys(imageConfig.ExposedPorts ?? {})])].flatMap((text) => {
    // an image may say anything
    const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(text);
    if (!match) return [];
    const [from, to, protocol] = [Number(match[1]), Number(match[2] ?? match[1]), (match[3] ?? 'tcp').toLowerCase()];
    return Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => ({ containerPort: from + i, protocol }));
  });

function row(view: ContainerView, noTrunc: boolean, names: Names): Record<string, unknown> {
  const { record } = view;
  const command_ = (record.spec.process?.args ?? []).map((arg, i) => (i > 0 && arg.includes(' ') ? `'${arg}'` : arg)).join(' ');
  const labels: Record<string, string> = { ...record.imageConfig.Labels, ...record.request.labels };
  return {
    ID: noTrunc ? record.id : shortId(record.id), Image: record.image.name, Command: `"${noTrunc ? command_ : truncate(command_, 20)}"`,
    RunningFor: `${humanDuration(Date.now() - Date.parse(record.created))} ago`, Status: status(view), Ports: displayPorts(portsOf(view)), Names: record.name, CreatedAt: record.created, State: dockerState(view),
    Label: (name: string) => labels[name] ?? '', Labels: Object.entries(labels).map(([k, v]) => `${k}=${v}`).join(','),
    Mounts: record.volumes.map((volume) => volume.name).join(','), Networks: networksOf(view).map((id) => names.get(id) ?? shortId(id)).join(','),
  };
}

type Filter = (view: ContainerView, all: readonly ContainerView[], names: Names) => boolean;
const filters: Readonly<Record<string, (value: string) => Filter>> = {
  id: (value) => (view) => view.record.id.startsWith(value),
  name: (value) => {
    let pattern: RegExp;
    try {
      pattern = new RegExp(value.replace(/^\^?\//, '^'));
    } catch (cause) {
      throw fail('ERR_INVALID_VALUE', `invalid filter name=${value}`, { operation: '--filter', cause });
    }
    return (view) => pattern.test(view.record.name);
  },
  label: (value) => (view) => {
    const [name, wanted] = splitOnce(value, '=');
    const labels: Record<string, string> = { ...view.record.imageConfig.Labels, ...view.record.request.labels };
    return name in labels && (wanted === undefined || labels[name] === wanted);
  },
  status: (value) => {
    if (!['created', 'restarting', 'running', 'removing', 'paused', 'exited', 'dead'].includes(value)) throw fail('ERR_INVALID_VALUE', `invalid filter status=${value}`, { operation: '--filter', hint: 'created, running, restarting, paused or exited' });
    return (view) => dockerState(view) === value;
  },
  exited: (value) => {
    const code = parseInteger('--filter exited', value);
    return (view) => dockerState(view) === 'exited' && view.record.lastExit?.code === code;
  },
  ancestor: (value) => (view) => [view.record.image.id, view.record.image.name, view.record.image.name.replace(/:latest$/, '')].some((name) => name === value) || view.record.image.id.replace('sha256:', '').startsWith(value),
  volume: (value) => (view) => view.record.volumes.some((volume) => volume.name === value || volume.target === value) || view.record.request.mounts.some((mount) => mount.source === value || mount.target === value),
  network: (value) => (view, _all, names) => networksOf(view).some((id) => names.get(id) === value || (value !== '' && id.startsWith(value))),
  publish: (value) => {
    const { from, to, protocol } = parsePortRange('--filter publish', value);
    return ({ record, endpoints = [] }) => [...record.request.ports, ...endpoints.flatMap(({ ports }) => ports)].some((port) => port.protocol === protocol && port.hostPort !== undefined && port.hostPort >= from && port.hostPort <= to);
  },
  expose: (value) => {
    const { from, to, protocol } = parsePortRange('--filter expose', value);
    return ({ record }) => [...exposedOf(record), ...record.request.ports].some((port) => port.protocol === protocol && port.containerPort >= from && port.containerPort <= to);
  },
  before: (value) => (view, all) => created(all, value) > view.record.created,
  since: (value) => (view, all) => created(all, value) < view.record.created,
};

function created(all: readonly ContainerView[], ref: string): string {
  const found = all.find(({ record }) => record.name === ref || record.id.startsWith(ref));
  if (!found) throw fail('ERR_NO_SUCH_CONTAINER', `no such container: ${ref}`, { path: ref });
  return found.record.created;
}

/** Filters of one name are alternatives, different names must all hold (labels: all). */
export function compileFilters(items: readonly string[]): Filter {
  const groups = new Map<string, Filter[]>();
  for (const item of items) {
    const [name, value] = splitOnce(item, '=');
    const make = filters[name];
    if (!make || value === undefined) throw fail('ERR_INVALID_VALUE', `invalid filter "${item}"${didYouMean(name, Object.keys(filters))}`, { operation: '--filter', hint: `NAME=VALUE with one of ${Object.keys(filters).join(' ')}` });
    groups.set(name, [...(groups.get(name) ?? []), make(value)]);
  }
  return (view, all, names) => [...groups].every(([name, list]) => (name === 'label' ? list.every((f) => f(view, all, names)) : list.some((f) => f(view, all, names))));
}

export const psCommand = command({
  name: 'ps', aliases: ['container ls', 'container list', 'container ps'], usage: '[FLAGS]', summary: 'list containers', args: [0, 0],
  flags: {
    all: { type: 'boolean', short: 'a', help: 'those that do not run too' }, filter: { type: 'list', short: 'f', value: 'NAME=VALUE', help: `only those that match: ${Object.keys(filters).join(', ')}` },
    format: { type: 'string', value: 'FORMAT', help: 'json, a Go template, or "table TEMPLATE"' }, last: { type: 'string', short: 'n', value: 'N', help: 'the last N created' },
    latest: { type: 'boolean', short: 'l', help: 'the last created' }, 'no-trunc': { type: 'boolean', help: 'whole ids and commands' }, quiet: { type: 'boolean', short: 'q', help: 'only ids' },
  },
  async run(context, flags) {
    const matches = compileFilters(flags.filter);
    const last = flags.latest ? 1 : flags.last === undefined ? undefined : parseInteger('-n', flags.last, -1);
    const wantsAll = flags.all || last !== undefined || flags.filter.some((item) => /^(status|exited)=/.test(item));
    const engine = await context.open();
    const everyone = await engine.containers.list({ all: true });
    const names: Names = everyone.some(({ record }) => record.networks.length > 0) ? await networkNames(engine) : new Map();
    let views = everyone.filter((view) => (wantsAll || view.run || view.restarts?.next) && matches(view, everyone, names)).sort((a, b) => (a.record.created < b.record.created ? 1 : -1));
    if (last !== undefined && last >= 0) views = views.slice(0, last);
    const rows = views.map((view) => row(view, flags['no-trunc'], names));
    if (flags.quiet) await context.print(rows.map((r) => `${String(r['ID'])}\n`).join(''));
    else if (flags.format) await context.print(formatRows(rows, flags.format, MORE));
    else await context.print(formatTable(rows, COLUMNS));
    return 0;
  },
});

export const logsCommand = command({
  name: 'logs', usage: '[FLAGS] CONTAINER', summary: 'show what a container has written', args: [1, 1],
  flags: {
    follow: { type: 'boolean', short: 'f', help: 'go on until it ends' }, since: { type: 'string', value: 'TIME', help: 'only later: a time, or 10m for the last ten minutes' }, until: { type: 'string', value: 'TIME', help: 'only earlier' },
    tail: { type: 'string', short: 'n', value: 'N', help: 'only the last N lines (all)' }, timestamps: { type: 'boolean', short: 't', help: 'with the time of each line' },
  },
  async run(context, flags, [ref = '']) {
    const tail = flags.tail === undefined || flags.tail === 'all' || /^-\d+$/.test(flags.tail) ? {} : { tail: parseInteger('--tail', flags.tail) };
    const since = flags.since === undefined ? {} : { since: parseTime('--since', flags.since) };
    const until = flags.until === undefined ? {} : { until: parseTime('--until', flags.until) };
    const engine = await context.open();
    const { stdout, stderr } = context.invocation;
    const stop = new AbortController();
    stdout.once('error', () => stop.abort());
    context.invocation.signal?.addEventListener('abort', () => stop.abort());
    for await (const line of engine.containers.logs(ref, { follow: flags.follow, ...tail, ...since, ...until, signal: stop.signal })) {
      const out = line.stream === 'stderr' ? stderr : stdout;
      const data = flags.timestamps ? Buffer.concat([Buffer.from(`${line.time} `), line.text]) : line.text;
      const done = await new Promise<boolean>((resolve) => out.write(data, (error) => resolve(!error)));
      if (!done) break;
    }
    return 0;
  },
});
