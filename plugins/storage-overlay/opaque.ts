import { readdirSync, type Dirent } from 'node:fs';
import { join } from 'node:path';
import { defineLibrary } from '@engine/native/library';

const MARKS = ['trusted.overlay.opaque', 'user.overlay.opaque'];

/** Folders below `upper` (as `/a/b`) that the kernel marked opaque: what lower layers have at their place is hidden. */
export function opaqueFolders(upper: string): string[] {
  const { lgetxattr } = defineLibrary('libc.so.6', { lgetxattr: { args: ['str', 'str', 'bytes', 'size'], result: 'i64' } });
  const value = Buffer.alloc(1);
  const isOpaque = (folder: string): boolean => MARKS.some((mark) => Number(lgetxattr(folder, mark, value, value.length).value) === 1 && value.toString() === 'y');
  const found: string[] = [];
  const walk = (relative: string): void => {
    for (const entry of entriesOf(join(upper, relative))) {
      if (!entry.isDirectory()) continue;
      const at = `${relative}/${entry.name}`;
      if (isOpaque(join(upper, at))) found.push(at);
      walk(at);
    }
  };
  walk('');
  return found;
}

/** A container can make folders deeper than any path can name, and remove them meanwhile: no diff shows them, and none may fail by them. */
function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    if (['ENAMETOOLONG', 'ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}
