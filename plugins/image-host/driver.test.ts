import { describe, expect, it } from 'vitest';
import { type Machine, type MachineMount } from '@engine/core/contracts/common';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { imageSuite } from '@engine/core/contracts/image/suite';
import { createImageHost, HOST_ID } from './driver.ts';
import { realFilesystems } from './filesystems.ts';

let nextId = 100;
function mount(target: string, type: string, parent: MachineMount | number = 1, id = nextId++): MachineMount {
  return { id, parent: typeof parent === 'number' ? parent : parent.id, device: '8:1', root: '/', target, options: ['rw'], propagation: [], type, source: 'x', superOptions: [] };
}
const any = (_path: string): boolean => true;
const targets = (mounts: readonly MachineMount[], hide: readonly string[] = [], isFolder = any): string[] => realFilesystems(mounts, hide, isFolder).map(({ target }) => target);

describe('real filesystems', () => {
  const root = mount('/', 'ext4');
  it('are listed with / first, parents before children', () => {
    const home = mount('/home', 'xfs', root);
    expect(targets([mount('/home/a/b', 'btrfs', home), home, root])).toEqual(['/', '/home', '/home/a/b']);
  });
  it('leave out kernel filesystems, fresh folders, hidden folders and files', () => {
    const mounts = [
      root, mount('/proc', 'proc', root), mount('/sys', 'sysfs', root), mount('/dev', 'devtmpfs', root), mount('/sys/fs/cgroup', 'cgroup2', root),
      mount('/tmp', 'ext4', root), mount('/run/media/x', 'ext4', root), mount('/mem', 'tmpfs', root), mount('/boot/efi', 'vfat', root),
      mount('/var/lib/docker/overlay2/x/merged', 'overlay', root), mount('/var/lib/engine', 'ext4', root), mount('/etc/resolv.conf', 'ext4', root), mount('/srv', 'ext4', root),
      mount('/tmpfiles', 'ext4', root),
    ];
    expect(targets(mounts, ['/var/lib/engine'], (path) => path !== '/etc/resolv.conf')).toEqual(['/', '/srv', '/tmpfiles']);
  });
  it('take a root of tmpfs or overlay, as in a container or a live system', () => {
    expect(targets([mount('/', 'overlay')])).toEqual(['/']);
    expect(targets([mount('/', 'tmpfs')])).toEqual(['/']);
  });
  it('leave out what is covered', () => {
    const data = mount('/data', 'ext4', root);
    const inside = mount('/data/x', 'xfs', data);
    expect(targets([root, data, inside, mount('/data', 'tmpfs', data)])).toEqual(['/']);
    const top = mount('/data', 'xfs', data);
    expect(realFilesystems([root, data, inside, top], [], any)).toEqual([{ target: '/', type: 'ext4' }, { target: '/data', type: 'xfs' }]);
  });
  it('leave out what another mount on a folder above hides', () => {
    const a = mount('/a/b', 'ext4', root);
    expect(targets([root, a, mount('/a', 'xfs', root)])).toEqual(['/', '/a']);
  });
  it('understand a root that is mounted upon another one', () => {
    const first = mount('/', 'rootfs', 0, 1);
    const real = mount('/', 'ext4', first);
    expect(realFilesystems([first, real, mount('/home', 'xfs', real)], [], any)).toEqual([{ target: '/', type: 'ext4' }, { target: '/home', type: 'xfs' }]);
  });
});

describe('image host', () => {
  const machine: Machine = {
    kernel: [6, 1], release: '6.1.0', architecture: 'x86_64', hostname: 'h', uid: 0, capabilities: [], filesystems: [], namespaces: [], idMaps: [], mounts: [mount('/', 'ext4')],
    root: '/var/lib/engine', runRoot: '/run/engine', read: (path) => (path === '/etc/passwd' ? 'root:x:0:0:root:/root:/bin/sh\n' : undefined),
  };
  const source = createImageHost({ machine });
  it('is found by its names only', async () => {
    expect((await source.resolve('host'))?.id).toBe(HOST_ID);
    expect((await source.resolve('host:latest'))?.id).toBe(HOST_ID);
    expect((await source.resolve(HOST_ID))?.names).toEqual(['host:latest']);
    expect(await source.resolve('hos')).toBeUndefined();
    expect(await source.list()).toHaveLength(1);
  });
  it('hides the engine and starts the caller\'s shell', async () => {
    const image = await source.resolve('host');
    expect(image?.rootfs).toEqual({ kind: 'host', filesystems: [{ target: '/', type: 'ext4' }], hide: ['/var/lib/engine', '/run/engine'] });
    expect(image?.config).toEqual({ Cmd: ['/bin/sh'], Env: [expect.stringContaining('PATH=')], WorkingDir: '/' });
  });
  it('takes a shell and more to hide as options', async () => {
    const image = await createImageHost({ machine }, { shell: '/bin/zsh', hide: ['/root'] }).resolve('host');
    expect(image?.config.Cmd).toEqual(['/bin/zsh']);
    expect(image?.rootfs).toMatchObject({ hide: ['/var/lib/engine', '/run/engine', '/root'] });
  });
  it('cannot be removed and is not available on a root that cannot be copied on write', () => {
    expect(source.features).toEqual(new Set(['builtin', 'host-root']));
    expect(source.remove).toBeUndefined();
    expect(source.probe({ ...machine, mounts: [mount('/', 'vfat')] })).toMatchObject({ available: false });
    expect(source.probe(machine)).toMatchObject({ available: true });
  });
});

describeSuite('host on a fake machine', imageSuite, { bench: () => fakeBench({ machine: { mounts: [mount('/', 'ext4')] } }), create: (deps) => createImageHost(deps) });
