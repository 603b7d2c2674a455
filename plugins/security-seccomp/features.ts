import { ARCHITECTURE, FLAGS, OPERATOR } from './compile.ts';
import { actions } from './profile.ts';

const sorted = (names: Iterable<string>): string[] => [...names].sort((a, b) => (a < b ? -1 : 1));
const flags = sorted(Object.keys(FLAGS));

/** What this driver is to an OCI runtime's `features`. */
export const ociFeatures = (enabled: boolean): Readonly<Record<string, unknown>> => ({
  linux: { seccomp: enabled ? { enabled, actions: sorted(actions), operators: sorted(Object.keys(OPERATOR)), archs: sorted(Object.keys(ARCHITECTURE)), knownFlags: flags, supportedFlags: flags } : { enabled } },
});
