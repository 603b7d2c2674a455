import { type Native } from '../native/index.ts';

interface WithClient { readonly client?: number }
const taken = new WeakSet<WithClient>();

/** The socket that the caller wants the streams on: from here on it is the taker's to close. */
export function takeClient(options: WithClient): number | undefined {
  taken.add(options);
  return options.client;
}
/** When it doesn't come to that, it is closed here. */
export async function closingClient<T>(native: Native, options: WithClient | undefined, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (options?.client !== undefined && !taken.has(options)) native.close(options.client);
    throw error;
  }
}
