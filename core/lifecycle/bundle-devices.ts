import { type DeviceRule } from '../spec/index.ts';

const device = (major: number | undefined, minor?: number): DeviceRule => ({ allow: true, type: 'c', ...(major !== undefined && { major }), ...(minor !== undefined && { minor }), access: 'rwm' });
/** What runc and crun both allow whatever a bundle says, after its own rules: any node may be made, the default ones and terminals used. */
const always: readonly DeviceRule[] = [
  { allow: true, type: 'c', access: 'm' }, { allow: true, type: 'b', access: 'm' },
  device(1, 3), device(1, 5), device(1, 7), device(1, 8), device(1, 9), device(5, 0), device(5, 2), device(136),
];

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
  return [...(last < 0 ? [{ allow: false, access: 'rwm' }] : []), ...own, ...always.filter((rule) => !isOpen || denied.some((one) => covers(one, rule)))];
}
