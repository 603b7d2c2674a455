import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { busyboxTar } from '../helpers/busybox.ts';
import { makeBusyboxImage } from '../helpers/images.ts';
import { same, sh, type Case, type Step } from '../helpers/pair.ts';

const up = (name: string, ...command: string[]): Step => ['run', '-d', '--name', name, 'busybox', ...(command.length ? command : ['sleep', '1000'])];
const state = (name: string): Step => ['inspect', '-f', '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}', name];
/** Both sides are on one machine: what one has the other cannot have. */
const anyPort = (text: string): string => text.replaceAll(/:(49|5\d|6\d)\d{3}\b/g, ':PORT');
const anyAddress = (text: string): string => text.replaceAll(/\b10\.\d+\.\d+\.\d+/g, 'IPV4').replaceAll(/\bfd[0-9a-f:]+/g, 'IPV6');
const alike = (text: string): string => text.replaceAll(/"(LowerDir|MergedDir|UpperDir|WorkDir)": "[^"]*"/g, '"$1": "DIR"');

/** Every verb in normal use, with what is special about it. A verb without an entry fails the test; its help and the common errors are tried for all alike. */
export const verbs: Readonly<Record<string, readonly Case[]>> = {
  run: [
    same('output and code', ['run', '--rm', 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 7']),
    same('an error in its flags', ['run', '-m', '1', 'busybox'], ['run', '-m', 'much', 'busybox'], ['run', '--name', '-', 'busybox'], ['run', '-v', 'relative:', 'busybox'], ['run', '--network', 'nope', 'busybox'], ['run', '--user', 'nobody-here', '--rm', 'busybox', 'true'], ['run', '--explain=nope', 'busybox'], ['run', '--detach-keys', 'ctrl-', 'busybox'], ['run', '-e', 'busybox'], ['run', '--cpus', '-1', 'busybox'], ['run', '--ulimit', 'nope=1', 'busybox'], ['run', '--restart', 'sometimes', 'busybox'], ['run', '--rm', '--restart', 'always', 'busybox']),
    same('no such image', ['run', '--rm', 'nope'], ['run', 'UPPER'], ['run', 'sha256:00']),
    same('-d, its name taken, its end', up('dd'), up('dd'), state('dd'), ['rm', '-f', 'dd'], state('dd')),
    same('--explain', ['run', '--explain', '--hostname', 'h', '-m', '64m', 'busybox', 'true'], ['run', '--explain=json', '--name', 'same', 'busybox']),
    same('without --rm it stays', ['run', '--name', 'stays', 'busybox', 'sh', '-c', 'exit 3'], state('stays'), ['ps', '-a'], ['rm', 'stays']),
    same('limits and settings arrive', ['run', '--rm', '-m', '64m', '--pids-limit', '20', '--hostname', 'h', '-w', '/tmp', '-u', 'app', '--ulimit', 'nofile=64', '--read-only', '--tmpfs', '/x', '-e', 'A=1', 'busybox', 'sh', '-c', 'id; pwd; hostname; ulimit -n; env | sort; umask; cd /proc/1; cat oom_score_adj; grep -c . mountinfo; grep -i -e cap -e seccomp -e nonewprivs status']),
    same('--label-file, --env-file, -v and --cidfile of a relative path', (side) => {
      for (const [name, text] of [['labels', 'l=1\n'], ['vars', 'FROM_FILE=1\nHOME\n']] as const) writeFileSync(join(side.folder, 'cwd', name), text);
      return side.sh('cd / && mkdir -p "$HOME/sub" && cp "$OLDPWD"/labels "$OLDPWD"/vars "$HOME/sub" && cd "$HOME/sub" && "$E" run --name files --label-file labels --env-file ./vars -v ./vars:/vars:ro --cidfile id busybox sh -c "env | sort; cat /vars"; ls; wc -c < id; "$E" inspect -f "{{json .Config.Labels}}" "$(cat id)"; "$E" run --rm --cidfile id busybox true');
    }),
  ],
  create: [
    same('and start', ['create', '--name', 'made', '-l', 'a=b', 'busybox', 'echo', 'hello'], state('made'), ['start', '-a', 'made'], ['logs', 'made'], ['rm', 'made']),
    same('--cidfile under a umask', sh('umask 077; "$E" create --cidfile c1 busybox; umask 0; "$E" create --cidfile c2 busybox; stat -c "%a %s" c1 c2; umask 027; "$E" create --cidfile c1 busybox; "$E" create --cidfile nope/c busybox; rm c1 c2')),
    same('a bad value leaves nothing', ['create', '--name', 'bad', '--tmpfs', 'relative', 'busybox'], ['ps', '-a', '--filter', 'name=bad']),
  ],
  start: [
    same('several, one of them missing, and what runs already', ['create', '--name', 's1', 'busybox', 'sleep', '1000'], ['start', 's1', 'nope'], ['start', 's1'], state('s1'), ['start', '-a', 's1', 's2'], ['rm', '-f', 's1']),
    same('-a and -ai', ['create', '-i', '--name', 'si', 'busybox', 'sh', '-c', 'cat; exit 5'], sh('echo typed | "$E" start -ai si'), state('si'), sh('"$E" start -i si < /etc/hostname | wc -l'), ['rm', '-f', 'si']),
    same('one that cannot start', ['create', '--name', 'sx', 'busybox', '/nope'], ['start', 'sx'], ['start', '-a', 'sx'], state('sx'), ['rm', 'sx']),
  ],
  stop: [
    same('by its signal, by force, not at all', up('st', 'sh', '-c', 'trap "exit 4" TERM; while :; do sleep 0.05; done'), ['stop', 'st'], state('st'), ['stop', 'st'], up('su', 'sleep', '1000'), ['stop', '-t', '0', 'su'], state('su'), ['stop', '-t', 'x', 'su'], ['stop', '-s', 'NOPE', 'su'], ['rm', 'st', 'su']),
  ],
  restart: [same('of one that runs, and of one that has ended', up('re'), ['restart', '-t', '0', 're'], state('re'), ['inspect', '-f', '{{.RestartCount}}', 're'], ['kill', 're'], ['restart', 're', 'nope'], state('re'), ['rm', '-f', 're'])],
  kill: [same('by name, number, default; what is no signal; what has ended', up('k', 'sh', '-c', 'trap "exit 9" USR1; while :; do sleep 0.05; done'), ['kill', '-s', 'NOPE', 'k'], ['kill', '-s', '99', 'k'], ['kill', '-s', 'USR1', 'k'], ['wait', 'k'], ['kill', 'k'], ['start', 'k'], ['kill', '-s', '9', 'k'], state('k'), ['rm', 'k'])],
  pause: [same('of one that runs, is paused, has ended; what can be done with it meanwhile', up('pa'), ['unpause', 'pa'], ['pause', 'pa', 'nope'], ['pause', 'pa'], state('pa'), ['ps', '--format', '{{.Names}} {{.State}}'], ['ps', '-f', 'status=paused', '--format', '{{.Names}}'], ['exec', 'pa', 'true'], ['attach', 'pa'], ['start', 'pa'], ['rm', 'pa'], ['logs', 'pa'], ['diff', 'pa'], ['unpause', 'pa'], ['exec', 'pa', 'true'], ['pause', 'pa'], ['stop', '-t', '0', 'pa'], state('pa'), ['pause', 'pa'], ['start', 'pa'], ['pause', 'pa'], ['restart', '-t', '0', 'pa'], state('pa'), ['pause', 'pa'], ['kill', 'pa'], state('pa'), ['start', 'pa'], ['pause', 'pa'], ['rm', '-f', 'pa'])],
  unpause: [same('of what is not paused', ['unpause', 'nope'], ['create', '--name', 'un', 'busybox', 'sleep', '1000'], ['unpause', 'un'], ['start', 'un'], ['unpause', 'un'], ['pause', 'un'], ['unpause', 'un', 'nope'], state('un'), ['rm', '-f', 'un'])],
  stats: [{ ...same('once, of those that run, all, some, none', ['stats', '--no-stream'], up('st'), ['create', '--name', 'sc', 'busybox'], ['stats', '--no-stream'], ['stats', '--no-stream', 'sc'], ['stats', '--no-stream', '-a', '--no-trunc'], ['stats', '--no-stream', '--format', '{{.Name}} {{.PIDs}} {{.NetIO}}'], ['stats', '--no-stream', '--format', 'json'], ['stats', '--no-stream', '--pressure', 'st'], ['stats', '--no-stream', 'nope'], ['stats', '--no-stream', '--format', '{{.Nope}}', 'st'], ['stats', '--no-stream', '--format', '{{'], ['stats', '-i', '0'], sh('"$E" stats -i 1 --format "{{.Name}}" st | head -2; echo ${PIPESTATUS[0]}'), ['rm', '-f', 'st', 'sc']), but: (text) => text.replaceAll(/\b[\d.]+(%|[KMG]iB|[kMG]?B)(?= |$|")/gm, 'N').replaceAll(/ +/g, ' ') }],
  top: [{ ...same('as ps says it', up('tp', 'sh', '-c', 'sleep 1000 & wait'), ['top', 'tp', '-o', 'pid,comm'], ['top', 'tp', '-o', 'comm'], ['top', 'tp', '--nope'], ['top', 'tp'], ['top', 'nope'], ['pause', 'tp'], ['top', 'tp', '-o', 'pid,comm'], ['rm', '-f', 'tp'], ['top', 'tp']), but: (text) => text.replaceAll(/\b\d+ +/g, 'N ').replaceAll(/\d\d:\d\d(:\d\d)?/g, 'T') }],
  update: [
    same('of limits', up('ul', 'sleep', '1000'), ['update', '-m', '64m', '--pids-limit', '30', '--cpus', '0.5', '--cpu-shares', '512', '--cpuset-cpus', '0', 'ul'], ['exec', 'ul', 'sh', '-c', 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null'], ['update', '-m', '1g', 'ul'], ['update', '-m', '1k', 'ul'], ['update', '-m', 'x', 'ul'], ['update', '--cpu-quota', '5000', 'ul'], ['update', '--kernel-memory', '64m', 'ul'], ['update', '--cgroup-conf', 'x', 'ul'], ['update', '--device-read-bps', '/dev/nope:1m', 'ul'], ['update', '--device-read-bps', 'x', 'ul'], ['inspect', '-f', '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}', 'ul'], ['rm', '-f', 'ul']),
    same('of the restart policy', up('up'), ['update', 'up'], ['update', '--restart', 'on-failure:3', 'up'], ['inspect', '-f', '{{json .HostConfig.RestartPolicy}}', 'up'], ['update', '--restart', 'x', 'up'], ['update', '--restart', 'no', 'up', 'nope'], ['rm', '-f', 'up']),
  ],
  rm: [same('of what runs, what has ended, what is not there', up('r1'), ['rm', 'r1'], ['rm', '-f', 'r1', 'nope'], ['rm', 'nope'], ['create', '--name', 'r2', '-v', '/v', 'busybox'], ['rm', '-v', 'r2'], ['volume', 'ls', '-q'])],
  ps: [
    same('empty and not', ['ps'], up('p1'), ['create', '--name', 'p2', '-l', 'x=y', 'busybox', 'true'], ['ps'], ['ps', '-a'], ['ps', '-q'], ['ps', '-n', '1', '--no-trunc'], ['ps', '-l'], ['ps', '--format', 'json', '-a'], ['ps', '-a', '--format', 'table {{.Names}}\t{{.State}}'], ['ps', '-f', 'label=x=y', '-a'], ['ps', '-f', 'status=running', '--format', '{{.Names}} {{.Status}} {{.Command}} {{.Labels}}'], ['rm', '-f', 'p1', 'p2']),
    same('what it cannot do', ['ps', '-f', 'nope=1'], ['ps', '-f', 'status=nope'], ['ps', '--format', '{{.Nope}}'], ['ps', '--format', '{{'], ['ps', '-n', 'x'], ['ps', '-f', 'since=nope']),
    same('to a pipe that closes, a full device, nowhere', sh('"$E" ps | head -1; echo ${PIPESTATUS[0]}'), sh('"$E" ps > /dev/full; echo $?'), sh('"$E" ps >&-; echo $?'), sh('"$E" ps 2>&- >&- <&-; echo $?'), sh('"$E" nope 2> /dev/full; echo $?')),
  ],
  logs: [
    same('all, the last, with times, from then', up('lo', 'sh', '-c', 'for i in 1 2 3; do echo out $i; echo err $i >&2; done; while ! test -e /go; do sleep 0.05; done; echo end; sleep 1000'), sh('until [ "$("$E" logs lo 2>&1 | grep -c 3)" = 2 ]; do sleep 0.05; done; "$E" exec lo touch /go; until "$E" logs lo 2>/dev/null | grep -q end; do sleep 0.05; done; "$E" logs lo 2>/dev/null'), ['logs', '-n', '1', 'lo'], ['logs', '--tail', 'all', 'lo'], ['logs', '--since', '10m', 'lo'], ['logs', '--until', '10m', 'lo'], sh('"$E" logs -t lo 2>&1 | cut -d" " -f2-| sort'), ['logs', '--since', 'x', 'lo'], ['logs', '-n', 'x', 'lo'], ['rm', '-f', 'lo'], up('ln', 'sh', '-c', 'while :; do echo more; sleep 0.05; done'), sh('"$E" logs -f ln | head -2; echo ${PIPESTATUS[0]}'), ['rm', '-f', 'ln']),
    same('-f to the end', up('lf', 'sh', '-c', 'while ! test -e /go; do sleep 0.05; done; echo last; exit 3'), async (side) => { const run = side.start(['logs', '-f', 'lf'], { input: '' }); await side.run(['exec', 'lf', 'touch', '/go']); return run.result; }, ['rm', '-f', 'lf']),
    same('of 8 MB', ['run', '--name', 'lb', '--log-opt', 'max-size=100m', 'busybox', 'sh', '-c', 'yes 0123456789012345678901234567890123456789012345678 | head -c 2000000 | tail -c 10'], sh('"$E" run --log-opt max-size=100m --name lc busybox sh -c "yes 0123456789abcde | head -c 8000000" | sha256sum; "$E" logs lc | sha256sum', { deadline: 100_000 }), ['rm', 'lb', 'lc']),
  ],
  exec: [
    same('output, code, input, user, folder, variables', up('ex'), ['exec', 'ex', 'sh', '-c', 'echo out; echo err >&2; exit 9'], sh('echo typed | "$E" exec -i ex cat'), ['exec', '-u', 'app', '-w', '/tmp', '-e', 'A=1', 'ex', 'sh', '-c', 'id; pwd; echo $A'], ['exec', '-d', 'ex', 'touch', '/made'], sh('until "$E" exec ex test -e /made; do sleep 0.05; done; echo there'), ['exec', 'ex', 'nope'], ['exec', 'ex', '/etc'], ['exec', '-u', 'nope', 'ex', 'true'], ['exec', '-w', '/nope', 'ex', 'true'], ['exec', 'ex'], ['exec', '-it', 'ex', 'true'], ['exec', '--privileged', 'ex', 'grep', 'CapEff', '/proc/1/status'], ['exec', '-t', 'ex', 'tty'], ['rm', '-f', 'ex'], ['exec', 'ex', 'true']),
    same('in one that has ended', ['run', '--name', 'ey', 'busybox', 'true'], ['exec', 'ey', 'true'], ['rm', 'ey']),
  ],
  attach: [
    same('what it says from now on, and its code', ['run', '-d', '-i', '--name', 'at', 'busybox', 'sh', '-c', 'read x; echo got $x; exit 6'], sh('echo line | "$E" attach at'), ['attach', 'at'], ['rm', 'at']),
    same('without input', ['run', '-d', '-i', '--name', 'an', 'busybox', 'sh', '-c', 'while ! test -e /go; do echo up; sleep 0.05; done; echo end'], async (side) => { const run = side.start(['attach', '--no-stdin', 'an'], { input: 'not for it\n' }); await run.output(/up/); await side.run(['exec', 'an', 'touch', '/go']); return { ...(await run.result), stdout: '' }; }, ['rm', 'an']),
    same('to a terminal without one', ['run', '-dit', '--name', 'au', 'busybox'], sh('echo x | "$E" attach au'), ['attach', '--detach-keys', 'ctrl-?', 'au'], ['rm', '-f', 'au']),
  ],
  wait: [same('for several, one that has ended, one that does not exist', ['run', '--name', 'w1', 'busybox', 'sh', '-c', 'exit 3'], up('w2', 'sh', '-c', 'while ! test -e /go; do sleep 0.05; done; exit 4'), async (side) => { const run = side.start(['wait', 'w1', 'w2', 'nope'], { input: '' }); await run.output(/3/); await side.run(['exec', 'w2', 'touch', '/go']); return run.result; }, ['rm', 'w1', 'w2'])],
  inspect: [
    { ...same('of a container, an image, a volume, nothing', ['create', '--name', 'in', '-v', 'vol:/v', '-e', 'A=1', 'busybox', 'true'], ['inspect', 'in'], ['inspect', 'busybox'], ['inspect', 'vol'], ['inspect', 'in', 'nope'], ['inspect', '--type', 'image', 'in'], ['inspect', '--type', 'x', 'in'], ['inspect', '-s', '-f', '{{.SizeRw}}', 'in'], ['inspect', '-f', '{{.Nope}}', 'in'], ['inspect', '-f', '{{', 'in'], ['rm', 'in'], ['volume', 'rm', 'vol']), but: alike },
    { ...same('of one that runs', up('ir'), ['inspect', 'ir'], ['rm', '-f', 'ir']), but: (text) => alike(text).replaceAll(/"Pid": \w+/g, '"Pid"') },
  ],
  diff: [same('added, changed, deleted', ['run', '--name', 'di', 'busybox', 'sh', '-c', 'echo > /new; echo > /etc/passwd; rm /etc/group; mkdir /dir; touch "/dir/a b"'], ['diff', 'di'], ['rm', 'di'])],
  images: [same('all ways', ['images'], ['images', 'busybox'], ['images', 'nope'], ['images', '-q', '--no-trunc'], ['images', '--digests'], ['images', '--format', '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}'], ['images', '--format', 'json'], ['images', '-f', 'dangling=true'], ['images', '-f', 'reference=busy*'], ['images', '-f', 'nope=1'])],
  load: [
    same('from a file, a pipe, a file as input; what is no image', ['load', '-i', makeBusyboxImage()], ['load', '-q', '-i', makeBusyboxImage()], sh(`cat ${makeBusyboxImage()} | "$E" load`), sh(`"$E" load < ${makeBusyboxImage()}`), sh('cd /tmp; "$E" load -i ./"$(basename "$F")"', { env: { F: makeBusyboxImage() } }), ['load', '-i', '/etc/passwd'], ['load', '-i', '/nope'], ['load', '-i', '/dev/null'], ['load'], sh('"$E" load <&-'), sh('head -c 100000 "$F" | "$E" load', { env: { F: makeBusyboxImage() } })),
  ],
  import: [
    { ...same('from a file and a pipe, with changes', sh('"$E" import -c "CMD [\\"id\\"]" -m hello "$T" im:1 | wc -c; "$E" run --rm im:1; "$E" history --format "{{.Comment}}" im:1', { env: { T: busyboxTar() } }), sh('"$E" import - im:2 < "$T" | wc -c; cat "$T" | gzip | "$E" import - im:3 | wc -c; "$E" images --format "{{.Tag}}" im | sort; "$E" rmi im:1 im:2 im:3 | sed "s/:.*//"', { env: { T: busyboxTar() } }), ['import', '/nope', 'x'], ['import', '-c', 'NOPE x', busyboxTar(), 'x'], ['import', busyboxTar(), 'Bad Name'], ['import', '-']), but: (text) => text.replaceAll(/sha256:[0-9a-f]{64}/g, 'IMAGE') },
  ],
  tag: [same('and what is no name', ['tag', 'busybox', 'other:1'], ['images', '-q', 'other'], ['tag', 'nope', 'x'], ['tag', 'busybox', 'Not/A/Name'], ['rmi', 'other:1'])],
  rmi: [same('of a name, what is used, what is not there', ['tag', 'busybox', 'gone'], ['rmi', 'gone'], ['rmi', 'gone'], ['rmi', '-f', 'gone'], ['tag', 'busybox', 'keep'], ['create', '--name', 'user', 'busybox'], ['rmi', 'busybox', 'nope'], ['rmi', 'busybox@sha256:00'], ['images'], ['tag', 'keep', 'busybox'], ['rm', 'user'], ['rmi', 'keep'])],
  history: [same('all ways', ['history', 'busybox'], ['history', '-q', '--no-trunc', 'busybox'], ['history', '--format', '{{.ID}} {{.CreatedBy}} {{.Size}}', 'busybox'])],
  'volume create': [same('named, labelled, unnamed, twice', ['volume', 'create', '-l', 'a=b', 'v1'], ['volume', 'create', 'v1'], ['volume', 'create', '-d', 'nope', 'v2'], ['volume', 'create', '-o', 'nope=1', 'v2'], ['volume', 'create', 'a/b'], sh('"$E" volume rm "$("$E" volume create)" | wc -c'), ['volume', 'rm', 'v1'])],
  'volume ls': [same('all ways', ['volume', 'ls'], ['volume', 'create', '-l', 'a=b', 'v3'], ['volume', 'ls'], ['volume', 'ls', '-q', '-f', 'label=a=b'], ['volume', 'ls', '--format', 'json'], ['volume', 'ls', '-f', 'x=y'], ['volume', 'rm', 'v3'])],
  'volume inspect': [same('one and none', ['volume', 'create', 'v4'], ['volume', 'inspect', 'v4', 'nope'], ['volume', 'inspect', '-f', '{{.Mountpoint}}', 'v4'], ['volume', 'rm', 'v4'])],
  'volume rm': [same('used, unused, missing', ['volume', 'create', 'v5'], ['create', '--name', 'vu', '-v', 'v5:/v', 'busybox'], ['volume', 'rm', 'v5'], ['rm', 'vu'], ['volume', 'rm', 'v5', 'v5'], ['volume', 'rm', '-f', 'v5'])],
  port: [{ ...same('of one with ports, without, of none', ['network', 'create', 'pn'], ['run', '-d', '--name', 'pp', '--network', 'pn', '-p', '80', 'busybox', 'sleep', '1000'], ['port', 'pp'], ['port', 'pp', '80'], ['port', 'pp', '81'], ['ps', '--format', '{{.Ports}}'], ['rm', '-f', 'pp'], ['port', 'pp'], ['network', 'rm', 'pn']), but: anyPort }],
  'network create': [same('with flags, twice, and what is refused', ['network', 'create', '--internal', '--label', 'a=b', 'n1'], ['network', 'create', 'n1'], ['network', 'create', '--subnet', 'nope', 'n2'], ['network', 'create', '-d', 'nope', 'n2'], ['network', 'create', '-o', 'nope=1', 'n2'], ['network', 'create', 'host'], ['network', 'ls', '-q'], ['network', 'rm', 'n1'])],
  'network ls': [same('all ways', ['network', 'ls'], ['network', 'create', '--label', 'x=y', 'n3'], ['network', 'ls'], ['network', 'ls', '-f', 'label=x=y', '--format', '{{.Name}} {{.Driver}} {{.Internal}}'], ['network', 'ls', '-f', 'nope=1'], ['network', 'ls', '--format', 'json'], ['network', 'rm', 'n3'])],
  'network inspect': [{ ...same('one and none', ['network', 'create', '--ipv6', 'n4'], ['network', 'inspect', 'n4', 'nope'], ['network', 'inspect', '-f', '{{.Name}} {{.EnableIPv6}}', 'n4'], ['network', 'rm', 'n4']), but: anyAddress }],
  'network rm': [same('used, unused, missing', ['network', 'create', 'n5'], ['create', '--name', 'nu', '--network', 'n5', 'busybox'], ['network', 'rm', 'n5'], ['rm', 'nu'], ['network', 'rm', 'n5', 'n5'], ['network', 'rm', '-f', 'n5'])],
  'network prune': [same('what nobody uses', ['network', 'create', 'n6'], ['network', 'create', '--label', 'keep=1', 'n7'], ['network', 'prune', '-f', '--filter', 'label!=keep=1'], ['network', 'prune', '-f'], ['network', 'prune', '-f'])],
  'network connect': [{ ...same('and disconnect, running and not', ['network', 'create', 'n8'], ['network', 'create', 'n9'], ['create', '--name', 'nc', '--network', 'n8', 'busybox', 'sleep', '1000'], ['network', 'connect', '--alias', 'other', 'n9', 'nc'], ['network', 'connect', 'n9', 'nc'], ['start', 'nc'], ['exec', 'nc', 'ls', '/sys/class/net'], ['network', 'disconnect', 'n9', 'nc'], ['exec', 'nc', 'ls', '/sys/class/net'], ['network', 'connect', 'n9', 'nc'], ['inspect', '-f', '{{range $name, $n := .NetworkSettings.Networks}}{{$name}} {{end}}', 'nc'], ['network', 'connect', 'nope', 'nc'], ['network', 'connect', 'n8', 'nope'], ['rm', '-f', 'nc'], ['network', 'rm', 'n8', 'n9']), but: anyAddress }],
  'network disconnect': [same('of what is not on it', ['network', 'create', 'nd'], up('dn'), ['network', 'disconnect', 'nd', 'dn'], ['network', 'connect', 'nd', 'dn'], ['network', 'disconnect', 'nd', 'nope'], ['rm', '-f', 'dn'], ['network', 'rm', 'nd'])],
  'network why': [same('a port that nobody has, and what is none', ['network', 'why', '1'], ['network', 'why', '1/udp'], ['network', 'why', 'x'], ['network', 'why', '70000'])],
  info: [{ ...same('all of it', ['info'], ['info', '-f', '{{.Driver}} {{.Containers}}'], ['info', '-f', '{{'], ['info', '-f', '{{.Nope}}']), but: (text) => text.replace(', Pool', '').replaceAll(/^(Sandboxes|Pool|Resident|Memory|Engined|ConfigSources|Plans|Watchdog): .*\n/gm, '') }],
  doctor: [same('and --fix', ['doctor'], ['doctor', '--fix'], ['doctor', '--format', 'json'])],
  version: [same('all ways', ['version'], ['version', '-f', 'json'], ['version', '-f', '{{.Version}}'], ['--version'], ['-v'])],
  'container inspect': [{ ...same('one and none', ['create', '--name', 'ci', 'busybox'], ['container', 'inspect', 'ci', 'nope'], ['container', 'inspect', 'busybox'], ['rm', 'ci']), but: alike }],
  'image inspect': [{ ...same('one and none', ['image', 'inspect', 'busybox', 'nope'], ['image', 'inspect', '-f', '{{.Id}}', 'busybox']), but: alike }],
};

/** Commands of the host program: done by the caller itself. */
export const hostVerbs: Readonly<Record<string, readonly Case[]>> = {
  config: [{ ...same('all ways', ['config'], ['config', '--json'], ['config', '--nope'], ['config', '--help'], ['--set', 'nope=1', 'config']), local: true, but: (text) => text.replaceAll(/.*resident.*\n|.*"(value|origin)": "(auto|off|ENGINE_RESIDENT.*)",?\n/g, '') }],
  trust: [{ ...same('list, add, remove', ['trust', '--list'], ['trust', '/nope'], ['trust', '--help'], ['trust', '.'], ['trust', '--list'], ['trust', '--remove', '.'], ['trust', '--nope']), local: true }],
  plugin: [{ ...same('list, new, unknown', ['plugin', 'ls'], ['plugin'], ['plugin', 'new', 'mine'], ['plugin', 'new', 'mine'], ['plugin', 'nope'], ['plugin', '--help'], ['plugin', 'new']), local: true }],
};
