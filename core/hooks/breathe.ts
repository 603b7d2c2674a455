/** How long work may go on in one turn of the event loop before others have theirs, ms. */
const TURN = 1;
let began: number | undefined;

/**
 * A place where long work may be interrupted: when this turn of the event loop has taken long enough, the rest goes on in the next. Without
 * it a chain of promises that never waits for the machine would hold up everybody else until its end.
 */
export function breathe(): Promise<void> | undefined {
  const now = process.uptime() * 1000;
  if (began === undefined) {
    began = now;
    setImmediate(() => { began = undefined; }).unref();
    return undefined;
  }
  return now - began < TURN ? undefined : new Promise((resolve) => { setImmediate(resolve); });
}
