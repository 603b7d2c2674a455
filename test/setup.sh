#!/bin/sh
# What the tests need besides the product: a static busybox for images, btrfs for its driver, ip and dig for networks. Their tests skip where they are missing.
set -eu
command -v apt-get >/dev/null || exit 0
missing=
for package in busybox-static btrfs-progs e2fsprogs zstd iproute2 bind9-dnsutils socat curl; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "setup: installing for the tests:$missing" >&2
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
  { apt-get update -qq >/dev/null 2>&1; apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
  echo "setup: could not be installed:$missing; the tests that need them are skipped" >&2
