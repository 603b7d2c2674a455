import { defaultDeviceRules } from '../../contracts/cgroup/index.ts';
import { type DeviceRule } from '../../spec/index.ts';

/** Everything is denied first; the rest is what runc and crun both allow whatever a bundle says, after its own rules. */
const [deny, ...always] = defaultDeviceRules;

const isAny = (n: number | undefined): boolean => n === undefined || n === -1;
const covers = (a: DeviceRule, b: DeviceRule): boolean => a.type === b.type && (isAny(a.major) || a.major === b.major) && (isAny(a.minor) || a.minor === b.minor);

/**
 * The device rules of a bundle, which need not have any: without one that allows everything, all is denied but what they and `always` allow. Where
 * everything is allowed, `always` only meets what is denied after that, as in runc.
 */
export function bundleDevices(rules: readonly DeviceRule[] | null = []): DeviceRule[] {
  const own = rules ?? [];
  const last = own.findLastIndex(({ type = 'a' }) => type === 'a');
  const isOpen = own[last]?.allow === true;
  const denied = own.slice(last + 1).filter(({ allow }) => !allow);
  // said in full, as Docker does
  return [...(last < 0 ? [deny as DeviceRule] : []), ...own, ...always.filter((rule) => !isOpen || denied.some((one) => covers(one, rule)))];
}
