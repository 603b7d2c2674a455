import { existsSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { parse, readBoolean, type Values } from './parse.ts';

export const DEFAULT_ROOT = '/run/engine-oci';

export const globalFlags = {
  root: { type: 'string', value: 'DIR', help: `folder of the state of all containers, on a tmpfs (default ${DEFAULT_ROOT})` },
  log: { type: 'string', value: 'FILE', help: 'append errors and warnings to it (default: standard error)' },
  'log-format': { type: 'string', value: 'FORMAT', help: 'text or json (default text)' },
  debug: { type: 'boolean', help: 'say more in the log' },
  'systemd-cgroup': { type: 'boolean', help: 'let systemd make cgroups: cgroupsPath is slice:prefix:name' },
  'cgroup-manager': { type: 'string', value: 'NAME', help: 'cgroupfs, systemd, or a driver of the engine by its name (default cgroupfs)' },
  rootless: { type: 'string', value: 'VALUE', help: 'true, false or auto: accepted; the engine needs root in any case' },
  criu: { type: 'string', value: 'PATH', help: 'taken and unused: options.checkpoint-criu.program in .enginerc names another criu' },
  version: { type: 'boolean', short: 'v', help: 'print the version' },
  help: { type: 'boolean', short: 'h', help: 'print this' },
} as const;

export interface Globals {
  readonly flags: Values<typeof globalFlags>;
  /** By names of `drivers.cgroup`. */
  readonly cgroupDriver: string;
}

/**
 * The cgroup driver: a path or `slice:prefix:name` can be told apart by the flag alone, so what the configuration chooses for containers of our own is not asked.
 * Errors: ERR_USAGE, ERR_NOT_SUPPORTED.
 */
export function chooseCgroup(manager: string | undefined, systemd: boolean): string {
  if (manager === 'disabled') throw fail('ERR_NOT_SUPPORTED', '--cgroup-manager disabled: a container without a cgroup could not be ended for sure', { operation: 'parse', exitCode: 1 });
  if (systemd && manager !== undefined && manager !== 'systemd') throw fail('ERR_USAGE', `--systemd-cgroup and --cgroup-manager ${manager} exclude each other`, { operation: 'parse', exitCode: 1, hint: '' });
  if (systemd || manager === 'systemd') return 'systemd';
  if (manager !== undefined && manager !== 'cgroupfs') return manager;
  return existsSync('/sys/fs/cgroup/cgroup.controllers') ? 'v2' : 'v1';
}

/** The flags before the verb, and the rest. Errors: ERR_USAGE. */
export function parseGlobals(argv: readonly string[]): { readonly flags: Values<typeof globalFlags>; readonly rest: readonly string[] } {
  const short = argv.map((word) => (word === '-V' ? '-v' : word === '-?' ? '-h' : word));
  const at = argv.length - parse('', globalFlags, short, { passThrough: true }).args.length;
  const { flags } = parse('', globalFlags, short.slice(0, at));
  return { flags, rest: argv.slice(at) };
}

/** Errors: ERR_USAGE, ERR_NOT_SUPPORTED. */
export function checkGlobals(flags: Values<typeof globalFlags>): Globals {
  const { rootless, manager } = { rootless: flags.rootless, manager: flags['cgroup-manager'] };
  if (rootless !== undefined && rootless !== 'auto') readBoolean('', 'rootless', rootless);
  const choose = (): string => chooseCgroup(manager, flags['systemd-cgroup']);
  if (manager !== undefined || flags['systemd-cgroup']) choose();
  // only who makes something looks at the machine for it
  return { flags, get cgroupDriver() { return choose(); } };
}
