import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { type Machine } from '@engine/core/contracts/common';

const FOLDER = '/sys/kernel/security/apparmor';
const PROFILES = `${FOLDER}/policy/profiles`;
const PARSERS = ['/usr/sbin/apparmor_parser', '/sbin/apparmor_parser', '/usr/bin/apparmor_parser', '/usr/local/sbin/apparmor_parser'];

/** What is read of the machine besides small files. */
export interface Files {
  /** Undefined: it can't be read. Unlike Machine.read it sees what has changed since. */
  read(path: string): string | undefined;
  /** Names in a folder; empty when there is none. */
  list(path: string): readonly string[];
  exists(path: string): boolean;
}
const or = <T>(work: () => T, other: T): T => {
  try {
    return work();
  } catch {
    return other;
  }
};
export const realFiles: Files = {
  read: (file) => or<string | undefined>(() => readFileSync(file, 'utf8'), undefined),
  list: (folder) => or<readonly string[]>(() => readdirSync(folder), []),
  exists: existsSync,
};

export interface Label { readonly profile: string; readonly mode: string | undefined }
/** `unconfined`, `NAME (enforce)`. */
export function parseLabel(text: string): Label {
  const found = /^(.*) \((\w+)\)$/s.exec(text.trimEnd());
  return found ? { profile: found[1] ?? '', mode: found[2] } : { profile: text.trimEnd(), mode: undefined };
}

/** What this process itself runs under; undefined where another security module answers. */
export function ownLabel(machine: Pick<Machine, 'read'>): Label | undefined {
  const text = machine.read('/proc/self/attr/apparmor/current') ?? machine.read('/proc/self/attr/current');
  return text === undefined || text === '' ? undefined : parseLabel(text);
}
/** The profile in unconfined mode that the engine runs under: distributions ship some that only grant user namespaces. */
export function ownProfile(machine: Pick<Machine, 'read'>): string | undefined {
  const own = ownLabel(machine);
  return own?.mode === 'unconfined' ? own.profile : undefined;
}

/** Why AppArmor can't be used here, in words; undefined: it can. */
export function whyUnusable(machine: Pick<Machine, 'read'>): string | undefined {
  if (machine.read('/sys/module/apparmor/parameters/enabled')?.trim() !== 'Y') return 'this kernel has no AppArmor, or it is turned off (apparmor=1 security=apparmor on the kernel\'s command line)';
  if (machine.read(`${FOLDER}/features/domain/change_onexec`)?.trim() !== 'yes') return 'securityfs is not mounted on /sys/kernel/security here: the engine runs in a container, or without the right to see it';
  const own = ownLabel(machine);
  if (own === undefined) return 'another security module is in AppArmor\'s place';
  if (own.profile !== 'unconfined' && own.mode !== 'unconfined') return `the engine itself is confined by profile ${own.profile}, and cannot give containers another one`;
  return undefined;
}
/** The policy namespace, when it is not the machine's own: containers of LXD and the like have one. */
export function policyNamespace({ read }: Pick<Machine, 'read'>): string | undefined {
  const level = read(`${FOLDER}/.ns_level`)?.trim();
  return level === undefined || level === '0' ? undefined : (read(`${FOLDER}/.ns_name`)?.trim() ?? level);
}
export const findParser = (files: Files): string | undefined => PARSERS.find((file) => files.exists(file));

/** Profiles in the kernel. */
export interface LoadedProfiles {
  /** Undefined: the list can't be read (not root). */
  has(name: string): boolean | undefined;
  /** What the kernel says of a profile's content: a digest, `-` where it keeps none; undefined: it isn't loaded. Microseconds. */
  digest(name: string): string | undefined;
}
export function loadedProfiles(files: Files): LoadedProfiles {
  /** Where a profile's files were last seen: the kernel gives each load a number. */
  const folders = new Map<string, string>();
  const isOf = (folder: string, name: string): boolean => files.read(path.posix.join(folder, 'name'))?.trimEnd() === name;
  function folderOf(name: string): string | undefined {
    const known = folders.get(name);
    if (known !== undefined && isOf(known, name)) return known;
    const found = files.list(PROFILES).filter((entry) => entry.slice(0, entry.lastIndexOf('.')) === name).map((entry) => path.posix.join(PROFILES, entry)).find((folder) => isOf(folder, name));
    if (found === undefined) folders.delete(name);
    else folders.set(name, found);
    return found;
  }
  return {
    has(name) {
      const text = files.read(`${FOLDER}/profiles`);
      if (text === undefined) return undefined;
      return text.split('\n').some((line) => line !== '' && parseLabel(line).profile === name);
    },
    digest(name) {
      const folder = folderOf(name);
      // sha256 since Linux 6.8
      return folder === undefined ? undefined : (files.read(`${folder}/sha256`) ?? files.read(`${folder}/sha1`) ?? '-').trimEnd();
    },
  };
}
