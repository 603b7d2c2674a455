import { describe, expect, it } from 'vitest';
import { FRAME } from '../plan/index.ts';
import { type ExitRecord } from '../api/index.ts';
import { type Frame, type ShimConnection } from '../native/index.ts';
import { createSession, windowPayload } from './session.ts';

function connected({ number = 0, lateExit }: { number?: number; lateExit?: () => Promise<ExitRecord | undefined> } = {}) {
  const sent: { type: number; argument?: number | undefined; payload: string }[] = [];
  const flow: string[] = [];
  const finished: string[] = [];
  const closed = Promise.withResolvers<void>();
  const connection: ShimConnection = {
    send: async (type, frame = {}) => void sent.push({ type, argument: frame.argument, payload: Buffer.from(frame.payload ?? []).toString('latin1') }),
    adopt: () => {}, onFrame: () => {}, pause: () => flow.push('pause'), resume: () => flow.push('resume'), closed: closed.promise,
    close() {
      finished.push('close');
      closed.resolve();
    },
  };
  const session = createSession({ connection, container: 'c'.repeat(64), run: 'r1', number, pid: 7, finish: async () => void finished.push('run'), ...(lateExit ? { lateExit } : {}) });
  const frame = (type: number, over: Partial<Frame> = {}): void => session.receive({ type, session: number, argument: 0, payload: Buffer.alloc(0), ...over });
  return { session, frame, sent, flow, finished, connection };
}
const exit = { argument: 3, payload: Buffer.from('{"code":3,"finishedAt":"1000000000","oom":{"killed":true,"limit":"memory"}}') };

describe('a session', () => {
  it('stops reading when nobody takes the output, and goes on when somebody does', async () => {
    const { session, frame, flow } = connected();
    for (let i = 0; i < 5; i++) frame(FRAME.output, { argument: i === 4 ? 2 : 1, payload: Buffer.alloc(1 << 24, i) });
    expect(flow).toEqual(['pause']);
    frame(FRAME.exit, exit);
    const seen = [];
    for await (const { stream, data } of session.output) seen.push(`${stream} ${data[0]} ${data.length}`);
    expect(seen).toEqual([0, 1, 2, 3].map((i) => `stdout ${i} ${1 << 24}`).concat(`stderr 4 ${1 << 24}`));
    expect(flow).toContain('resume');
    expect(await session.exit).toEqual({ run: 'r1', code: 3, finishedAt: '1970-01-01T00:00:01.000000000Z', oom: { killed: true, limit: 'memory' } });
  });
  it('is gone after its last frame, and collects its run', async () => {
    const { session, frame, finished } = connected();
    frame(FRAME.exit, exit);
    expect(finished).toEqual([]);
    frame(FRAME.gone);
    await session.gone;
    expect(finished).toEqual(expect.arrayContaining(['close', 'run']));
  });
  it('learns the exit in another way when it was cut off for not reading', async () => {
    const { session, frame, connection } = connected({ lateExit: async () => ({ run: 'r1', code: 3, finishedAt: '' }) });
    frame(FRAME.output, { argument: 1, payload: Buffer.from('x') });
    frame(FRAME.cutOff);
    connection.close();
    const read = async (): Promise<void> => {
      for await (const { data } of session.output) expect(data.toString()).toBe('x');
    };
    await expect(read()).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    expect((await session.exit).code).toBe(3);
  });
  it('says so when the shim is lost', async () => {
    const { session, connection } = connected();
    connection.close();
    await expect(session.exit).rejects.toMatchObject({ code: 'ERR_SHIM_GONE' });
    await expect((async () => { for await (const _ of session.output); })()).rejects.toMatchObject({ code: 'ERR_SHIM_GONE' });
    await session.gone;
  });
  it('hands on input in pieces, window size, signals; lets go', async () => {
    const { session, frame, sent, flow } = connected({ number: 5 });
    await session.write(Buffer.alloc(70_000, 'x'));
    session.endInput();
    session.resize({ rows: 2, cols: 3 });
    session.signal(15);
    frame(FRAME.output, { payload: Buffer.from('unread') });
    session.detach();
    expect(sent.map(({ type, argument, payload }) => [type, argument, payload.length])).toEqual([[FRAME.stdin, undefined, 65536], [FRAME.stdin, undefined, 4464], [FRAME.stdinEof, undefined, 0], [FRAME.resize, undefined, 4], [FRAME.signal, 15, 0], [FRAME.detach, undefined, 0]]);
    expect(flow).toEqual(['resume']);
    for await (const _ of session.output) expect.unreachable();
    expect([...windowPayload({ rows: 258, cols: 70_000 })]).toEqual([2, 1, 255, 255]);
  });
  it('ignores other sessions, ends a slow reader\'s output with a reason, bears a refused resize', async () => {
    const { session, frame } = connected({ number: 5 });
    frame(FRAME.output, { session: 6, payload: Buffer.from('other') });
    frame(FRAME.error, { argument: 25 });
    frame(FRAME.output, { payload: Buffer.from('mine') });
    frame(FRAME.cutOff);
    const seen: string[] = [];
    await expect((async () => { for await (const { data } of session.output) seen.push(data.toString()); })()).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    expect(seen).toEqual(['mine']);
  });
});
