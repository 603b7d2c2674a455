import { defineLibrary } from '@engine/native/library';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Who connected this socket: SO_PEERCRED, as it was then. Undefined when the kernel doesn't say. */
export function createPeerReader(): (fd: number) => Peer | undefined {
  const libc = defineLibrary(['libc.so.6', 'libc.so'], { getsockopt: { args: ['int', 'int', 'int', 'bytes', 'bytes'], result: 'int' } });
  return (fd) => {
    const credentials = new Int32Array(3);
    const length = Int32Array.of(credentials.byteLength);
    if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length).value !== 0) return undefined;
    return { pid: credentials[0] ?? 0, uid: (credentials[1] ?? 0) >>> 0, gid: (credentials[2] ?? 0) >>> 0 };
  };
}
