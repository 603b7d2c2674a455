import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { readBindingLines } from './bindings.ts';
import { isLinkName, membersOf, type Member } from './ruleset.ts';

/** What the service restores from. `networks/<id>.json`: a FirewallNetwork; `bindings/<run>-<interface>`: lines of bindings.ts. Gone with a reboot, as the rules are. */
export const networksFolder = (folder: string): string => join(folder, 'networks');
export const bindingsFolder = (folder: string): string => join(folder, 'bindings');
export const networkFile = (folder: string, id: string): string => join(networksFolder(folder), `${id}.json`);
export const bindingsFile = (folder: string, run: string, name: string): string => join(bindingsFolder(folder), `${run}-${name}`);

function list(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => !name.startsWith('.')).sort();
  } catch {
    return []; // made with the first network
  }
}
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // its container has just ended, or its network was removed
  }
}

/** All networks that have rules. A file that is no network (damaged) is left out. */
export function readNetworks(folder: string): readonly FirewallNetwork[] {
  return list(networksFolder(folder)).flatMap((name) => {
    try {
      const network = JSON.parse(read(join(networksFolder(folder), name)) ?? 'null') as FirewallNetwork | null;
      return network && typeof network.id === 'string' && isLinkName(network.link) ? [network] : [];
    } catch {
      return [];
    }
  });
}

/** All bindings. Of two for one key the younger one counts: the other one's run is over and its undo to come. */
export function readBindings(folder: string): readonly Member[] {
  const path = bindingsFolder(folder);
  const byKey = new Map<string, Member>();
  const files = list(path).map((name) => ({ name, time: statSync(join(path, name), { throwIfNoEntry: false })?.mtimeMs ?? 0 })).sort((a, b) => a.time - b.time);
  for (const { name } of files) {
    for (const member of readBindingLines(read(join(path, name)) ?? '')) byKey.set(`${member.set} ${member.text.split(' : ')[0]}`, member);
  }
  return [...byKey.values()];
}

/** Changes whenever one of the files does. */
export function stampOf(folder: string): string {
  return [networksFolder(folder), bindingsFolder(folder)].flatMap((path) => list(path).map((name) => {
    const stat = statSync(join(path, name), { throwIfNoEntry: false });
    return `${name} ${stat?.ino ?? 0} ${stat?.mtimeMs ?? 0} ${stat?.size ?? 0}`;
  })).join('\n');
}

/** Everything that the table must hold, by these files. A link has one network: the one that is handed in, else the first. */
export function allMembers(folder: string, more: readonly FirewallNetwork[] = []): readonly Member[] {
  const byLink = new Map<string, FirewallNetwork>();
  for (const network of [...more, ...readNetworks(folder).filter(({ id }) => more.every((other) => other.id !== id))]) {
    if (!byLink.has(network.link)) byLink.set(network.link, network);
  }
  return [...[...byLink.values()].flatMap(membersOf), ...readBindings(folder)];
}
