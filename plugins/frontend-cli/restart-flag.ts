import { type ContainerRequest } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { invalid } from './units.ts';

const POLICIES = ['no', 'always', 'unless-stopped', 'on-failure'] as const;
type Restart = NonNullable<ContainerRequest['restart']>;

/** `no`, `always`, `unless-stopped`, `on-failure[:N]`; empty is `no`. Errors: ERR_INVALID_VALUE, in Docker's words. */
export function parseRestart(text: string): Restart {
  const [name = '', count, more] = text.split(':');
  const policy = POLICIES.find((known) => known === (name || 'no'));
  if (policy === undefined) throw invalid('--restart', text, `${POLICIES.slice(0, 3).join(', ')} or on-failure[:N] is expected`);
  if (more !== undefined) throw invalid('--restart', text, 'invalid restart policy format');
  if (count !== undefined && !/^[+-]?\d+$/.test(count)) throw invalid('--restart', text, 'maximum retry count must be an integer');
  const maximum = Number(count ?? 0);
  if (maximum < 0) throw invalid('--restart', text, 'maximum retry count cannot be negative');
  if (policy !== 'on-failure' && maximum > 0) throw invalid('--restart', text, `maximum retry count cannot be used with restart policy '${policy}'`);
  return { policy, maximum };
}

/** For a container to be made. A container that goes with its run isn't started again. */
export function restartRequest(text: string | undefined, autoRemove: boolean): { restart?: Restart } {
  if (text === undefined) return {};
  const restart = parseRestart(text);
  if (autoRemove && restart.policy !== 'no') throw fail('ERR_USAGE', 'conflicting options: --restart and --rm', { hint: 'leave one of them out' });
  return { restart };
}
