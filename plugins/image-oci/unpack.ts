import { uniqueName, type Effects } from '@engine/core/contracts/common';
import { type Progress } from '@engine/core/contracts/image';
import { type StorageDriver } from '@engine/core/contracts/storage';
import { type Compression } from './chunks.ts';
import { type MakePipe } from './feed.ts';
import { unpackLayer, verifyLayer, type LayerFacts, type Limits } from './layer.ts';
import { type StagedBlob } from './store.ts';

/** A layer that the storage shall have, or whose blob shall be verified. */
export interface LayerTask {
  readonly what: string;
  readonly chainID: string;
  readonly parent?: string;
  readonly diffID: string;
  readonly digest?: string;
  readonly compression?: Compression;
  /** Must the blob be read even when the storage has the layer? */
  readonly verify: boolean;
  open(): Promise<StagedBlob>;
  /** Called with what was found out once the layer is in place. */
  done?(facts: LayerFacts, blob: StagedBlob): void;
}
export interface UnpackContext {
  readonly effects: Effects;
  readonly storage: StorageDriver;
  readonly makePipe: MakePipe;
  readonly limits: Limits;
  /** Layers at a time, where the driver's layers are independent of each other. */
  readonly parallel: number;
  readonly signal?: AbortSignal;
  readonly progress?: Progress;
}

const shortName = (digest: string): string => digest.slice('sha256:'.length, 'sha256:'.length + 12);

/**
 * Bring layers, given bottom up, into a storage. With the feature `independent-layers` several are unpacked at a time and committed in
 * order; otherwise one after another, because each tree begins as its parent's. The first failure stops the others.
 */
export async function bringLayers(tasks: readonly LayerTask[], context: UnpackContext): Promise<void> {
  const { effects, storage, makePipe, progress } = context;
  const stop = new AbortController();
  const signal = context.signal ? AbortSignal.any([context.signal, stop.signal]) : stop.signal;
  const present = await Promise.all(tasks.map(async ({ chainID }) => storage.hasLayer(chainID)));
  const independent = storage.features.has('independent-layers');
  let left = context.limits.maxSize;
  const limits: Limits = { maxRatio: context.limits.maxRatio, maxEntries: context.limits.maxEntries, get maxSize() { return Math.max(left, 1); } };

  const bring = async (task: LayerTask, isPresent: boolean, before: Promise<void>): Promise<void> => {
    if (isPresent && !task.verify) return;
    signal.throwIfAborted();
    const { what, chainID, parent } = task;
    const blob = await task.open();
    let done = 0;
    const total = blob.size === undefined ? {} : { total: blob.size };
    const job = {
      what, blob, limits, signal, diffID: task.diffID,
      ...(task.digest === undefined ? {} : { digest: task.digest }),
      ...(task.compression === undefined ? {} : { compression: task.compression }),
      progress: (bytes: number): void => progress?.({ what: shortName(task.diffID), done: (done += bytes), ...total }),
    };
    let facts: LayerFacts;
    if (isPresent) facts = await verifyLayer(job);
    else {
      const token = uniqueName();
      const below = parent === undefined ? {} : { parent };
      facts = await unpackLayer(job, effects, makePipe, await storage.prepareLayer(effects, { token, ...below }));
      await before;
      signal.throwIfAborted();
      await storage.commitLayer(effects, { token, chainID, ...below });
    }
    await blob.written;
    left -= facts.bytes;
    task.done?.(facts, blob);
    progress?.({ what: shortName(task.diffID), done, ...total, finished: true });
  };

  const running: Promise<void>[] = [];
  const width = independent ? context.parallel : 1;
  const slots: Promise<unknown>[] = Array.from({ length: width }, () => Promise.resolve());
  let before = Promise.resolve();
  for (const [i, task] of tasks.entries()) {
    const mine = before;
    // the slot that is free first takes the next layer; slots are filled in order, so a layer never waits for one that waits for it
    const current = (slots[i % width] ?? Promise.resolve()).then(() => bring(task, present[i] === true, mine));
    current.catch((error: unknown) => stop.abort(error));
    slots[i % width] = current.catch(() => {});
    before = current;
    running.push(current);
  }
  const results = await Promise.allSettled(running);
  if (stop.signal.aborted) throw stop.signal.reason;
  context.signal?.throwIfAborted();
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
