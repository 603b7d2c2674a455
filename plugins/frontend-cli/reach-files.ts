import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { reach } from '@engine/core/contracts/common';

interface FileFlags {
  readonly 'env-file'?: readonly string[];
  readonly 'label-file'?: readonly string[];
  readonly cidfile?: string | undefined;
  readonly 'security-opt'?: readonly string[];
}

/**
 * Waits for an answer about each file that these flags name, without blocking: they are read synchronously afterwards, and one on a dead network
 * mount would hold up everybody. Errors: ERR_TIMEOUT names the path.
 */
export async function reachFiles(flags: FileFlags, cwd: string): Promise<void> {
  const profiles = (flags['security-opt'] ?? []).flatMap((text) => /^seccomp[=:]([^{]+)$/.exec(text)?.[1] ?? []).filter((name) => name.includes('/'));
  const named = [...(flags['env-file'] ?? []), ...(flags['label-file'] ?? []), ...(flags.cidfile === undefined ? [] : [flags.cidfile]), ...profiles];
  await Promise.all(named.map((name) => resolve(cwd, name)).map((path) => reach('stat', path, () => stat(path).catch(() => undefined))));
}
