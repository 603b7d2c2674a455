import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Result } from '../helpers/engine.ts';
import { same, sh, type Case, type Side, type Step } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

/** A signal to the command, when what it runs has said `up`. */
const signalled = (signal: NodeJS.Signals, ...args: string[]): Step => async (side) => {
  const run = side.start(args, { input: '' });
  await run.output(/up/);
  run.child.kill(signal);
  return run.result;
};
const trapping = 'for s in INT TERM USR1 USR2 HUP QUIT WINCH; do trap "echo got $s; exit 9" $s; done; echo up; while :; do sleep 0.05; done';

/** Words on a terminal; what is typed when which text has been seen. */
const typed = (args: readonly string[], ...lines: readonly (readonly [seen: RegExp, text: string])[]): Step => async (side) => {
  const run = side.terminal(args);
  for (const [seen, text] of lines) {
    await run.output(seen);
    run.child.stdin.write(text);
  }
  const result = await run.result;
  return { ...result, stdout: result.stdout.replaceAll('\u0010\u0011', '') };
};
const state = (name: string): Step => ['inspect', '-f', '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}', name];

/** The terminal gets another size when the container has said its first one. */
async function resized(side: Side, ...words: string[]): Promise<Result> {
  const go = join(side.folder, `go-${words[0] ?? ''}`);
  const script = `tty=$(tty); (until test -e ${go}; do sleep 0.02; done; stty rows 30 cols 100 < $tty) & exec "$E" ${words.join(' ')} sh -c 'stty size; until stty size | grep -q "30 100"; do sleep 0.05; done; stty size; trap "" WINCH'`;
  writeFileSync(join(side.folder, 'cwd', 'resize.sh'), script);
  const run = side.command('script', ['-qec', 'stty rows 24 cols 80; exec sh ./resize.sh', '/dev/null']);
  await run.output(/24 80/);
  writeFileSync(go, '');
  return run.result;
}
const holder: Step = ['run', '-d', '--name', 'hold', 'busybox', 'sleep', '1000'];

