/**
 * Every instant at which a record changes, as `<what>.before` and `<what>.after`. The crash matrix stops the engine at each of them;
 * the next start must find the state before or the state after.
 */
export const recordPoints = [
  'lock.take', 'lock.release',
  'transaction.open', 'transaction.journal', 'transaction.run', 'transaction.amend', 'transaction.undo',
  'transaction.redo', 'transaction.commit', 'transaction.finish', 'transaction.forget',
  'run.write', 'run.create', 'run.amend', 'run.exit', 'run.undo', 'run.record', 'run.remove',
] as const;
export type RecordPoint = (typeof recordPoints)[number];
/** All names that a checkpoint callback is called with. */
export const checkpointNames: readonly string[] = recordPoints.flatMap((point) => [`${point}.before`, `${point}.after`]);

/** Called at each record point; may not return (a test kills the process there). */
export type Checkpoint = (name: string) => void;

export interface Points {
  /** `change` between its two record points. */
  around<T>(point: RecordPoint, change: () => T): T;
  aroundAsync<T>(point: RecordPoint, change: () => Promise<T>): Promise<T>;
}
export function createPoints(checkpoint: Checkpoint = () => {}): Points {
  return {
    around(point, change) {
      checkpoint(`${point}.before`);
      const result = change();
      checkpoint(`${point}.after`);
      return result;
    },
    async aroundAsync(point, change) {
      checkpoint(`${point}.before`);
      const result = await change();
      checkpoint(`${point}.after`);
      return result;
    },
  };
}
