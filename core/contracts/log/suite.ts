import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { failsWith } from '../common/checks.ts';
import { type DriverDeps } from '../common/index.ts';
import { applyOnCommit, type Bench, type Suite, type SuiteCase, type SuiteContext } from '../common/suite.ts';
import { ShimLog } from './shim-log.ts';
import { type LogDriver, type LogLine, type LogRequest, type ReadLogOptions } from './index.ts';

export interface LogFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps): LogDriver;
  readonly options?: Readonly<Record<string, string>>;
  /** Level 2: run a program of busybox under the real shim, its output kept as planned. */
  shim?(plan: ReturnType<LogDriver['planLog']>, argv: readonly string[]): Promise<ShimRun>;
}
export interface ShimRun {
  ended(): boolean;
  /** Resolves when it has ended and all that is left was cleaned up. */
  readonly done: Promise<void>;
}

export class LogContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: LogDriver;
  readonly request: LogRequest;
  readonly #shim: LogFactory['shim'];

  constructor(bench: Bench, driver: LogDriver, { options = {}, shim }: LogFactory) {
    this.bench = bench;
    this.driver = driver;
    this.request = { container: 'c0ffee', folder: join(bench.deps.folder, 'c0ffee'), options };
    this.#shim = shim;
  }
  /** Needs `shim`. */
  async run(argv: readonly string[], options: Readonly<Record<string, string>> = {}): Promise<ShimRun> {
    const plan = this.driver.planLog({ ...this.request, options: { ...this.request.options, ...options } }, this.bench.run);
    fs.mkdirSync(plan.logDir, { recursive: true });
    const run = await this.#shim?.(plan, argv);
    assert.ok(run);
    return run;
  }
  has(need: string): boolean {
    return (need === 'shim' && this.#shim !== undefined) || this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  close(): Promise<void> {
    return this.bench.close();
  }
  log(files = 3): ShimLog {
    return new ShimLog(this.driver.planLog(this.request, this.bench.run).logDir, files);
  }
  lines(options: Partial<ReadLogOptions> = {}): AsyncIterable<LogLine> {
    return this.driver.read({ ...this.request, follow: false, ...options });
  }
  /** The texts, joined: what a person would see. */
  async text(options: Partial<ReadLogOptions> = {}): Promise<string> {
    const texts: string[] = [];
    for await (const line of this.lines(options)) texts.push(line.text.toString());
    return texts.join('');
  }
}
const count = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, i) => `line ${from + i}`);
const text = (from: number, to: number): string => count(from, to).map((line) => `${line}\n`).join('');
const openFiles = (): number => fs.readdirSync('/proc/self/fd').length;

/** Collect in the background; `until` waits until so much was seen. */
class Follower {
  seen = '';
  readonly stop = new AbortController();
  readonly done: Promise<void>;

  constructor(context: LogContext, options: Partial<ReadLogOptions> = {}) {
    this.done = (async () => {
      for await (const line of context.lines({ follow: true, signal: this.stop.signal, ...options })) this.seen += line.text.toString();
    })();
  }
  async until(end: string): Promise<void> {
    for (let i = 0; i < 500 && !this.seen.endsWith(end); i++) await sleep(10);
    assert.ok(this.seen.endsWith(end), `${JSON.stringify(end)} never came; the end is ${JSON.stringify(this.seen.slice(-100))}`);
  }
}

type Case = SuiteCase<LogContext>;
const planCases: readonly Case[] = [
  {
    name: 'a plan says how the shim keeps the log',
    needs: [],
    run({ driver, request, bench }) {
      const plan = driver.planLog(request, bench.run);
      assert.ok(plan.maxSize >= 0n && plan.maxFiles >= 0 && plan.ring >= 0);
      if (driver.features.has('read')) assert.ok(plan.logDir === request.folder || plan.logDir.startsWith(`${request.folder}/`));
    },
  },
  {
    name: 'an option it does not have is refused by name',
    needs: [],
    run: ({ driver, request, bench }) => {
      if (driver.options.size === 0) return;
      return failsWith('ERR_INVALID_VALUE', () => driver.planLog({ ...request, options: { colour: 'red' } }, bench.run));
    },
  },
  {
    name: 'without the feature read, reading is an error and not silence',
    needs: ['!read'],
    run: (c) => failsWith('ERR_FEATURE_MISSING', () => c.text()),
  },
  {
    name: 'the log is removed, twice too',
    needs: [],
    async run(c) {
      if (c.has('read')) c.log().write('x');
      for (let i = 0; i < 2; i++) await applyOnCommit(c.bench, c.driver.remove(c.request));
      assert.ok(!fs.existsSync(c.request.folder));
      if (c.has('read')) assert.equal(await c.text(), '');
    },
  },
];

