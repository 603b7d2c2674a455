import { fail } from '@engine/core/errors';
import { type ImageConfig } from '@engine/core/contracts/image';
import { type Compression } from './chunks.ts';
import { isDigest } from './reference.ts';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture?: string; readonly os?: string; readonly variant?: string };
  readonly annotations?: Readonly<Record<string, string>>;
}
export interface Manifest { readonly kind: 'manifest'; readonly config: Descriptor; readonly layers: readonly Descriptor[] }
export interface Index { readonly kind: 'index'; readonly manifests: readonly Descriptor[] }
/** The parts of an image config that are read. */
export interface ConfigDocument {
  readonly created?: string;
  readonly author?: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly os: string;
  readonly config: ImageConfig;
  readonly diffIDs: readonly string[];
  readonly history: readonly HistoryRecord[];
}
export interface HistoryRecord { readonly created?: string; readonly created_by?: string; readonly comment?: string; readonly empty_layer?: boolean; readonly author?: string }

export const MEDIA = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  index: 'application/vnd.oci.image.index.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
} as const;
/** Highest number of layers, as Docker's. */
const MAX_LAYERS = 127;
const MAX_MANIFESTS = 1000;

type Json = Record<string, unknown>;
function invalid(what: string, why: string): Error {
  return fail('ERR_IMAGE_INVALID', `${what} ${why}`, { path: what });
}
function parseObject(data: Buffer, what: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(data.toString('utf8'));
  } catch (cause) {
    throw fail('ERR_IMAGE_INVALID', `${what} is not JSON`, { path: what, cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(what, 'is not a JSON object');
  return value as Json;
}
function asStrings(value: unknown): string[] | undefined {
  return Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : undefined;
}
function asTextMap(value: unknown): Record<string, string> | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return Object.fromEntries(Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === 'string'));
}
function asText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function readDescriptor(value: unknown, what: string): Descriptor {
  const { mediaType, digest, size, platform, annotations } = (value ?? {}) as Json;
  if (typeof mediaType !== 'string' || typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw invalid(what, 'has a descriptor without media type or size');
  if (!isDigest(digest)) throw invalid(what, `has a descriptor with the digest ${JSON.stringify(digest)}; only sha256 is understood`);
  const notes = asTextMap(annotations);
  return { mediaType, digest, size, ...(typeof platform === 'object' && platform !== null ? { platform } : {}), ...(notes ? { annotations: notes } : {}) };
}

/**
 * A manifest or an index. Which of the two it is must agree in media type of the descriptor, media type inside, and content
 * (CVE-2021-41190: a document that is both).
 */
export function parseManifest(data: Buffer, mediaType: string | undefined, what: string): Manifest | Index {
  const document = parseObject(data, what);
  const inside = document['mediaType'];
  if (document['schemaVersion'] !== 2) throw invalid(what, `has schemaVersion ${JSON.stringify(document['schemaVersion'])}; 2 is understood`);
  const asIndex = document['manifests'] !== undefined;
  const asManifest = document['config'] !== undefined || document['layers'] !== undefined;
  if (asIndex === asManifest) throw invalid(what, asIndex ? 'claims to be a manifest and an index at once' : 'is neither a manifest nor an index');
  if (document['fsLayers'] !== undefined) throw invalid(what, 'mixes schema 1 and 2');
  const expected: readonly string[] = asIndex ? [MEDIA.index, MEDIA.dockerIndex] : [MEDIA.manifest, MEDIA.dockerManifest];
  for (const type of [mediaType, inside]) {
    if (type !== undefined && !expected.includes(String(type))) throw invalid(what, `has media type ${JSON.stringify(type)}, but its content is ${asIndex ? 'an index' : 'a manifest'}`);
  }
  if (mediaType !== undefined && inside !== undefined && mediaType !== inside) throw invalid(what, 'has another media type inside than its descriptor says');
  if (asIndex) {
    const { manifests } = document;
    if (!Array.isArray(manifests) || manifests.length > MAX_MANIFESTS) throw invalid(what, 'has no usable list of manifests');
    return { kind: 'index', manifests: manifests.map((item) => readDescriptor(item, what)) };
  }
  const { layers } = document;
  if (!Array.isArray(layers)) throw invalid(what, 'has no list of layers');
  if (layers.length > MAX_LAYERS) throw fail('ERR_IMAGE_LIMIT', `${what} has ${layers.length} layers, more than ${MAX_LAYERS}`, { path: what });
  return { kind: 'manifest', config: readDescriptor(document['config'], what), layers: layers.map((item) => readDescriptor(item, what)) };
}

/** The compression a layer's media type promises. Errors: ERR_IMAGE_INVALID for types that are no layers. */
export function layerCompression(mediaType: string, what: string): Compression {
  const match = /^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?<oci>\+gzip|\+zstd)?|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?<docker>\.gzip|\.zstd)?)$/.exec(mediaType);
  if (!match) throw invalid(what, `has media type ${JSON.stringify(mediaType)}, which is no layer`);
  const suffix = (match.groups?.['oci'] ?? match.groups?.['docker'] ?? '').slice(1);
  return suffix === '' ? 'none' : (suffix as Compression);
}
export function layerMediaType(compression: Compression): string {
  return compression === 'none' ? MEDIA.layer : `${MEDIA.layer}+${compression}`;
}

