import { exitCodeOf, fail, isEngineError, type ErrorDetails } from '@engine/core/errors';

/** Run a verb about networks. What the engine refuses ends it with 1, as Docker's; 125 is left to `run`, where 1 is the program's. */
export async function refused<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isEngineError(error) || error.code === 'ERR_USAGE' || exitCodeOf(error) !== 125) throw error;
    const { code, message, operation, path, errno, plugin, hint, data, cause } = error;
    const details = { operation, path, errno, plugin, data, hint, cause, exitCode: 1 };
    throw fail(code, message, Object.fromEntries(Object.entries(details).filter(([, value]) => value !== undefined)) as ErrorDetails);
  }
}
