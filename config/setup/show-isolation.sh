#!/bin/sh
# Runs in a container of the built-in image `host` (see start.sh, which hands over the host's values): what is isolated. Plain sh and /proc.
bold='' plain=''
[ -t 1 ] && bold=$(printf '\033[1m') plain=$(printf '\033[0m')
title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
# row WHAT HERE [ON THE HOST]
row() { printf '  %-20s %-34s %s\n' "$1" "$2" "${3:-}"; }
field() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
bits() {
  value=$((0x${1:-0})) sum=0
  while [ "$value" -gt 0 ]; do sum=$((sum + (value & 1))); value=$((value >> 1)); done
  echo "$sum"
}

title 'A container of your own system'
row '' 'in the container' 'on the host'
row 'hostname' "$(cat /proc/sys/kernel/hostname)" "${HOST_NAME:-}"
row 'pid of this shell' "$$"
processes=0; for entry in /proc/[0-9]*; do processes=$((processes + 1)); done
row 'processes in sight' "$processes" "${HOST_PROCESSES:-}"
links=$(sed -n 's/^ *\([^ :]*\):.*/\1/p' /proc/net/dev | tr '\n' ' ')
row 'network interfaces' "$links" "${HOST_LINKS:-}"
row 'capabilities' "$(bits "$(field CapEff)")" "${HOST_CAPS:+$(bits "$HOST_CAPS")}"

title 'Namespaces'
for kind in mnt pid net ipc uts cgroup user time; do
  link=$(readlink "/proc/self/ns/$kind" 2>/dev/null) || continue
  host=; for candidate in ${HOST_NAMESPACES:-}; do case $candidate in "$kind":*) host=$candidate ;; esac; done
  if [ "$link" = "$host" ]; then row "$kind" "${link#*:}" 'the same'; else row "$kind" "${link#*:}" "${host#*:}"; fi
done

title 'File system'
while read -r _ _ _ _ target _ rest; do
  type=${rest#*- }; type=${type%% *}
  [ "$type" = overlay ] && row "$target" 'a throw-away copy (overlay)' 'untouched'
done </proc/self/mountinfo
if (echo x >/.engine-was-here) 2>/dev/null; then row 'wrote /.engine-was-here' 'kept in the copy' 'no such file'; fi
devices=0; for entry in /dev/*; do devices=$((devices + 1)); done
row 'entries in /dev' "$devices"
[ -w /proc/sys/kernel/core_pattern ] && state=writable || state=read-only
row '/proc/sys' "$state"
[ -s /proc/kcore ] && state=visible || state=masked
row '/proc/kcore' "$state"

title 'Limits and filters'
case $(field Seccomp) in 2) row 'seccomp' 'filters system calls' ;; *) row 'seccomp' 'off' ;; esac
limit() { for file in "/sys/fs/cgroup/$1" "/sys/fs/cgroup/$2"; do [ -r "$file" ] && { cat "$file"; return; }; done; echo unknown; }
row 'memory' "$(limit memory.max memory/memory.limit_in_bytes) bytes"
row 'processes' "at most $(limit pids.max pids/pids.max)"
row 'cgroup' "$(sed -n '1s/^[^:]*:[^:]*://p' /proc/self/cgroup)"
printf '\nA shell in such a copy: bin/engine run -it --rm host\n'
