import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '@engine/core/errors';
import { BITS, effect, op } from '@engine/core/plan';
import { goesWithStaging, makeByRename, removeByRename, type DriverDeps } from '@engine/core/contracts/common';
import { type VolumeDriver } from '@engine/core/contracts/volume';

const PLUGIN = 'volume-local';
/** Docker's names. What lies beside the volumes begins with a dot or is no such name. */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;

/** What `options.json` holds: where a volume with a folder of the user's own points. */
interface StoredOptions { readonly device?: string }

function checkName(name: string): string {
  if (!NAME.test(name)) throw fail('ERR_INVALID_VALUE', `not a volume name: ${JSON.stringify(name)}`, { path: name, plugin: PLUGIN, hint: 'letters, digits, "_", "." and "-", the first a letter or digit' });
  return name;
}

/**
 * Docker's options of its local driver: `type=none,o=bind,device=/path` makes the volume that folder. Anything that would need a mount
 * of its own is refused: nothing of a container is mounted on the host.
 */
function parseOptions(options: Readonly<Record<string, string>>): StoredOptions {
  for (const name of Object.keys(options)) {
    if (!['type', 'o', 'device'].includes(name)) throw fail('ERR_INVALID_VALUE', `the volume driver local has no option ${JSON.stringify(name)}`, { path: name, plugin: PLUGIN, hint: 'it has type, o and device' });
  }
  const { type = 'none', o = '', device } = options;
  if (Object.keys(options).length === 0) return {};
  if (type === 'tmpfs') throw fail('ERR_NOT_SUPPORTED', 'a volume of type tmpfs would not outlive its container', { path: type, plugin: PLUGIN, hint: 'use --tmpfs or --mount type=tmpfs' });
  if (type !== 'none') throw fail('ERR_NOT_SUPPORTED', `the volume driver local cannot mount the type ${JSON.stringify(type)}`, { path: type, plugin: PLUGIN, hint: 'mount it on the host, then use type=none,o=bind,device=FOLDER' });
  const flags = o.split(',').filter(Boolean);
  if (!flags.includes('bind') && !flags.includes('rbind')) throw fail('ERR_INVALID_VALUE', 'option type=none needs o=bind', { path: 'o', plugin: PLUGIN });
  const other = flags.find((flag) => flag !== 'bind' && flag !== 'rbind' && flag !== 'rw');
  if (other !== undefined) throw fail('ERR_NOT_SUPPORTED', `the volume driver local cannot honour o=${other}`, { path: 'o', plugin: PLUGIN, hint: 'give it where the volume is used, e.g. -v NAME:/path:ro' });
  if (device === undefined || !device.startsWith('/') || device.includes('\0')) throw fail('ERR_INVALID_VALUE', `option device must be an absolute path, not ${JSON.stringify(device ?? '')}`, { path: 'device', plugin: PLUGIN });
  return { device };
}

/** Volumes as folders: `<folder>/<name>/_data`. */
export function createLocalVolumes(deps: DriverDeps): VolumeDriver {
  const { folder } = deps;
  const trash = join(folder, '.trash');
  const volume = (name: string): string => join(folder, checkName(name));

  return {
    name: 'local',
    features: new Set(),
    probe: () => ({ available: true, score: 50, reasons: [`folders below ${folder}`] }),

    create(name, options) {
      const stored = parseOptions(options);
      return makeByRename(volume(name), trash, (staging) => [
        effect(op.mkdir({ path: join(staging, '_data'), mode: 0o755 }), goesWithStaging),
        ...(stored.device === undefined ? [] : [effect(op.writeFile({ path: join(staging, 'options.json'), data: Buffer.from(JSON.stringify(stored)), mode: 0o600, how: BITS.WRITE.create }), goesWithStaging)]),
      ]);
    },
    // Only what this driver made: the folder that `device` names stays.
    remove: (name) => removeByRename(volume(name), trash),

    mountpoint(name, _run, options = {}) {
      const path = join(volume(name), 'options.json');
      let text: string;
      try {
        text = readFileSync(path, 'utf8');
      } catch (cause) {
        const errno = String((cause as NodeJS.ErrnoException).code);
        if (errno === 'ENOENT') return parseOptions(options).device ?? join(volume(name), '_data');
        throw fail('ERR_STATE', `cannot read ${path}`, { operation: 'read', path, errno, plugin: PLUGIN, cause });
      }
      return (JSON.parse(text) as StoredOptions).device ?? join(volume(name), '_data');
    },
    list() {
      try {
        return readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory() && NAME.test(entry.name)).map((entry) => entry.name);
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return [];
        throw fail('ERR_STATE', `cannot read ${folder}`, { operation: 'readdir', path: folder, plugin: PLUGIN, cause });
      }
    },
  };
}
