import { resolve } from 'node:path';
import { type ImageInfo, type Progress } from '@engine/core/contracts/image';
import { fail } from '@engine/core/errors';
import { command, type CommandContext } from '../command.ts';
import { formatRows, formatTable } from '../output.ts';
import { humanDuration, humanSize, shortId, truncate } from '../text.ts';
import { splitOnce } from '../units.ts';

const COLUMNS = { Repository: 'REPOSITORY', Tag: 'TAG', ID: 'IMAGE ID', CreatedSince: 'CREATED', Size: 'SIZE' };

const since = (created: string | undefined): string => (created ? `${humanDuration(Date.now() - Date.parse(created))} ago` : 'N/A');

function rows(image: ImageInfo, noTrunc: boolean): Record<string, unknown>[] {
  const names = image.names.length ? image.names : ['<none>:<none>'];
  return names.map((name) => {
    const colon = name.lastIndexOf(':') > name.lastIndexOf('/') ? name.lastIndexOf(':') : -1;
    return {
      Repository: colon < 0 ? name : name.slice(0, colon), Tag: colon < 0 ? '<none>' : name.slice(colon + 1), ID: noTrunc ? image.id : shortId(image.id), Digest: image.digest ?? '<none>',
      CreatedSince: since(image.created), CreatedAt: image.created ?? 'N/A', Size: image.rootfs.kind === 'host' ? '-' : humanSize(image.size),
    };
  });
}

export const imagesCommand = command({
  name: 'images', aliases: ['image ls', 'image list'], usage: '[FLAGS] [NAME[:TAG]]', summary: 'list images', args: [0, 1],
  flags: {
    all: { type: 'boolean', short: 'a', help: 'accepted for Docker\'s sake' }, digests: { type: 'boolean', help: 'with digests' }, filter: { type: 'list', short: 'f', value: 'NAME=VALUE', help: 'dangling=BOOL, label=NAME[=VALUE], reference=PATTERN' },
    format: { type: 'string', value: 'FORMAT', help: 'json, a Go template, or "table TEMPLATE"' }, 'no-trunc': { type: 'boolean', help: 'whole ids' }, quiet: { type: 'boolean', short: 'q', help: 'only ids' },
  },
  async run(context, flags, [wanted]) {
    const keep = compileFilters(flags.filter);
    const engine = await context.open();
    const all = (await engine.images.list()).filter(keep);
    let list = all.flatMap((image) => rows(image, flags['no-trunc']));
    if (wanted !== undefined) list = list.filter((r) => r['Repository'] === wanted || `${String(r['Repository'])}:${String(r['Tag'])}` === wanted);
    if (flags.quiet) await context.print([...new Set(list.map((r) => `${String(r['ID'])}\n`))].join(''));
    else if (flags.format) await context.print(formatRows(list, flags.format, { ...COLUMNS, Digest: 'DIGEST', CreatedAt: 'CREATED AT' }));
    else await context.print(formatTable(list, flags.digests ? { Repository: 'REPOSITORY', Tag: 'TAG', Digest: 'DIGEST', ID: 'IMAGE ID', CreatedSince: 'CREATED', Size: 'SIZE' } : COLUMNS));
    return 0;
  },
});

function compileFilters(items: readonly string[]): (image: ImageInfo) => boolean {
  const tests = items.map((item): ((image: ImageInfo) => boolean) => {
    const [name, value = ''] = splitOnce(item, '=');
    if (name === 'dangling') return (image) => (image.names.length === 0) === (value === 'true' || value === '1');
    if (name === 'label') {
      const [label, text] = splitOnce(value, '=');
      return (image) => label in (image.config.Labels ?? {}) && (text === undefined || image.config.Labels?.[label] === text);
    }
    if (name === 'reference') {
      const pattern = new RegExp(`^${value.replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '[^/]*').replaceAll('?', '[^/]')}(:[^/]*)?$`);
      return (image) => image.names.some((n) => pattern.test(n));
    }
    throw fail('ERR_INVALID_VALUE', `invalid filter "${item}"`, { operation: '--filter', hint: 'dangling, label and reference are known' });
  });
  return (image) => tests.every((test) => test(image));
}

