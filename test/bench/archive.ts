import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync, writeSync, openSync, closeSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Bytes that compress about as well as programs do: seeded, so that every run loads the same. */
function* content(bytes: number, seed: number): Generator<Buffer> {
  let x = seed >>> 0 || 1;
  for (let left = bytes; left > 0; ) {
    const chunk = Buffer.alloc(Math.min(left, 1 << 20));
    for (let i = 0; i + 8 <= chunk.length; i += 8) {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      chunk.writeUInt32LE(x, i); // the other four bytes stay zero
    }
    left -= chunk.length;
    yield chunk;
  }
}

function fileDigest(path: string): string {
  return execFileSync('sha256sum', [path], { encoding: 'utf8' }).slice(0, 64);
}

/** Enough of a root filesystem to run something in it. */
function addPrograms(tree: string): void {
  for (const folder of ['bin', 'etc', 'proc', 'sys', 'dev']) mkdirSync(join(tree, folder));
  for (const name of ['cat', 'sh', 'true']) copyFileSync('/bin/busybox', join(tree, 'bin', name));
  writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
}

/** A docker-archive as `docker save` writes it: some large files and many small ones per layer. */
export function makeArchive(path: string, { layers, bytes, small = 1000, name = 'bench:latest', passwd = false }: { layers: number; bytes: number; small?: number; name?: string; passwd?: boolean }): void {
  const work = mkdtempSync(join(dirname(path), 'archive-'));
  try {
    const diffIDs: string[] = [];
    const names: string[] = [];
    for (let layer = 0; layer < layers; layer++) {
      const tree = join(work, `tree-${layer}`);
      mkdirSync(join(tree, `layer${layer}`, 'small'), { recursive: true });
      const large = bytes / layers - small * 8192;
      for (let i = 0; i < small; i++) writeFileSync(join(tree, `layer${layer}`, 'small', `file-${i}`), Buffer.concat([...content(8192, layer * 10_000 + i)]));
      for (let i = 0; i < 4; i++) {
        const fd = openSync(join(tree, `layer${layer}`, `large-${i}`), 'w');
        for (const chunk of content(Math.floor(large / 4), layer * 77 + i)) writeSync(fd, chunk);
        closeSync(fd);
      }
      if (passwd && layer === 0) addPrograms(tree);
      const tar = join(work, 'layer.tar');
      execFileSync('tar', ['--numeric-owner', '--mtime=@1700000000', '-C', tree, '-cf', tar, '.']);
      const digest = fileDigest(tar);
      rmSync(tree, { recursive: true });
      mkdirSync(join(work, 'out', digest), { recursive: true });
      execFileSync('mv', [tar, join(work, 'out', digest, 'layer.tar')]);
      diffIDs.push(`sha256:${digest}`);
      names.push(`${digest}/layer.tar`);
    }
    const config = JSON.stringify({ architecture: process.arch === 'x64' ? 'amd64' : process.arch, os: 'linux', config: { Cmd: ['/bin/sh'] }, rootfs: { type: 'layers', diff_ids: diffIDs }, history: diffIDs.map(() => ({ created_by: 'bench' })) });
    const configName = `${createHash('sha256').update(config).digest('hex')}.json`;
    writeFileSync(join(work, 'out', configName), config);
    writeFileSync(join(work, 'out', 'manifest.json'), JSON.stringify([{ Config: configName, RepoTags: [name], Layers: names }]));
    execFileSync('tar', ['-C', join(work, 'out'), '-cf', path, '.']);
  } finally {
    rmSync(work, { recursive: true });
  }
}

