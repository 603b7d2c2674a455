import { fail } from '@engine/core/errors';
import { command } from '../command.ts';
import { parseRestart } from '../restart-flag.ts';

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
