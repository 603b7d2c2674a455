import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { BITS, FRAME } from '@engine/core/plan';
import { decodeFailure } from './frames.ts';
import { createNative } from './index.ts';
import { createConnection } from './shim.ts';
import { createSyscalls } from './syscalls.ts';
import { Bench, Talk, unable } from './testing.ts';

const { stdin, stdinOnce, terminal, attachStdin, attachStdout, attachStderr } = BITS.STDIO;
const outputs = attachStdout | attachStderr;
const native = createNative();
const size = (rows: number, columns: number): Buffer => Buffer.from(Uint16Array.of(rows, columns).buffer);

/** The launcher's end of a pair, and the fd for the shim. */
function relay(): { talk: Talk; fd: number } {
  const [mine, fd] = native.socketPair();
  return { talk: new Talk(createConnection(new Socket({ fd: mine, readable: true, writable: true }), createSyscalls)), fd };
}

describe.skipIf(unable !== undefined)(`a client that gets the streams of another one${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: Bench[] = [];
  const clients: Talk[] = [];
  const bench = (): Bench => {
    const made = new Bench(native);
    benches.push(made);
    return made;
  };
  const client = (): { talk: Talk; fd: number } => {
    const made = relay();
    clients.push(made.talk);
    return made;
  };
  afterEach(async () => {
    for (const one of clients.splice(0)) one.connection.close();
    for (const one of benches.splice(0)) await one.close();
  });

  it('at the start: output goes to it, the rest to the control connection, the exit to both', async () => {
    const { talk, fd } = client();
    const control = bench().start({ argv: ['sh', '-c', 'echo out; echo err >&2; exit 3'], stdio: outputs }, undefined, { client: fd });
    await control.frame('gone');
    expect(control.frames.map(({ type }) => type)).toEqual([FRAME.started, FRAME.exit, FRAME.gone]);
    expect((await talk.frame('exit')).argument).toBe(3);
    expect(talk.frames.map(({ type }) => type).filter((type) => type !== FRAME.output)).toEqual([FRAME.exit]);
    expect([talk.output(1), talk.output(2)]).toEqual(['out\n', 'err\n']);
  });

  it('loses nothing of what it said before there was a session', async () => {
    const { talk, fd } = client();
    await talk.send('resize', { payload: size(33, 111) });
    await talk.send('stdin', { payload: 'hello\n' });
    bench().start({ argv: ['sh', '-c', 'read line; stty size; echo "got $line"'], stdio: stdin | terminal | attachStdin | outputs }, undefined, { client: fd });
    await talk.frame('exit');
    expect(talk.output()).toContain('33 111\r\n');
    expect(talk.output()).toContain('got hello\r\n');
  });

  it('feeds a pipe early, with its end', async () => {
    const { talk, fd } = client();
    await talk.send('stdin', { payload: 'early' });
    await talk.send('stdinEof');
    bench().start({ argv: ['cat'], stdio: stdin | stdinOnce | attachStdin | outputs }, undefined, { client: fd });
    expect((await talk.frame('exit')).argument).toBe(0);
    expect(talk.output()).toBe('early');
  });

  it('that disconnects is detached; with stdinOnce the input ends', async () => {
    const one = client();
    const b = bench();
    const control = b.start({ argv: ['sh', '-c', 'cat; echo end'], stdio: stdin | stdinOnce | attachStdin | outputs }, undefined, { client: one.fd });
    await control.frame('started');
    one.talk.connection.close();
    expect((await control.frame('exit')).argument).toBe(0);
    expect(b.logText()).toContain('end');
  });

  it('that went before the start leaves a container that runs', async () => {
    const one = client();
    one.talk.connection.close();
    const control = bench().start({ argv: ['sh', '-c', 'cat; exit 4'], stdio: stdin | stdinOnce | attachStdin | outputs }, undefined, { client: one.fd });
    expect((await control.frame('exit')).argument).toBe(4);
  });

  it('sends signals to its own session, and may do nothing else', async () => {
    const { talk, fd } = client();
    const control = bench().start({ argv: ['sh', '-c', 'trap "exit 9" TERM; echo ready; while :; do sleep 0.1; done'], stdio: outputs }, undefined, { client: fd });
    await talk.untilOutput('ready');
    await talk.send('amend');
    expect((await talk.frame('error')).argument).toBe(1);
    await talk.send('signal', { session: 5, argument: 9 });
    await talk.frame('error', 5);
    await talk.send('signal', { argument: 15 });
    expect((await control.frame('exit')).argument).toBe(9);
  });

  it('is adopted for an exec: its words come to the session, started and exit to the connection', async () => {
    const b = bench();
    const control = b.start({ argv: ['sleep', '100'], stdio: 0 });
    await control.frame('started');
    const engine = await b.connect();
    const one = client();
    await one.talk.send('stdin', { session: 7, payload: 'abc\n' });
    engine.connection.adopt(one.fd);
    await engine.send('exec', { session: 7, argument: stdin | stdinOnce | attachStdin | outputs, payload: b.session(['sh', '-c', 'cat; echo err >&2; exit 6'], 0) });
    await engine.frame('started', 7);
    await one.talk.untilOutput('abc\n', 7);
    await one.talk.send('stdinEof', { session: 7 });
    expect((await one.talk.frame('exit', 7)).argument).toBe(6);
    expect((await engine.frame('exit', 7)).argument).toBe(6);
    expect(one.talk.output(2, 7)).toBe('err\n');
    expect(engine.output(1, 7)).toBe('');
    expect(one.talk.frames.some(({ type }) => type === FRAME.started)).toBe(false);
  });

  it('keeps adopt, exec and other frames in order behind a full queue', async () => {
    const b = bench();
    const control = b.start({ argv: ['sh', '-c', 'sleep 0.3; cat >/dev/null; echo all; sleep 100'], stdio: stdin | stdinOnce });
    await control.frame('started');
    const engine = await b.connect();
    const sent = [engine.send('attach', { argument: attachStdin | outputs })];
    for (let i = 0; i < 40; i++) sent.push(engine.send('stdin', { payload: Buffer.alloc(1 << 16, 'x') }));
    sent.push(engine.send('stdinEof'));
    const one = client();
    engine.connection.adopt(one.fd);
    sent.push(engine.send('exec', { session: 3, argument: outputs, payload: b.session(['echo', 'after']) }));
    expect((await one.talk.frame('exit', 3)).argument).toBe(0);
    expect(one.talk.output(1, 3)).toBe('after\n');
    await engine.untilOutput('all');
    await Promise.all(sent);
  });

  it('attaches another, and closes one whose session never came', async () => {
    const b = bench();
    const control = b.start({ argv: ['sh', '-c', 'read x; echo "$x"; sleep 100'], stdio: stdin | attachStdin });
    await control.frame('started');
    const [one, two] = [client(), client()];
    control.connection.adopt(one.fd);
    await control.send('attach', { argument: attachStdin | outputs });
    await one.talk.send('stdin', { payload: 'here\n' });
    await one.talk.untilOutput('here\n');
    expect(control.output()).toBe('');
    control.connection.adopt(two.fd);
    await control.send('exec', { session: 2, argument: outputs, payload: Buffer.from('no plan') });
    expect(decodeFailure((await control.frame('failed', 2)).payload).errno).not.toBe(0);
    await two.talk.connection.closed;
    await one.talk.send('detach');
    await sleep(20);
    await control.send('signal', { argument: 9 });
    await control.frame('gone');
  });
});
