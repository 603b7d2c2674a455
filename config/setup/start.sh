#!/bin/sh
# npm start: set everything up, then run a container of this very system and show what is isolated in it.
set -eu
cd "$(dirname "$0")/../.."
sh config/setup/setup.sh
namespaces=
for kind in mnt pid net ipc uts cgroup user time; do namespaces="$namespaces $(readlink "/proc/self/ns/$kind" 2>/dev/null || true)"; done
processes=0; for entry in /proc/[0-9]*; do processes=$((processes + 1)); done
# By stdin, because /tmp is a fresh one in the container, and the checkout may lie there.
exec bin/engine run --rm -i --hostname in-a-container --memory 256m --pids-limit 100 \
  -e HOST_NAME="$(uname -n)" -e HOST_NAMESPACES="$namespaces" -e HOST_PROCESSES="$processes" \
  -e HOST_CAPS="$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)" -e HOST_LINKS="$(sed -n 's/^ *\([^ :]*\):.*/\1/p' /proc/net/dev | tr '\n' ' ')" \
  host sh -s <config/setup/show-isolation.sh
