import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { type Family, type Rules, type TableName } from './reader.ts';
import { addDispatch, dropDispatch, networkChains, restoreText, sharedChains, type Block, type Dispatch, type Names } from './rules.ts';

/**
 * What a shell gives to iptables-restore. `must`: a failure ends it; `may`: it may fail because somebody was faster; `all`: when it succeeds nothing else is to be done;
 * `kept`: `text` is the path of a file, which may be gone by then; `relayed`: a chain of raw, a space, and the path of a file that goes into it. Nobody else makes that chain before.
 */
export interface Change { readonly how: 'must' | 'may' | 'all' | 'kept' | 'relayed'; readonly text: string }
const may = (table: TableName, ...lines: string[]): Change => ({ how: 'may', text: restoreText([{ table, lines }]) });

const TABLES: readonly TableName[] = ['raw', 'mangle', 'filter', 'nat'];
const byTable = <T extends { readonly table: TableName }>(list: readonly T[]): (readonly [TableName, readonly T[]])[] =>
  TABLES.map((table) => [table, list.filter((one) => one.table === table)] as const).filter(([, found]) => found.length > 0);

/** Positions (from 1) of the rules of a chain that mention something. */
const positions = (reader: Rules, family: Family, { table, from, mentions }: Dispatch): number[] => reader.rules(family, table, from).flatMap((rule, i) => (rule.mentions(mentions) ? [i + 1] : []));

/** Chains that all networks share: what is not there. */
function missingShared(reader: Rules, family: Family, names: Names, network: FirewallNetwork): Change[] {
  const absent: Block[] = [];
  const loose: Change[] = [];
  const repairs: Change[] = [];
  for (const { table, chain, rules, hooks, isFor } of sharedChains(family, names)) {
    if (isFor?.(network) === false) continue;
    const lacking = hooks.filter((hook) => positions(reader, family, hook).length === 0);
    const isWhole = reader.rules(family, table, chain).length >= rules.length;
    if (lacking.length === 0 && isWhole && (hooks.length > 0 || reader.hasChain(family, table, chain))) continue;
    // -N fails where another engine process has just made it: then the jumps are there too
    // by itself: it comes and goes at other times than the rest of its table
    if (hooks.length === 0 && !reader.hasChain(family, table, chain)) loose.push(may(table, `-N ${chain}`));
    else if (!reader.hasChain(family, table, chain)) absent.push({ table, lines: [`-N ${chain}`, ...rules, ...hooks.map(addDispatch)] });
    else repairs.push(may(table, ...(isWhole ? [] : [`:${chain} - [0:0]`, ...rules]), ...lacking.map(addDispatch)));
  }
  return [...byTable(absent).map(([table, blocks]) => may(table, ...blocks.flatMap(({ lines }) => lines))), ...loose, ...repairs];
}

export interface Missing {
  /** Nothing of it was there: its undo is to take it away. */
  readonly isNew: boolean;
  readonly changes: readonly Change[];
}
/** What the kernel lacks of a network. */
export function findMissing(reader: Rules, family: Family, network: FirewallNetwork, names: Names): Missing {
  const chains = networkChains(family, network, names);
  if (chains.length === 0) return { isNew: false, changes: [] };
  let isNew = true;
  const blocks: Block[] = [];
  for (const { table, chain, rules, dispatch } of chains) {
    const groups = Map.groupBy(dispatch, ({ from, mentions }) => `${from} ${mentions}`);
    const found = [...groups.values()].map((wanted) => ({ wanted, there: positions(reader, family, wanted[0] as Dispatch) }));
    const count = reader.rules(family, table, chain).length;
    if (count > 0 || found.some(({ there }) => there.length > 0)) isNew = false;
    const wrong = found.filter(({ wanted, there }) => there.length !== wanted.length);
    if (count === rules.length && wrong.length === 0) continue;
    blocks.push({
      table,
      lines: [
        ...(count === rules.length ? [] : [`:${chain} - [0:0]`, ...rules]),
        ...wrong.flatMap(({ wanted, there }) => [...there.toReversed().map((at) => `-D ${(wanted[0] as Dispatch).from} ${at}`), ...wanted.map(addDispatch)]),
      ],
    });
  }
  const shared = missingShared(reader, family, names, network);
  const own: Change[] = blocks.length === 0 ? [] : [{ how: 'must', text: restoreText(byTable(blocks).map(([table, list]) => ({ table, lines: list.flatMap(({ lines }) => lines) }))) }];
  return { isNew, changes: [...shared, ...own] };
}

/** Is anything of a network there, or of what networks share? */
export function isPresent(reader: Rules, family: Family, network: FirewallNetwork, names: Names): boolean {
  return [...networkChains(family, network, names), ...sharedChains(family, names)].some(({ table, chain }) => reader.hasChain(family, table, chain));
}

/** Everything of a network, whatever of it is there. */
export function removeNetwork(family: Family, network: FirewallNetwork, names: Names): readonly Change[] {
  const chains = networkChains(family, network, names);
  const drops = (list: typeof chains): string[] => list.flatMap(({ chain }) => [`:${chain} - [0:0]`, `-X ${chain}`]);
  const tables = byTable(chains);
  return [
    { how: 'all', text: restoreText(tables.map(([table, list]) => ({ table, lines: [...list.flatMap(({ dispatch }) => dispatch.map(dropDispatch)), ...drops(list)] }))) },
    // each by itself: one that is gone must not keep the others
    ...chains.flatMap(({ dispatch }) => dispatch.map((one) => may(one.table, dropDispatch(one)))),
    { how: 'must', text: restoreText(tables.map(([table, list]) => ({ table, lines: drops(list) }))) },
  ];
}
/** What networks share, once the last one is gone: chains that are in use refuse to go, and with them the rest of their table. `isThere`: of the jumps to them. */
export function removeShared(family: Family, names: Names, isThere: (hook: Dispatch) => boolean = () => true): readonly Change[] {
  const shared = sharedChains(family, names);
  const loose = shared.filter(({ hooks }) => hooks.length === 0);
  return [
    ...loose.map(({ table, chain }) => may(table, `-X ${chain}`)),
    ...byTable(shared.filter((one) => !loose.includes(one))).map(([table, list]) => may(table, ...list.flatMap(({ chain, rules, hooks }) => [...hooks.filter(isThere).map(dropDispatch), ...(rules.length > 0 ? [`-F ${chain}`] : []), `-X ${chain}`]))),
  ];
}
export const hasHook = (reader: Rules, family: Family) => (hook: Dispatch): boolean => positions(reader, family, hook).length > 0;
