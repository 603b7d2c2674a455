/** Archives that are made to write, link, delete or run where they must not, loaded for real. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dockerArchive, ociFiles, ociLayout, sha256, tar, tarEntry, type TarFile } from '../helpers/tar.ts';
import { Attack } from './attack.ts';

let engine: Attack;
let base: Buffer;
beforeAll(async () => {
  engine = new Attack();
  base = engine.rootfs();
  await engine.image('plain');
});
afterAll(async () => expect(await engine.close()).toEqual([]));

let count = 0;
function file(content: Buffer): string {
  const path = join(engine.folder, `archive-${count++}.tar`);
  writeFileSync(path, content);
  return path;
}
const archive = (name: string, files: readonly TarFile[], config: Record<string, unknown> = {}): Buffer => dockerArchive([{ layers: [{ tar: base }, { tar: tar(files) }], names: [`${name}:latest`], config: { Cmd: ['sh'], ...config } }]);
/** Everything below the engine's root but its database: a refused archive leaves all of it as it was. */
const kept = (): string[] => execFileSync('find', [engine.root, '-mindepth', '1', '-not', '-name', '*.db*', '-not', '-path', '*/journal*', '-printf', '%P %y\\n'], { encoding: 'utf8', maxBuffer: 1 << 26 }).split('\n').sort();

/** Loads it: 'loaded', or 'refused' with one line that matches. Either way the host's folder is as it was. */
async function load(content: Buffer, message?: RegExp): Promise<string> {
  const result = await engine.run(['load', '-q', '-i', file(content)]);
  expect(engine.hostChanges()).toEqual([]);
  if (result.code === 0) return 'loaded';
  expect(result.stderr.trimEnd().split('\n'), result.stderr).toHaveLength(1);
  expect(result.stderr).toMatch(/^engine: /);
  if (message) expect(result.stderr).toMatch(message);
  return 'refused';
}

