import { createHash } from 'node:crypto';
import { fail, type EngineError } from '@engine/core/errors';
import { effect, op, step, type Effect, type Step } from '@engine/core/plan';
import { REGISTER, type DriverDeps, type Machine, type Probe } from '@engine/core/contracts/common';
import { type SecurityDriver, type SecurityRequest } from '@engine/core/contracts/security';
import { type Spec } from '@engine/core/spec';
import { findParser, loadedProfiles, ownProfile, policyNamespace, whyUnusable, type Files } from './kernel.ts';
import { DEFAULT_NAME, namedProfile, type NamedProfile } from './template.ts';

export interface AppArmorOptions {
  /** `engine-default`, `unconfined` or the name of a profile that is loaded. */
  readonly profile?: string;
}
export interface AppArmorDeps extends Pick<DriverDeps, 'machine' | 'state' | 'log'> {
  readonly files: Files;
}

const UNCONFINED = 'unconfined';
/** Compiling takes 20 to 50 ms; a loaded machine may take a hundred times as long. ms */
const DEADLINE = 60_000;
/** The ABI that the template is written for: what later ones mediate is left as it is. */
const ABI = '/etc/apparmor.d/abi/3.0';
/** Of profiles and hats (`a//b`). No namespaces, no stacks, nothing that a pattern or a quoting may make of it. */
const NAME = /^[\w/.@+~][\w/.:@+~,=%-]{0,399}$/;

/** The value of the last `apparmor=…` among `--security-opt`. Errors: ERR_INVALID_VALUE: not a profile's name. */
export function profileOption(options: readonly string[]): string | undefined {
  const found = options.findLast((option) => option === 'apparmor' || option.startsWith('apparmor=') || option.startsWith('apparmor:'));
  return found === undefined ? undefined : checkName(found.slice('apparmor='.length), `--security-opt ${found}`);
}
function checkName(name: string, where: string): string {
  if (name === '') throw fail('ERR_INVALID_VALUE', `${where}: no profile is named`, { operation: 'security-opt', hint: 'write apparmor=unconfined or apparmor=NAME' });
  if (!NAME.test(name)) throw fail('ERR_INVALID_VALUE', `${where}: not the name of an AppArmor profile`, { operation: 'security-opt', path: name, hint: 'aa-status lists those that are loaded' });
  return name;
}
function missing(name: string): EngineError {
  return fail('ERR_INVALID_VALUE', `AppArmor profile ${name} is not loaded`, { operation: 'apparmor', path: name, hint: 'load it with apparmor_parser -r FILE; aa-status lists those that are' });
}

/**
 * Compiles `process.apparmorProfile`: the label that the program, and every session's, gets with its exec. The default profile is made from a template, and
 * loaded when the kernel does not have it, or another one of this name: by the digest that the kernel has of it, which is remembered when it was loaded.
 * Nothing ever takes it away: containers of this and other engines may be confined by it, and would not be any more.
 */
