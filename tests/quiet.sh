#!/bin/sh
# quiet.sh NAME TEST: run a unit test. One line if it passes, everything it said if not.
name=$1
shift
out=$(mktemp)
trap 'rm -f "$out"' EXIT
if "$@" >"$out" 2>&1; then
    printf '%-24s %s\n' "$name" "$(grep -F '[  PASSED  ]' "$out" || tail -n 1 "$out")"
else
    status=$?
    printf '%-24s failed\n' "$name"
    cat "$out"
    exit $status
fi