describe('tar attacks', () => {
  it('what would lie outside is refused by its name, and nothing half-unpacked stays', async () => {
    const out = `../../../../../../../../../../..${engine.host}`;
    const cases: Record<string, TarFile[]> = {
      'a path with ..': [{ path: `${out}/new`, content: 'x' }], '.. in the middle': [{ path: `a/../../..${engine.host}/new`, content: 'x' }],
      'a hard link out': [{ path: 'x', type: '1', link: `${out}/file` }], 'a whiteout of ..': [{ path: '.wh...' }], 'a whiteout of nothing': [{ path: '.wh.' }],
      'a whiteout with ..': [{ path: `${out}/.wh.file` }], 'an opaque mark with ..': [{ path: `${out}/.wh..wh..opq` }], 'NUL in a PAX path': [{ path: 'x', pax: [['path', 'a\0b']] }],
      'PAX leads out': [{ path: 'fine', pax: [['path', `${out}/new`]] }], 'PAX link leads out': [{ path: 'fine', type: '1', link: 'bin/sh', pax: [['linkpath', `${out}/file`]] }],
      'GNU long name leads out': [{ path: `${'a/'.repeat(60)}${'../'.repeat(80)}${engine.host}/new`, content: 'x', format: 'gnu' }],
      'a negative size': [{ path: 'x', pax: [['size', '-1']] }], 'a size beyond 2^63': [{ path: 'x', pax: [['size', '99999999999999999999']] }], 'a PAX header of gigabytes': [{ path: 'x', type: 'x', size: 2 ** 33 }],
      'ids that overflow': [{ path: 'x', pax: [['uid', '4294967296'], ['gid', '-1']] }],
      'a component too long': [{ path: 'x', pax: [['path', 'n'.repeat(300)]] }], 'a path too deep': [{ path: 'x', pax: [['path', 'd/'.repeat(50_000) + 'x']] }],
    };
    const before = kept();
    await Promise.all(Object.entries(cases).map(async ([name, files]) => expect(await load(archive('evil', [{ path: 'half', content: 'unpacked' }, ...files])), name).toBe('refused')));
    expect(await engine.ok('images', '--format', '{{.Repository}}')).not.toContain('evil');
    expect(kept()).toEqual(before);
  });
  it('CVE-2025-47290: links inside an archive lead its later entries nowhere', async () => {
    const up = `../../../../../../../../..${engine.host}`;
    const files: TarFile[] = [
      { path: 'l', type: '2', link: up }, { path: 'l/new', content: 'through a relative link' }, { path: 'l/folder/', type: '5', mode: 0o777 }, { path: 'l/.wh.file' }, { path: 'l/folder/.wh..wh..opq' },
      { path: 'abs', type: '2', link: engine.host }, { path: 'abs/file', content: 'through an absolute link' }, { path: 'abs/sub/deep', content: 'x' },
      { path: 'hard', type: '1', link: 'abs/file' }, { path: 'link2', type: '1', link: 'l' }, { path: 'link2/again', content: 'x' }, { path: '/leading/slash', content: 'x' },
      { path: 'd/', type: '5' }, { path: 'd', type: '2', link: engine.host }, { path: 'd/file', content: 'folder turned link' }, { path: 'p', type: '2', link: '/proc/self/cwd' },
    ];
    for (const count of [files.length, 5, 8]) expect(['loaded', 'refused']).toContain(await load(archive('links', files.slice(0, count))));
    // the same onto full trees, where whiteouts delete at once
    const vfs = { env: { ENGINE_STORAGE: 'vfs' } };
    await engine.run(['load', '-q', '-i', file(archive('links', files.slice(0, 8)))], vfs);
    expect(engine.hostChanges()).toEqual([]);
    // control: GNU tar told to trust the archive does write there
    const control = join(engine.folder, 'control');
    mkdirSync(control);
    symlinkSync(join(engine.folder, 'control-target'), join(control, 'l'));
    mkdirSync(join(engine.folder, 'control-target'));
    execFileSync('tar', ['-C', control, '-P', '--keep-directory-symlink', '-xf', file(tar([{ path: 'l/', type: '5' }, { path: 'l/new', content: 'x' }]))]);
    expect(readdirSync(join(engine.folder, 'control-target'))).toEqual(['new']);
  });
  it('device nodes and set-id programs of an image give nothing that the container has not', async () => {
    expect(await load(archive('nodes', [
      { path: 'disk', type: '4', major: 254, minor: 0, mode: 0o666 }, { path: 'mem', type: '3', major: 1, minor: 1, mode: 0o666 }, { path: 'kmsg', type: '3', major: 1, minor: 11, mode: 0o666 },
      { path: 'suid', content: readFileSync(engine.program), mode: 0o4755 },
    ]))).toBe('loaded');
    const { stdout } = await engine.sh('nodes', 'for f in /disk /mem /kmsg; do head -c 1 $f >/dev/null 2>&1 && echo "read $f"; done; cp /disk /tmp/d 2>/dev/null && echo copied; echo end', '-u', '0');
    expect(stdout).toBe('end\n');
    expect((await engine.sh('nodes', '/suid ids', '-u', 'app')).stdout).toMatch(/^Uid:\s+1000\s+0\s+0\s+0\nCapEff:\s+00000000a80425fb\nCapBnd:\s+00000000a80425fb\n$/);
    expect((await engine.sh('nodes', '/suid ids', '-u', 'app', '--security-opt', 'no-new-privileges')).stdout).toMatch(/^Uid:\s+1000\s+1000\s+1000\s+1000\nCapEff:\s+0{16}\n/);
    // layers lie in folders of 0700: no user of the host reaches the set-id file
    for (let folder = join(engine.root, 'storage-overlay', 'layers'); folder !== dirname(engine.root); folder = dirname(folder)) if (statSync(folder).mode & 0o077) expect(folder).not.toBe(engine.root);
    expect(statSync(engine.root).mode & 0o777).toBe(0o700);
  });
});

