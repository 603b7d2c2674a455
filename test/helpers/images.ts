import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { busyboxTar } from './busybox.ts';
import { Dockerd, Podman } from './peers.ts';
import { dockerArchive, tar, type TestImage } from './tar.ts';

/** What the second layer of {@link busyboxImage} does: replaces, removes, hides, adds. */
const second = tar([
  { path: 'etc/', type: '5' }, { path: 'etc/layer', content: 'two\n', mode: 0o640, uid: 1000, gid: 1000, mtime: 1_600_000_000 },
  { path: 'var/.wh.data' },
  { path: 'srv/', type: '5' }, { path: 'srv/.wh..wh..opq' }, { path: 'srv/hard', content: 'linked\n' }, { path: 'srv/hard2', type: '1', link: 'srv/hard' },
  { path: 'srv/link', type: '2', link: '../etc/layer' }, { path: 'srv/setuid', content: '', mode: 0o4755 }, { path: 'srv/fifo', type: '6' },
]);
export const busyboxImage: TestImage = { layers: [], names: ['busybox:latest'], config: { Cmd: ['sh'], Env: ['PATH=/bin', 'FROM=image'], Labels: { made: 'here' } } };

/** A docker-archive of busybox in two layers, made once per machine. */
export function makeBusyboxImage(): string {
  const path = join(tmpdir(), `engine-test-busybox-image-v1-${process.getuid?.() ?? 0}.tar`);
  if (existsSync(path)) return path;
  const image = { ...busyboxImage, layers: [{ tar: readFileSync(busyboxTar()) }, { tar: second }] };
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, dockerArchive([image]));
  renameSync(temporary, path);
  return path;
}

/** The same image as others write it: `path` to load, and the name it then has. */
export interface ForeignImage { readonly path: string; readonly name: string }
export type Maker = (folder: string) => Promise<ForeignImage> | ForeignImage;

const run = (program: string, ...args: string[]): string => execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 28 });
/** skopeo with a policy of its own: the machine may have none. */
function skopeo(folder: string, ...args: string[]): void {
  writeFileSync(join(folder, 'policy.json'), '{"default":[{"type":"insecureAcceptAnything"}]}');
  run('skopeo', '--policy', join(folder, 'policy.json'), 'copy', '-q', ...args);
}
const source = (): string => `docker-archive:${makeBusyboxImage()}`;

/** By name of the peer and form, with the programs that are needed. */
export const foreignImages: readonly { readonly name: string; readonly needs: readonly string[]; readonly make: Maker }[] = [
  {
    name: 'docker save',
    needs: ['docker', 'dockerd'],
    async make(folder) {
      const dockerd = await new Dockerd().start();
      try {
        dockerd.docker('load', '-q', '-i', makeBusyboxImage());
        dockerd.docker('tag', 'busybox', 'localhost:5000/team/busybox:saved');
        dockerd.docker('save', '-o', join(folder, 'docker.tar'), 'busybox', 'localhost:5000/team/busybox:saved');
      } finally {
        await dockerd.stop();
      }
      return { path: join(folder, 'docker.tar'), name: 'localhost:5000/team/busybox:saved' };
    },
  },
  ...['docker-archive', 'oci-archive'].map((format) => ({
    name: `podman save --format ${format}`,
    needs: ['podman'],
    make(folder: string): ForeignImage {
      const podman = new Podman();
      try {
        podman.podman('load', '-q', '-i', makeBusyboxImage());
        podman.podman('tag', 'busybox', 'localhost/by/podman:4');
        podman.podman('save', '-q', '--format', format, '-o', join(folder, 'podman.tar'), 'localhost/by/podman:4');
      } finally {
        podman.close();
      }
      return { path: join(folder, 'podman.tar'), name: 'localhost/by/podman:4' };
    },
  })),
  { name: 'skopeo to docker-archive', needs: ['skopeo'], make: (folder) => (skopeo(folder, source(), `docker-archive:${folder}/s.tar:by/skopeo:1`), { path: join(folder, 's.tar'), name: 'by/skopeo:1' }) },
  { name: 'skopeo to oci-archive, gzip', needs: ['skopeo'], make: (folder) => (skopeo(folder, source(), `oci-archive:${folder}/s.tar:by/skopeo:2`), { path: join(folder, 's.tar'), name: 'by/skopeo:2' }) },
  { name: 'skopeo to an OCI folder, zstd', needs: ['skopeo'], make: (folder) => (skopeo(folder, '--dest-compress-format', 'zstd', source(), `oci:${folder}/box:3`), { path: join(folder, 'box'), name: 'box:3' }) },
  {
    name: 'umoci repack',
    needs: ['skopeo', 'umoci'],
    make(folder) {
      skopeo(folder, source(), `oci:${folder}/box:1`);
      run('umoci', 'unpack', '--image', `${folder}/box:1`, join(folder, 'bundle'));
      writeFileSync(join(folder, 'bundle/rootfs/etc/umoci'), 'repacked\n');
      run('umoci', 'repack', '--image', `${folder}/box:2`, join(folder, 'bundle'));
      return { path: join(folder, 'box'), name: 'box:2' };
    },
  },
];

/** A folder for one test, removed afterwards. */
export async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync('/var/tmp/engine-images-');
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
