import { constants } from 'node:os';
import { fail } from '@engine/core/errors';

/** First and last real-time signal as C libraries count them: the kernel's first two are theirs. */
const RTMIN = 34;
const RTMAX = 64;

/** Number of a signal: `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`. Errors: ERR_INVALID_VALUE. */
export function parseSignal(text: string): number {
  const refuse = (): Error => fail('ERR_INVALID_VALUE', `unknown signal "${text}"`, { operation: 'kill', exitCode: 1, hint: '' });
  if (/^\d+$/.test(text)) {
    const number = Number(text);
    if (number > RTMAX) throw fail('ERR_INVALID_VALUE', `unable to signal init: signal ${text}`, { operation: 'kill', errno: 'EINVAL', hint: '' });
    return number;
  }
  const name = text.toUpperCase().replace(/^SIG/, '');
  const [, edge, sign, offset] = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name) ?? [];
  if (edge !== undefined) {
    const number = (edge === 'MIN' ? RTMIN : RTMAX) + (sign === '-' ? -1 : 1) * Number(offset ?? 0);
    if (number < RTMIN || number > RTMAX) throw refuse();
    return number;
  }
  const number = (constants.signals as Readonly<Record<string, number | undefined>>)[`SIG${name === 'CLD' ? 'CHLD' : name}`];
  if (number === undefined) throw refuse();
  return number;
}
