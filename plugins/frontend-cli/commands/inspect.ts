import { type Engine } from '@engine/core/api';
import { fail, isEngineError, visible } from '@engine/core/errors';
import { command, type CommandContext } from '../command.ts';
import { refused } from '../exit-one.ts';
import { formatInspect } from '../output.ts';

const format = { type: 'string', short: 'f', value: 'FORMAT', help: 'json or a Go template' } as const;

type Look = (engine: Engine, ref: string, size: boolean) => Promise<Record<string, unknown>>;
const looks: Readonly<Record<string, Look>> = {
  container: (engine, ref, size) => engine.containers.inspect(ref, { size }),
  image: (engine, ref) => engine.images.inspect(ref),
  network: (engine, ref) => refused(() => engine.networks.inspect(ref)),
  volume: async (engine, ref) => inspectVolume(engine, ref),
};

async function inspectVolume(engine: Engine, name: string): Promise<Record<string, unknown>> {
  const volume = await engine.volumes.inspect(name);
  return { CreatedAt: volume.created, Driver: volume.driver, Labels: volume.labels, Mountpoint: volume.mountpoint, Name: volume.name, Options: volume.options, Scope: 'local' };
}

/** The first kind that has it; an ambiguous prefix is an error, not a miss. */
async function find(engine: Engine, ref: string, kinds: readonly string[], size: boolean): Promise<unknown> {
  for (const kind of kinds) {
    try {
      return await looks[kind]?.(engine, ref, size);
    } catch (error) {
      if (!isEngineError(error) || !/^ERR_NO_SUCH_/.test(error.code) || kinds.length === 1) throw error;
    }
  }
  throw fail('ERR_NO_SUCH_CONTAINER', `no such object: ${ref}`, { path: ref, hint: 'see: engine ps -a, engine images, engine network ls, engine volume ls', exitCode: 1 });
}

/** What was found is printed even when others are missing, as Docker does. */
async function inspectAll(context: CommandContext, refs: readonly string[], kinds: readonly string[], flags: { format: string | undefined; size?: boolean }): Promise<number> {
  const engine = await context.open();
  const found: unknown[] = [];
  const code = await context.forEach(refs, async (ref) => void found.push(await find(engine, ref, kinds, flags.size ?? false)));
  if (found.length || !flags.format) await context.print(formatInspect(found, flags.format));
  return code;
}

export const inspectCommand = command({
  name: 'inspect', usage: '[FLAGS] NAME|ID...', summary: 'show all that is known of containers, images, networks or volumes', args: [1, Infinity],
  flags: { format, size: { type: 'boolean', short: 's', help: 'with the size of containers' }, type: { type: 'string', value: 'KIND', help: 'container, image, network or volume' } },
  async run(context, flags, refs) {
    if (flags.type !== undefined && !looks[flags.type]) throw fail('ERR_INVALID_VALUE', `unknown type "${flags.type}"`, { operation: '--type', hint: 'container, image, network or volume' });
    return inspectAll(context, refs, flags.type === undefined ? Object.keys(looks) : [flags.type], flags);
  },
});
export const containerInspectCommand = command({
  name: 'container inspect', usage: '[FLAGS] CONTAINER...', summary: 'show all that is known of containers', args: [1, Infinity], flags: { format, size: { type: 'boolean', short: 's', help: 'with sizes' } },
  run: (context, flags, refs) => inspectAll(context, refs, ['container'], flags),
});
export const imageInspectCommand = command({
  name: 'image inspect', usage: '[FLAGS] IMAGE...', summary: 'show all that is known of images', args: [1, Infinity], flags: { format },
  run: (context, flags, refs) => inspectAll(context, refs, ['image'], flags),
});
export const networkInspectCommand = command({
  name: 'network inspect', usage: '[FLAGS] NETWORK...', summary: 'show all that is known of networks', args: [1, Infinity], flags: { format, verbose: { type: 'boolean', short: 'v', help: "accepted for Docker's sake: nothing is left out" } },
  run: (context, flags, refs) => inspectAll(context, refs, ['network'], flags),
});
export const volumeInspectCommand = command({
  name: 'volume inspect', usage: '[FLAGS] VOLUME...', summary: 'show all that is known of volumes', args: [1, Infinity], flags: { format },
  run: (context, flags, refs) => inspectAll(context, refs, ['volume'], flags),
});

export const diffCommand = command({
  name: 'diff', usage: 'CONTAINER', summary: 'list what a container changed in its root filesystem', args: [1, 1], flags: {},
  async run(context, _flags, [ref = '']) {
    const changes = await (await context.open()).containers.diff(ref);
    await context.print(changes.map(({ kind, path }) => `${kind} ${visible(path, true)}\n`).join(''));
    return 0;
  },
});
