import { join } from 'node:path';
import { binaryFolder } from './binaries.ts';

/**
 * End this process now, as process.exit does, listeners to `exit` included, but without waiting for V8's threads: one of them may wait for this thread in turn
 * (nodejs/node#54918), and the process would stay for ever.
 */
export function endProcess(code: number = Number(process.exitCode ?? 0)): never {
  process.exitCode = code;
  const addon = { exports: {} as { end?(status: number): void } };
  try {
    process.dlopen(addon, join(binaryFolder(), 'libengine.so'));
    process.emit('exit', code);
    addon.exports.end?.(code);
  } catch {
    // not built
  }
  return process.exit(code);
}
