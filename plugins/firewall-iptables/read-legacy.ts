import { fail } from '@engine/core/errors';
import { defineLibrary, errnoName } from '@engine/native/library';
import { type Family, type Rule, type RuleReader, type TableName } from './reader.ts';

/** linux/netfilter_ipv4/ip_tables.h and its IPv6 twin: where things stand in struct ipt_entry and ip6t_entry. */
const LAYOUT = {
  4: { domain: 2, level: 0, interfaces: 16, targetOffset: 88, nextOffset: 90 },
  6: { domain: 10, level: 41, interfaces: 64, targetOffset: 140, nextOffset: 142 },
} as const;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const IPPROTO_RAW = 255;
const SO_GET_INFO = 64;
const SO_GET_ENTRIES = 65;
/** struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size. */
const INFO = { bytes: 84, hooks: 32, entries: 36, size: 80 } as const;
/** struct ipt_get_entries before its entries. */
const HEAD = 40;
const HOOKS = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'] as const;
/** struct xt_entry_target before its data: u16 size, char name[29], u8 revision. */
const TARGET_HEAD = 32;

const text = (bytes: Buffer): string => bytes.toString('latin1').replace(/\0.*$/s, '');

interface Libc {
  socket(domain: number, type: number, protocol: number): { value: number; errno: number };
  getsockopt(fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array): { value: number; errno: number };
  close(fd: number): unknown;
}
let libc: Libc | undefined;
const openLibc = (): Libc => (libc ??= defineLibrary(['libc.so.6', 'libc.so'], {
  socket: { args: ['int', 'int', 'int'], result: 'int' },
  getsockopt: { args: ['int', 'int', 'int', 'bytes', 'bytes'], result: 'int' },
  close: { args: ['int'], result: 'int' },
}));

/** Chain → rules, of a table as getsockopt gives it. Exported for tests. */
export function parseTable(family: Family, info: Buffer, entries: Buffer): Map<string, readonly Rule[]> {
  const layout = LAYOUT[family];
  const starts = new Map<number, string>();
  const hooks = info.readUInt32LE(INFO.hooks);
  HOOKS.forEach((name, i) => {
    if (hooks & (1 << i)) starts.set(info.readUInt32LE(INFO.entries + 4 * i), name);
  });
  interface Raw { readonly at: number; readonly interfaces: readonly string[]; readonly target: string; readonly verdict: number }
  const all: Raw[] = [];
  for (let at = 0; at + layout.nextOffset + 2 <= entries.length;) {
    const next = entries.readUInt16LE(at + layout.nextOffset);
    const target = at + entries.readUInt16LE(at + layout.targetOffset);
    if (next === 0 || target + TARGET_HEAD + 4 > entries.length) break;
    const name = text(entries.subarray(target + 2, target + 2 + 29));
    // the head of a user's chain: its name; a jump goes to what follows that
    if (name === 'ERROR') starts.set(at + next, text(entries.subarray(target + TARGET_HEAD, target + TARGET_HEAD + 30)));
    const from = at + layout.interfaces;
    all.push({ at, interfaces: [text(entries.subarray(from, from + 16)), text(entries.subarray(from + 16, from + 32))], target: name, verdict: entries.readInt32LE(target + TARGET_HEAD) });
    at += next;
  }
  const chains = new Map<string, Rule[]>();
  let current: Rule[] | undefined;
  for (const { at, interfaces, target, verdict } of all) {
    if (target === 'ERROR') {
      current = undefined;
      continue;
    }
    const start = starts.get(at);
    if (start !== undefined) chains.set(start, (current = []));
    const names = new Set([...interfaces, target === '' && verdict >= 0 ? (starts.get(verdict) ?? '') : target]);
    current?.push({ mentions: (name) => names.has(name) });
  }
  // the last one of each is not a rule: the policy, or the return at the end
  for (const rules of chains.values()) rules.pop();
  return chains;
}

/** What iptables-legacy has made, by the same calls that it uses itself; a table is read whole. */
export const createLegacyReader = (): RuleReader => ({
  generation: () => undefined,
  look() {
    const tables = new Map<string, ReadonlyMap<string, readonly Rule[]>>();
    const table = (family: Family, name: TableName): ReadonlyMap<string, readonly Rule[]> => {
      const key = `${family} ${name}`;
      let found = tables.get(key);
      if (!found) tables.set(key, (found = readTable(family, name)));
      return found;
    };
    return { rules: (family, name, chain) => table(family, name).get(chain) ?? [], hasChain: (family, name, chain) => table(family, name).has(chain) };
  },
});

function readTable(family: Family, name: TableName): Map<string, readonly Rule[]> {
  const { domain, level } = LAYOUT[family];
  const calls = openLibc();
  const opened = calls.socket(domain, SOCK_RAW_CLOEXEC, IPPROTO_RAW);
  const failed = (what: string, errno: number): Error => fail('ERR_NATIVE', `cannot read table ${name} of IPv${family}: ${what} failed`, { operation: what, errno: errnoName(errno) });
  if (opened.value < 0) throw failed('socket', opened.errno);
  try {
    // EAGAIN: it has grown or shrunk between the two calls
    for (let tries = 0; ; tries++) {
      const info = Buffer.alloc(INFO.bytes);
      info.write(name, 'latin1');
      const length = Buffer.alloc(4);
      length.writeUInt32LE(info.length);
      const first = calls.getsockopt(opened.value, level, SO_GET_INFO, info, length);
      if (first.value < 0) throw failed('getsockopt', first.errno);
      const answer = Buffer.alloc(HEAD + info.readUInt32LE(INFO.size));
      answer.write(name, 'latin1');
      answer.writeUInt32LE(info.readUInt32LE(INFO.size), 32);
      length.writeUInt32LE(answer.length);
      const second = calls.getsockopt(opened.value, level, SO_GET_ENTRIES, answer, length);
      if (second.value >= 0) return parseTable(family, info, answer.subarray(HEAD));
      if (errnoName(second.errno) !== 'EAGAIN' || tries >= 20) throw failed('getsockopt', second.errno);
    }
  } finally {
    calls.close(opened.value);
  }
}