/** Labels of an image never steer the engine: its own namespace is dropped (CVE-2026-53488). */
const RESERVED = /^(?:io\.)?engine\./i;
export function isReservedLabel(key: string): boolean {
  return RESERVED.test(key);
}

/** The container config of an image, only fields of the right type; `dropped` gets the names of reserved labels. */
export function readImageConfig(value: unknown, dropped: string[] = []): ImageConfig {
  const from = (typeof value === 'object' && value !== null ? value : {}) as Json;
  const out: Record<string, unknown> = {};
  for (const key of ['User', 'WorkingDir', 'StopSignal']) if (asText(from[key]) !== undefined) out[key] = from[key];
  for (const key of ['Env', 'Entrypoint', 'Cmd']) {
    const list = asStrings(from[key]);
    if (list) out[key] = list;
  }
  for (const key of ['Volumes', 'ExposedPorts']) {
    const map = from[key];
    if (typeof map === 'object' && map !== null && !Array.isArray(map) && Object.keys(map).length > 0) out[key] = Object.fromEntries(Object.keys(map).map((name) => [name, {}]));
  }
  const labels = Object.entries(asTextMap(from['Labels']) ?? {});
  dropped.push(...labels.filter(([key]) => isReservedLabel(key)).map(([key]) => key));
  const kept = labels.filter(([key]) => !isReservedLabel(key));
  if (kept.length > 0) out['Labels'] = Object.fromEntries(kept);
  if (typeof from['Healthcheck'] === 'object' && from['Healthcheck'] !== null) out['Healthcheck'] = from['Healthcheck'];
  return out as ImageConfig;
}

/** An image config, OCI's or Docker's. Errors: ERR_IMAGE_INVALID. */
export function parseConfig(data: Buffer, what: string, dropped: string[] = []): ConfigDocument {
  const document = parseObject(data, what);
  const rootfs = (document['rootfs'] ?? {}) as Json;
  const diffIDs = asStrings(rootfs['diff_ids']);
  if (rootfs['type'] !== 'layers' || !diffIDs || !diffIDs.every(isDigest)) throw invalid(what, 'is not an image config: it has no rootfs.diff_ids');
  const os = asText(document['os']) ?? 'linux';
  if (os !== 'linux') throw fail('ERR_NOT_SUPPORTED', `the image is for ${os}, not for linux`, { path: what });
  const created = asText(document['created']);
  const author = asText(document['author']);
  const variant = asText(document['variant']);
  const history = (Array.isArray(document['history']) ? document['history'] : []).filter((item): item is HistoryRecord => typeof item === 'object' && item !== null);
  return {
    os, diffIDs, history,
    architecture: asText(document['architecture']) ?? '',
    config: readImageConfig(document['config'], dropped),
    ...(created ? { created } : {}), ...(author ? { author } : {}), ...(variant ? { variant } : {}),
  };
}

/** GOARCH of a machine's architecture, as platforms are written. */
export function platformArchitecture(architecture: string): string {
  const names: Readonly<Record<string, string>> = { x86_64: 'amd64', x64: 'amd64', aarch64: 'arm64', armv7l: 'arm', armv6l: 'arm', i686: '386', i386: '386', ia32: '386', ppc64le: 'ppc64le', riscv64: 'riscv64', s390x: 's390x', loongarch64: 'loong64' };
  return names[architecture] ?? architecture;
}

/** The descriptor for this machine; attestations are left aside. Errors: ERR_IMAGE_INVALID naming what there is. */
export function choosePlatform(manifests: readonly Descriptor[], architecture: string, what: string): Descriptor {
  const images = manifests.filter((item) => item.annotations?.['vnd.docker.reference.type'] === undefined && item.platform?.os !== 'unknown');
  const fitting = images.filter(({ platform }) => platform?.architecture === architecture && (platform.os ?? 'linux') === 'linux');
  const chosen = fitting[0] ?? images.find(({ platform }) => platform?.architecture === undefined);
  if (chosen) return chosen;
  const there = images.map(({ platform }) => `${platform?.os ?? 'linux'}/${platform?.architecture ?? '?'}`).join(', ');
  throw fail('ERR_IMAGE_INVALID', `${what} has no image for linux/${architecture}${there ? `, only for ${there}` : ''}`, { path: what });
}