const readCases: readonly Case[] = [
  {
    name: 'lines come in order, from the oldest file to the newest',
    needs: ['read'],
    async run(c) {
      const log = c.log();
      log.write(count(1, 10));
      log.rotate();
      log.write(count(11, 20));
      log.rotate();
      log.write(count(21, 22));
      assert.equal(await c.text(), text(1, 22));
      log.rotate();
      assert.equal(await c.text(), text(11, 22), 'the oldest file is gone');
    },
  },
  {
    name: 'a line tells its time and stream, and has a newline unless it goes on',
    needs: ['read'],
    async run(c) {
      const log = c.log();
      log.write('out');
      log.write('err', 'stderr');
      log.write('half ', 'stdout', 'P');
      log.write('whole');
      log.write('');
      const lines: LogLine[] = [];
      for await (const line of c.lines()) lines.push(line);
      assert.deepEqual(lines.map((line) => [line.stream, line.text.toString()]), [['stdout', 'out\n'], ['stderr', 'err\n'], ['stdout', 'half '], ['stdout', 'whole\n'], ['stdout', '\n']]);
      assert.equal(lines[1]?.time, ShimLog.time(1));
    },
  },
  {
    name: 'bytes pass unchanged, also long lines and such as are no text',
    needs: ['read'],
    async run(c) {
      const log = c.log();
      const long = 'x'.repeat(200_000);
      log.write([long, ' two  spaces ', 'F stdout 2026-01-01T']);
      log.raw(`${ShimLog.time(9)} stdout F `);
      fs.appendFileSync(join(c.request.folder, 'container.log'), Buffer.from([0xff, 0x00, 0xfe, 0x0a]));
      const texts: Buffer[] = [];
      for await (const line of c.lines()) texts.push(line.text);
      assert.equal(texts[0]?.length, 200_001);
      assert.deepEqual(texts.slice(1).map(String).slice(0, 2), [' two  spaces \n', 'F stdout 2026-01-01T\n']);
      assert.deepEqual([...(texts[3] ?? [])], [0xff, 0x00, 0xfe, 0x0a]);
      assert.equal(await c.text({ tail: 4 }), await c.text());
    },
  },
  {
    name: 'tail gives the last lines, over files and pieces',
    needs: ['read'],
    async run(c) {
      const log = c.log();
      log.write(count(1, 5000));
      log.rotate();
      log.write(count(5001, 5003));
      assert.equal(await c.text({ tail: 0 }), '');
      assert.equal(await c.text({ tail: 1 }), text(5003, 5003));
      assert.equal(await c.text({ tail: 3 }), text(5001, 5003));
      assert.equal(await c.text({ tail: 4 }), text(5000, 5003));
      assert.equal(await c.text({ tail: 3000 }), text(2004, 5003));
      assert.equal(await c.text({ tail: 9999 }), text(1, 5003));
      log.write('a', 'stdout', 'P');
      log.rotate();
      log.write('b', 'stdout', 'P');
      log.write('other', 'stderr');
      log.write('c');
      assert.equal(await c.text({ tail: 2 }), 'bother\nc\n'.replace('b', 'ab'));
      log.write('unfinished', 'stdout', 'P');
      assert.equal(await c.text({ tail: 1 }), 'unfinished');
    },
  },
  {
    name: 'since and until choose by time, with tail too',
    needs: ['read'],
    async run(c) {
      const log = c.log();
      log.write(count(0, 9));
      log.rotate();
      log.write(count(10, 19));
      const at = (second: number): Date => new Date(Date.UTC(2026, 0, 1) + second * 1000);
      assert.equal(await c.text({ since: at(15) }), text(15, 19));
      assert.equal(await c.text({ since: at(5) }), text(5, 19));
      assert.equal(await c.text({ until: at(3) }), text(0, 3));
      assert.equal(await c.text({ since: at(8), until: at(11) }), text(8, 11));
      assert.equal(await c.text({ since: at(8), until: at(11), tail: 2 }), text(10, 11));
      assert.equal(await c.text({ since: at(8), tail: 100 }), text(8, 19));
      assert.equal(await c.text({ since: at(100) }), '');
    },
  },
  {
    name: 'what a crash left is passed over',
    needs: ['read'],
    async run(c) {
      const log = c.log();
      log.write('one');
      log.raw('2026-01-01T00:00:01.0');
      log.raw('\nno line of ours\n\n');
      log.write('two');
      log.raw('2026-01-01T00:00:09.000000001Z stdout F half');
      assert.equal(await c.text(), 'one\ntwo\n');
      assert.equal(await c.text({ tail: 1 }), 'two\n');
    },
  },
  {
    name: 'a reader that stops early leaves no file open',
    needs: ['read'],
    async run(c) {
      const log = c.log();
      log.write(count(1, 100));
      log.rotate();
      log.write(count(101, 200));
      const before = openFiles();
      for (let i = 0; i < 20; i++) {
        for await (const line of c.lines({ tail: 150 })) if (line.text.toString() === 'line 60\n') break;
      }
      await sleep(50);
      assert.ok(openFiles() <= before + 2, `${before} then ${openFiles()} open files`);
    },
  },
];

