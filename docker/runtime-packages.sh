#!/bin/sh
# Print the Debian packages that own the shared libraries of a program, one a line.
#   runtime-packages.sh PROGRAM
set -eu
libraries=$(ldd "$1" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p')
[ -n "$libraries" ] || { echo "runtime-packages.sh: $1 has no shared libraries" >&2; exit 1; }
for library in $libraries; do
    # The linker says /lib/…; with a merged /usr the package may say /usr/lib/… and the other way round. A line is
    # "package:architecture: path"; those of diversions name another package.
    owner=$({ dpkg -S "$library" || true; dpkg -S "/usr$library" || true; dpkg -S "${library#/usr}" || true; } 2>/dev/null |
        grep -v '^diversion ' | head -n 1)
    [ -n "$owner" ] || { echo "runtime-packages.sh: no package owns $library" >&2; exit 1; }
    echo "${owner%%[:,]*}"
done | sort -u
