import { fail } from '@engine/core/errors';
import { command } from '../command.ts';
import { parseRestart } from '../restart-flag.ts';
import { parseInteger } from '../units.ts';

export const restartCommand = command({
  name: 'restart', usage: '[FLAGS] CONTAINER...', summary: 'stop containers and start them again', args: [1, Infinity],
  flags: { time: { type: 'string', short: 't', value: 'SECONDS', help: 'time until it is killed (10)' }, timeout: { type: 'string', value: 'SECONDS', help: 'the same' }, signal: { type: 'string', short: 's', value: 'SIGNAL', help: 'signal to ask with' } },
  async run(context, flags, refs) {
    const text = flags.time ?? flags.timeout;
    const timeout = text === undefined ? {} : { timeout: parseInteger('-t', text, -1) };
    const engine = await context.open();
    return context.forEach(refs, async (ref) => {
      await engine.containers.restart(ref, { ...timeout, ...(flags.signal ? { signal: flags.signal } : {}) });
      await context.print(`${ref}\n`);
    });
  },
});

export const updateCommand = command({
  name: 'update', usage: '--restart POLICY CONTAINER...', summary: 'change the restart policy of containers (nothing else can be changed yet)', args: [1, Infinity],
  flags: { restart: { type: 'string', value: 'POLICY', help: 'no, always, unless-stopped or on-failure[:N]' } },
  async run(context, flags, refs) {
    if (flags.restart === undefined) throw fail('ERR_USAGE', '"engine update" takes --restart', { hint: 'see: engine update --help' });
    const restart = parseRestart(flags.restart);
    const engine = await context.open();
    return context.forEach(refs, async (ref) => {
      await engine.containers.update(ref, { restart });
      await context.print(`${ref}\n`);
    });
  },
});
