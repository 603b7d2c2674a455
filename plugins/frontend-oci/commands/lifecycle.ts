import { command } from '../command.ts';
import { parseSignal } from '../signals.ts';

export const startCommand = command({
  name: 'start', usage: '<container-id>', summary: 'let the program of a created container begin', flags: {}, args: [1, 1],
  async run(context, _flags, [id = '']) {
    await (await context.bundles()).start(context.ref(id), { onWarning: (text) => context.report.warn(text) });
    return 0;
  },
});

export const stateCommand = command({
  name: 'state', usage: '<container-id>', summary: 'print the state of a container', flags: {}, args: [1, 1],
  async run(context, _flags, [id = '']) {
    const { ociVersion, id: own, pid, status, bundle, rootfs, created, annotations } = await (await context.bundles()).state(context.ref(id));
    const some = Object.keys(annotations).length > 0;
    await context.print(JSON.stringify({ ociVersion, id: own, pid, status, bundle, rootfs, created, ...(some && { annotations }), owner: '' }, null, 2));
    return 0;
  },
});

/** Containers of the root whose id fits, for crun's --regex. */
async function matching(context: Parameters<typeof killCommand.run>[0], pattern: string): Promise<readonly string[]> {
  const fits = new RegExp(pattern);
  return (await (await context.bundles()).list(context.ref('').root, { onWarning: (text) => context.report.warn(text) })).map(({ id }) => id).filter((id) => fits.test(id));
}

export const killCommand = command({
  name: 'kill', usage: '<container-id> [signal]', summary: "send a signal (default: TERM) to a container's first process",
  flags: {
    all: { type: 'boolean', short: 'a', help: 'send it to all processes of the container, also when the first has ended' },
    regex: { type: 'boolean', short: 'r', help: 'to all containers whose id fits this regular expression' },
  },
  args: [1, 2],
  async run(context, flags, [id = '', signal = 'TERM']) {
    const number = parseSignal(signal);
    const bundles = await context.bundles();
    for (const one of flags.regex ? await matching(context, id) : [id]) await bundles.kill(context.ref(one), number, { all: flags.all });
    return 0;
  },
});

export const deleteCommand = command({
  name: 'delete', usage: '<container-id>', summary: 'delete what is held for a container',
  flags: {
    force: { type: 'boolean', short: 'f', help: 'also one that runs (with KILL), and one that is not there is no error' },
    regex: { type: 'boolean', short: 'r', help: 'all containers whose id fits this regular expression' },
  },
  args: [1, 1],
  async run(context, flags, [id = '']) {
    const bundles = await context.bundles();
    for (const one of flags.regex ? await matching(context, id) : [id]) await bundles.delete(context.ref(one), { force: flags.force, onWarning: (text) => context.report.warn(text) });
    return 0;
  },
});

export const pauseCommand = command({
  name: 'pause', usage: '<container-id>', summary: 'stop all processes of a container for a while', flags: {}, args: [1, 1],
  async run(context, _flags, [id = '']) {
    await (await context.bundles()).pause(context.ref(id));
    return 0;
  },
});

export const resumeCommand = command({
  name: 'resume', usage: '<container-id>', summary: 'let a paused container go on', flags: {}, args: [1, 1],
  async run(context, _flags, [id = '']) {
    await (await context.bundles()).resume(context.ref(id));
    return 0;
  },
});
