/** Tables of the docs that are made from code: `node test/docs/render.ts` rewrites them; a test holds them against the code. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { catalogue } from '@engine/core/errors';
import { hookTable } from '@engine/core/hooks';
import { operations, slots, type OperationEntry } from '@engine/core/plan';
import { kernelFeatures, type KernelFeature } from '../../config/kernel/features.ts';

const root = join(import.meta.dirname, '..', '..');
const cell = (text: string): string => text.replaceAll('|', '\\|');

function errors(): string {
  const rows = Object.entries(catalogue).map(([code, { summary, hint, exitCode }]) => `| \`${code}\` | ${cell(summary)} | ${cell(hint)} | ${exitCode} |`);
  return ['| code | meaning | hint | exit code |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

function hooks(): string {
  const names = Object.keys(hookTable);
  const rows = Object.entries(hookTable).map(([name, { kind, when }], i) => `| \`${name}\` | ${kind} | ${cell(when)} | ${names[i + 1] ? `\`${names[i + 1]}\`` : ''} |`);
  return ['| hook | kind | when | next |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

function plan(): string {
  const places = Object.entries(slots).map(([part, names]) => `| \`${part}\` | ${names.map((name) => `\`${name}\``).join(' ')} |`);
  const rows = Object.entries(operations as Record<string, OperationEntry>).map(
    ([name, { code, changes, doc, fields }]) => `| ${code} | \`${name}\` | ${Object.entries(fields).map(([field, type]) => `\`${field}: ${type}\``).join(' ')} | ${changes ? 'yes' : ''} | ${cell(doc)} |`,
  );
  return ['| part | slots, in order |', '| --- | --- |', ...places, '', '| code | operation | fields | changes | meaning |', '| --- | --- | --- | --- | --- |', ...rows].join('\n');
}

const tested: Readonly<Record<KernelFeature['tested'], string>> = {
  'always there': '', old: 'made to fail', '6.1': 'on 6.1', unit: 'with made-up files', v1: 'on cgroup v1', machine: 'on machines without it', reasoned: 'reasoned',
};
function kernels(): string {
  const rows = kernelFeatures.map(({ name, since, use, users, without, asked, tested: where }) => `| ${cell(name)} | ${since.join('.')} | ${cell(use)} | ${users.map((user) => `\`${user}\``).join(' ')} | ${cell(without)} | ${asked} | ${tested[where]} |`);
  return ['| feature | since | what for | used by | without it | `doctor` asks by | the other way is tested |', '| --- | --- | --- | --- | --- | --- | --- |', ...rows].join('\n');
}

/** File and what stands in it between the two markers. */
export const rendered: readonly (readonly [file: string, table: () => string])[] = [['docs/errors.md', errors], ['docs/hooks.md', hooks], ['docs/plan.md', plan], ['docs/kernels.md', kernels]];
const BEGIN = '<!-- made from code: begin -->\n';
const END = '<!-- made from code: end -->';

/** What stands before, between and after the markers. */
function split(file: string): [before: string, between: string, after: string] {
  const text = readFileSync(join(root, file), 'utf8');
  const from = text.indexOf(BEGIN) + BEGIN.length;
  const to = text.indexOf(END);
  return [text.slice(0, from), text.slice(from, to), text.slice(to)];
}
export const current = (file: string): string => split(file)[1].trimEnd();

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const [file, table] of rendered) {
    const [before, , after] = split(file);
    writeFileSync(join(root, file), `${before}${table()}\n${after}`);
  }
}
