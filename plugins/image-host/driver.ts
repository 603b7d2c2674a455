import { existsSync, statSync } from 'node:fs';
import { type DriverDeps } from '@engine/core/contracts/common';
import { type ImageInfo, type ImageSource } from '@engine/core/contracts/image';
import { realFilesystems } from './filesystems.ts';

export interface ImageHostOptions {
  /** What runs without a command; default the caller's shell, /bin/bash or /bin/sh. */
  readonly shell?: string;
  /** More folders to show empty. */
  readonly hide?: readonly string[];
}

export const HOST_ID = 'builtin:host';
const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}
function shellOf(machine: DriverDeps['machine']): string {
  const passwd = machine.read('/etc/passwd') ?? '';
  const line = passwd.split('\n').find((entry) => entry.split(':')[2] === String(machine.uid));
  const own = line?.split(':').at(6) ?? '';
  return [own, '/bin/bash', '/bin/sh'].find((path) => path.startsWith('/') && !/\/(nologin|false|sync)$/.test(path) && existsSync(path)) ?? '/bin/sh';
}

/** One built-in image, `host`: this machine's own root, each real filesystem copied on write at its mount point. */
export function createImageHost({ machine }: Pick<DriverDeps, 'machine'>, options: ImageHostOptions = {}): ImageSource {
  const hide = [...new Set([machine.root, machine.runRoot, ...(options.hide ?? [])])];
  const image = (): ImageInfo => ({
    id: HOST_ID,
    source: 'host',
    names: ['host:latest'],
    size: 0,
    config: { Cmd: [options.shell ?? shellOf(machine)], Env: [PATH], WorkingDir: '/' },
    rootfs: { kind: 'host', filesystems: realFilesystems(machine.mounts, hide, isFolder), hide },
  });
  return {
    name: 'host',
    features: new Set(['builtin', 'host-root']),
    probe(on) {
      const root = realFilesystems(on.mounts, hide, isFolder).find(({ target }) => target === '/');
      if (!root) return { available: false, score: 0, reasons: ['the root of this machine is no filesystem that can be copied on write'] };
      return { available: true, score: 50, reasons: [`this machine's root is ${root.type}`] };
    },
    async resolve(reference) {
      return reference === 'host' || reference === 'host:latest' || reference === HOST_ID ? image() : undefined;
    },
    list: () => Promise.resolve([image()]),
    history: () => Promise.resolve([{ id: HOST_ID, createdBy: 'this machine', comment: 'each real filesystem, copied on write', size: 0 }]),
  };
}
