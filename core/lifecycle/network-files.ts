import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type ContainerRecord } from '../api/index.ts';
import { type Endpoint } from '../contracts/network/index.ts';
import { whoAsked } from '../hooks/index.ts';
import { BITS, effect, op, type Effect } from '../plan/index.ts';
import { type Core } from './core.ts';
import { attachmentOf } from './endpoints.ts';

const FILES = ['hosts', 'resolv.conf'] as const;

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/**
 * What changes in the files of a running container when it comes to a network or leaves one, as the taps on `networksChanged` say. They are mounted into it, so that they
 * are written in place.
 */
export async function changedFiles(core: Core, container: ContainerRecord, before: readonly Endpoint[], after: readonly Endpoint[]): Promise<{ readonly plugin: string; readonly effects: readonly Effect[] }[]> {
  const { hooks } = core.parts;
  if (hooks.taps('networksChanged').length === 0) return [];
  const folder = core.folderOf(container.id);
  const files = Object.fromEntries(FILES.flatMap((name) => {
    const text = read(path.join(folder, name));
    return text === undefined ? [] : [[name, text]];
  }));
  const [was, is] = await Promise.all([attachmentOf(core, container.id, before), attachmentOf(core, container.id, after)]);
  const { value, asked } = await hooks.callWaterfall('networksChanged', { container, before: was, after: is, files });
  return FILES.flatMap((name) => {
    const [old, text] = [files[name], value.files[name]];
    if (old === undefined || text === undefined || text === old) return [];
    const write = (data: string) => op.writeFile({ path: path.join(folder, name), data: Buffer.from(data), mode: 0o644, how: BITS.WRITE.truncate });
    return [{ plugin: whoAsked(asked, `/files/${name}`) ?? 'core', effects: [effect(write(text), write(old))] }];
  });
}
