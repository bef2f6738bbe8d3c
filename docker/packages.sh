#!/bin/sh
# Print the Debian packages of the given kinds (run, build, test; all without arguments), one a line.
# Where a line names alternatives (a|b), the first that this Debian has is taken.
set -eu
list=$(dirname "$0")/packages.txt
[ $# -gt 0 ] || set -- run build test
for kind; do
    sed -n "s/^$kind  *//p" "$list"
done | while IFS= read -r names; do
    for name in $(printf %s "$names" | tr '|' ' '); do
        case $names in
        *'|'*) apt-cache show "$name" >/dev/null 2>&1 || continue ;;
        esac
        printf '%s\n' "$name"
        break
    done
done
