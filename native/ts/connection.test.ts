import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { FRAME } from '@engine/core/plan';
import { encodeFrame } from './frames.ts';
import { createConnection } from './shim.ts';
import { createRecordingSyscalls } from './syscalls.ts';

it('delivers what a shim said before it ended to one who writes to it afterwards', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'engine-connection-'));
  const server = createServer((shim) => {
    for (let i = 0; i < 20; i++) shim.write(encodeFrame(FRAME.output, { session: 0, argument: 1, payload: Buffer.alloc(1 << 10, 97 + i) }));
    shim.end(encodeFrame(FRAME.exit, { session: 0 }), () => shim.destroy());
  }).listen(join(folder, 'socket'));
  try {
    await once(server, 'listening');
    const socket = connect(join(folder, 'socket'));
    await once(socket, 'connect');
    const connection = createConnection(socket, () => createRecordingSyscalls());
    connection.pause();
    const seen: number[] = [];
    connection.onFrame((frame) => seen.push(frame.type));
    await new Promise((resolve) => setTimeout(resolve, 50)); // the shim has ended, and its words wait here
    await expect(connection.send(FRAME.stdinEof, { session: 0 })).rejects.toMatchObject({ code: 'ERR_SHIM_GONE' });
    await expect(connection.send(FRAME.stdinEof, { session: 0 })).rejects.toMatchObject({ code: 'ERR_SHIM_GONE' });
    connection.resume();
    await connection.closed;
    expect(seen).toEqual([...Array.from({ length: 20 }, () => FRAME.output), FRAME.exit]);
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});
