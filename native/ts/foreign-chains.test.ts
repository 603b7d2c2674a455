import assert from 'node:assert/strict';
import { it } from 'vitest';
import { describeChain, findAccept, foreignChains, parseRuleset } from './foreign-chains.ts';

const chain = (family: string, table: string, name: string, base?: object): object => ({ chain: { family, table, name, handle: 1, ...(base && { type: 'filter', hook: 'forward', prio: 0, policy: 'accept', ...base }) } });
let handle = 10;
const rule = (family: string, table: string, name: string, ...expr: object[]): object => ({ rule: { family, table, chain: name, handle: handle++, expr } });
const parse = (...entries: object[]): ReturnType<typeof parseRuleset> => parseRuleset(JSON.stringify({ nftables: [{ metainfo: {} }, ...entries] }));
const iif = (name: string): object => ({ match: { op: '==', left: { meta: { key: 'iifname' } }, right: name } });

it('finds chains that drop by policy, and says who keeps them', () => {
  const found = foreignChains(parse(
    chain('ip', 'filter', 'FORWARD', { policy: 'drop' }), chain('ip6', 'filter', 'FORWARD', {}), chain('inet', 'mine', 'forward', { policy: 'drop' }), chain('inet', 'fw', 'forward', { policy: 'drop' }),
    chain('ip', 'nat', 'X', { type: 'nat', hook: 'input', policy: 'drop' }), chain('bridge', 'b', 'forward', { policy: 'drop' }),
  ), ['forward'], (_, table) => table === 'mine');
  assert.deepEqual(found.map(({ family, table, managed, by }) => [family, table, managed, by]), [['ip', 'filter', 'iptables', 'policy'], ['inet', 'fw', 'nft', 'policy']]);
});

it('finds last rules that drop or reject, also behind unconditional jumps, and no conditional ones', () => {
  const established = { match: { op: 'in', left: { ct: { key: 'state' } }, right: ['established'] } };
  const dropping = foreignChains(parse(
    chain('inet', 'firewalld', 'filter_FORWARD', {}), rule('inet', 'firewalld', 'filter_FORWARD', established, { accept: null }), rule('inet', 'firewalld', 'filter_FORWARD', { reject: { type: 'icmpx' } }),
    chain('ip', 'filter', 'FORWARD', {}), chain('ip', 'filter', 'last'), rule('ip', 'filter', 'FORWARD', { counter: {} }, { jump: { target: 'last' } }), rule('ip', 'filter', 'last', { counter: {} }, { xt: { type: 'target', name: 'REJECT' } }),
    chain('inet', 'polite', 'forward', {}), rule('inet', 'polite', 'forward', iif('eth9'), { drop: null }),
    chain('inet', 'open', 'forward', { policy: 'drop' }), rule('inet', 'open', 'forward', { accept: null }), rule('inet', 'open', 'forward', { drop: null }),
    chain('inet', 'returns', 'forward', {}), chain('inet', 'returns', 'inner'), rule('inet', 'returns', 'forward', { jump: { target: 'inner' } }), rule('inet', 'returns', 'inner', { return: null }), rule('inet', 'returns', 'inner', { drop: null }),
    chain('inet', 'loop', 'forward', {}), rule('inet', 'loop', 'forward', { jump: { target: 'forward' } }),
  ), ['forward', 'input']);
  assert.deepEqual(dropping.map(({ table, managed }) => [table, managed]), [['firewalld', 'nft'], ['filter', 'iptables']]);
  assert.match(describeChain(dropping[0] as never), /^chain filter_FORWARD of table inet firewalld \(rule with handle \d+\)$/);
});

it('knows the accept that is there already, as nft and as iptables write it', () => {
  const drops = (...rules: object[]): Parameters<typeof findAccept>[0] => foreignChains(parse(chain('ip', 'filter', 'FORWARD', { policy: 'drop' }), ...rules), ['forward'])[0] as never;
  const ours = drops(rule('ip', 'filter', 'FORWARD', iif('en-1'), { xt: { type: 'match', name: 'comment' } }, { counter: {} }, { accept: null }));
  assert.ok(findAccept(ours, { iifname: 'en-1' }));
  assert.equal(findAccept(ours, { iifname: 'en-2' }), undefined);
  assert.equal(findAccept(ours, { oifname: 'en-1' }), undefined);
  const narrower = drops(rule('ip', 'filter', 'FORWARD', iif('en-1'), { match: { op: '==', left: { payload: { protocol: 'ip', field: 'daddr' } }, right: '1.2.3.4' } }, { accept: null }));
  assert.equal(findAccept(narrower, { iifname: 'en-1' }), undefined);
  const port = drops(rule('ip', 'filter', 'FORWARD', iif('en-1'), { match: { op: '==', left: { payload: { protocol: 'udp', field: 'dport' } }, right: 53 } }, { accept: null }));
  assert.ok(findAccept(port, { iifname: 'en-1', protocol: 'udp', port: 53 }));
  assert.equal(findAccept(port, { iifname: 'en-1', protocol: 'tcp', port: 53 }), undefined);
  assert.equal(findAccept(port, { iifname: 'en-1' }), undefined);
});

it('takes anything for a ruleset, and finds nothing in nonsense', () => {
  for (const nonsense of [null, 3, {}, { nftables: [null, 1, { rule: {} }, { chain: [] }] }]) assert.deepEqual(foreignChains(parseRuleset(nonsense), ['forward', 'input']), []);
});
