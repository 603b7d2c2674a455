/** How much longer things may take than on a machine of our own: processors of the stock-kernel tier are emulated (test/vm). */
export const patience = process.env['VM'] ? 10 : 1;

/** Poll until `check` gives something true. Tests wait for conditions, never for time; the deadline only ends a broken one. `pause`: ms between two checks, more where each is dear. */
export async function until<T>(what: string | (() => string), check: () => T | Promise<T>, deadline = 20_000, pause = 5): Promise<NonNullable<T>> {
  const end = Date.now() + deadline * patience;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited in vain for: ${typeof what === 'string' ? what : what()}`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