export function createAppArmor(deps: AppArmorDeps, options: AppArmorOptions = {}): SecurityDriver {
  const { machine, state, log, files } = deps;
  const profiles = loadedProfiles(files);
  /** As this engine has it, under the name that the kernel has it by; a container's spec says {@link DEFAULT_NAME}. */
  const own = (): NamedProfile => {
    const [engine, pinned] = [ownProfile(machine), files.exists(ABI)];
    // asked at every start: a template is made and hashed only when what it is made of has changed
    if (made?.engine !== engine || made?.pinned !== pinned) made = { engine, pinned, ...namedProfile({ engine, pinned }) };
    return made;
  };
  let made: (NamedProfile & { readonly engine: string | undefined; readonly pinned: boolean }) | undefined;
  const configured = options.profile === undefined || options.profile === DEFAULT_NAME ? undefined : checkName(options.profile, `security.apparmor: ${options.profile}`);
  /** Digests of the kernel that are known to be of our template. */
  let known: string | undefined;
  let told = false;

  function whyNot(): string | undefined {
    const why = whyUnusable(machine);
    if (why !== undefined) return why;
    // what is loaded already can be given without it
    return findParser(files) === undefined && profiles.digest(own().name) === undefined ? 'apparmor_parser (Debian: apparmor), which loads profiles, is not installed' : undefined;
  }
  function unavailable(name: string, why: string): EngineError {
    return fail('ERR_DRIVER_UNAVAILABLE', `AppArmor profile ${name} was asked for, but ${why}`, { operation: 'apparmor', path: name, hint: 'leave it out, or use --security-opt apparmor=unconfined' });
  }
  /** Errors: ERR_DRIVER_UNAVAILABLE, ERR_INVALID_VALUE: not loaded. */
  function checkUsable(name: string): void {
    const why = whyNot();
    if (why !== undefined) throw unavailable(name, why);
    // undefined: shown without root
    if (name !== DEFAULT_NAME && profiles.has(name) === false) throw missing(name);
  }
  /** What was asked for outright: on the command line, or by the configuration. */
  const asked = (request: SecurityRequest): string | undefined => profileOption(request.options) ?? (request.privileged ? UNCONFINED : configured);

  const digestOf = (value: string): string => createHash('sha256').update(value).digest('hex');
  const key = `loaded.${DEFAULT_NAME}`;

  function isCurrent(): boolean {
    const digest = profiles.digest(own().name);
    if (digest === undefined) return false;
    if (known === digest) return true;
    try {
      const kept = state.get(key) as { template?: string; digest?: string } | undefined;
      if (kept?.digest !== digest || kept.template !== digestOf(own().text)) return false;
    } catch (error) {
      log.debug({ error: String(error) }, 'what was loaded is not known');
      return false;
    }
    known = digest;
    return true;
  }

  return {
    name: 'apparmor',
    option: 'apparmor',
    features: new Set(['profile']),
    ociFeatures: (enabled) => ({ linux: { apparmor: { enabled } } }),

    probe(on: Machine): Probe {
      const wanted = configured !== undefined && configured !== UNCONFINED ? { wanted: true } : {};
      const never = whyUnusable(on);
      if (never !== undefined) return { available: false, score: 0, reasons: [never], ...wanted };
      const why = whyNot();
      // a machine that could confine containers, and does not: taken all the same, so that each engine says it (`configure`)
      if (why !== undefined) return { available: wanted.wanted !== true, score: 50, reasons: [`containers run without a profile: ${why}`], ...wanted };
      const reasons = [`profiles loaded by ${findParser(files) ?? 'others: apparmor_parser is not installed'}`];
      const namespace = policyNamespace(on);
      if (namespace !== undefined) reasons.push(`in policy namespace ${namespace}`);
      if (!on.capabilities.includes('CAP_MAC_ADMIN')) {
        if (profiles.digest(own().name) === undefined) return { available: false, score: 0, reasons: ['CAP_MAC_ADMIN is missing: profiles cannot be loaded'], ...wanted };
        reasons.push('CAP_MAC_ADMIN is missing: profiles are taken as they are loaded');
      }
      return { available: true, score: 50, reasons, ...wanted };
    },

    check(request) {
      const name = asked(request);
      if (name !== undefined && name !== UNCONFINED) checkUsable(name);
    },

    configure(spec: Spec, request: SecurityRequest): Spec {
      const name = asked(request);
      if (!spec.process) return spec;
      const { apparmorProfile: _, ...process } = spec.process;
      const why = whyNot();
      if (why !== undefined) {
        if (name !== undefined && name !== UNCONFINED) throw unavailable(name, why);
        // it was there when the container was made
        if (name === undefined && !told) log.warn(`containers run without an AppArmor profile: ${why}`);
        told ||= name === undefined;
        return { ...spec, process };
      }
      if (name !== undefined && name !== UNCONFINED) checkUsable(name);
      return { ...spec, process: { ...process, apparmorProfile: name ?? DEFAULT_NAME } };
    },

    ensure(spec): readonly Effect[] {
      const name = spec.process?.apparmorProfile;
      if (!name || name === UNCONFINED) return [];
      if (name !== DEFAULT_NAME) {
        checkUsable(checkName(name, `process.apparmorProfile: ${name}`));
        return [];
      }
      if (isCurrent()) return [];
      const why = whyNot();
      if (why !== undefined) throw unavailable(name, why);
      const parser = findParser(files);
      // it is there, as somebody else has loaded it, and can't be replaced
      if (parser === undefined || !machine.capabilities.includes('CAP_MAC_ADMIN')) return [];
      const load = op.execHost({ argv: [parser, '--skip-cache', '--replace', '--quiet'], stdin: Buffer.from(own().text), deadline: DEADLINE });
      return [effect(load, { none: 'containers of others may be confined by it: without it they would be free' })];
    },
    ensured(spec) {
      if (spec.process?.apparmorProfile !== DEFAULT_NAME) return;
      const digest = profiles.digest(own().name);
      if (digest === undefined) throw fail('ERR_OPERATION_FAILED', `AppArmor profile ${DEFAULT_NAME} was loaded, but the kernel does not have it`, { operation: 'apparmor', path: DEFAULT_NAME, hint: 'somebody removes profiles (aa-remove-unknown, aa-teardown)' });
      known = digest;
      try {
        state.set(key, { template: digestOf(own().text), digest });
      } catch (error) {
        // the database is busy: it only costs the next engine a load
        log.debug({ error: String(error) }, 'what was loaded could not be kept');
      }
    },

    planProcess(spec, { part, privilegedExec }): readonly Step[] {
      const name = spec.process?.apparmorProfile;
      if (!name) return [];
      const label = privilegedExec ? UNCONFINED : name === DEFAULT_NAME ? own().name : checkName(name, `process.apparmorProfile: ${name}`);
      // `unconfined` is said too: else a profile of the machine for a program of the same path would be taken
      return [step(`${part}.label`, op.execArmor({ proc: REGISTER.proc, label }))];
    },
  };
}
