import { stat } from 'node:fs/promises';
import path from 'node:path';
import { fail } from '../errors/index.ts';
import { cleanTarget, type ContainerRequest, type MountRequest } from '../api/index.ts';
import { reach } from '../contracts/common/index.ts';
import { type ImageConfig } from '../contracts/image/index.ts';

/** A volume of a container, before it exists. */
export interface PlannedVolume {
  readonly name: string;
  readonly target: string;
  /** Undefined: the default driver, or that of the volume when it exists. */
  readonly driver?: string;
  readonly anonymous: boolean;
  readonly readonly: boolean;
  readonly copyUp: boolean;
  readonly options: Readonly<Record<string, string>>;
  readonly request?: MountRequest;
}

/** Every volume that the request and the image ask for, and a refusal of two mounts on one target. `newName` names anonymous ones. */
export function planVolumes(request: ContainerRequest, image: ImageConfig, newName: () => string): PlannedVolume[] {
  const targets = new Set<string>();
  for (const { target } of [...request.mounts, ...request.tmpfs]) {
    const clean = cleanTarget(target);
    if (targets.has(clean)) throw fail('ERR_INVALID_VALUE', `duplicate mount point: ${clean}`, { operation: 'mount', path: clean });
    targets.add(clean);
  }
  const asked = request.mounts.filter((m) => m.type === 'volume').map((m): PlannedVolume => ({
    name: m.source || newName(), target: cleanTarget(m.target), anonymous: !m.source, readonly: m.readonly, copyUp: !m.noCopy,
    options: m.volumeOptions ?? {}, request: m, ...(m.volumeDriver ? { driver: m.volumeDriver } : {}),
  }));
  const implied = Object.keys(image.Volumes ?? {}).map((target) => cleanTarget(path.posix.join('/', target))).filter((target) => !targets.has(target));
  return [...asked, ...[...new Set(implied)].map((target): PlannedVolume => ({ name: newName(), target, anonymous: true, readonly: false, copyUp: true, options: {} }))];
}

/** Bind sources that are needed: absolute, cleaned. `-v` makes a missing one, `--mount` refuses it. */
export function bindSources(request: ContainerRequest): readonly { readonly source: string; readonly create: boolean }[] {
  return request.mounts.filter((m) => m.type === 'bind').map((m) => {
    if (!m.source?.startsWith('/')) throw fail('ERR_INVALID_VALUE', `invalid mount path: '${m.source ?? ''}' mount path must be absolute`, { operation: 'mount', path: m.source ?? '' });
    return { source: m.source, create: m.createSource };
  });
}

/** Asks once, without blocking, after what the user named on this machine: what looks at it synchronously later finds the answer ready. Errors: ERR_TIMEOUT. */
export async function reachSources(request: ContainerRequest): Promise<void> {
  const named = [...bindSources(request).map(({ source }) => source), request.bundle, request.rootfs].filter((p) => p !== undefined);
  await Promise.all(named.map((p) => reach('stat', p, () => stat(p).catch(() => undefined))));
}
