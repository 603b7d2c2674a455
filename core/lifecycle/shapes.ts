import { randomBytes } from 'node:crypto';
import { type ContainerRecord, type ContainerRequest, type StartOptions } from '../api/index.ts';
import { type Endpoint } from '../contracts/network/index.ts';
import { toJson } from '../state/database.ts';
import { rowJson } from '../state/tables.ts';
import { type HookName } from '../hooks/index.ts';
import { type Core } from './core.ts';
import { entriesOf, type ContainerDrivers } from './drivers.ts';
import { type OpenNetwork } from './endpoints.ts';
import { type FoundImage } from './images.ts';
import { type RunPlan } from './plan-run.ts';
import { heldTokens } from './ports.ts';
import { findNetwork } from './wishes.ts';

/** What one run needs that was made for it alone. */
export interface Made {
  readonly record: ContainerRecord;
  /** The row, as JSON. */
  readonly text: string;
  readonly run: string;
  /** `spec`: of the run that it was made for. */
  readonly plan: Pick<RunPlan, 'spec' | 'bytes' | 'prefix' | 'deadlines' | 'handlers' | 'group'>;
  /** Names that drivers have drawn for it (`uniqueName`). */
  readonly names: readonly string[];
  readonly endpoints: readonly Endpoint[];
  /** Byte strings of the plan that belong to these endpoints alone, as latin1; undefined: a plan for others must be made in full. */
  readonly places: readonly string[] | undefined;
}
interface Shape { readonly made: Made; readonly at: number; readonly proven: boolean }

/** How long a plan is believed, ms: what plugins read of the machine may change. */
const TRUST = 1000;
const MAX_SHAPES = 64;
const HOOKS: readonly HookName[] = ['compile', 'create', 'configure', 'prepareRootfs', 'createNamespaces', 'applyLimits', 'attachNetwork', 'beforeStart'];

const tokensOf = ({ record: { id }, run, names }: Pick<Made, 'run' | 'names'> & { readonly record: Pick<ContainerRecord, 'id'> }): string[] => [id, id.slice(0, 12), run, ...names];
/** See {@link Made.places}. An address stands in text in one of two ways only: in a hosts file, or between quotes; a name as ContainerNames has it. */
export function placesOf(endpoints: readonly Endpoint[], networks: readonly OpenNetwork[], name: string): readonly string[] | undefined {
  const all: string[] = [];
  if (networks.some(({ dns }) => dns)) all.push(`"name":"${name}"`, `["${name}",`);
  if (networks.some(({ dns }) => dns?.entry.manifest.repeatable === false)) return undefined;
  for (const endpoint of endpoints) {
    const network = networks.find(({ record }) => record.id === endpoint.network);
    const link = network?.managed.tokens?.(endpoint);
    const ports = endpoint.ports.length === 0 ? [] : network?.firewall.driver.tokens?.(endpoint);
    if (!link || !ports) return undefined;
    const tokens = [...link, ...ports, ...heldTokens(endpoint)];
    all.push(...tokens.map((token) => Buffer.from(token).toString('latin1')), ...endpoint.addresses.flatMap(({ address }) => [`\n${address}\t`, `"${address}"`]));
  }
  return all;
}
/** Every token of `from` in `text` exchanged for the one of `to`; they are of the same lengths. */
function exchange(text: string, from: readonly string[], to: readonly string[]): string {
  return from.reduce((result, token, i) => result.replaceAll(token, to[i] as string), text);
}
/** What a plan is made anew for. */
export interface Identity extends Pick<Made, 'run' | 'names' | 'endpoints' | 'places'> { readonly id: string; readonly name: string; readonly created: string }
/** Undefined: it cannot be done by exchanging what is of the same length. */
export function renamed(made: Made, to: Identity): Made | undefined {
  const record = { ...made.record, id: to.id, name: to.name, created: to.created };
  const { run, names, endpoints, places } = to;
  const [from, into] = [tokensOf(made), tokensOf({ run, names, record })];
  const [all, others] = [[...from, ...(made.places ?? [])], [...into, ...(places ?? [])]];
  if (all.length !== others.length || all.some((token, i) => token.length !== others[i]?.length)) return undefined;
  return {
    record, run, names, endpoints, places, text: exchange(made.text, from, into),
    plan: { ...made.plan, bytes: Buffer.from(exchange(Buffer.from(made.plan.bytes).toString('latin1'), all, others), 'latin1') },
  };
}

/** Do two differ in nothing but what was made for each alone? */
function becomes(one: Made, { record: { id, name, created }, run, names, endpoints, places, text, plan }: Made): boolean {
  const again = renamed(one, { id, run, names, endpoints, places, name, created });
  return again !== undefined && again.text === text && Buffer.from(plan.bytes).equals(again.plan.bytes);
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
    const network = findNetwork(this.#core, request.network);
    const plain = request.ports.every(({ hostPort, hostPortEnd = hostPort }) => hostPort && hostPort === hostPortEnd) && !request.publishAll && !request.endpoints;
    if (!request.autoRemove || options.trace || request.mounts.length > 0 || !plain || (request.userns && request.userns !== 'host') || request.uidMaps || request.gidMaps || request.network.includes(':') || !found || Object.keys(found.image.config.Volumes ?? {}).length > 0) return undefined;
    this.#plain ??= this.#isPlain();
    if (!this.#plain) return undefined;
    const { name: _, ...rest } = request;
    return toJson([rest, network?.id ?? null, found.image.id, options.attach ?? null, options.windowSize ?? null]);
  }
  /** Taps of plugins that want to be asked each time. */
  #isPlain(): boolean {
    const { hooks } = this.#core.parts;
    const { entries } = this.#core.registry;
    const repeatable = new Set(['core', ...entries.filter((e) => e.manifest.repeatable).map((e) => e.manifest.name)]);
    return HOOKS.every((hook) => hooks.taps(hook).every(({ plugin }) => repeatable.has(plugin)));
  }

  /** The shape of such a request, while it is believed. */
  find(key: string): Made | undefined {
    const shape = this.#shapes.get(key);
    return shape?.proven && performance.now() - shape.at <= TRUST ? shape.made : undefined;
  }
  take(shape: Made, to: Omit<Identity, 'names' | 'created'>): Made | undefined {
    return renamed(shape, { ...to, names: shape.names.map(() => randomBytes(8).toString('hex')), created: this.#core.now().toISOString() });
  }
  /** A network has another bridge: what plans say of it is not true any more. */
  forget(): void {
    this.#shapes.clear();
  }
  /** Answers at its barriers everybody in the same way, before anybody has asked too? */
  canRepeat({ plan: { handlers } }: Made): boolean {
    const { entries } = this.#core.registry;
    return handlers.every((name) => entries.some(({ manifest }) => manifest.repeatable && manifest.handlers?.includes(name)));
  }
  /** What was made in full. */
  learn(key: string, made: Made, drivers: ContainerDrivers): void {
    if (!entriesOf(drivers).every((e) => e.manifest.repeatable) || !this.canRepeat(made)) return;
    const before = this.#shapes.get(key)?.made;
    if (!made.places) return;
    // both ways: what a user wrote may look like one of the tokens of either
    const proven = before !== undefined && becomes(before, made) && becomes(made, before);
    this.#shapes.delete(key);
    this.#shapes.set(key, { made, at: performance.now(), proven });
    for (const old of this.#shapes.keys()) if (this.#shapes.size > MAX_SHAPES) this.#shapes.delete(old);
  }
}
