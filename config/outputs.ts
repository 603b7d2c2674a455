import { getSystemErrorMessage } from 'node:util';

export interface Outputs {
  /** From now on its end is waited for, and what goes wrong with it is told. */
  use(stream: NodeJS.WriteStream): NodeJS.WriteStream;
  /**
   * Resolves when all that was written is with the kernel, or never will be: this process ends by exit(), which forgets what waits for a pipe. False,
   * and said on standard error, when something could not be written; a reader that has gone (EPIPE) is no error.
   */
  finished(): Promise<boolean>;
}

/** The two outputs of a command that runs in its own process. */
export function createOutputs(): Outputs {
  const errors = new Map<NodeJS.WriteStream, NodeJS.ErrnoException | undefined>();
  const flush = (stream: NodeJS.WriteStream): Promise<void> => new Promise((resolve) => (stream.writableLength === 0 || stream.destroyed ? resolve() : void stream.write('', () => resolve())));
  return {
    use(stream) {
      if (errors.has(stream)) return stream;
      errors.set(stream, undefined);
      stream.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EPIPE') errors.set(stream, errors.get(stream) ?? error);
      });
      return stream;
    },
    async finished() {
      await Promise.all([...errors.keys()].map(flush));
      const failed = [...errors].filter(([, error]) => error !== undefined);
      for (const [stream, error] of failed) {
        const text = getSystemErrorMessage(error?.errno ?? 0);
        process.stderr.write(`engine: cannot write to standard ${stream === process.stdout ? 'output' : 'error'}: ${text.charAt(0).toUpperCase()}${text.slice(1)}\n`, () => {});
      }
      return failed.length === 0;
    },
  };
}