describe('CVE-2017-14992, CVE-2023-25153: bombs', () => {
  it('of compression, sparse files, names and headers end early and leave nothing', async () => {
    const before = kept();
    const zeros = tar([{ path: 'zeros', content: Buffer.alloc(80 << 20) }]);
    const nested = gzipSync(gzipSync(zeros, { level: 9 }), { level: 9 });
    const sparse = [{ path: 'x', type: '0', content: '1\n9999999999999999999\n0\n'.padEnd(512, '\0'), pax: [['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0'], ['GNU.sparse.name', 'x'], ['GNU.sparse.realsize', '9999999999999999999']] as const }];
    const pax = Buffer.concat([tarEntry({ path: 'x', pax: [['comment', 'c'.repeat(40 << 20)]] })]);
    expect(await load(Buffer.from(gzipSync(zeros, { level: 9 })), /times its size|neither/)).toBe('refused');
    expect(await load(nested)).toBe('refused');
    expect(await load(dockerArchive([{ layers: [{ tar: base }, { tar: zeros, blob: gzipSync(zeros, { level: 9 }) }], names: ['evil'] }]), /times its size/)).toBe('refused');
    expect(await load(archive('evil', sparse))).toBe('refused');
    expect(await load(dockerArchive([{ layers: [{ tar: base }, { tar: pax }], names: ['evil'] }]))).toBe('refused');
    expect(kept()).toEqual(before);
  });
});

