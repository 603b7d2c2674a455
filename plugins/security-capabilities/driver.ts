import { fail } from '@engine/core/errors';
import { op, step, type Step } from '@engine/core/plan';
import { REGISTER, type DriverDeps, type Machine, type Probe } from '@engine/core/contracts/common';
import { type SecurityDriver, type SecurityRequest } from '@engine/core/contracts/security';
import { type Process, type Spec } from '@engine/core/spec';
import { canonicalName, capabilities, isKnown, chooseCapabilities, defaultCapabilities, inOrder, maskOf } from './names.ts';

export interface CapabilityOptions {
  /** What a container has when nothing is asked for; Docker's 14 when absent. */
  readonly default?: readonly string[];
}
const OPTION = 'no-new-privileges';

/** `no-new-privileges`, `no-new-privileges:true`, `no-new-privileges=false`; the last one counts. Errors: ERR_INVALID_VALUE. */
export function readNoNewPrivileges(options: readonly string[]): boolean | undefined {
  let result: boolean | undefined;
  for (const option of options) {
    if (option !== OPTION && !option.startsWith(`${OPTION}:`) && !option.startsWith(`${OPTION}=`)) continue;
    const value = option.slice(OPTION.length + 1) || 'true';
    if (value !== 'true' && value !== 'false') throw fail('ERR_INVALID_VALUE', `--security-opt ${option}: neither true nor false`, { operation: 'security-opt' });
    result = value === 'true';
  }
  return result;
}

/** Is it known before the run that the user isn't root? A name is looked up inside the rootfs only. */
const isSurelyNotRoot = ({ user }: Process): boolean =>
  user.username ? /^[1-9]\d*(:|$)/.test(user.username) : user.uid !== undefined && user.uid !== 0;

/**
 * Compiles `process.capabilities` and `process.noNewPrivileges` into `bounds` and `identity`. Inheritable and ambient are empty
 * (CVE-2022-29162, 27649, 27650); an OCI bundle may ask for them outright. A user other than root gets no effective capability, as the
 * kernel's exec would have it anyway.
 */
export function createCapabilities(deps: Pick<DriverDeps, 'machine' | 'log'>, options: CapabilityOptions = {}): SecurityDriver {
  const { machine, log } = deps;

  /** What this engine can give at all; the rest is named and left out. */
  function grantable(wanted: readonly string[], why: string, quiet = false): string[] {
    const given = wanted.filter((name) => machine.capabilities.includes(name));
    const missing = wanted.filter((name) => !given.includes(name));
    if (missing.length > 0 && !quiet) log.warn({ missing }, `${why}: left out ${missing.join(', ')}, which the engine itself does not have`);
    return given;
  }

  /** What this engine has no bit for is told and left out, as the spec has it for what cannot be mapped (config.md, capabilities). */
  function knownOf(names: readonly string[], quiet: boolean): string[] {
    const unknown = names.filter((name) => !isKnown(name));
    if (unknown.length > 0 && !quiet) log.warn({ unknown }, `process.capabilities: left out ${unknown.join(', ')}, which nobody knows`);
    return names.filter(isKnown).map(canonicalName);
  }

  function wanted(request: SecurityRequest): string[] {
    const isAll = (text: string): boolean => /^(CAP_)?ALL$/i.test(text.trim());
    const chosen = request.privileged ? [...capabilities] : chooseCapabilities(options.default ?? defaultCapabilities, request.capAdd, request.capDrop);
    const named = new Set(request.capAdd.filter((text) => !isAll(text)).map(canonicalName));
    const given = [...grantable(chosen.filter((name) => !named.has(name)), request.privileged ? '--privileged' : 'capabilities'), ...grantable(chosen.filter((name) => named.has(name)), '--cap-add')];
    return inOrder(given);
  }

  return {
    name: 'capabilities',
    option: OPTION,
    features: new Set(),
    ociFeatures: () => ({ linux: { capabilities: capabilities.slice(0, 1 + Number(machine.read('/proc/sys/kernel/cap_last_cap') ?? capabilities.length)) } }),

    probe(on: Machine): Probe {
      const missing = capabilities.filter((name) => !on.capabilities.includes(name));
      if (!on.capabilities.includes('CAP_SETPCAP')) return { available: false, score: 0, reasons: ['CAP_SETPCAP is missing: the bounding set cannot be changed'] };
      return { available: true, score: 50, reasons: missing.length > 0 ? [`cannot be granted here: ${missing.join(', ')}`] : ['all capabilities can be granted'] };
    },

    configure(spec: Spec, request: SecurityRequest): Spec {
      if (!spec.process) return spec;
      const set = wanted(request);
      const process: Process = { ...spec.process, capabilities: { bounding: set, effective: set, permitted: set, inheritable: [], ambient: [] } };
      const noNewPrivileges = readNoNewPrivileges(request.options);
      if (noNewPrivileges !== undefined) process.noNewPrivileges = noNewPrivileges;
      return { ...spec, process };
    },

    planProcess(spec, { part, noNewPrivileges, privilegedExec }): readonly Step[] {
      const process = spec.process;
      if (!process) return [];
      const early = noNewPrivileges || process.noNewPrivileges === true ? [step(`${part}.identity`, op.noNewPrivileges({}))] : [];
      const asked = process.capabilities;
      if (!asked && !privilegedExec) return early;
      const can = (names: readonly string[] | undefined, quiet = true): string[] => grantable(knownOf(names ?? [], quiet), 'process.capabilities', quiet);
      const all = privilegedExec ? can(capabilities) : undefined;
      const bounding = maskOf(all ?? can(asked?.bounding, false));
      const none = isSurelyNotRoot(process);
      const ambient = privilegedExec ? 0n : maskOf(can(asked?.ambient));
      // ambient capabilities are meant for users other than root: they need the permitted set
      const permitted = none && ambient === 0n ? 0n : maskOf(all ?? can(asked?.permitted));
      const effective = none && ambient === 0n ? 0n : maskOf(all ?? can(asked?.effective)) & permitted;
      return [
        step(`${part}.bounds`, op.capabilityBounds({ bounding })),
        ...early,
        step(`${part}.identity`, op.identity({
          uid: REGISTER.uid, gid: REGISTER.gid, groups: REGISTER.groups, effective, permitted,
          inheritable: privilegedExec ? 0n : maskOf(can(asked?.inheritable)), ambient, rootOnly: ambient === 0n ? 1 : 0,
        })),
      ];
    },
  };
}
