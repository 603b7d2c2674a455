import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { same, sh, type Case } from '../helpers/pair.ts';

const local = (one: Case): Case => ({ ...one, local: true });
const long = (count: number, size: number): string[] => Array.from({ length: count }, (_, i) => String.fromCharCode(97 + (i % 26)).repeat(size));

/** Where the caller is, what it has around it, how it says what it wants. */
export const worlds: Readonly<Record<string, readonly Case[]>> = {
  words: [
    same('empty, odd, not UTF-8', ['run', '--rm', 'busybox', 'sh', '-c', 'for a; do printf "[%s]" "$a"; done', 'sh', '', ' ', '-', '--', '--rm', '$(id)', '"', '\n', 'é', '\u{1f600}'], ['run', '--rm', '--entrypoint', '', 'busybox', ''], ['run', '--rm', '-e', 'A=é\n\u0001', 'busybox', 'sh', '-c', 'printf "%s" "$A" | od -c'], sh('"$E" run --rm busybox printf "%s" "$(printf "\\377\\376x")" | od -c'), sh('"$E" inspect "$(printf "\\377")"'), sh('X=$(printf "\\377\\300") "$E" run --rm -e X busybox sh -c "printf %s \\"\\$X\\" | od -c"')),
    same('2 MB of them', ['run', '--rm', 'busybox', 'sh', '-c', 'echo $# ${#1} ${#12}', 'sh', ...long(14, 100_000)], ['rm', '-f', ...long(19, 100_000)], ['inspect', ...long(15, 120_000)], ['run', '--rm', ...long(15, 100_000).flatMap((text) => ['-e', `V${text.slice(0, 1)}=${text}`]), 'busybox', 'sh', '-c', 'env | wc -c']),
    same('many of them', ['rm', '-f', ...Array.from({ length: 2000 }, (_, i) => `n${i}`)], ['run', '--rm', 'busybox', 'sh', '-c', 'echo $#', 'sh', ...Array.from({ length: 20_000 }, () => 'x')]),
    same('flags that are not ours after the image', ['run', '--rm', 'busybox', 'echo', '--no-daemon', '--root', '/x', '--help']),
  ],
  variables: [
    same('-e NAME takes the caller\'s', sh('export A=1 B="two words" C=; "$E" run --rm -e A -e B -e C -e D -eE=5 --env HOME busybox env | sort | grep -v -e HOSTNAME -e ^HOME'), sh('A=1 "$E" run --rm --env=A busybox sh -c "echo \\$A"'), sh('A=1 "$E" run --rm -eA busybox sh -c "echo \\$A"'), sh('A=1 "$E" run --rm -ie A busybox sh -c "echo \\$A"'), sh('A=1 "$E" create --name ee -e A busybox; "$E" inspect -f "{{json .Config.Env}}" ee; "$E" rm ee')),
    same('exec -e NAME', ['run', '-d', '--name', 'ex', 'busybox', 'sleep', '1000'], sh('A=1 "$E" exec -e A ex sh -c "echo \\$A"'), sh('printf "A\\nB=2\\n" > ef; A=1 "$E" exec --env-file ef ex sh -c "echo \\$A \\$B"'), ['rm', '-f', 'ex']),
    same('--env-file of another folder, missing, of bad lines', sh('mkdir -p s; printf "# c\\n\\nA\\nB=b=c\\nHOME\\n" > s/v; cd s; A=1 "$E" run --rm --env-file v busybox env | sort | grep -e ^A -e ^B; A=1 "$E" run --rm --env-file=../s/v busybox sh -c "echo \\$A"; "$E" run --rm --env-file nope busybox; printf "a b=1\\n" > bad; "$E" run --rm --env-file bad busybox; "$E" run --rm --env-file . busybox')),
    same('ENGINE_*', sh('ENGINE_LOG_LEVEL=error "$E" ps'), sh('ENGINE_LOG_LEVEL=nope "$E" ps'), sh('ENGINE_ROOTT=/x "$E" ps'), sh('ENGINE_SECURITY_SECCOMP=unconfined "$E" run --rm busybox grep Seccomp: /proc/1/status'), sh('ENGINE_DRIVERS_STORAGE=nope "$E" run --rm busybox true'), sh('ENGINE_OPTIONS=x "$E" ps')),
    same('a clean environment', sh('env -i "E=$E" "NODE_OPTIONS=$NODE_OPTIONS" "SAME_MARK=$SAME_MARK" "ENGINE_ROOT=$ENGINE_ROOT" "ENGINE_RUN_ROOT=$ENGINE_RUN_ROOT" ENGINE_RESIDENT=$ENGINE_RESIDENT "$E" run --rm --hostname h busybox env')),
  ],
  'flags before the verb': [
    same('--set', ['--set', 'security.seccomp=unconfined', 'run', '--rm', 'busybox', 'grep', 'Seccomp:', '/proc/1/status'], ['--set', 'nope=1', 'ps'], ['--set', 'x', 'ps'], ['--set', 'drivers.storage=nope', 'ps'], ['--set=logLevel=error', 'ps'], ['--set'], ['--set', 'pool=x', 'ps'], ['--nope', 'ps']),
    same('--root and --run-root, relative too', sh('mkdir -p other; "$E" --root other/root --run-root="$PWD/other/run" images; ls other; "$E" --root=./other/root --run-root other/run run x; cd other; "$E" --root root --run-root run ps -aq; "$E" --root "" ps; "$E" --root')),
    local(same('--no-daemon', ['--no-daemon', 'run', '--rm', 'busybox', 'echo', 'x'], ['--set', 'logLevel=info', '--no-daemon', 'ps'], sh('ENGINE_NO_DAEMON=1 "$E" ps'), sh('ENGINE_RESIDENT=off "$E" ps'))),
  ],
  folders: [
    same('another one, one that is gone, one nobody may enter', sh('cd /; "$E" run --rm -v ./etc:/e:ro busybox ls /e/passwd'), sh('cd /usr; "$E" ps')),
    { ...same('one that is gone', sh('mkdir -p d; cd d; rmdir ../d; "$E" ps')), local: true },
    same('by a link, by another name', (side) => {
      symlinkSync(side.program, join(side.folder, 'cwd', 'linked'));
      return side.sh('./linked ps; ./linked version; PATH=$PWD:$PATH linked run --rm busybox echo linked; (exec -a other "$E" ps); (exec -a "" "$E" version)');
    }),
    same('a project\'s own configuration', sh('mkdir -p p/q; echo "security: { seccomp: unconfined }" > p/.enginerc; cd p/q; "$E" run --rm busybox grep Seccomp: /proc/1/status; echo "nope: 1" > .enginerc; "$E" ps; rm .enginerc; "$E" ps'), sh('cd p; chmod 666 .enginerc; "$E" ps; rm .enginerc')),
  ],
  'other worlds': [
    local(same('another mount namespace', sh('unshare -m "$E" ps'), sh('unshare -m sh -c \'mount -t tmpfs t /mnt && echo mine > /mnt/f && "$E" run --rm -v /mnt/f:/f busybox cat /f\''))),
    local(same('another network namespace', sh('unshare -n "$E" run --rm --network host busybox ls /sys/class/net'))),
    local(same('another pid namespace', sh('unshare -pf --mount-proc "$E" ps'))),
    local(same('another cgroup or user namespace', sh('unshare -C "$E" ps'), sh('unshare -Ur "$E" version'))),
    local(same('another root folder', sh('mkdir -p r; unshare -m sh -c \'mount --rbind / r && exec chroot r "$E" ps\'; rmdir r'))),
    local(same('files of the process itself', sh('"$E" run --rm --env-file <(echo X=1) busybox sh -c "echo \\$X"'), sh('echo X=2 | "$E" run --rm --env-file /dev/stdin busybox sh -c "echo \\$X"'))),
  ],
  limits: [
    same('umask, nice and session of the caller mean nothing to a container', sh('umask 077; nice -n 7 "$E" run --rm busybox sh -c "umask; cut -d\\" \\" -f5,6,18,19 /proc/1/stat; cat /proc/1/oom_score_adj"')),
    same('fds of the caller neither', sh('exec 7< /etc/passwd 9> f; "$E" run --rm busybox ls /proc/1/fd')),
    same('ignored signals neither', sh('trap "" TERM INT USR1; "$E" run --rm busybox grep -e SigIgn -e SigBlk /proc/1/status')),
  ],
};
