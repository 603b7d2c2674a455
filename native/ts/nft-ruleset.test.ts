import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, beforeEach, describe, it } from 'vitest';
import { describeChain, findAccept, foreignChains, parseRuleset, type AcceptMatch } from './foreign-chains.ts';
import { attribute, be32, encodeMessage, NETLINK_NETFILTER, NLM_F } from './netlink-codec.ts';
import { openNetlink } from './netlink-socket.ts';
import { nfgenmsg, nftBatch, NFPROTO } from './nfnetlink.ts';
import { readRuleset } from './nft-ruleset.ts';
import { enterNetns, netnsUnable } from './testing-netns.ts';

const has = (program: string): boolean => {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};

describe.skipIf(netnsUnable !== undefined || !has('nft'))('the ruleset by netlink', () => {
  let leave: () => void;
  const nft = (text: string): string => execFileSync('nft', ['-f', '-'], { input: text.replaceAll(/; \};?/g, '; }\n'), encoding: 'utf8' });
  const json = (): ReturnType<typeof parseRuleset> => parseRuleset(execFileSync('nft', ['-j', 'list', 'ruleset'], { encoding: 'utf8' }));
  const wanted: AcceptMatch[] = [{ iifname: 'en-1' }, { oifname: 'en-1' }, { iifname: 'en-1', protocol: 'udp', port: 53 }, { iifname: 'en-1', protocol: 'tcp', port: 53 }, { iifname: 'en-2' }];
  /** What of it matters: chains that drop, why, and the accepts in them. */
  const essence = (ruleset: ReturnType<typeof parseRuleset>): unknown => foreignChains(ruleset, ['forward', 'input']).map((chain) => [describeChain(chain), chain.managed, chain.priority, wanted.map((match) => findAccept(chain, match)?.handle), chain.rules.map(({ comment }) => comment)]);
  beforeAll(() => {
    leave = enterNetns();
  });
  beforeEach(() => void nft('flush ruleset'));
  afterAll(() => leave());

  it('says of chains that drop what nft itself says of them', () => {
    nft(`table inet firewalld {
        chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state { established, related } accept; ct status dnat accept; iifname "lo" accept; iifname "en-1" counter accept comment "engine-00000001 en-1"; jump zones; ct state invalid drop; reject with icmpx type admin-prohibited; }
        chain filter_INPUT { type filter hook input priority 10; policy drop; iifname "en-1" udp dport 53 counter accept; iifname "en-1" tcp dport { 53, 54 } accept; iifname "en-1" ip saddr 10.0.0.0/8 tcp dport 53 accept; }
        chain zones { iifname "eth*" drop; meta mark 1 drop; }
      }
      table ip6 mine { chain forward { type filter hook forward priority 0; policy accept; goto last; }; chain last { oifname != "en-1" accept; drop; } }
      table ip polite { chain forward { type filter hook forward priority 0; policy drop; accept; }; chain nat { type nat hook input priority 0; policy drop; } }
      table bridge b { chain forward { type filter hook forward priority 0; policy drop; } }`);
    assert.deepEqual(essence(readRuleset()), essence(json()));
    assert.deepEqual(foreignChains(readRuleset(), ['forward', 'input']).map(({ table, chain }) => `${table} ${chain}`), ['firewalld filter_FORWARD', 'firewalld filter_INPUT', 'mine forward']);
  });
  it.skipIf(!has('iptables-nft'))('reads what iptables writes', () => {
    const iptables = (...args: string[]): Buffer => execFileSync('iptables-nft', args);
    iptables('-P', 'FORWARD', 'DROP');
    iptables('-A', 'FORWARD', '-i', 'en-1', '-m', 'comment', '--comment', 'engine-00000001', '-j', 'ACCEPT');
    iptables('-A', 'FORWARD', '-o', 'en-1', '-m', 'conntrack', '--ctstate', 'ESTABLISHED', '-j', 'ACCEPT');
    iptables('-A', 'INPUT', '-i', 'en-1', '-p', 'udp', '--dport', '53', '-j', 'ACCEPT');
    iptables('-A', 'INPUT', '-j', 'LOG');
    iptables('-A', 'INPUT', '-j', 'REJECT', '--reject-with', 'icmp-host-prohibited');
    const [forward, input] = foreignChains(readRuleset(), ['forward', 'input']);
    assert.deepEqual([forward?.managed, forward?.by, input?.managed, typeof input?.by], ['iptables', 'policy', 'iptables', 'object']);
    assert.deepEqual(wanted.map((match) => [forward, input].map((chain) => chain && findAccept(chain, match) !== undefined)), [[true, false], [false, false], [false, true], [false, false], [false, false]]);
  });
  it('reads rules that nft has no words for', () => {
    nft('table ip odd { chain forward { type filter hook forward priority 0; policy drop; } }');
    // it loads the state of connections, and does nothing with it
    const rule = encodeMessage(0xa06, NLM_F.CREATE | NLM_F.APPEND, nfgenmsg(NFPROTO.ip), [
      attribute(1, 'odd'), attribute(2, 'forward'), attribute(4, [attribute(1, [attribute(1, 'ct'), attribute(2, [attribute(1, be32(1)), attribute(2, be32(0))])])]),
    ]);
    const socket = openNetlink(NETLINK_NETFILTER);
    socket.request(nftBatch([rule]));
    socket.close();
    const [chain] = foreignChains(readRuleset(), ['forward']);
    assert.deepEqual([chain?.table, chain?.by, chain?.rules.length], ['odd', 'policy', 1]);
  });
  it('reads the rules of a chain when somebody looks at them, and none of one that has gone', () => {
    nft('table inet t { chain forward { type filter hook forward priority 0; drop; } }');
    const [early, late] = [readRuleset(), readRuleset()];
    assert.equal(early.chains[0]?.rules.length, 1);
    nft('flush ruleset');
    assert.deepEqual([early.chains[0]?.rules.length, late.chains[0]?.rules.length], [1, 0]);
    assert.deepEqual(readRuleset(), { tables: [], chains: [] });
  });
});
