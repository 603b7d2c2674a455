import { type Span } from '@engine/core/api';
import { visible } from '@engine/core/errors';
import { extent, failed, layOut, waits, type Lane, type Placed, type Trace } from './trace-layout.ts';
import { createScale, duration, type Scale } from './trace-scale.ts';
import { style } from './trace-style.ts';

/** Colours that the style sheet has for plugins. */
const COLOURS = 12;
/** Sizes of the overview in its own units; it is scaled to the width of the page. */
const WIDTH = 1200;
const LEFT = 64;
const ROW = 17;
const RULER = 22;
const LETTER = 6.3;
/** Letters of a path that are shown in a table. */
const LONGEST_PATH = 44;

const text = (value: string): string => visible(value, true).replaceAll(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const percent = (part: number): string => `${(part * 100).toFixed(3)}%`;

/** Class of a bar: by plugin for what plugins did, by kind for the rest. */
type Colour = (span: Span) => string;
function colours(spans: readonly Span[]): { readonly of: Colour; readonly plugins: readonly (readonly [plugin: string, colour: string])[] } {
  const plugins = [...new Set(spans.flatMap(({ details }) => details?.['plugin'] ?? []))].map((plugin, i) => [plugin, plugin === 'core' ? 'core' : `c${i % COLOURS}`] as const);
  const known = new Map(plugins);
  const of = (span: Span): string => {
    const plugin = span.details?.['plugin'];
    const own = plugin === undefined ? span.kind : `${known.get(plugin) ?? ''} ${span.kind}`;
    return `${own}${waits(span) ? ' waits' : ''}${failed(span) ? ' failed' : ''}`;
  };
  return { of, plugins };
}

/** Everything that is known of a span, for who points at it. */
function hover({ span, own }: Placed, zero: bigint): string {
  const { name, kind, track, details = {} } = span;
  const rest = Object.entries(details).filter(([key]) => key !== 'index' && key !== 'waits').map(([key, value]) => `${key}: ${value}`);
  const took = span.end - span.begin;
  return text([`${name} (${kind}, ${track})`, `${duration(took)} from ${duration(span.begin - zero)}${own < took ? `, ${duration(own)} of it its own` : ''}`, ...rest].join('\u0000')).replaceAll('\\u0000', '&#10;');
}

const flat = (value: number): string => value.toFixed(2);

/** All tracks under one ruler, bars within bars. */
function overview(lanes: readonly Lane[], scale: Scale, zero: bigint, colour: Colour): string {
  const x = (part: number): number => LEFT + part * (WIDTH - LEFT - 4);
  const out: string[] = [];
  const bands: string[] = [];
  let y = RULER;
  for (const { track, number, spans } of lanes) {
    const rows = Math.max(...spans.map(({ depth }) => depth)) + 1;
    bands.push(`<rect class="band" x="0" y="${y}" width="${WIDTH}" height="${rows * ROW + 3}"/><text class="track" x="4" y="${y + 13}">${number === 0 ? text(track) : ''}</text>`);
    for (const placed of spans) {
      const { span, depth } = placed;
      const from = x(scale.at(span.begin));
      const width = Math.max(0.6, x(scale.at(span.end)) - from);
      const letters = Math.floor((width - 6) / LETTER);
      const name = span.name.length <= letters ? span.name : letters > 3 ? `${span.name.slice(0, letters - 1)}…` : '';
      const label = name ? `<text x="${flat(from + 3)}" y="${y + depth * ROW + 13}">${text(name)}</text>` : '';
      out.push(`<a href="#s${placed.number}"><g class="${colour(span)}"><title>${hover(placed, zero)}</title><rect x="${flat(from)}" y="${y + depth * ROW + 2}" width="${flat(width)}" height="${ROW - 2}" rx="1.5"/>${label}</g></a>`);
    }
    y += rows * ROW + 7;
  }
  const free = scale.ticks.filter(({ at }) => scale.cuts.every(({ from, to }) => Math.abs(at - (from + to) / 2) > 0.09));
  const grid = free.map(({ at, label }) => `<line class="tick" x1="${flat(x(at))}" y1="16" x2="${flat(x(at))}" y2="${y}"/><text class="tick" x="${flat(x(at))}" y="12" text-anchor="${at > 0.97 ? 'end' : at < 0.01 ? 'start' : 'middle'}">${label}</text>`).join('');
  const cuts = scale.cuts.map(({ from, to, length }) => `<g><title>${duration(length)} in which only the program ran, cut out</title><rect class="cut" x="${flat(x(from))}" y="${RULER}" width="${flat(x(to) - x(from))}" height="${y - RULER}"/><text class="tick" x="${flat((x(from) + x(to)) / 2)}" y="12" text-anchor="middle">≈ ${duration(length)} ≈</text></g>`).join('');
  return `<svg viewBox="0 0 ${WIDTH} ${y}" role="img" aria-label="all tracks over time">${bands.join('')}${grid}${out.join('\n')}${cuts}</svg>`;
}

/** The path or plugin that tells one line from its neighbours. */
function about({ details = {} }: Span): string {
  const { path, slot, pointer, plugin, hook, error } = details;
  const subject = path ?? pointer;
  const what = [
    slot?.slice(slot.indexOf('.') + 1) ?? (hook === undefined ? undefined : `in ${hook}`),
    // what tells paths apart is their end
    subject !== undefined && subject.length > LONGEST_PATH ? `…${subject.slice(-LONGEST_PATH)}` : subject,
  ].filter((each) => each !== undefined);
  return `${plugin === undefined ? '' : `<b>${text(plugin)}</b> `}${text(what.join(' · '))}${error === undefined ? '' : ` <em>${text(error)}</em>`}`;
}

/** One line per span, each with its bar on the scale of the lane. */
function waterfall({ track, number, spans }: Lane, zero: bigint, colour: Colour): string {
  const { begin, end } = extent(spans.map(({ span }) => span));
  const scale = createScale(begin, end, zero, spans.map(({ span }) => span), 5);
  const ticks = scale.ticks.map(({ at, label }) => (at > 0.96 ? '' : `<i style="left:${percent(at)}">${label}</i>`)).join('');
  const cuts = scale.cuts.map(({ from, to, length }) => `<u title="${duration(length)} in which only the program ran, cut out" style="left:${percent(from)};width:${percent(to - from)}"></u>`).join('');
  const rows = spans.map((placed) => {
    const { span, depth } = placed;
    const [from, to] = [scale.at(span.begin), scale.at(span.end)];
    const bar = `<s class="${colour(span)}" style="left:${percent(Math.min(from, 0.998))};width:${percent(to - from)}"></s>`;
    return `<tr id="s${placed.number}"${failed(span) ? ' class="failed"' : ''} title="${hover(placed, zero)}"><td class="name" style="padding-left:${8 + depth * 14}px">${text(span.name)}</td><td class="n">${(Number(span.begin - zero) / 1e6).toFixed(3)}</td><td class="n">${duration(span.end - span.begin)}</td><td class="bar">${cuts}${bar}</td><td class="about">${about(span)}</td></tr>`;
  });
  return `<h2>${text(track)}${number === 0 ? '' : ` (${number + 1})`} <small>${spans.length} spans, ${duration(end - begin)}</small></h2>
<table class="waterfall"><thead><tr><th>what</th><th class="n">from ms</th><th class="n">took</th><th class="bar">${ticks}</th><th>by</th></tr></thead><tbody>
${rows.join('\n')}
</tbody></table>`;
}

/** What took longest by itself: without what lies within it, and without waiting for others. */
function longest(lanes: readonly Lane[], zero: bigint, colour: Colour): string {
  const all = lanes.flatMap(({ spans }) => spans).filter(({ span }) => !waits(span));
  const top = all.sort((a, b) => (a.own < b.own ? 1 : a.own > b.own ? -1 : 0)).slice(0, 10);
  const most = Number(top[0]?.own ?? 1n) || 1;
  const rows = top.map((placed) => {
    const { span, own, number } = placed;
    return `<tr title="${hover(placed, zero)}"><td class="name"><a href="#s${number}">${text(span.name)}</a></td><td>${text(span.track)}</td><td class="n">${duration(own)}</td><td class="bar"><s class="${colour(span)}" style="left:0;width:${percent(Number(own) / most)}"></s></td><td class="about">${about(span)}</td></tr>`;
  });
  return `<h2>Longest <small>own time, without what lies within</small></h2>
<table class="longest"><thead><tr><th>what</th><th>track</th><th class="n">own</th><th class="bar"></th><th>by</th></tr></thead><tbody>
${rows.join('\n')}
</tbody></table>`;
}

function legend(lanes: readonly Lane[], plugins: readonly (readonly [string, string])[]): string {
  const spans = lanes.flatMap((lane) => lane.spans);
  const entry = (colour: string, name: string, hint = ''): string => `<li><s class="${colour}"></s>${text(name)}${hint ? ` <small>${hint}</small>` : ''}</li>`;
  const kinds = [entry('engine', 'phase'), entry('engine waits', 'waiting for another track'), entry('hook', 'hook'), ...(spans.some(({ span }) => failed(span)) ? [entry('failed', 'failed')] : [])];
  const byPlugin = plugins.map(([plugin, colour]) => {
    const own = spans.filter(({ span }) => span.details?.['plugin'] === plugin).reduce((sum, each) => sum + each.own, 0n);
    return entry(colour, plugin, duration(own));
  });
  return `<ul class="legend">${kinds.join('')}</ul><ul class="legend">${byPlugin.join('')}</ul>`;
}

/** A page of its own: no script, nothing from elsewhere. */
export function traceHtml(trace: Trace): string {
  const { spans, title, error, version, startedAt } = trace;
  const { begin, end } = extent(spans);
  const lanes = layOut(spans);
  const { of: colour, plugins } = colours(spans);
  const operations = spans.filter(({ kind }) => kind === 'operation').length;
  return `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/><meta name="viewport" content="width=device-width"/>
<title>${text(title)}</title>
<style>${style}</style></head>
<body>
<h1><code>${text(title)}</code></h1>
<p><strong>${duration(end - begin)}</strong> in all, ${spans.length} spans, ${operations} operations; engine ${text(version)}, ${text(startedAt)}</p>
${error === undefined ? '' : `<p class="error">${text(error)}</p>`}
${legend(lanes, plugins)}
${overview(lanes, createScale(begin, end, begin, spans), begin, colour)}
${longest(lanes, begin, colour)}
${lanes.map((lane) => waterfall(lane, begin, colour)).join('\n')}
</body></html>
`;
}
