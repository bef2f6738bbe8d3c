#!/bin/sh
# Print the Debian packages of the given kinds (all without arguments), one a line.
# Where a line names alternatives (a|b), the first that is installed is taken, or else the first that this Debian has.
set -eu
list=$(dirname "$0")/packages.txt
[ $# -gt 0 ] || set -- build demo test bench fuzz

installed() {
    dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

known() {
    apt-cache show "$1" >/dev/null 2>&1
}

# The first of NAMES that TEST is true of.
first() {
    test=$1
    shift
    for name; do
        if $test "$name"; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

for kind; do
    sed -n "s/^$kind  *//p" "$list"
done | sort -u | while IFS='|' read -r name others; do
    if [ -z "$others" ]; then
        echo "$name"
        continue
    fi
    names="$name $(echo "$others" | tr '|' ' ')"
    # shellcheck disable=SC2086
    first installed $names || first known $names || echo "$name"
done
