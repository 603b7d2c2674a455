import { acceptText, commentOf, neededAccepts } from '@engine/native/foreign-accepts';
import { type Ruleset } from '@engine/native/foreign-chains';
import { type Nftables } from '@engine/native/nfnetlink';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { linkKey, readKey } from './bindings.ts';
import { allMembers, readBindings, readNetworks, stampOf } from './files.ts';
import { addText, CHAINS, deleteText, digestOf, MAPS, RELAYED, tableText, versionMember, type Member } from './ruleset.ts';

export interface RestoreParts {
  /** Name of the table. */
  readonly instance: string;
  readonly folder: string;
  readonly nftables: Pick<Nftables, 'hasElement' | 'listElements'>;
  /** What is there. */
  ruleset(): Ruleset;
  /** Commands of nft's language, as one transaction. */
  run(text: string): void;
}
const ATTEMPTS = 5;
/** The first of these that succeeds. Errors: that of the last. */
function firstOf(ways: readonly (() => void)[]): void {
  for (const [i, way] of ways.entries()) {
    try {
      return way();
    } catch (error) {
      if (i === ways.length - 1) throw error;
    }
  }
}


/** Puts back what is missing of the rules, by the files. */
export function createRestorer({ instance, folder, nftables, ruleset, run }: RestoreParts) {
  const has = (element: string): boolean => nftables.hasElement(instance, 'known', linkKey(element));

  /** Is every chain of the table there, with as many rules as it must have? */
  function hasChains(): boolean {
    const chains = ruleset().chains.filter(({ family, table }) => family === 'inet' && table === instance);
    return CHAINS.every(({ name, rules }) => chains.find((chain) => chain.name === name)?.rules.length === rules.length);
  }
  const nameOf = ({ set, text }: Member): string => `${set} ${text}`;
  function missingBindings(): readonly Member[] {
    const bindings = readBindings(folder);
    return Object.keys({ ...MAPS, ...RELAYED }).flatMap((map) => {
      const wanted = bindings.filter(({ set }) => set === map);
      if (wanted.length === 0) return [];
      const there = new Set(nftables.listElements(instance, map).map(({ key, data }) => Buffer.concat([key, data ?? Buffer.alloc(0)]).toString('hex')));
      return wanted.filter((member) => !there.has(readKey(member)));
    });
  }
  /** What is missing in chains of others, as text for nft. */
  const missingAccepts = (networks: readonly FirewallNetwork[], live = ruleset()): string =>
    networks.map((network) => acceptText(neededAccepts(live, network), commentOf(instance, network.link))).join('');

  return {
    /** Is there anything to keep? */
    get needed(): boolean {
      return readNetworks(folder).length > 0;
    },
    /** Why the table must be made again; undefined: it is whole, but for bindings. */
    damage(): string | undefined {
      const networks = readNetworks(folder);
      if (networks.length === 0) return undefined;
      if (!has(versionMember.text.slice(1, -1))) return 'the table is gone';
      const missing = networks.find((network) => !has(digestOf(network)));
      if (missing) return `network ${missing.name} is missing`;
      return hasChains() ? undefined : 'rules are missing';
    },
    /** Bindings that the table lacks: of runs that are just starting, too. */
    missing: (): ReadonlySet<string> => new Set(missingBindings().map(nameOf)),
    /** Put back those that are missing still; how many. */
    complete(names: ReadonlySet<string>): number {
      const members = missingBindings().filter((member) => names.has(nameOf(member)));
      if (members.length > 0) run(addText(instance, members));
      return members.length;
    },
    /** Everything in one transaction, from files that did not change meanwhile. */
    restore(): void {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const stamp = stampOf(folder);
        const networks = readNetworks(folder);
        if (networks.length === 0) {
          // the last one was removed while its rules were put back
          if (attempt > 0) run(deleteText(instance));
          return;
        }
        const text = (anew: boolean): string => tableText(instance, [versionMember, ...allMembers(folder)], { anew });
        const accepts = missingAccepts(networks);
        // somebody may have taken a foreign chain away since it was read; and what stands in the table may not go with what is to come
        firstOf([() => run(text(false) + accepts), () => run(text(true) + accepts), () => run(text(true))]);
        if (stampOf(folder) === stamp) return;
      }
    },
    /** Accepts that are missing in chains of others; true when there were some. */
    passForeign(): boolean {
      const networks = readNetworks(folder);
      if (networks.length === 0) return false;
      const text = missingAccepts(networks);
      if (text !== '') run(text);
      return text !== '';
    },
  };
}
export type Restorer = ReturnType<typeof createRestorer>;
