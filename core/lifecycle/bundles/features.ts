import { type BundleFeatures } from '../../api/index.ts';
import { type Core } from '../core.ts';

type Fields = Readonly<Record<string, unknown>>;
const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value);

/** What several say of one section together: lists are joined, what is enabled by one is enabled. */
function joined(a: unknown, b: unknown): unknown {
  if (Array.isArray(a) && Array.isArray(b)) return [...new Set([...(a as string[]), ...(b as string[])])].sort((x, y) => (x < y ? -1 : 1));
  if (isFields(a) && isFields(b)) return Object.fromEntries([...new Set([...Object.keys(a), ...Object.keys(b)])].map((key) => [key, joined(a[key], b[key])]));
  if (typeof a === 'boolean' && typeof b === 'boolean') return a || b;
  return b === undefined ? a : b;
}

/** What plugins and the drivers that are available on this machine say of themselves. */
export async function featuresOf(core: Core): Promise<BundleFeatures> {
  await core.request('bundle features', {});
  const { registry, parts: { machine } } = core;
  const own: Fields = {
    ociVersionMin: '1.0.0', ociVersionMax: '1.3.0',
    potentiallyUnsafeConfigAnnotations: [],
  };
  const parts = registry.instances.flatMap((made): readonly Fields[] => (made.ociFeatures ? [made.ociFeatures()] : []));
  for (const contract of ['cgroup', 'security'] as const) {
    for (const { driver } of await registry.all(contract)) {
      const { available } = await driver.probe(machine);
      const said = driver.ociFeatures?.(available);
      if (said) parts.push(said);
    }
  }
  let checkpoints = false;
  for (const { driver } of await registry.all('checkpoint')) checkpoints ||= (await driver.probe(machine)).available;
  parts.push({ annotations: { 'engine.checkpoint.enabled': String(checkpoints) } });
  return parts.reduce<Fields>((all, part) => joined(all, part) as Fields, own);
}
