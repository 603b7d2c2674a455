import { type DeviceRule } from '../../spec/index.ts';

/** What every container may do with devices: make any node, use the harmless ones and its own terminals. */
export const defaultDeviceRules: readonly DeviceRule[] = [
  { allow: false, access: 'rwm' },
  { allow: true, type: 'c', access: 'm' },
  { allow: true, type: 'b', access: 'm' },
  ...[[1, 3], [1, 5], [1, 7], [1, 8], [1, 9], [5, 0], [5, 2]].map(([major, minor]): DeviceRule => ({ allow: true, type: 'c', major: major as number, minor: minor as number, access: 'rwm' })),
  { allow: true, type: 'c', major: 136, access: 'rwm' },
];
