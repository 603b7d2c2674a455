import { type Driver, type RunContext } from '../common/index.ts';
import { type Effect } from '../../plan/types.ts';

/** Named storage that outlives containers. Features: `size`. */
export interface VolumeDriver extends Driver {
  /** as data: makes volume `name`. Set-up fails on a duplicate. Options it doesn't know: ERR_INVALID_VALUE. */
  create(name: string, options: Readonly<Record<string, string>>): readonly Effect[];
  /** as data: removes it, missing is success. Renames first, then deletes. */
  remove(name: string): readonly Effect[];
  /** **read** The host folder that is bound into containers (made by `create`). `options`: of a volume that is still to be made. */
  mountpoint(name: string, run?: RunContext, options?: Readonly<Record<string, string>>): string;
  /** **read** Names present on disk, for doctor. */
  list(): readonly string[];
}
