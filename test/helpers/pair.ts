import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { entries, Running, TestEngine, type Result, type RunOptions } from './engine.ts';

const bin = join(import.meta.dirname, '..', '..', 'bin', 'engine');

/**
 * A test engine that knows which of its commands were done by a Node process of their own: such a process loads a module that says so (NODE_OPTIONS);
 * the launcher, and an engined that was started without it, don't.
 */
export class Side extends TestEngine {
  readonly #mark: string;
  readonly #module: string;

  constructor(resident: 'auto' | 'off') {
    super({ resident });
    this.#mark = join(this.folder, 'ran-by-itself');
    this.#module = join(this.folder, 'mark.cjs');
    writeFileSync(this.#module, `if (require('node:worker_threads').isMainThread && process.env.SAME_MARK) require('node:fs').appendFileSync(process.env.SAME_MARK, JSON.stringify(process.argv.slice(2)).slice(0, 200) + '\\n');`);
  }
  get #marking(): Record<string, string> {
    return { NODE_OPTIONS: `--require=${this.#module}`, SAME_MARK: this.#mark, E: bin };
  }
  override start(args: readonly string[], options: RunOptions = {}): Running {
    return super.start(args, { ...options, env: { ...this.#marking, ...options.env } });
  }
  override terminal(args: readonly string[], options: RunOptions = {}): Running {
    return super.terminal(args, { ...options, env: { ...this.#marking, ...options.env } });
  }
  get program(): string {
    return bin;
  }
  /** Another program, with the same variables. */
  command(program: string, args: readonly string[]): Running {
    return new Running(spawn(program, args, { cwd: join(this.folder, 'cwd'), env: { ...this.env, ...this.#marking, TERM: 'xterm' }, stdio: 'pipe' }));
  }
  /** A line for bash; `$E` is the program. Standard input is empty unless `input` is given. */
  async sh(line: string, options: RunOptions = {}): Promise<Result> {
    const running = new Running(spawn('bash', ['-c', line], { cwd: options.cwd ?? join(this.folder, 'cwd'), env: { ...this.env, ...this.#marking, ...options.env }, stdio: 'pipe', detached: true }));
    running.child.stdin.end(options.input ?? '');
    // all of its commands: one of them may be what hangs
    const timer = setTimeout(() => process.kill(-(running.child.pid ?? 0), 'SIGKILL'), options.deadline ?? 20_000);
    return running.result.finally(() => clearTimeout(timer));
  }
  /** What has been done by processes of their own since the last look, a line of JSON each. */
  byItself(): string {
    if (!existsSync(this.#mark)) return '';
    const text = readFileSync(this.#mark, 'utf8');
    rmSync(this.#mark);
    return text;
  }
  /** Remove every container, in one command. */
  async tidy(): Promise<void> {
    const ids = entries(join(this.root, 'containers'));
    if (ids.length) await super.run(['rm', '-fv', ...ids]);
    const networks = (await super.run(['network', 'ls', '-q'])).stdout.split('\n').filter(Boolean);
    if (networks.length) await super.run(['network', 'prune', '-af']);
    this.byItself();
  }

  /** A text without what is different for each engine, container and moment. Spaces are counted as one: names of different lengths stand in tables. */
  plain(text: string): string {
    return text
      .replaceAll(this.folder, 'FOLDER')
      .replaceAll(this.instance, 'INSTANCE')
      .replaceAll(/\d{4}-\d\d-\d\d[T ][\d:.]+(Z| \+0000 UTC)?/g, 'TIME')
      .replaceAll(/(?<!sha256:)\b[0-9a-f]{64}\b/g, 'ID')
      .replaceAll(/(?<!sha256:)\b[0-9a-f]{13,63}…/g, 'ID…')
      .replaceAll(/(?<!sha256:)\b(?=[0-9a-f]*\d)[0-9a-f]{16}\b/g, 'RUN')
      .replaceAll(/(?<!sha256:)\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b/g, 'SHORT')
      .replaceAll(/(Less than a second|About an? \w+|\d+ \w+) ago/g, 'AGO')
      .replaceAll(/Up (Less than a second|About an? \w+|\d+ \w+)/g, 'Up SO LONG')
      .replaceAll(/\/proc\/\d+\/ns\/net/g, 'NETNS')
      .replaceAll(/"Pid": [1-9]\d*/g, '"Pid": PID')
      .replaceAll(/\b[a-z]{3,9}_[a-z]{3,9}\d*\b/g, 'NAME')
      .replaceAll(/[ ]{2,}/g, ' ');
  }
}

/** One thing to do on each side: words, or anything that gives a result. */
export type Step = readonly string[] | ((side: Side) => Promise<Result | string>);
/** Text of bash. */
export const sh = (line: string, options?: RunOptions): Step => (side) => side.sh(line, options);

export interface Case {
  readonly name: string;
  readonly steps: readonly Step[];
  /** Not served by engined, whoever asks. */
  readonly local?: boolean;
  /** Neither side needs more than the launcher, or both may do as they like. */
  readonly anywhere?: boolean;
  /** What is left out of the comparison, besides what `plain` leaves out. */
  readonly but?: (text: string) => string;
}
export const same = (name: string, ...steps: readonly Step[]): Case => ({ name, steps });

export interface Comparison {
  readonly with: readonly unknown[];
  readonly without: readonly unknown[];
}

/** The same on both sides at the same time; what each answered, and by whom. */
export async function compare(resident: Side, alone: Side, { steps, local = false, anywhere = false, but = (text) => text }: Case): Promise<Comparison> {
  const one = async (side: Side, byItself: boolean): Promise<unknown[]> => {
    const answers: unknown[] = [];
    side.byItself();
    for (const step of steps) {
      const result = typeof step === 'function' ? await step(side) : await side.run(step, { deadline: 20_000 });
      const ran = side.byItself();
      // each step has a command in it that somebody must have done
      const by = anywhere || (ran !== '') === byItself ? 'as expected' : ran === '' ? 'by engined' : `by itself: ${ran}`;
      answers.push(typeof result === 'string' ? { by, text: but(side.plain(result)) } : { by, code: result.code, signal: result.signal, stdout: but(side.plain(result.stdout)), stderr: but(side.plain(result.stderr)) });
    }
    return answers;
  };
  const [first, second] = await Promise.all([one(resident, local), one(alone, true)]);
  return { with: first, without: second };
}
