import { defineService } from '@engine/core/plugin';
import { isEngineTable } from '@engine/native/foreign-accepts';
import { runNft } from '@engine/native/libnftables';
import { readRuleset } from '@engine/native/nft-ruleset';
import { createNftables, watchNftables, type NftablesEvent } from '@engine/native/nfnetlink';
import { holdGuard } from './guard.ts';
import { createRestorer } from './restore.ts';
import { MAPS, RELAYED } from './ruleset.ts';

/** Elements of the maps come and go with containers, their files a moment before: what is missing twice, this far apart, was taken by somebody else. */
const ELEMENTS_DELAY = 200;
/** Others change their rules in many small steps. */
const FOREIGN_DELAY = 50;
/** Looking at others' rules, or at all elements, takes at most this part of the time: there may be many. */
const SHARE = 10;
/** Who takes our rules away again and again is not fought at full speed. */
const FIGHT = { within: 1000, most: 20, pause: 1000 } as const;
const LONGEST_PAUSE = 60_000;
const AF_INET = 1;

/** Runs in the keeper: what others take away of our rules is put back, at once and in one transaction; and connections live through the gap, see guard.ts. */
export default defineService({
  async start({ log, instance, serviceFolder: folder }) {
    const nftables = createNftables();
    const restorer = createRestorer({ instance, folder, nftables, ruleset: readRuleset, run: runNft });
    let guard: { close(): void } | undefined;
    let guardRefused = false;
    let pause: number = FIGHT.pause;
    let stopped = false;
    let recent: number[] = [];
    const from = { foreign: 0, elements: 0 };
    const timers = new Map<string, NodeJS.Timeout>();

    /** One of each kind at a time. */
    function later(name: string, delay: number, work: () => void): void {
      if (stopped || timers.has(name)) return;
      timers.set(name, setTimeout(() => {
        timers.delete(name);
        attempt(name, work);
      }, delay));
    }
    function attempt(name: string, work: () => void): void {
      if (stopped) return;
      try {
        work();
        pause = FIGHT.pause;
      } catch (error) {
        log.warn({ err: error }, `nftables: ${name} failed, again in ${pause / 1000} s`);
        later(name, pause, work);
        pause = Math.min(2 * pause, LONGEST_PAUSE);
      }
    }
    function ensureGuard(): void {
      if (guard || !restorer.needed) return;
      try {
        guard = holdGuard(instance);
      } catch (error) {
        // perhaps that of a keeper that is just ending
        if (!guardRefused) log.info({ err: error }, 'nftables: no guard table: connections may end when somebody flushes the ruleset');
        guardRefused = true;
      }
    }
    function check(): void {
      ensureGuard();
      const damage = restorer.damage();
      if (damage === undefined) return;
      const now = performance.now();
      recent = [...recent.filter((at) => now - at < FIGHT.within), now];
      if (recent.length > FIGHT.most) {
        log.warn(`nftables: somebody keeps taking the rules of table inet ${instance} away`);
        later('restore', FIGHT.pause, check);
        return;
      }
      restorer.restore();
      log.warn({ took: Math.round(performance.now() - now) }, `nftables: ${damage}: table inet ${instance} was put back`);
    }
    /** Not again before ten times as long has passed as it took. */
    function sparingly(what: keyof typeof from, work: () => void): void {
      const before = performance.now();
      try {
        work();
      } finally {
        from[what] = performance.now() + SHARE * (performance.now() - before);
      }
    }
    const checkForeign = (): void => sparingly('foreign', () => {
      if (restorer.passForeign()) log.info('nftables: another firewall\'s chain was told to let our networks pass');
    });
    const checkElements = (): void => sparingly('elements', () => {
      if (restorer.damage() !== undefined) return check();
      const missing = restorer.missing();
      if (missing.size > 0) later('complete', ELEMENTS_DELAY, () => {
        const count = restorer.damage() === undefined ? restorer.complete(missing) : 0;
        if (count > 0) log.warn(`nftables: ${count} published ports were missing in table inet ${instance} and were put back`);
      });
    });
    const soon = (what: keyof typeof from, delay: number): void => later(what, Math.max(delay, from[what] - performance.now()), what === 'foreign' ? checkForeign : checkElements);
    function seen({ kind, table, name, family }: NftablesEvent): void {
      const own = table === instance && (family === undefined || family === AF_INET);
      if (kind === 'lost') {
        later('restore', 0, check);
        soon('foreign', FOREIGN_DELAY);
        soon('elements', ELEMENTS_DELAY);
      } else if (own && kind === 'newelement') {
        return;
      } else if (own && kind === 'delelement' && name !== undefined && (name in MAPS || name in RELAYED)) {
        soon('elements', ELEMENTS_DELAY);
      } else if (own) {
        later('restore', 0, check);
      } else if (table !== undefined && !isEngineTable('', table) && /^(?:new|del)(?:table|chain|rule)$/.test(kind)) {
        soon('foreign', FOREIGN_DELAY);
      }
    }

    const watch = watchNftables(seen);
    attempt('restore', check);
    attempt('foreign', checkForeign);
    attempt('elements', checkElements);
    return {
      async stop() {
        stopped = true;
        for (const timer of timers.values()) clearTimeout(timer);
        watch.close();
        guard?.close();
        nftables.close();
      },
    };
  },
});