describe('the archive around the layers', () => {
  const evilManifest = (manifest: unknown, more: readonly TarFile[] = []): Buffer => tar([...more, { path: 'manifest.json', content: typeof manifest === 'string' ? manifest : JSON.stringify(manifest) }]);
  it('names in a manifest are members of the archive, not paths of the host', async () => {
    const before = kept();
    const config = JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [sha256(base)] } });
    await Promise.all([['../../../../../../../../etc/passwd'], ['/etc/passwd'], ['l/layer.tar'], ['loop']].map(async (Layers) => {
      expect(await load(evilManifest([{ Config: 'c.json', RepoTags: ['evil'], Layers }], [{ path: 'c.json', content: config }, { path: 'l/layer.tar', type: '2', link: '/etc/passwd' }, { path: 'loop', type: '2', link: 'loop' }])), Layers[0]).toBe('refused');
    }));
    expect(await load(evilManifest([{ Config: '../../../../../etc/passwd', RepoTags: ['evil'], Layers: [] }]))).toBe('refused');
    const wrong: Promise<void>[] = [];
    for (const manifest of ['[', '{}', 'null', '[null]', '[{"Config":1,"Layers":{}}]', `[${'['.repeat(100_000)}`, '[{"__proto__":{"x":1},"Config":"c.json","Layers":["constructor"]}]']) wrong.push(load(evilManifest(manifest, [{ path: 'c.json', content: config }])).then((got) => expect(got, manifest.slice(0, 40)).toBe('refused')));
    await Promise.all(wrong);
    expect(kept()).toEqual(before);
  });
  it('digests that are paths, and an OCI folder whose blobs are links, are refused', async () => {
    const image = { layers: [{ tar: base }], names: ['evil'] };
    for (const digest of ['sha256:../../../../../../../etc/passwd', 'sha256:', '../../etc:passwd', `sha512:${'0'.repeat(128)}`, `sha256:${'A'.repeat(64)}`]) {
      const layout = ociLayout([image]);
      layout.manifests = layout.manifests.map((manifest) => ({ ...manifest, digest }));
      expect(await load(tar([...ociFiles(layout)].map(([path, content]) => ({ path, content }))))).toBe('refused');
    }
    const folder = join(engine.folder, 'oci');
    // a layer that no other image has: what is there already would not be read
    const layer = tar([{ path: 'unique', content: Buffer.alloc(200_000, engine.folder) }]);
    for (const [path, content] of ociFiles(ociLayout([{ layers: [{ tar: layer }], names: ['evil'] }]))) {
      mkdirSync(join(folder, path, '..'), { recursive: true });
      if (content.length > 100_000) symlinkSync('/etc/shadow', join(folder, path));
      else writeFileSync(join(folder, path), content);
    }
    expect((await engine.run(['load', '-q', '-i', folder])).code).not.toBe(0);
  });
  it('CVE-2026-53488: labels and the rest of a config never steer the engine', async () => {
    const Labels = { 'engine.log.uri': 'binary:///bin/sh?-c=touch /evil', 'engine.internal/init': '1', 'engine.internal/group-add': '["0"]', 'io.engine.driver': 'x', 'ENGINE.x': 'y', harmless: '1', __proto__: 'x' };
    expect(await load(archive('labels', [], { Labels, User: 'app', Entrypoint: ['sh', '-c', 'id -G; cat /proc/1/comm; echo "$0 $@"', '--privileged'], Cmd: ['$(touch /tmp/evil)', ';touch /tmp/evil'], Env: ['LD_PRELOAD=/x', 'A=1\nB=2', 'NODE_OPTIONS=--require /x'] }))).toBe('loaded');
    const { stdout, stderr, code } = await engine.run(['run', '--name', 'labelled', 'labels']);
    expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: '1000 2000\nsh\n--privileged $(touch /tmp/evil) ;touch /tmp/evil\n' });
    expect(Object.keys(JSON.parse(await engine.ok('inspect', '-f', '{{json .Config.Labels}}', 'labelled')) as object)).toEqual(['harmless']);
    await engine.ok('rm', 'labelled');
    // nor may a user borrow the names by which the core speaks to its own drivers
    const own = await engine.run(['run', '--rm', '-l', 'engine.internal/group-add=["0"]', '-u', 'app', 'plain', 'id', '-G']);
    expect([`${own.code ?? ''} ${own.stdout}`]).toEqual(expect.arrayContaining([expect.stringMatching(/^(0 1000 2000\n|125 )$/)]));
  });
  it('an import cannot carry instructions beyond the allowed', async () => {
    for (const change of ['RUN touch /evil', 'ADD /etc/shadow /x', 'FROM scratch', 'VOLUME', 'USER a b', 'ENV', 'LABEL engine.x=1\nRUN x', 'ENTRYPOINT [1]', 'WORKDIR relative/../..', 'EXPOSE x', 'HEALTHCHECK CMD x']) {
      const result = await engine.run(['import', '-c', change, join(engine.folder, 'plain.tar'), 'changed']);
      if (result.code === 0) {
        const config = await engine.ok('inspect', '-f', '{{json .Config}}', 'changed');
        expect(config, change).not.toMatch(/engine\.x|shadow|touch/);
        await engine.ok('rmi', 'changed');
      } else expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
    }
  });
});

describe('what a container leaves behind for the engine to clean up', () => {
  it('trees deeper than any path, odd names, no permissions: rm removes them', async () => {
    const script = 'attack deep 2100 /tmp/deep; attack deep 200 /v/deep; i=0; mkdir /v/odd; cd /v/odd; touch -- "-rf" "$(printf "new\\nline")" "$(printf "\\377\\376")" "*" "..." ".wh.x" "$(printf "%0250d" 0)"; mkdir no; chmod 000 no; ln -s / root; echo end';
    const result = await engine.run(['run', '--name', 'messy', '-v', 'messy:/v', 'plain', 'sh', '-c', script]);
    expect(result.stdout, result.stderr).toBe('end\n');
    expect((await engine.run(['diff', 'messy'])).code).toBe(0);
    await engine.ok('rm', '-v', 'messy');
    await engine.ok('volume', 'rm', 'messy');
    expect(kept().filter((line) => /tmp\/deep|messy/.test(line))).toEqual([]);
  });
});
