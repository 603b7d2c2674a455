#!/bin/sh
# Build the static shim, its test build, the launcher and libengine.so into dist/bin, when a source is newer; the launcher is installed as bin/engine and, for its other command line, as bin/engine-oci. Needs gcc (musl-gcc where there is one).
set -eu
cd "$(dirname "$0")/../.."

out=dist/bin
node=node_modules/.bin/node
[ -x "$node" ] || node=node
compiler=${CC:-}
if [ -z "$compiler" ]; then
	if command -v gcc >/dev/null 2>&1; then compiler=gcc
	elif command -v cc >/dev/null 2>&1; then compiler=cc
	else
		echo "engine: no C compiler found: install one, e.g. with: apt-get install gcc libc6-dev (musl-tools makes a smaller shim)" >&2
		exit 1
	fi
fi
static=${STATIC_CC:-$compiler}
kernel_headers=
if [ -z "${STATIC_CC:-}" ] && command -v musl-gcc >/dev/null 2>&1; then
	static=musl-gcc
	# musl-gcc knows only musl's own headers: the kernel's come after them
	kernel_headers="-idirafter /usr/include -idirafter /usr/include/$("$compiler" -print-multiarch 2>/dev/null || echo x86_64-linux-gnu)"
fi
warnings="-std=gnu11 -O2 -Wall -Wextra -Werror"
hardening="-fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wl,-z,relro,-z,now,-z,noexecstack"
# small code is fewer pages in every shim, and so are small variables beside each other, away from the buffers; gcc sees ghosts in what -Os does not inline
small="-Os -Wno-maybe-uninitialized -ffunction-sections -fdata-sections -Wl,--gc-sections -fno-asynchronous-unwind-tables -fno-unwind-tables -Wl,--sort-section=alignment"

mkdir -p "$out" native/src/gen
# one build at a time; the others find everything done
if command -v flock >/dev/null 2>&1 && [ -z "${ENGINE_BUILD_LOCKED:-}" ]; then
	ENGINE_BUILD_LOCKED=1 exec flock "$out/.lock" sh config/setup/build-native.sh "$@"
fi

header=native/src/gen/operations.h
# the generator writes the header only when it changes, so its age says nothing about when it was checked
if [ ! -f "$header" ] || [ ! -f native/src/gen/launch.h ] || [ ! -f "$out/.header" ] ||
	[ -n "$(find core/plan native/ts/generate.ts native/ts/launch.ts -name '*.ts' -newer "$out/.header" -print -quit)" ]; then
	"$node" --disable-warning=ExperimentalWarning native/ts/generate.ts
	touch "$out/.header"
fi

# true when $1 is missing or older than a source in the folders that follow
stale() {
	target=$1; shift
	[ ! -f "$target" ] || [ -n "$(find "$@" config/setup/build-native.sh -maxdepth 1 \( -name '*.[ch]' -o -name build-native.sh \) -newer "$target" -print -quit)" ]
}

shim_sources() { for file in native/src/*.c; do [ "$file" = native/src/spawn_library.c ] || echo "$file"; done; }

# $1 target, then the command that writes $target.new
build() {
	target=$1; shift
	"$@" -o "$target.new" || { rm -f "$target.new"; echo "engine: building $target failed" >&2; exit 1; }
	mv "$target.new" "$target"
}
if stale "$out/engine-shim" native/src native/src/gen; then
	# shellcheck disable=SC2046,SC2086
	build "$out/engine-shim" $static $warnings $hardening $small $kernel_headers -static -s $(shim_sources)
fi
if stale "$out/engine-shim-test" native/src native/src/gen; then
	# shellcheck disable=SC2046,SC2086
	build "$out/engine-shim-test" $static $warnings $kernel_headers -DENGINE_TEST -g -static $(shim_sources)
fi
if stale "$out/libengine.so" native/src; then
	# shellcheck disable=SC2086
	build "$out/libengine.so" $compiler $warnings $hardening -fPIC -fvisibility=hidden -shared native/src/spawn_library.c
fi
if stale "$out/engine-launcher" native/src/launcher native/src/gen; then
	# shellcheck disable=SC2086
	build "$out/engine-launcher" $static $warnings $hardening $small $kernel_headers -static -s native/src/launcher/*.c
fi
# renamed over the old one, which may be running; files of their own, as the name of what runs decides which of the two it is
for name in engine engine-oci; do
	if ! cmp -s "$out/engine-launcher" "bin/$name"; then
		mkdir -p bin
		cp "$out/engine-launcher" "bin/.$name-$$"
		mv "bin/.$name-$$" "bin/$name"
	fi
done
