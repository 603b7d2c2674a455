import { mountOptionNames } from './mount-options.ts';
import { CLONE } from './kernel.ts';

/** What this plugin's sections are to an OCI runtime's `features`. */
export const ociFeatures = (): Readonly<Record<string, unknown>> => ({
  hooks: ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'],
  mountOptions: mountOptionNames(),
  linux: {
    namespaces: Object.keys(CLONE).sort((a, b) => (a < b ? -1 : 1)),
    intelRdt: { enabled: false },
    mountExtensions: { idmap: { enabled: true } },
    selinux: { enabled: false },
    apparmor: { enabled: false },
    seccomp: { enabled: false },
  },
});