/** Terminals, pipes, files, signals, codes: what goes between a caller and a container. */
export const streams: Readonly<Record<string, readonly Case[]>> = {
  'standard input': [
    same('a pipe, a file, closed, nothing', sh('echo a | "$E" run --rm -i busybox cat'), sh('"$E" run --rm -i busybox wc -c < "$E"'), sh('"$E" run --rm -i busybox cat <&-; echo $?'), sh('"$E" run --rm -i busybox cat < /dev/null; echo $?'), sh('echo not for it | "$E" run --rm busybox cat'), sh('(echo one; "$E" run --rm busybox true; cat) <<< two')),
    same('what is left over stays for the next reader', sh('printf "1\\n2\\n" > in; { "$E" run --rm busybox true; "$E" ps -q; cat; } < in')),
    same('20 MB, and binary, both ways', sh('head -c 20000000 /dev/zero | tr "\\0" x | "$E" run --rm -i busybox sha256sum'), sh('for i in $(seq 0 255); do printf "\\\\$(printf %03o $i)"; done | "$E" run --rm -i busybox cat | sha256sum'), sh('head -c 5000000 "$E" > big; cat "$E" "$E" | "$E" run --rm -i busybox cat | sha256sum')),
    same('a program that does not read it', sh('head -c 3000000 /dev/zero | "$E" run --rm -i busybox true; echo ${PIPESTATUS[@]:1}')),
    same('a folder, something write-only', sh('"$E" run --rm -i busybox cat < /; echo $?'), sh('"$E" run --rm -i busybox cat 0> out; echo $?')),
  ],
  'standard output': [
    same('50 MB through', sh('"$E" run --rm busybox sh -c "yes 0123456789abcde | head -c 50000000" | sha256sum'), sh('"$E" run --rm --log-driver none busybox head -c 50000000 /dev/zero | sha256sum')),
    same('a reader that leaves', sh('"$E" run --rm busybox yes | head -2; echo ${PIPESTATUS[0]}'), sh('"$E" run --rm busybox sh -c "echo one; echo two" | head -1; echo ${PIPESTATUS[1]}')),
    same('a full device', sh('"$E" run --rm busybox echo x > /dev/full; echo $?'), sh('"$E" run --rm busybox sh -c "echo x; exit 3" > /dev/full; echo $?'), sh('"$E" run --rm busybox sh -c "echo x >&2; exit 3" 2> /dev/full; echo $?'), sh('"$E" images > /dev/full; echo $?')),
    same('closed, a file, both in one', sh('"$E" run --rm busybox sh -c "echo x; exit 3" >&-; echo $?'), sh('"$E" run --rm busybox sh -c "echo a; echo b >&2" > f 2>&1; sort f'), sh('echo before > f; "$E" run --rm busybox echo after >> f; cat f')),
    same('no new line at the end, a zero byte, an escape', ['run', '--rm', 'busybox', 'printf', 'a\\0b\\033[1mc\\377']),
  ],
  flags: [
    same('-a', ['run', '--rm', '-a', 'stdout', 'busybox', 'sh', '-c', 'echo o; echo e >&2'], ['run', '--rm', '-a', 'stderr', 'busybox', 'sh', '-c', 'echo o; echo e >&2; exit 2'], sh('echo in | "$E" run --rm -i -a stdin -a stdout busybox cat'), ['run', '-a', 'nope', 'busybox']),
    same('-t without a terminal', ['run', '--rm', '-t', 'busybox', 'sh', '-c', 'tty; stty size; echo e >&2'], sh('echo x | "$E" run --rm -it busybox cat'), ['run', '-d', '-t', '--name', 'dt', 'busybox', 'tty'], ['wait', 'dt'], ['logs', 'dt'], ['rm', 'dt']),
    same('-d with -i keeps it open', ['run', '-d', '-i', '--name', 'di', 'busybox', 'sh', '-c', 'read x || echo ended; exit 2'], state('di'), ['stop', '-t', '0', 'di'], ['rm', 'di']),
    same('-d with --rm', sh('id=$("$E" run -d --rm busybox true); "$E" wait "$id" 2> /dev/null >&2; until test -z "$("$E" ps -aq)"; do sleep 0.05; done; "$E" inspect "$id" > /dev/null 2>&1; echo $?')),
  ],
  'a terminal': [
    same('run -it, and its code', typed(['run', '--rm', '-it', 'busybox', 'sh', '-c', 'stty size; test -t 0 && test -t 1 && test -t 2 && echo ready; read x; echo "got $x"; exit 4'], [/ready/, 'hello\r'])),
    same('run -t without -i, run -i without -t, neither', typed(['run', '--rm', '-t', 'busybox', 'sh', '-c', 'stty size; tty']), typed(['run', '--rm', '-i', 'busybox', 'sh', '-c', 'echo ready; read x; echo "got $x"; tty'], [/ready/, 'hello\n']), typed(['run', '--rm', 'busybox', 'tty'])),
    // typed before the client has made the terminal raw, keys are echoed by it
    { ...same('keys that detach, then attach', typed(['run', '-it', '--name', 'tt', 'busybox', 'sh', '-c', 'echo ready; read x; echo "got $x"; exit 3'], [/ready/, '\x10\x11']), state('tt'), typed(['attach', '--detach-keys', 'ctrl-a,b', 'tt'], [/^/, '\x01b']), state('tt'), async (side) => { const run = side.terminal(['attach', 'tt']); run.child.stdin.write('on\r'); await run.output(/got on/); const { code } = await run.result; return `${code ?? ''}`; }, state('tt'), ['rm', 'tt']), but: (text) => text.replace('^Ab', '') },
    same('exec -it', holder, typed(['exec', '-it', 'hold', 'sh', '-c', 'stty size; echo ready; read x; echo "got $x"; exit 5'], [/ready/, 'hi\r']), typed(['exec', '-t', 'hold', 'tty']), typed(['exec', '-it', '--detach-keys', 'x', 'hold', 'sh', '-c', 'echo ready; read y'], [/ready/, 'x']), ['rm', '-f', 'hold']),
    same('start -ai', ['create', '-it', '--name', 'ta', 'busybox', 'sh', '-c', 'stty size; echo ready; read x; exit 6'], typed(['start', '-ai', 'ta'], [/ready/, '\r']), state('ta'), ['rm', 'ta']),
    same('ctrl-c, ctrl-\\ and ctrl-z reach the program', typed(['run', '--rm', '-it', 'busybox', 'sh', '-c', 'trap "echo interrupted; exit 7" INT; echo ready; while :; do sleep 0.05; done'], [/ready/, '\x03']), typed(['run', '--rm', '-it', 'busybox', 'sh', '-c', 'trap "echo quit; exit 8" QUIT; echo ready; while :; do sleep 0.05; done'], [/ready/, '\x1c'])),
    same('its modes are as before', async (side) => { const run = side.command('script', ['-qec', 'stty -a > before; "$E" run --rm -it busybox true; stty -a > after; cmp before after && echo as before', '/dev/null']); return run.result; }),
    same('another size while it runs', (side) => resized(side, 'run', '--rm', '-it', 'busybox'), holder, (side) => resized(side, 'exec', '-it', 'hold'), ['rm', '-f', 'hold']),
    same('tables and errors on a terminal', typed(['ps']), typed(['images', '-q']), typed(['nope']), typed(['load'])),
  ],
  signals: [
    same('are passed on', ...(['SIGINT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGHUP', 'SIGQUIT'] as const).map((signal) => signalled(signal, 'run', '--rm', 'busybox', 'sh', '-c', trapping))),
    same('and end what does not catch them, but pid 1', signalled('SIGTERM', 'run', '--rm', '--init', 'busybox', 'sh', '-c', 'echo up; exec sleep 1000'), signalled('SIGINT', 'run', '--rm', '--init', 'busybox', 'sh', '-c', 'echo up; exec sleep 1000')),
    same('--sig-proxy=false', ...(['SIGINT', 'SIGTERM', 'SIGHUP'] as const).flatMap((signal) => [signalled(signal, 'run', '--name', `sp${signal}`, '--sig-proxy=false', 'busybox', 'sh', '-c', trapping), state(`sp${signal}`)])),
    { ...same('attach passes them on, exec does not', ['run', '-d', '--name', 'sa', 'busybox', 'sh', '-c', trapping.replace('while :; do', 'while :; do echo up;')], signalled('SIGINT', 'attach', 'sa'), state('sa'), holder, signalled('SIGTERM', 'exec', 'hold', 'sh', '-c', 'echo up; sleep 1000'), state('hold'), ['rm', '-f', 'sa', 'hold']), but: (text) => text.replaceAll(/(up\n)+/g, 'up\n') },
    same('end what waits', holder, async (side) => { const run = side.start(['wait', 'hold'], { input: '' }); await until('it to wait', () => existsSync(`/proc/${run.child.pid ?? 0}`)); await new Promise((resolve) => setTimeout(resolve, 700)); run.child.kill('SIGINT'); return run.result; }, async (side) => { const run = side.start(['logs', '-f', 'hold'], { input: '' }); await new Promise((resolve) => setTimeout(resolve, 700)); run.child.kill('SIGTERM'); return run.result; }, ['rm', '-f', 'hold']),
  ],
  'exit codes': [
    same('0, 1, 7, 125, 126, 127, 137, 143, 255', ...['true', 'false', 'exit 7', 'exit 255', 'kill -9 $$', 'sh -c "kill -TERM \\$\\$"'].map((script) => ['run', '--rm', '--init', 'busybox', 'sh', '-c', script]), ['run', '--rm', '--nope', 'busybox'], ['run', '--rm', 'busybox', '/etc'], ['run', '--rm', 'busybox', '/etc/passwd'], ['run', '--rm', 'busybox', 'nope'], ['run', '--rm', 'busybox', '/nope'], ['run', '--rm', '-w', '/etc/passwd', 'busybox', 'true']),
    same('137 and 143 from outside', ...(['KILL', 'TERM'] as const).map((signal): Step => async (side) => {
      const run = side.start(['run', '--init', '--name', `from-${signal}`, 'busybox', 'sh', '-c', 'echo up; exec sleep 1000'], { input: '' });
      await run.output(/up/);
      await side.run(['kill', '-s', signal, `from-${signal}`]);
      return run.result;
    }), state('from-KILL'), state('from-TERM')),
    same('out of memory, with a word', ['run', '-m', '8m', '--name', 'oom', 'busybox', 'sh', '-c', 'x=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | tr "\\0" x); echo $x'], state('oom'), ['run', '-m', '8m', '--rm', 'busybox', 'sh', '-c', 'tail /dev/zero; echo $?'], ['rm', 'oom']),
  ],
};
