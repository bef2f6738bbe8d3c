#!/bin/sh
# Run a unit test: one line if it passes, everything it said if not.
out=$(mktemp)
trap 'rm -f "$out"' EXIT
if "$@" >"$out" 2>&1; then
    grep -F '[  PASSED  ]' "$out" || tail -n 1 "$out"
else
    status=$?
    echo failed
    cat "$out"
    exit $status
fi
