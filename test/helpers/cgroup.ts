import { existsSync } from 'node:fs';

/** Is cgroup v2 all that this machine has? Then its files have other names, inside of containers too. */
export const unified = existsSync('/sys/fs/cgroup/cgroup.controllers');
