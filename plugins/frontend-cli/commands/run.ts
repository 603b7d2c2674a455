import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { type ContainerRequest, type Engine } from '@engine/core/api';
import { fail, isEngineError } from '@engine/core/errors';
import { connect, parseDetachKeys, windowSize } from '../attach.ts';
import { command, type CommandContext } from '../command.ts';
import { explainJson, explainText } from '../explain.ts';
import { countArgs, type Values } from '../parse.ts';
import { reachFiles } from '../reach-files.ts';
import { buildRequest } from '../request.ts';
import { createFlags, runFlags } from '../run-flags.ts';
import { traced, type Tracing } from '../trace.ts';

type RunValues = Partial<Values<typeof runFlags>>;

function request(context: CommandContext, name: string, flags: RunValues, args: readonly string[]): ContainerRequest {
  const own = flags.bundle !== undefined || flags.rootfs !== undefined;
  if (!own) countArgs(name, args, 1);
  if (own && flags.explain === undefined) throw fail('ERR_USAGE', '--bundle and --rootfs go with --explain', { hint: 'a bundle is run by engine-oci' });
  const { cwd, env } = context.invocation;
  return buildRequest(flags, args, { cwd, env });
}

async function explain(context: CommandContext, wanted: ContainerRequest, form: string): Promise<number> {
  if (form !== '' && form !== 'text' && form !== 'json') throw fail('ERR_USAGE', `--explain takes text or json, not "${form}"`);
  const engine = await context.open();
  const { steps } = await engine.containers.explain(wanted);
  await context.print(form === 'json' ? `${explainJson(steps)}\n` : explainText(steps));
  return 0;
}

/** Creates the container; with `--cidfile`, the file is claimed first and given back when the creation fails. */
async function create(context: CommandContext, engine: Engine, wanted: ContainerRequest, cidfile: string | undefined, thenStart: boolean): Promise<string> {
  let fd: number | undefined;
  if (cidfile !== undefined) {
    try {
      fd = openSync(cidfile, 'wx', 0o644);
    } catch (cause) {
      throw fail('ERR_INVALID_VALUE', `cannot make the id file ${cidfile}`, { operation: '--cidfile', path: cidfile, cause, hint: 'it must not exist yet: remove it or name another' });
    }
  }
  try {
    const record = await engine.containers.create(wanted, { onWarning: (text) => context.warn(text), thenStart });
    if (fd !== undefined) writeSync(fd, record.id);
    return record.id;
  } catch (error) {
    if (cidfile !== undefined) unlinkSync(cidfile);
    throw error;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

export const createCommand = command({
  name: 'create', usage: '[FLAGS] IMAGE [COMMAND] [ARG...]', summary: 'make a container without starting it', flags: createFlags, args: [0, Infinity], passThrough: true,
  async run(context, flags, args) {
    await reachFiles(flags, context.invocation.cwd);
    const wanted = request(context, 'create', flags, args);
    if (flags.explain !== undefined) return explain(context, wanted, flags.explain);
    await context.print(`${await create(context, await context.open(), wanted, flags.cidfile, false)}\n`);
    return 0;
  },
});

export const runCommand = command({
  name: 'run', usage: '[FLAGS] IMAGE [COMMAND] [ARG...]', summary: 'make a container and start it', flags: runFlags, args: [0, Infinity], passThrough: true,
  run: (context, flags, args) => traced(context, flags.trace, async (context, tracing) => {
    await reachFiles(flags, context.invocation.cwd);
    const wanted = request(context, 'run', flags, args);
    const detachKeys = flags['detach-keys'] ?? 'ctrl-p,ctrl-q';
    parseDetachKeys(detachKeys);
    if (flags.explain !== undefined) return explain(context, wanted, flags.explain);
    if (wanted.terminal && wanted.attach.stdin && !context.invocation.stdin.isTTY) throw fail('ERR_USAGE', 'the input device is not a terminal', { hint: 'leave out -t' });
    const size = windowSize(context.invocation);
    if (size && wanted.terminal) wanted.windowSize = size;
    const engine = await context.open();
    const id = await create(context, engine, wanted, flags.cidfile, true);
    const attached = wanted.attach.stdin || wanted.attach.stdout || wanted.attach.stderr;
    const session = await start(engine, id, wanted, flags.cidfile, context, tracing);
    if (!attached) {
      await context.print(`${id}\n`);
      if (!wanted.detached) return 0;
      session.detach();
      return 0;
    }
    const { code, detached } = await connect(session, context.invocation, {
      terminal: wanted.terminal, stdin: wanted.attach.stdin, endInput: wanted.stdinOnce, detachKeys, proxySignals: !/^(0|f|false)$/i.test(flags['sig-proxy'] ?? 'true'),
    });
    if (!detached) await session.gone;
    return code;
  }),
});

/** A run that cannot start leaves no container behind with --rm, as Docker does. */
async function start(engine: Engine, id: string, wanted: ContainerRequest, cidfile: string | undefined, context: CommandContext, tracing: Tracing): Promise<Awaited<ReturnType<Engine['containers']['start']>>> {
  try {
    return await engine.containers.start(id, { ...tracing, attach: wanted.attach, onWarning: (text) => context.warn(text), ...(wanted.windowSize ? { windowSize: wanted.windowSize } : {}) });
  } catch (error) {
    if (wanted.autoRemove) {
      await engine.containers.remove(id, { force: true, volumes: true }).catch((left: unknown) => isEngineError(left, 'ERR_NO_SUCH_CONTAINER') || context.warn(`container ${id} was not removed: ${String(left)}`));
      if (cidfile !== undefined) unlinkSync(cidfile);
    }
    throw error;
  }
}
