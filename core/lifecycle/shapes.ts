import { randomBytes } from 'node:crypto';
import { type ContainerRecord, type ContainerRequest, type StartOptions } from '../api/index.ts';
import { toJson } from '../state/database.ts';
import { rowJson } from '../state/tables.ts';
import { type HookName } from '../hooks/index.ts';
import { type Core } from './core.ts';
import { entriesOf, type ContainerDrivers } from './drivers.ts';
import { type FoundImage } from './images.ts';
import { newId, newRunId } from './names.ts';
import { type RunPlan } from './plan-run.ts';

/** What one run needs that was made for it alone. */
export interface Made {
  readonly record: ContainerRecord;
  /** The row, as JSON. */
  readonly text: string;
  readonly run: string;
  readonly plan: Pick<RunPlan, 'bytes' | 'prefix' | 'deadlines'>;
  /** Names that drivers have drawn for it (`uniqueName`). */
  readonly names: readonly string[];
}
interface Shape { readonly made: Made; readonly at: number; readonly proven: boolean }

/** How long a plan is believed, ms: what plugins read of the machine may change. */
const TRUST = 1000;
const MAX_SHAPES = 64;
const HOOKS: readonly HookName[] = ['compile', 'create', 'configure', 'prepareRootfs', 'createNamespaces', 'applyLimits', 'attachNetwork', 'beforeStart'];

const tokensOf = ({ record: { id }, run, names }: Made): string[] => [id, id.slice(0, 12), run, ...names];
/** Every token of `from` in `text` exchanged for the one of `to`; they are of the same lengths. */
function exchange(text: string, from: readonly string[], to: readonly string[]): string {
  return from.reduce((result, token, i) => result.replaceAll(token, to[i] as string), text);
}
export function renamed(made: Made, to: Pick<Made, 'run' | 'names'> & { readonly id: string; readonly name: string; readonly created: string }): Made {
  const record = { ...made.record, id: to.id, name: to.name, created: to.created };
  const [from, into] = [tokensOf(made), tokensOf({ ...made, ...to, record })];
  return {
    record, run: to.run, names: to.names, text: exchange(made.text, from, into),
    plan: { ...made.plan, bytes: Buffer.from(exchange(Buffer.from(made.plan.bytes).toString('latin1'), from, into), 'latin1') },
  };
}

/** JSON of a row without what is said anew for each: so that it compares. */
export const rowText = ({ id: _, name: _name, created: _created, ...rest }: ContainerRecord): string => rowJson(rest as ContainerRecord);
export const wholeRow = ({ record: { id, name, created }, text }: Made): string => `{"id":"${id}","name":${JSON.stringify(name)},"created":"${created}",${text.slice(1)}`;

/**
 * Plans of requests that come again and again. A plan is taken from here when one was made in full a moment ago, and two made in full
 * differed in nothing but their ids; and only when each plugin that has a say in it declares itself `repeatable`.
 */
export class Shapes {
  readonly #shapes = new Map<string, Shape>();
  readonly #core: Core;
  #plain: boolean | undefined;
  constructor(core: Core) {
    this.#core = core;
  }

  /** Undefined: plans of such requests are made in full each time. */
  key(request: ContainerRequest, found: FoundImage | undefined, options: StartOptions): string | undefined {
    if (!request.autoRemove || options.trace || request.mounts.length > 0 || request.network.includes(':') || !found || Object.keys(found.image.config.Volumes ?? {}).length > 0) return undefined;
    this.#plain ??= this.#isPlain();
    if (!this.#plain) return undefined;
    const { name: _, ...rest } = request;
    return toJson([rest, found.image.id, options.attach ?? null, options.windowSize ?? null]);
  }
  /** Taps of plugins that want to be asked each time. */
  #isPlain(): boolean {
    const { hooks } = this.#core.parts;
    const { entries } = this.#core.registry;
    const repeatable = new Set(['core', ...entries.filter((e) => e.manifest.repeatable).map((e) => e.manifest.name)]);
    return HOOKS.every((hook) => hooks.taps(hook).every(({ plugin }) => repeatable.has(plugin)));
  }

  take(key: string, name: string): Made | undefined {
    const shape = this.#shapes.get(key);
    if (!shape?.proven || performance.now() - shape.at > TRUST) return undefined;
    return renamed(shape.made, { id: newId(), run: newRunId(), names: shape.made.names.map(() => randomBytes(8).toString('hex')), name, created: this.#core.now().toISOString() });
  }
  /** What was made in full. */
  learn(key: string, made: Made, drivers: ContainerDrivers): void {
    if (!entriesOf(drivers).every((e) => e.manifest.repeatable) || made.plan.deadlines.size > 0) return;
    const before = this.#shapes.get(key)?.made;
    const { record: { id, name, created }, run, names } = made;
    const again = before?.names.length === names.length ? renamed(before, { id, run, names, name, created }) : undefined;
    const proven = again?.text === made.text && Buffer.from(made.plan.bytes).equals(again.plan.bytes);
    this.#shapes.delete(key);
    this.#shapes.set(key, { made, at: performance.now(), proven });
    for (const old of this.#shapes.keys()) if (this.#shapes.size > MAX_SHAPES) this.#shapes.delete(old);
  }
}
