import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { effect, op } from '../../plan/build.ts';
import { fail } from '../../errors/index.ts';
import { ensureFolder, goesWithStaging } from '../common/index.ts';
import { type StorageDriver } from '../storage/index.ts';

/** The least a storage driver can be: layers as folders. With `independent` each holds its own entries only, as overlay's do. */
export function folderStorage(folder: string, independent: boolean): StorageDriver & { layer(chainID: string): string; readonly prepared: string[] } {
  const layer = (chainID: string): string => join(folder, chainID.replace('sha256:', ''));
  const staging = (token: string): string => join(folder, `.new-${token}`);
  const prepared: string[] = [];
  const missing = (parent: string): Error => fail('ERR_STATE', `parent ${parent} is missing`, { path: parent });
  return {
    layer,
    prepared,
    name: 'folder',
    features: new Set(independent ? ['independent-layers'] : []),
    probe: () => ({ available: true, score: 0, reasons: [] }),
    hasLayer: (chainID) => existsSync(layer(chainID)),
    listLayers: () => (existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith('.')).map((name) => `sha256:${name}`) : []),
    async prepareLayer(effects, { token, parent }) {
      prepared.push(token);
      if (parent !== undefined && !independent && !existsSync(layer(parent))) throw missing(parent);
      const path = staging(token);
      const below = parent === undefined || independent ? [] : [effect(op.copyTree({ from: layer(parent), to: path }), goesWithStaging)];
      await effects.run([ensureFolder(folder), effect(op.removeTree({ path }), { none: 'left-over' }), effect(op.mkdir({ path, mode: 0o755 }), op.removeTree({ path })), ...below]);
      return { path, whiteouts: independent ? 'overlay' : 'apply' };
    },
    async commitLayer(effects, { token, chainID, parent }) {
      if (parent !== undefined && !existsSync(layer(parent))) throw missing(parent);
      await effects.run([
        effect(op.rename({ from: staging(token), to: layer(chainID), flags: 1 }, { okExists: true }), { none: 'a complete layer is valid by itself' }),
        effect(op.removeTree({ path: staging(token) }), goesWithStaging),
      ]);
    },
    removeLayer: (chainID) => [effect(op.removeTree({ path: layer(chainID) }), { none: 'a removal' })],
    createSnapshot: () => [],
    removeSnapshot: () => [],
    planRootfs: () => [],
    changes: () => ({ kind: 'trees', tree: folder }),
    diff: () => [],
    usage: () => Promise.resolve({ bytes: 0, inodes: 0 }),
  };
}
