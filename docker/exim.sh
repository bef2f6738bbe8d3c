#!/bin/sh
# Unpack an Exim, which the tests run behind Weir, into build/exim: exim4, and in lib/ what this machine lacks for it.
#
# It can't be installed: a Debian has one mail server, and here that is Postfix. Nothing outside build/ changes, and root isn't
# needed. Without a network it says so and ends well: the tests with Exim are skipped then.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exim=$here/../build/exim
# For each try of each file; a machine without a network should not have to wait.
patience="-o Acquire::Retries=1 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15"

say() {
    echo "weir: $*"
}

runs() {
    LD_LIBRARY_PATH="$1/lib" ldd "$1/exim4" >"$scratch/ldd" 2>&1 && ! grep -q 'not found' "$scratch/ldd"
}

# Unpack packages, given by name, without a word of their scripts.
unpack() {
    for name; do
        # shellcheck disable=SC2086
        (cd "$scratch/deb" && apt-get $patience download -q "$name") || return 1
    done
    for file in "$scratch"/deb/*.deb; do
        dpkg-deb -x "$file" "$scratch/tree"
    done
}

# The libraries that a package depends on and this machine lacks, and what those depend on: what apt would install. An "Inst" line
# with a version in brackets is about a package that is installed already.
lacking() {
    libraries=$(dpkg-deb -f "$1" Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ |(]*\).*/\1/p')
    # shellcheck disable=SC2086
    apt-get install -s -q --no-install-recommends $libraries | sed -n 's/^Inst \(lib[^ ]*\) (.*/\1/p'
}

fetch() {
    rm -rf "$scratch/deb" "$scratch/tree"
    mkdir -p "$scratch/deb" "$scratch/tree"
    # shellcheck disable=SC2046
    unpack $("$here/packages.sh" unpack) || return 1
    more=$(lacking "$scratch"/deb/exim4-*.deb) || return 1
    # shellcheck disable=SC2086
    [ -z "$more" ] || unpack $more
}

update() {
    if [ "$(id -u)" -eq 0 ]; then
        # shellcheck disable=SC2086
        apt-get $patience update -q
    elif command -v sudo >/dev/null; then
        # shellcheck disable=SC2086
        sudo -n apt-get $patience update -q
    fi
}

command -v apt-get >/dev/null || {
    say "this is no Debian: the tests with Exim will be skipped"
    exit 0
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
! runs "$exim" || exit 0

say "unpacking Exim into build/exim"
# An index that has grown old names versions that are gone.
fetch >"$scratch/log" 2>&1 || { update && fetch; } >"$scratch/log" 2>&1 || {
    grep '^E:' "$scratch/log" || cat "$scratch/log"
    say "no Exim could be had: the tests with it will be skipped"
    exit 0
}
mkdir -p "$scratch/exim/lib"
# It is set-uid root in the package. Here it must not be.
install -m 755 "$scratch/tree/usr/sbin/exim4" "$scratch/exim/exim4"
find "$scratch/tree" -name 'lib*.so*' ! -type d -exec cp -P '{}' "$scratch/exim/lib/" ';'
runs "$scratch/exim" || {
    grep 'not found' "$scratch/ldd"
    say "this Exim lacks libraries: the tests with it will be skipped"
    exit 0
}
rm -rf "$exim"
mkdir -p "$exim"
cp -R -P "$scratch/exim/." "$exim"
