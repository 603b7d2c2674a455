import { createHash } from 'node:crypto';

/**
 * A tar writer for tests, which also writes what no proper writer would. `raw` replaces bytes of the finished header (the checksum is made
 * again unless `badChecksum`).
 */
export interface TarFile {
  readonly path: string | Buffer;
  readonly type?: string;
  readonly content?: string | Buffer;
  readonly link?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds. */
  readonly mtime?: number;
  readonly major?: number;
  readonly minor?: number;
  /** PAX records before the entry, in this order. */
  readonly pax?: readonly (readonly [key: string, value: string | Buffer])[];
  /** Size in the header, when it shall not be the content's. */
  readonly size?: number;
  readonly raw?: readonly (readonly [offset: number, bytes: string | Buffer])[];
  readonly badChecksum?: boolean;
  /** `gnu`: long names as L and K entries instead of being cut. */
  readonly format?: 'ustar' | 'gnu';
}

const BLOCK = 512;
function field(value: number, length: number): Buffer {
  if (value >= 0 && value < 8 ** (length - 1)) return Buffer.from(`${value.toString(8).padStart(length - 1, '0')}\0`);
  const bytes = Buffer.alloc(length);
  bytes.writeBigInt64BE(BigInt(value), length - 8);
  bytes.writeUInt8(0x80, 0);
  return bytes;
}
function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)]);
}
export function paxRecord(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as string), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function header(file: TarFile, name: Buffer, type: string, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  name.subarray(0, 100).copy(block, 0);
  field(file.mode ?? (type === '5' ? 0o755 : 0o644), 8).copy(block, 100);
  field(file.uid ?? 0, 8).copy(block, 108);
  field(file.gid ?? 0, 8).copy(block, 116);
  field(size, 12).copy(block, 124);
  field(file.mtime ?? 1_000_000_000, 12).copy(block, 136);
  block.write(type, 156, 'latin1');
  Buffer.from(file.link ?? '').subarray(0, 100).copy(block, 157);
  block.write(file.format === 'gnu' ? 'ustar  \0' : 'ustar\x0000', 257, 'latin1');
  field(file.major ?? 0, 8).copy(block, 329);
  field(file.minor ?? 0, 8).copy(block, 337);
  for (const [offset, bytes] of file.raw ?? []) Buffer.from(bytes as string).copy(block, offset);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0) + (file.badChecksum ? 1 : 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
function extension(type: string, body: Buffer): Buffer {
  return Buffer.concat([header({ path: '././@LongLink' }, Buffer.from('././@PaxHeader'), type, body.length), padded(body)]);
}

/** The bytes of one entry. */
export function tarEntry(file: TarFile): Buffer {
  const name = Buffer.from(file.path as string);
  const content = Buffer.from((file.content ?? '') as string);
  const type = file.type ?? '0';
  const parts: Buffer[] = [];
  if (file.format === 'gnu' && name.length > 100) parts.push(extension('L', Buffer.concat([name, Buffer.alloc(1)])));
  if (file.format === 'gnu' && (file.link?.length ?? 0) > 100) parts.push(extension('K', Buffer.from(`${file.link}\0`)));
  if (file.pax) parts.push(extension('x', Buffer.concat(file.pax.map(([key, value]) => paxRecord(key, value)))));
  return Buffer.concat([...parts, header(file, name, type, file.size ?? content.length), padded(content)]);
}
/** A whole archive, ended by two blocks of zeros. */
export function tar(files: readonly TarFile[], options: { readonly end?: boolean } = {}): Buffer {
  return Buffer.concat([...files.map(tarEntry), ...(options.end === false ? [] : [Buffer.alloc(2 * BLOCK)])]);
}

export function sha256(data: Uint8Array): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}

export interface TestLayer {
  readonly tar: Buffer;
  /** As stored; default the tar itself. */
  readonly blob?: Buffer;
  readonly mediaType?: string;
}
export interface TestImage {
  readonly layers: readonly TestLayer[];
  readonly names?: readonly string[];
  readonly config?: Readonly<Record<string, unknown>>;
  readonly architecture?: string;
  readonly diffIDs?: readonly string[];
  readonly history?: readonly Record<string, unknown>[];
}
export function imageConfig({ layers, config = {}, architecture = process.arch === 'arm64' ? 'arm64' : 'amd64', diffIDs, history }: TestImage): Buffer {
  return Buffer.from(JSON.stringify({
    created: '2024-01-02T03:04:05Z', architecture, os: 'linux', config,
    rootfs: { type: 'layers', diff_ids: diffIDs ?? layers.map((layer) => sha256(layer.tar)) },
    ...(history ? { history } : {}),
  }));
}

/** As `docker save` wrote it before 25. A layer that came before becomes a link, as there. */
export function dockerArchive(images: readonly TestImage[]): Buffer {
  const files: TarFile[] = [];
  const seen = new Map<string, string>();
  const manifest = images.map((image) => {
    const config = imageConfig(image);
    const configName = `${sha256(config).slice(7)}.json`;
    const names = image.layers.map((layer, i) => {
      const folder = sha256(Buffer.concat([config, Buffer.from(String(i))])).slice(7);
      const blob = layer.blob ?? layer.tar;
      const digest = sha256(blob);
      const first = seen.get(digest);
      files.push({ path: `${folder}/`, type: '5' }, { path: `${folder}/VERSION`, content: '1.0' });
      files.push(first === undefined ? { path: `${folder}/layer.tar`, content: blob } : { path: `${folder}/layer.tar`, type: '2', link: `../${first}` });
      if (first === undefined) seen.set(digest, `${folder}/layer.tar`);
      return `${folder}/layer.tar`;
    });
    files.push({ path: configName, content: config });
    return { Config: configName, RepoTags: image.names ?? null, Layers: names };
  });
  files.push({ path: 'manifest.json', content: JSON.stringify(manifest) });
  return tar(files);
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export interface OciFiles { readonly files: Map<string, Buffer>; manifests: { mediaType: string; digest: string; size: number; annotations?: Record<string, string>; platform?: Record<string, string> }[] }
/** An OCI layout as files by name. `manifests` may be changed before {@link ociArchive}. */
export function ociLayout(images: readonly TestImage[]): OciFiles {
  const files = new Map<string, Buffer>([['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')]]);
  const add = (data: Buffer): { digest: string; size: number } => {
    const digest = sha256(data);
    files.set(`blobs/sha256/${digest.slice(7)}`, data);
    return { digest, size: data.length };
  };
  const manifests: OciFiles['manifests'] = [];
  for (const image of images) {
    const layers = image.layers.map((layer) => ({ mediaType: layer.mediaType ?? 'application/vnd.oci.image.layer.v1.tar', ...add(layer.blob ?? layer.tar) }));
    const config = { mediaType: 'application/vnd.oci.image.config.v1+json', ...add(imageConfig(image)) };
    const manifest = add(Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers })));
    for (const name of image.names ?? [undefined]) {
      manifests.push({ mediaType: MANIFEST, ...manifest, ...(name === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': name } }) });
    }
  }
  return { files, manifests };
}
/** All files of a layout, index.json included. */
export function ociFiles({ files, manifests }: OciFiles): Map<string, Buffer> {
  return new Map([...files, ['index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }))]]);
}
export function ociArchive(layout: OciFiles): Buffer {
  return tar([...ociFiles(layout)].map(([path, content]) => ({ path, content })));
}
