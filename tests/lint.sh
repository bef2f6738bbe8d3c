#!/bin/sh
# make lint: one line per check; exit 1 if any failed. Runs in the top folder.
set -u
cd "$(dirname "$0")/.." || exit 1

FLOORS="net smtp config balancer health counters admin proxy"
FORMAT_VERSION=14 # others lay out the same file differently
MAX_LINES=600     # a longer file is asking to be two
WORK=build/lint
failed=0

mkdir -p "$WORK/cppcheck" || exit 1

# Everything of that name; git is not asked, for it refuses to answer in somebody else's checkout.
sources() {
    find . \( -path ./build -o -path ./.git -o -name .pytest_cache \) -prune -o -type f -name "$1" -print |
        sed 's,^\./,,' | sort
}

passed() {
    echo "lint: $1 ok${2:+ ($2)}"
}

failed() {
    echo "lint: $1 FAILED"
    sed 's/^/  /' "$2"
    failed=1
}

# verdict NAME STATUS OUTPUT-FILE
verdict() {
    if [ "$2" -eq 0 ]; then
        passed "$1"
    else
        failed "$1" "$3"
    fi
}

check_floors() {
    /usr/bin/python3 -B tests/lint_floors.py >"$WORK/floors" 2>&1
    verdict floors $? "$WORK/floors"
}

check_format() {
    if ! command -v clang-format >/dev/null; then
        echo "lint: format skipped: no clang-format"
        return
    fi
    version=$(clang-format --version | sed -n 's/.*version \([0-9][0-9]*\).*/\1/p')
    if [ "$version" != "$FORMAT_VERSION" ]; then
        echo "lint: format skipped: clang-format $version, not $FORMAT_VERSION"
        return
    fi
    sources '*.[ch]' | xargs clang-format --dry-run -Werror >"$WORK/format.out" 2>&1
    status=$?
    # Which lines is for the formatter to know; which files is what one needs.
    sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: error: .*/clang-format -i \1/p' "$WORK/format.out" | sort -u >"$WORK/format"
    [ $status -eq 0 ] || [ -s "$WORK/format" ] || cp "$WORK/format.out" "$WORK/format"
    verdict format $status "$WORK/format"
}

check_cppcheck() {
    if ! command -v cppcheck >/dev/null; then
        echo "lint: cppcheck skipped: not installed"
        return
    fi
    folders=
    for folder in $FLOORS; do
        [ -d "$folder" ] && folders="$folders $folder"
    done
    # Newer ones think less thoroughly unless told, and complain about themselves.
    depth=
    cppcheck --help | grep -q -e --check-level && depth=--check-level=exhaustive
    # Left out: library headers (cppcheck knows their functions, or nothing); syntax (the compiler judges it, and
    # cppcheck 2.10 stops at __VA_OPT__); text[n] && n < max, which is right for what ends in NUL.
    # shellcheck disable=SC2086
    cppcheck -j2 --quiet --language=c --std=c11 --enable=warning,performance,portability --inline-suppr $depth \
        --error-exitcode=1 --cppcheck-build-dir="$WORK/cppcheck" --template='{file}:{line}: {id}: {message}' \
        --suppress=missingInclude --suppress=missingIncludeSystem --suppress=unmatchedSuppression \
        --suppress=syntaxError --suppress=arrayIndexThenCheck \
        -D_GNU_SOURCE -D__GNUC__=12 -D__x86_64__=1 '-DWEIR_VERSION="lint"' -I. $folders >"$WORK/cppcheck.out" 2>&1
    verdict cppcheck $? "$WORK/cppcheck.out"
}

check_lengths() {
    sources '*.[ch]' | grep -v '^tests/' | xargs wc -l |
        awk -v max=$MAX_LINES '$2 != "total" && $1 > max { print $2 " has " $1 " lines" }' >"$WORK/lengths"
    if [ -s "$WORK/lengths" ]; then
        echo "lint: length warning: over $MAX_LINES lines"
        sed 's/^/  /' "$WORK/lengths"
    else
        passed length
    fi
}

check_shell() {
    status=0
    : >"$WORK/shell"
    for script in $(sources '*.sh') .ci/run; do
        sh -n "$script" >>"$WORK/shell" 2>&1 || status=1
    done
    verdict shell $status "$WORK/shell"
}

# The compiled files go elsewhere, so that none is left between the sources.
check_python() {
    cache=$(mktemp -d) || exit 1
    sources '*.py' | PYTHONPYCACHEPREFIX="$cache" xargs /usr/bin/python3 -m py_compile >"$WORK/python" 2>&1
    verdict python $? "$WORK/python"
    rm -rf "$cache"
}

check_floors
check_format
check_cppcheck
check_lengths
check_shell
check_python
exit $failed
