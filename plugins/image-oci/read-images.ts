import { fail } from '@engine/core/errors';
import { type ImageArchive, type Member } from './archive.ts';
import { type Compression } from './chunks.ts';
import { choosePlatform, layerCompression, MEDIA, parseManifest, type Descriptor, type Manifest } from './manifest.ts';
import { verifyDigest } from './store.ts';
import { isTag } from './reference.ts';

/** An image of an archive, documents read and verified, layers not yet. */
export interface FoundImage {
  readonly what: string;
  readonly config: Buffer;
  /** Undefined in a docker-archive: it is composed once the layers are known. */
  readonly manifest?: Buffer;
  readonly layers: readonly FoundLayer[];
  readonly names: readonly string[];
}
export interface FoundLayer {
  readonly what: string;
  readonly member: Member;
  /** What the manifest says; a docker-archive says nothing. */
  readonly digest?: string;
  readonly size?: number;
  readonly mediaType?: string;
  readonly compression?: Compression;
}

const NAME_ANNOTATION = 'io.containerd.image.name';
const REF_ANNOTATION = 'org.opencontainers.image.ref.name';
/** An index in an index in an index is enough. */
const MAX_NESTING = 3;
const MAX_IMAGES = 1000;

/** The images of an archive, for this architecture. OCI is preferred where both forms are there (docker save since 25). */
export async function readImages(archive: ImageArchive, architecture: string): Promise<FoundImage[]> {
  const docker = archive.get('manifest.json');
  const index = archive.get('index.json');
  if (index) return readOci(archive, await index.read(), docker ? await dockerEntries(docker) : [], architecture);
  if (docker) return readDocker(archive, await dockerEntries(docker));
  if (archive.get('repositories')) throw fail('ERR_IMAGE_INVALID', 'the archive was written by a Docker older than 1.10, whose format is not read', { hint: 'load and save it with a newer Docker' });
  throw fail('ERR_IMAGE_INVALID', 'this is no image: there is neither index.json nor manifest.json in it', { hint: 'a root filesystem is imported with: engine import FILE' });
}

interface DockerEntry { readonly config: string; readonly names: readonly string[]; readonly layers: readonly string[] }

async function dockerEntries(member: Member): Promise<DockerEntry[]> {
  let value: unknown;
  try {
    value = JSON.parse((await member.read()).toString('utf8'));
  } catch (cause) {
    throw fail('ERR_IMAGE_INVALID', 'manifest.json cannot be read', { cause });
  }
  const isText = (item: unknown): item is string => typeof item === 'string';
  if (!Array.isArray(value) || value.length > MAX_IMAGES) throw fail('ERR_IMAGE_INVALID', 'manifest.json is not a list of images');
  return value.map((item: unknown) => {
    const { Config: config, RepoTags: names, Layers: layers } = (item ?? {}) as Record<string, unknown>;
    if (!isText(config) || !Array.isArray(layers ?? []) || !((layers ?? []) as unknown[]).every(isText)) throw fail('ERR_IMAGE_INVALID', 'manifest.json has an image without Config or Layers');
    return { config, layers: (layers ?? []) as string[], names: Array.isArray(names) ? names.filter(isText) : [] };
  });
}

async function readDocker(archive: ImageArchive, entries: readonly DockerEntry[]): Promise<FoundImage[]> {
  const legacy = await legacyNames(archive);
  const images: FoundImage[] = [];
  for (const { config, names, layers } of entries) {
    const document = await need(archive, config).read();
    // both docker and podman name the file by its digest: where it looks like one it has to be right
    const hex = /(?:^|\/)([0-9a-f]{64})(?:\.json)?$/.exec(config)?.[1];
    if (hex !== undefined) verifyDigest(document, `sha256:${hex}`, config);
    const top = layers.at(-1)?.split('/').at(-2) ?? '';
    images.push({
      what: names[0] ?? config,
      config: document,
      names: names.length > 0 ? names : (legacy.get(top) ?? []),
      layers: layers.map((name) => ({ what: `layer ${name}`, member: need(archive, name) })),
    });
  }
  return images;
}

/** `repositories`: {name: {tag: id of the top layer}}. Only consulted for images without RepoTags. */
async function legacyNames(archive: ImageArchive): Promise<Map<string, string[]>> {
  const names = new Map<string, string[]>();
  const member = archive.get('repositories');
  if (!member) return names;
  try {
    const document = JSON.parse((await member.read()).toString('utf8')) as Record<string, Record<string, string>>;
    for (const [repository, tags] of Object.entries(document)) {
      for (const [tag, layer] of Object.entries(tags)) names.set(layer, [...(names.get(layer) ?? []), `${repository}:${tag}`]);
    }
  } catch {
    // a courtesy of old archives; broken ones simply name nothing
  }
  return names;
}

