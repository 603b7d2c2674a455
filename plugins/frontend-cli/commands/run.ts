import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { type ContainerRequest, type Session } from '@engine/core/api';
import { type Invocation } from '@engine/core/contracts/frontend';
import { fail } from '@engine/core/errors';
import { attachTo, parseDetachKeys, windowSize } from '../attach.ts';
import { command, type CommandContext } from '../command.ts';
import { explainJson, explainText } from '../explain.ts';
import { discarded } from '../limit-flags.ts';
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
  const wanted = buildRequest(flags, args, { cwd, env });
  for (const word of discarded(flags)) context.warn(word);
  if (wanted.network === 'host' && wanted.ports.length > 0) context.warn('published ports are discarded when using host network mode');
  return wanted;
}

async function explain(context: CommandContext, wanted: ContainerRequest, form: string): Promise<number> {
  if (form !== '' && form !== 'text' && form !== 'json') throw fail('ERR_USAGE', `--explain takes text or json, not "${form}"`);
  const engine = await context.open();
  const { steps } = await engine.containers.explain(wanted);
  await context.print(form === 'json' ? `${explainJson(steps)}\n` : explainText(steps));
  return 0;
}

interface IdFile {
  write(id: string): void;
  /** Give it back: there is no container, or none any more. */
  remove(): void;
  close(): void;
}

/** `--cidfile`: claimed before anything is made. */
function claimIdFile(file: string | undefined, { cwd, umask }: Invocation): IdFile | undefined {
  if (file === undefined) return undefined;
  const path = resolve(cwd, file);
  let fd: number;
  try {
    fd = openSync(path, 'wx', 0o644 & ~(umask ?? 0));
  } catch (cause) {
    throw fail('ERR_INVALID_VALUE', `cannot make the id file ${file}`, { operation: '--cidfile', path: file, cause, hint: 'it must not exist yet: remove it or name another' });
  }
  return { write: (id) => void writeSync(fd, id), remove: () => unlinkSync(path), close: () => closeSync(fd) };
}

export const createCommand = command({
  name: 'create', usage: '[FLAGS] IMAGE [COMMAND] [ARG...]', summary: 'make a container without starting it', flags: createFlags, args: [0, Infinity], passThrough: true,
  async run(context, flags, args) {
    await reachFiles(flags, context.invocation.cwd);
    const wanted = request(context, 'create', flags, args);
    if (flags.explain !== undefined) return explain(context, wanted, flags.explain);
    const file = claimIdFile(flags.cidfile, context.invocation);
    try {
      const { id } = await (await context.open()).containers.create(wanted, { onWarning: (text) => context.warn(text) });
      file?.write(id);
      await context.print(`${id}\n`);
    } catch (error) {
      file?.remove();
      throw error;
    } finally {
      file?.close();
    }
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
    const attached = wanted.attach.stdin || wanted.attach.stdout || wanted.attach.stderr;
    const begin = (client: { readonly client?: number }): Promise<Session> => begun(context, wanted, flags.cidfile, tracing, client);
    if (!attached) {
      const session = await begin({});
      await context.print(`${session.container}\n`);
      if (wanted.detached) session.detach();
      return 0;
    }
    const proxySignals = !/^(0|f|false)$/i.test(flags['sig-proxy'] ?? 'true');
    return attachTo(context.invocation, { attach: wanted.attach, terminal: wanted.terminal, stdin: wanted.attach.stdin, endInput: wanted.stdinOnce, detachKeys, proxySignals, whole: tracing.trace !== undefined, session: 0 }, begin);
  }),
});

/** Create and start. A run that cannot start leaves no container behind with --rm, as Docker does. */
async function begun(context: CommandContext, wanted: ContainerRequest, cidfile: string | undefined, tracing: Tracing, client: { readonly client?: number }): Promise<Session> {
  const file = claimIdFile(cidfile, context.invocation);
  let id: string | undefined;
  const onCreated = (made: string): void => {
    id = made;
    file?.write(made);
  };
  try {
    const engine = await context.open();
    return await engine.containers.run(wanted, { ...tracing, ...client, onCreated, attach: wanted.attach, onWarning: (text) => context.warn(text), ...(wanted.windowSize ? { windowSize: wanted.windowSize } : {}) });
  } catch (error) {
    if (id === undefined || wanted.autoRemove) file?.remove();
    throw error;
  } finally {
    file?.close();
  }
}
