#!/bin/sh
# Print the Debian packages that own the shared libraries of a program, one a line.
#   runtime-packages.sh PROGRAM
set -eu
libraries=$(ldd "$1" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p')
[ -n "$libraries" ] || { echo "runtime-packages.sh: $1 has no shared libraries" >&2; exit 1; }
for library in $libraries; do
    # The linker says /lib/…; with a merged /usr the package may say /usr/lib/… and the other way round.
    owner=$(dpkg -S "$library" 2>/dev/null || dpkg -S "/usr$library" 2>/dev/null || dpkg -S "${library#/usr}" 2>/dev/null) ||
        { echo "runtime-packages.sh: no package owns $library" >&2; exit 1; }
    # "package:architecture: path"; a file that a package has diverted has a line more, which names another package.
    owner=$(printf '%s\n' "$owner" | grep -v '^diversion ' | head -n 1)
    echo "${owner%%[:,]*}"
done | sort -u