const followCases: readonly Case[] = [
  {
    name: 'follow gives what is there, then what comes, and ends when the container has',
    needs: ['follow'],
    async run(c) {
      const log = c.log();
      let ended = false;
      log.write(count(1, 3));
      const follower = new Follower(c, { ended: () => ended });
      await follower.until('line 3\n');
      log.write('4');
      await follower.until('4\n');
      log.write('last words');
      ended = true;
      await follower.done;
      assert.equal(follower.seen, `${text(1, 3)}4\nlast words\n`);
    },
  },
  {
    name: 'follow goes over rotations and loses nothing',
    needs: ['follow'],
    async run(c) {
      const log = c.log();
      let ended = false;
      const follower = new Follower(c, { ended: () => ended });
      let expected = '';
      for (let i = 0; i < 30; i++) {
        log.write(count(i * 100, i * 100 + 99));
        expected += text(i * 100, i * 100 + 99);
        if (i % 2) await sleep(5);
        // A reader may be one file behind, not more than there are.
        if (i % 3 === 2) await follower.until(`line ${i * 100 + 99}\n`);
        log.rotate();
      }
      ended = true;
      await follower.done;
      assert.equal(follower.seen.length, expected.length);
      assert.ok(follower.seen === expected);
    },
  },
  {
    name: 'follow waits for a log that is not there yet, and sees an only file emptied',
    needs: ['follow'],
    async run(c) {
      const follower = new Follower(c);
      await sleep(50);
      const log = c.log(1);
      log.write('first');
      await follower.until('first\n');
      log.write(count(1, 50));
      await follower.until('line 50\n');
      log.rotate();
      log.write('x');
      await follower.until('x\n');
      follower.stop.abort();
      await follower.done;
    },
  },
  {
    name: 'follow with tail begins at the end',
    needs: ['follow'],
    async run(c) {
      const log = c.log();
      log.write(count(1, 100));
      const follower = new Follower(c, { tail: 1 });
      await follower.until('line 100\n');
      const none = new Follower(c, { tail: 0 });
      await sleep(20);
      log.write('new');
      await Promise.all([follower.until('new\n'), none.until('new\n')]);
      assert.equal(follower.seen, 'line 100\nnew\n');
      assert.equal(none.seen, 'new\n');
      follower.stop.abort();
      none.stop.abort();
      await Promise.all([follower.done, none.done]);
    },
  },
  {
    name: 'follow ends at once on its signal, costs nothing while it waits, and leaves nothing open',
    needs: ['follow'],
    async run(c) {
      c.log().write('x');
      const before = openFiles();
      const followers = Array.from({ length: 10 }, () => new Follower(c, { ended: () => false }));
      await Promise.all(followers.map((follower) => follower.until('x\n')));
      const cpu = process.cpuUsage();
      await sleep(1000);
      const { user, system } = process.cpuUsage(cpu);
      assert.ok(user + system < 300_000, `${user + system} µs of CPU for ten idle followers in a second`);
      const start = Date.now();
      for (const follower of followers) follower.stop.abort();
      await Promise.all(followers.map((follower) => follower.done));
      assert.ok(Date.now() - start < 200);
      await sleep(50);
      assert.ok(openFiles() <= before + 2);
    },
  },
];

const shimCases: readonly Case[] = [
  {
    name: 'what a program writes is what is read, followed over rotations and afterwards',
    needs: ['shim', 'read', 'follow'],
    async run(c) {
      const script = 'i=0; while [ $i -lt 20 ]; do seq $((i*100)) $((i*100+99)); echo "err $i" >&2; i=$((i+1)); sleep 0.05; done; echo last';
      const run = await c.run(['sh', '-c', script], { 'max-size': '32k', 'max-file': '4' });
      let [out, errors] = ['', 0];
      for await (const line of c.lines({ follow: true, ended: () => run.ended() })) {
        if (line.stream === 'stdout') out += line.text.toString();
        else errors++;
      }
      await run.done;
      const expected = `${Array.from({ length: 2000 }, (_, i) => `${i}\n`).join('')}last\n`;
      assert.ok(out === expected, `${out.length} bytes instead of ${expected.length}`);
      assert.equal(errors, 20);
      assert.equal(await c.text({ tail: 1 }), 'last\n');
      const kept = await c.text();
      assert.ok(kept.length > 1000 && kept.length < 4 * 32768);
    },
  },
  {
    name: 'a long line of bytes that are no text comes back whole',
    needs: ['shim', 'read'],
    async run(c) {
      const run = await c.run(['dd', 'if=/proc/self/exe', 'bs=200000', 'count=1']);
      await run.done;
      let bytes = Buffer.alloc(0);
      for await (const line of c.lines()) if (line.stream === 'stdout') bytes = Buffer.concat([bytes, line.text]);
      const program = fs.readFileSync(fs.existsSync('/bin/busybox') ? '/bin/busybox' : '/usr/bin/busybox').subarray(0, 200_000);
      // The last line has no newline of its own; the log ends it.
      assert.ok(bytes.subarray(0, program.length).equals(program));
      assert.ok(bytes.length <= program.length + 1);
    },
  },
];

/** The conformance suite of contract `log`. */
export const logSuite: Suite<LogFactory, LogContext> = {
  contract: 'log',
  cases: [...planCases, ...readCases, ...followCases, ...shimCases],
  async open(factory) {
    const bench = await factory.bench();
    return new LogContext(bench, factory.create(bench.deps), factory);
  },
};
