import { fail } from '@engine/core/errors';
import { command } from '../command.ts';
import { refused } from '../exit-one.ts';
import { discarded, limitFlags, parseLimits } from '../limit-flags.ts';
import { type Flags } from '../parse.ts';
import { parseRestart } from '../restart-flag.ts';

const { 'oom-kill-disable': _, ...limits } = limitFlags;
const flags = { ...limits, restart: { type: 'string', value: 'POLICY', help: 'no, always, unless-stopped or on-failure[:N]' } } as const satisfies Flags;

export const updateCommand = command({
  name: 'update', usage: '[FLAGS] CONTAINER...', summary: 'change limits and the restart policy of containers, running or not', args: [1, Infinity], flags,
  async run(context, flags, refs) {
    if (Object.values(flags).every((value) => value === undefined || (Array.isArray(value) && value.length === 0))) {
      throw fail('ERR_USAGE', '"engine update" takes at least one flag that says what to change', { hint: 'see: engine update --help' });
    }
    const limits = parseLimits(flags);
    const changes = { ...(Object.keys(limits).length > 0 && { limits }), ...(flags.restart !== undefined && { restart: parseRestart(flags.restart) }) };
    for (const word of discarded(flags)) context.warn(word);
    const engine = await context.open();
    return context.forEach(refs, async (ref) => {
      await refused(() => engine.containers.update(ref, changes));
      await context.print(`${ref}\n`);
    });
  },
});
