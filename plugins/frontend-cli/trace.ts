import { open, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Span, type StartOptions } from '@engine/core/api';
import { reach } from '@engine/core/contracts/common';
import { describeError, fail, isEngineError } from '@engine/core/errors';
import { type CommandContext } from './command.ts';
import { type Flag } from './parse.ts';
import { type Trace } from './trace-layout.ts';

export const traceFlag = { type: 'string', value: 'FILE', help: 'write what took how long: FILE.json for Perfetto, FILE.html a picture; any other name: both, with these endings added' } as const satisfies Flag;

type Form = 'json' | 'html';

/** To be spread into the options of `run` and `start`. */
export type Tracing = Pick<StartOptions, 'trace'>;

/** By the ending of the name, else both. */
export function traceFiles(file: string): readonly { readonly path: string; readonly form: Form }[] {
  const ending = /\.(json|html?)$/i.exec(file)?.[1]?.toLowerCase();
  if (ending === undefined) return (['json', 'html'] as const).map((form) => ({ path: `${file}.${form}`, form }));
  return [{ path: file, form: ending === 'json' ? 'json' : 'html' }];
}

const phase = (name: string, begin: bigint, end: bigint): Span => ({ name, kind: 'engine', track: 'engine', begin, end });

/** The operation that an error names was not necessarily told apart as failed: mark it. */
function markFailed(spans: readonly Span[], error: unknown): readonly Span[] {
  const { index } = (isEngineError(error) ? (error.data ?? {}) : {}) as { index?: number };
  const at = index === undefined ? -1 : spans.findLastIndex(({ kind, track, details }) => kind === 'operation' && track !== 'after' && details?.['index'] === String(index));
  return spans.map((span, i) => (i === at ? { ...span, details: { ...span.details, error: describeError(error) } } : span));
}

/**
 * Run a command and write down what took how long, also when it fails. The files are claimed first: one that can't be written is told before
 * anything runs. Without `file` nothing is done but the command. Errors: ERR_INVALID_VALUE.
 */
export async function traced(context: CommandContext, file: string | undefined, work: (context: CommandContext, tracing: Tracing) => Promise<number>): Promise<number> {
  if (file === undefined) return work(context, {});
  const { invocation } = context;
  const begin = process.hrtime.bigint();
  const startedAt = new Date().toISOString();
  const files = await Promise.all(traceFiles(resolve(invocation.cwd, file)).map(async ({ path, form }) => {
    try {
      await reach('stat', path, () => stat(path).catch(() => undefined));
      // what is in it stays until there is something else
      return { path, form, handle: await open(path, 'a', 0o666 & ~(invocation.umask ?? 0o022)) };
    } catch (cause) {
      throw fail('ERR_INVALID_VALUE', `cannot write the trace ${path}`, { operation: '--trace', path, cause });
    }
  }));
  const spans: Span[] = [];
  let failure: unknown;
  try {
    const timedOpen = async (): ReturnType<CommandContext['open']> => {
      const from = process.hrtime.bigint();
      if (spans.length === 0) spans.push(phase('read the command', begin, from));
      const engine = await context.open();
      spans.push(phase('open the engine', from, process.hrtime.bigint()));
      return engine;
    };
    return await work({ ...context, open: timedOpen }, { trace: (span) => void spans.push(span) });
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    const title = ['engine', ...invocation.argv].join(' ');
    const error = failure === undefined ? undefined : describeError(failure);
    const startup = invocation.startup?.() ?? [];
    const loaded = startup.findLast(({ end }) => end <= begin)?.end ?? begin;
    const all: Span[] = [...startup, ...(loaded < begin ? [phase('load the frontend', loaded, begin)] : []), ...markFailed(spans, failure)];
    const first = all.reduce((least, span) => (span.begin < least ? span.begin : least), begin);
    all.push({ ...phase(`engine ${invocation.argv[0] ?? ''}`, first, process.hrtime.bigint()), details: error === undefined ? {} : { error } });
    const trace: Trace = { title, version: invocation.version, startedAt, spans: all, ...(error !== undefined && { error }) };
    for (const { path, form, handle } of files) {
      try {
        // loaded only when they are needed
        const text = form === 'json' ? (await import('./trace-json.ts')).traceJson(trace) : (await import('./trace-html.ts')).traceHtml(trace);
        await handle.truncate();
        await handle.writeFile(text);
      } catch (late) {
        context.warn(`the trace ${path} is not complete: ${describeError(late)}`);
      } finally {
        await handle.close();
      }
    }
  }
}
