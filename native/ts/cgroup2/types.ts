import { type GroupRequest } from '@engine/core/contracts/cgroup';

/** `linux.resources` of the OCI spec, as drivers are handed it. */
export type LinuxResources = GroupRequest['resources'];
export type DeviceRule = NonNullable<LinuxResources['devices']>[number];
export type ThrottleDevice = NonNullable<NonNullable<LinuxResources['blockIO']>['throttleReadBpsDevice']>[number];
