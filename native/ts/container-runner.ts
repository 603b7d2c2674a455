/** Containers for the suites of contracts, through the real shim. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { REGISTER } from '@engine/core/contracts/common';
import { type ContainerRunner, type RunningContainer, type RunOptions, type RunResult } from '@engine/core/contracts/common/containers';
import { type Native } from '@engine/core/native';
import { BITS, FRAME, op, step, type Step } from '@engine/core/plan';
import { MS } from './constants.ts';
import { decodeFailure } from './frames.ts';
import { Bench, bytesOf, namespaces, type Talk } from './testing.ts';

export { unable } from './testing.ts';

const { attachStdout, attachStderr } = BITS.STDIO;
const environment = ['PATH=/bin'];
const applets = ['ls', 'grep', 'ip', 'ifconfig', 'ping', 'readlink', 'mount', 'awk', 'touch', 'nc', 'mkdir', 'test', 'unshare', 'chroot', 'wc', 'stat'];

function program(part: 'init' | 'exec', script: string): Step[] {
  return [
    step(`${part}.terminal`, op.resolveUser({ root: REGISTER.rootfs, user: '0', uid: REGISTER.uid, gid: REGISTER.gid, groups: REGISTER.groups })),
    step(`${part}.terminal`, op.pipes({ uid: REGISTER.uid })),
    step(`${part}.bounds`, op.closeFds({ from: 3 })),
    step(`${part}.workdir`, op.chdir({ path: '/' })),
    step(`${part}.workdir`, op.resolveExec({ name: 'sh', env: environment, out: 'program' })),
    step(`${part}.exec`, op.exec({ program: 'program', argv: ['sh', '-c', script], env: environment })),
  ];
}

function container(bench: Bench, script: string, { namespaces: more = 0, user = '0' }: RunOptions): Step[] {
  const own = program('init', script).map((one) => (one.operation.name === 'resolveUser' ? { ...one, operation: { ...one.operation, args: { ...one.operation.args, user } } } : one));
  return [
    step('shim.stdio', op.stdio({ flags: attachStdout | attachStderr })),
    step('shim.rootfs', op.openTree({ source: bench.root, out: 'tree' })),
    // where the host's mounts are shared (systemd makes them so), what is mounted in it would be mounted there too
    step('shim.rootfs', op.setMountAttributes({ mount: 'tree', propagation: MS.PRIVATE })),
    step('shim.spawn', op.spawn({ flags: BigInt(namespaces | more), pid: REGISTER.init, pidfd: REGISTER.initPidfd })),
    step('init.rootfs', op.setPropagation({ path: '/', flags: MS.REC | MS.PRIVATE })),
    step('init.rootfs', op.reopenRoot({ mount: 'tree', at: join(bench.run, 'rootfs'), out: REGISTER.rootfs })),
    // the clone of a shared mount is shared: under systemd all that is mounted below would come to be on the host too
    step('init.rootfs', op.setMountAttributes({ mount: 'tree', propagation: MS.PRIVATE, recursive: 1 })),
    step('init.mounts', op.procHandle({ out: REGISTER.proc })),
    step('init.mounts', op.mountFs({ type: 'proc', out: 'proc.mount' })),
    step('init.mounts', op.moveMount({ mount: 'proc.mount', root: REGISTER.rootfs, target: '/proc' })),
    step('init.pivot', op.pivotRoot({ root: REGISTER.rootfs })),
    ...own,
  ];
}

const ATTACHED = 1;
/** As the core does: init goes on in its net namespace once the shim has attached it. */
function inStep(steps: readonly Step[]): Step[] {
  if (!steps.some(({ slot }) => slot === 'shim.attach') || steps.some(({ operation }) => operation.name === 'reach')) return [...steps];
  return [step('init.netns', op.reach({ point: ATTACHED })), ...steps, step('shim.attach', op.awaitPoint({ point: ATTACHED })), step('shim.attach', op.release({ point: ATTACHED }))];
}

