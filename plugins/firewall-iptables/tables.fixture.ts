import { existsSync, readFileSync } from 'node:fs';
import { type Operation } from '@engine/core/plan';
import { type Family, type RuleReader, type TableName } from './reader.ts';

/** Where operations on files go. */
export interface Files { write(path: string, data: Uint8Array): void; remove(path: string): void }

/** iptables as far as the driver uses it: applies what the operations of the driver would, each table of a text at once or not at all. */
export class FakeTables implements RuleReader {
  readonly #tables = new Map<string, Map<string, string[]>>();
  #generation = 1;
  readonly #files: Files | undefined;
  constructor(files?: Files) {
    this.#files = files;
  }

  generation(): number {
    return this.#generation;
  }
  look(): ReturnType<RuleReader['look']> {
    return {
      rules: (family, table, chain) => (this.#table(family, table).get(chain) ?? []).map((rule) => ({ mentions: (name) => rule.split(' ').includes(name) })),
      hasChain: (family, table, chain) => this.#table(family, table).has(chain),
    };
  }
  /** All rules and chains that are not the kernel's own, as text. */
  all(): string[] {
    return [...this.#tables].flatMap(([key, chains]) => [...chains].flatMap(([chain, rules]) => [...(['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'].includes(chain) ? [] : [`${key}: ${chain}`]), ...rules.map((rule) => `${key}: ${chain} ${rule}`)]));
  }
  chain(family: Family, table: TableName, chain: string): string[] {
    return this.#table(family, table).get(chain) ?? [];
  }
  #table(family: Family, table: string): Map<string, string[]> {
    const key = `${family} ${table}`;
    let found = this.#tables.get(key);
    if (!found) this.#tables.set(key, (found = new Map(['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'].map((name) => [name, []]))));
    return found;
  }
  /** Errors: the first line that is refused. */
  restore(family: Family, text: string): void {
    for (const block of text.split('COMMIT\n').filter(Boolean)) {
      const [head = '', ...lines] = block.split('\n').filter(Boolean);
      const table = head.slice(1);
      const key = `${family} ${table}`;
      const draft = structuredClone(this.#table(family, table));
      for (const line of lines) apply(draft, line);
      this.#tables.set(key, draft);
      this.#generation++;
    }
  }
  /** Runs what the driver planned. Other operations are nothing here. */
  run(operation: Operation): void {
    if (operation.name === 'writeFile') this.#files?.write(String(operation.args['path']), operation.args['data'] as Uint8Array);
    if (operation.name === 'unlink') this.#files?.remove(String(operation.args['path']));
    if (operation.name !== 'execHost') return;
    const argv = operation.args['argv'] as readonly string[];
    if (argv[0] !== '/bin/sh') return this.restore(familyOf(argv[0]), Buffer.from(operation.args['stdin'] as Uint8Array).toString());
    const family = familyOf(argv[3]);
    for (const text of argv.slice(4)) {
      try {
        if (text.startsWith('+')) {
          const [, chain = '', path = ''] = /^\+(\S+) (.*)$/.exec(text) ?? [];
          const kept = readFileSync(path, 'utf8');
          this.restore(family, this.#table(family, 'raw').has(chain) ? kept : kept.replace('\n', `\n-N ${chain}\n`));
        } else if (text.startsWith('<')) this.restore(family, existsSync(text.slice(1)) ? readFileSync(text.slice(1), 'utf8') : '');
        else this.restore(family, text.slice(1));
        if (text.startsWith('|')) return;
      } catch (error) {
        if (/^[!+]/.test(text)) throw error;
      }
    }
  }
}
const familyOf = (program = ''): Family => (program.includes('ip6tables') ? 6 : 4);

function apply(chains: Map<string, string[]>, line: string): void {
  const refuse = (why: string): never => {
    throw new Error(`${line}: ${why}`);
  };
  const rulesOf = (chain: string): string[] => chains.get(chain) ?? refuse('no such chain');
  const [verb = '', chain = '', ...rest] = line.split(' ');
  const jumped = (rule: string): string | undefined => / -[jg] (\S+)$/.exec(` ${rule}`)?.[1];
  const checkTarget = (rule: string): string => {
    const target = jumped(rule);
    if (target && /^E[NG0-9a-f-]{8}/.test(target) && !chains.has(target)) refuse('no such target');
    return rule;
  };
  if (verb.startsWith(':')) chains.set(verb.slice(1), []);
  else if (verb === '-N') {
    if (chains.has(chain)) refuse('exists');
    chains.set(chain, []);
  } else if (verb === '-A') rulesOf(chain).push(checkTarget(rest.join(' ')));
  else if (verb === '-I') rulesOf(chain).splice(Number(rest[0]) - 1, 0, checkTarget(rest.slice(1).join(' ')));
  else if (verb === '-F') rulesOf(chain).length = 0;
  else if (verb === '-D') {
    const rules = rulesOf(chain);
    const at = /^\d+$/.test(rest.join(' ')) ? Number(rest[0]) - 1 : rules.indexOf(rest.join(' '));
    if (at < 0 || at >= rules.length) refuse('no such rule');
    rules.splice(at, 1);
  } else if (verb === '-X') {
    if (rulesOf(chain).length > 0) refuse('not empty');
    if ([...chains.values()].flat().some((rule) => jumped(rule) === chain)) refuse('in use');
    chains.delete(chain);
  } else refuse('unknown');
}
