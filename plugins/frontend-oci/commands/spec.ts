import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '@engine/core/errors';
import { command } from '../command.ts';
import { exampleSpec } from '../example-spec.ts';
import { reachable } from '../files.ts';

export const specCommand = command({
  name: 'spec', usage: '', summary: 'write a config.json to begin with',
  description: 'It runs sh with a terminal in the folder rootfs; edit it for anything else.',
  flags: {
    bundle: { type: 'string', short: 'b', value: 'DIR', help: 'folder to write it to (default: where you are)' },
    file: { type: 'string', short: 'f', value: 'PATH', help: 'another name than config.json' },
    rootless: { type: 'boolean', help: 'for a user namespace in which you are root' },
  },
  args: [0, 0],
  async run({ invocation }, flags) {
    const name = flags.file || 'config.json';
    const path = reachable({ ...invocation, cwd: reachable(invocation, flags.bundle || '.') }, name);
    const text = `${JSON.stringify(exampleSpec(flags.rootless ? { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 } : undefined), null, '\t')}\n`;
    let fd: number;
    try {
      fd = openSync(path, 'wx', 0o666 & ~(invocation.umask ?? 0));
    } catch (error) {
      const { code = 'EIO' } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') throw fail('ERR_INVALID_VALUE', `file ${name} exists`, { operation: 'spec', path, hint: 'remove it first' });
      throw fail('ERR_INVALID_VALUE', `cannot write ${join(flags.bundle || '.', name)}`, { operation: 'spec', path, errno: code, hint: '' });
    }
    try {
      writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
    return 0;
  },
});