/** A bench with a root that has what scripts of suites use. */
function prepare(native: Native, { devices = [] }: RunOptions): Bench {
  const bench = new Bench(native);
  for (const { path, major, minor } of devices) execFileSync('mknod', ['-m', '666', join(bench.root, path), 'c', String(major), String(minor)]);
  for (const applet of applets) if (!existsSync(join(bench.root, 'bin', applet))) symlinkSync('busybox', join(bench.root, 'bin', applet));
  mkdirSync(join(bench.root, 'etc'));
  writeFileSync(join(bench.root, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n');
  return bench;
}

async function resultOf(bench: Bench, talk: Talk): Promise<RunResult> {
  const end = await talk.until(({ type, session }) => session === 0 && (type === FRAME.exit || type === FRAME.failed), 'the end of the container', 30_000);
  await talk.frame('gone', 0, 30_000);
  const undone = JSON.parse(bench.file('undone')) as { failures: { detail: string; errno: number }[] };
  const common = { output: talk.output(1), errors: talk.output(2), undoFailures: undone.failures.map(({ detail, errno }) => `${detail} (errno ${errno})`) };
  if (end.type === FRAME.failed) return { ...common, code: -1, failure: decodeFailure(end.payload) };
  return { ...common, code: end.argument, exit: JSON.parse(bench.file('exit')) as NonNullable<RunResult['exit']> };
}

/** A plugin's, as far as it answers without operations. */
type BarrierHandler = (request: { readonly input: unknown; readonly pid: number; readonly signal: AbortSignal }) => Promise<unknown>;

/** As the core does at a barrier, but for operations that a handler would add. */
async function answerBarrier(talk: Talk, handlers: Readonly<Record<string, BarrierHandler>>): Promise<void> {
  const { payload } = await talk.frame('barrier', 0, 30_000);
  const text = (at: number): string => payload.toString('utf8', at + 4, at + 4 + payload.readUInt32LE(at));
  const name = text(8);
  const input = text(12 + payload.readUInt32LE(8));
  try {
    const handler = handlers[name];
    if (!handler) throw new Error(`nobody handles ${name}`);
    await handler({ input: JSON.parse(input || 'null') as unknown, pid: payload.readUInt32LE(4), signal: AbortSignal.timeout(30_000) });
    await talk.send('barrierReply', { argument: 0 });
  } catch (error) {
    await talk.send('barrierReply', { argument: 5, payload: `${String(error)}\0` });
  }
}

/** Errors of the runner itself are plain ones: a suite shows them as they are. Needs root and a static busybox, see `unable`. `handlers`: who answers at barriers. */
export function createContainerRunner(native: Native, handlers?: Readonly<Record<string, BarrierHandler>>): ContainerRunner {
  const begin = (bench: Bench, steps: readonly Step[]): Talk => {
    const talk = bench.startPlan(bytesOf(steps));
    // a plan that fails before has none
    if (handlers) answerBarrier(talk, handlers).catch(() => {});
    return talk;
  };
  return {
    async run(steps, script, options = {}) {
      const bench = prepare(native, options);
      try {
        return await resultOf(bench, begin(bench, [...container(bench, script, options), ...inStep(steps)]));
      } finally {
        await bench.close();
      }
    },
    async start(steps, script, options = {}): Promise<RunningContainer> {
      const bench = prepare(native, options);
      const talk = begin(bench, [...container(bench, script, options), ...inStep(steps)]);
      let session = 0;
      try {
        await talk.frame('started');
      } catch (error) {
        await bench.close();
        throw error;
      }
      const { pid, startTime } = JSON.parse(readFileSync(join(bench.run, 'started'), 'utf8')) as { pid: number; startTime: number };
      return {
        pid,
        startTime: BigInt(startTime),
        async exec(more, command) {
          const number = ++session;
          const join_ = [step('exec.join', op.joinContainer({})), step('exec.join', op.open({ path: '/', flags: 0o12200000, out: REGISTER.rootfs }))];
          await talk.send('exec', { session: number, argument: attachStdout | attachStderr, payload: bytesOf([...join_, ...program('exec', command), ...more]) });
          const end = await talk.until((f) => f.session === number && (f.type === FRAME.exit || f.type === FRAME.failed), 'the end of the session');
          if (end.type === FRAME.failed) throw new Error(`exec: ${JSON.stringify(decodeFailure(end.payload))}`);
          return { output: talk.output(1, number), code: end.argument };
        },
        async stop() {
          try {
            await talk.send('signal', { argument: 9 });
            return await resultOf(bench, talk);
          } finally {
            await bench.close();
          }
        },
      };
    },
  };
}