/** A bar per layer on a terminal, nothing elsewhere. */
function progressBar(context: CommandContext): { readonly progress?: Progress; done(): void } {
  const out = context.invocation.stderr;
  if (!out.isTTY) return { done: () => {} };
  const items = new Map<string, { done: number; total?: number; finished: boolean }>();
  let drawn = 0;
  let last = 0;
  const draw = (): void => {
    const width = Math.max(10, Math.min(40, (out.columns || 80) - 40));
    const lines = [...items].map(([what, { done, total, finished }]) => {
      const part = finished ? 1 : total ? Math.min(1, done / total) : 0;
      const bar = '='.repeat(Math.round(part * width)).padEnd(width);
      return `\x1b[2K${truncate(what, 14).padEnd(14)} [${bar}] ${humanSize(done)}${total ? `/${humanSize(total)}` : ''}`;
    });
    out.write(`${drawn ? `\x1b[${drawn}A` : ''}${lines.join('\n')}\n`);
    drawn = lines.length;
  };
  return {
    progress: ({ what, done, total, finished }) => {
      items.set(what, { done, finished: finished ?? false, ...(total === undefined ? {} : { total }) });
      if (!finished && Date.now() - last < 100) return;
      last = Date.now();
      draw();
    },
    done: () => {
      if (items.size) draw();
    },
  };
}

/** `-i FILE`, `-` and no file mean standard input. */
function input(context: CommandContext, path: string | undefined): { path: string } | { stream: NodeJS.ReadableStream } {
  if (path !== undefined && path !== '-') return { path: resolve(context.invocation.cwd, path) };
  if (context.invocation.stdin.isTTY) throw fail('ERR_USAGE', 'nothing to read: standard input is a terminal', { hint: 'name a file with -i, or pipe one in' });
  return { stream: context.invocation.stdin };
}

export const loadCommand = command({
  name: 'load', aliases: ['image load'], usage: '[-i FILE]', summary: 'load images from an archive or an OCI folder', args: [0, 0],
  flags: { input: { type: 'string', short: 'i', value: 'FILE', help: 'a docker-archive, oci-archive or OCI folder, also gzip or zstd; standard input without it' }, quiet: { type: 'boolean', short: 'q', help: 'no progress' } },
  async run(context, flags) {
    const source = input(context, flags.input);
    const engine = await context.open();
    const bar = flags.quiet ? { done: () => {} } : progressBar(context);
    const images = await engine.images.load({ ...source, ...('progress' in bar && bar.progress ? { progress: bar.progress } : {}) }).finally(() => bar.done());
    for (const image of images) {
      for (const name of image.names) await context.print(`Loaded image: ${name}\n`);
      if (image.names.length === 0) await context.print(`Loaded image ID: ${image.id}\n`);
    }
    return 0;
  },
});

export const importCommand = command({
  name: 'import', aliases: ['image import'], usage: '[FLAGS] FILE|- [NAME[:TAG]]', summary: 'make an image of one layer from a tar of a root filesystem', args: [1, 2],
  flags: { change: { type: 'list', short: 'c', value: 'INSTRUCTION', help: 'e.g. "CMD [\\"/bin/sh\\"]"' }, message: { type: 'string', short: 'm', value: 'TEXT', help: 'comment in its history' } },
  async run(context, flags, [file, reference]) {
    const source = input(context, file);
    const engine = await context.open();
    const bar = progressBar(context);
    const image = await engine.images.import({
      ...source, changes: flags.change, ...(reference === undefined ? {} : { reference }), ...(flags.message === undefined ? {} : { message: flags.message }), ...(bar.progress ? { progress: bar.progress } : {}),
    }).finally(() => bar.done());
    await context.print(`${image.id}\n`);
    return 0;
  },
});

export const tagCommand = command({
  name: 'tag', aliases: ['image tag'], usage: 'IMAGE NAME[:TAG]', summary: 'give an image another name', args: [2, 2], flags: {},
  async run(context, _flags, [image = '', name = '']) {
    await (await context.open()).images.tag(image, name);
    return 0;
  },
});

export const rmiCommand = command({
  name: 'rmi', aliases: ['image rm', 'image remove'], usage: '[FLAGS] IMAGE...', summary: 'remove images', args: [1, Infinity],
  flags: { force: { type: 'boolean', short: 'f', help: 'all names of it, also when stopped containers use it; a missing one is no error' }, 'no-prune': { type: 'boolean', help: 'accepted for Docker\'s sake' } },
  async run(context, flags, refs) {
    const engine = await context.open();
    return context.forEach(refs, async (ref) => {
      try {
        for (const line of await engine.images.remove(ref, { force: flags.force })) await context.print(`${line}\n`);
      } catch (error) {
        if (!flags.force || !(error instanceof Error && 'code' in error && error.code === 'ERR_NO_SUCH_IMAGE')) throw error;
        context.warn(error.message);
      }
    });
  },
});

export const historyCommand = command({
  name: 'history', aliases: ['image history'], usage: '[FLAGS] IMAGE', summary: 'show how an image was made', args: [1, 1],
  flags: { format: { type: 'string', value: 'FORMAT', help: 'json or a Go template' }, human: { type: 'boolean', short: 'H', help: 'accepted for Docker\'s sake' }, 'no-trunc': { type: 'boolean', help: 'whole texts' }, quiet: { type: 'boolean', short: 'q', help: 'only ids' } },
  async run(context, flags, [ref = '']) {
    const engine = await context.open();
    const columns = { ID: 'IMAGE', CreatedSince: 'CREATED', CreatedBy: 'CREATED BY', Size: 'SIZE', Comment: 'COMMENT' };
    const list = (await engine.images.history(ref)).map((entry) => ({
      ID: flags['no-trunc'] ? entry.id : entry.id.startsWith('<') ? entry.id : shortId(entry.id), CreatedSince: since(entry.created), CreatedAt: entry.created ?? 'N/A',
      CreatedBy: flags['no-trunc'] ? entry.createdBy : truncate(entry.createdBy, 45), Size: humanSize(entry.size), Comment: entry.comment,
    }));
    if (flags.quiet) await context.print(list.map((entry) => `${entry.ID}\n`).join(''));
    else await context.print(flags.format ? formatRows(list, flags.format, { ...columns, CreatedAt: 'CREATED AT' }) : formatTable(list, columns));
    return 0;
  },
});