function need(archive: ImageArchive, name: string): Member {
  const member = archive.get(name);
  if (!member) throw fail('ERR_IMAGE_INVALID', `the archive lacks ${name}`, { path: name });
  return member;
}
const blobName = (digest: string): string => `blobs/sha256/${digest.slice('sha256:'.length)}`;

async function readBlob(archive: ImageArchive, { digest, size }: Descriptor): Promise<Buffer> {
  const member = need(archive, blobName(digest));
  if (member.size !== size) throw fail('ERR_DIGEST_MISMATCH', `${member.name} has ${member.size} bytes, its descriptor says ${size}`, { path: member.name });
  const data = await member.read();
  verifyDigest(data, digest, member.name);
  return data;
}

async function readOci(archive: ImageArchive, indexData: Buffer, docker: readonly DockerEntry[], architecture: string): Promise<FoundImage[]> {
  const index = parseManifest(indexData, undefined, 'index.json');
  if (index.kind !== 'index') throw fail('ERR_IMAGE_INVALID', 'index.json is not an index');
  const groups = new Map<string, Descriptor[]>();
  for (const descriptor of index.manifests) {
    const name = nameOf(archive, descriptor);
    const key = name ?? (descriptor.platform?.architecture === undefined ? descriptor.digest : '');
    groups.set(key, [...(groups.get(key) ?? []), descriptor]);
  }
  const images = new Map<string, { found: FoundImage; names: Set<string> }>();
  for (const descriptors of groups.values()) {
    const chosen = descriptors.length === 1 && descriptors[0] ? descriptors[0] : choosePlatform(descriptors, architecture, 'index.json');
    const { data, manifest } = await resolve(archive, chosen, architecture, 0);
    const id = manifest.config.digest;
    const name = nameOf(archive, chosen);
    const image = images.get(id) ?? { found: await foundImage(archive, data, manifest, name ?? chosen.digest), names: new Set<string>() };
    if (name !== undefined) image.names.add(name);
    for (const entry of docker) if (entry.config === blobName(id)) for (const tag of entry.names) image.names.add(tag);
    images.set(id, image);
  }
  return [...images.values()].map(({ found, names }) => ({ ...found, names: [...names] }));
}

/** The name a descriptor carries. A bare tag (OCI folders of umoci and skopeo) is put behind the name of the folder or file. */
function nameOf(archive: ImageArchive, { annotations }: Descriptor): string | undefined {
  const full = annotations?.[NAME_ANNOTATION];
  if (full !== undefined) return full;
  const ref = annotations?.[REF_ANNOTATION];
  if (ref === undefined || ref === '') return undefined;
  if (!isTag(ref)) return ref;
  return archive.label === '' ? undefined : `${archive.label.toLowerCase()}:${ref}`;
}

async function resolve(archive: ImageArchive, descriptor: Descriptor, architecture: string, depth: number): Promise<{ data: Buffer; manifest: Manifest }> {
  const data = await readBlob(archive, descriptor);
  const document = parseManifest(data, descriptor.mediaType, blobName(descriptor.digest));
  if (document.kind === 'manifest') return { data, manifest: document };
  if (depth >= MAX_NESTING) throw fail('ERR_IMAGE_INVALID', `indexes are nested more than ${MAX_NESTING} deep`, { path: descriptor.digest });
  return resolve(archive, choosePlatform(document.manifests, architecture, descriptor.digest), architecture, depth + 1);
}

async function foundImage(archive: ImageArchive, data: Buffer, { config, layers }: Manifest, what: string): Promise<FoundImage> {
  if (config.mediaType !== MEDIA.config && config.mediaType !== 'application/vnd.docker.container.image.v1+json') {
    throw fail('ERR_IMAGE_INVALID', `${what} is not a container image: its config has media type ${JSON.stringify(config.mediaType)}`, { path: what });
  }
  return {
    what, manifest: data, names: [],
    config: await readBlob(archive, config),
    layers: layers.map(({ digest, size, mediaType }) => ({
      what: `layer ${digest}`, digest, size, mediaType,
      compression: layerCompression(mediaType, `layer ${digest}`),
      member: need(archive, blobName(digest)),
    })),
  };
}
