import { fail } from '@engine/core/errors';
import { type DeviceRule } from '@engine/core/spec';
import { whole } from './limits.ts';

/** A line of devices.allow or devices.deny. Errors: ERR_INVALID_VALUE. */
export function formatDeviceRule(rule: DeviceRule): string {
  const type = rule.type ?? 'a';
  const access = rule.access || 'rwm';
  if (!/^[rwm]{1,3}$/.test(access)) throw fail('ERR_INVALID_VALUE', `device rule: access ${JSON.stringify(access)} is not made of r, w and m`, { path: 'devices' });
  if (type !== 'a' && type !== 'b' && type !== 'c') throw fail('ERR_INVALID_VALUE', `device rule: type ${JSON.stringify(type)} is not a, b or c`, { path: 'devices' });
  const number = (value: number | undefined): string => (value === undefined || value === -1 ? '*' : whole(value, 'devices', 0, 0xffffffff));
  // the kernel takes `a` for everything at once, whatever follows
  if (type === 'a') {
    if (rule.major !== undefined && rule.major !== -1) throw fail('ERR_INVALID_VALUE', 'device rule: type a is for all devices', { path: 'devices' });
    return 'a *:* rwm';
  }
  return `${type} ${number(rule.major)}:${number(rule.minor)} ${access}`;
}

/** What differs from the rest: as the kernel keeps it, one per device and access. */
interface Exception { readonly type: 'b' | 'c'; readonly major: string; readonly minor: string; readonly access: string }

/**
 * The rules to write for an OCI list: what none speaks of is denied, so that a list that does not begin with everything gets that. The kernel keeps one answer for everything and a set of
 * exceptions, and takes an exception back only for exactly the devices that it was made for: a list in which a later rule changes a part of an
 * earlier one means something that it cannot say. Errors: ERR_FEATURE_MISSING for such a list; ERR_INVALID_VALUE.
 */
export function deviceRules(rules: readonly DeviceRule[]): readonly DeviceRule[] {
  if (rules.length === 0) return [];
  const isAll = ({ type = 'a' }: DeviceRule): boolean => type === 'a';
  const list: readonly DeviceRule[] = rules[0] && isAll(rules[0]) ? rules : [{ allow: false, access: 'rwm' }, ...rules];
  let fallback = false;
  let exceptions: Exception[] = [];
  for (const rule of list) {
    const text = formatDeviceRule(rule);
    if (isAll(rule)) {
      fallback = rule.allow;
      exceptions = [];
      continue;
    }
    const [, type, major = '', minor = '', access = ''] = /^(.) (.+):(.+) (.+)$/.exec(text) ?? [];
    const next: Exception = { type: type as 'b' | 'c', major, minor, access };
    if (rule.allow !== fallback) {
      exceptions.push(next);
      continue;
    }
    const meets = (a: string, b: string): boolean => a === '*' || b === '*' || a === b;
    exceptions = exceptions.flatMap((one) => {
      if (one.type !== next.type || !meets(one.major, next.major) || !meets(one.minor, next.minor) || !one.access.split('').some((letter) => next.access.includes(letter))) return [one];
      if (one.major !== next.major || one.minor !== next.minor) {
        throw fail('ERR_FEATURE_MISSING', `cgroup v1 cannot honour linux.resources.devices: ${rule.allow ? 'allow' : 'deny'} ${text} changes a part of ${rule.allow ? 'deny' : 'allow'} ${one.type} ${one.major}:${one.minor} ${one.access}`, { path: 'devices', hint: 'name the devices one by one, or use cgroup v2' });
      }
      const left = one.access.split('').filter((letter) => !next.access.includes(letter)).join('');
      return left ? [{ ...one, access: left }] : [];
    });
  }
  return list;
}
