import { fail } from '../errors/index.ts';
import { type Spec } from '../spec/index.ts';

/** Sections that the core or its adapters compile, besides what plugins claim. */
const own = new Set(['ociVersion', 'annotations', 'root', 'process.terminal', 'process.consoleSize', 'linux.namespaces', 'linux.cgroupsPath']);

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === '') return true;
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === 'object' && Object.values(value).every(isEmpty);
}

function refuse(section: string): Error {
  return fail('ERR_SECTION_UNOWNED', `section ${section} of the OCI spec is set, but no plugin compiles it`, { path: section });
}

/**
 * Every non-empty section must have somebody who compiles it: silently doing less than asked is not an answer. A cgroup driver
 * answers for `linux.resources`, and refuses what it can't honour by field. Errors: ERR_SECTION_UNOWNED names the field.
 */
export function checkSections(spec: Spec, owners: ReadonlyMap<string, string>, hasCgroup: boolean): void {
  const isOwned = (section: string): boolean => own.has(section) || owners.has(section) || (hasCgroup && section === 'linux.resources');
  const check = (value: unknown, section: string): void => {
    if (isEmpty(value) || isOwned(section)) return;
    if (typeof value !== 'object' || Array.isArray(value)) throw refuse(section);
    for (const [key, child] of Object.entries(value as object)) check(child, section === '' ? key : `${section}.${key}`);
  };
  check(spec, '');
}
