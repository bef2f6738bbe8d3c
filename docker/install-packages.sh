#!/bin/sh
# Install what the package list names and this machine lacks. Arguments: kinds, as for packages.sh.
#
# It takes nothing away (a postfix would replace another mail server), and starts nothing: the tests run postfix, nginx,
# haproxy and others with files of their own, and ports 25 and 80 stay as they were. For the tests it has an Exim unpacked, not
# installed (exim.sh).
set -eu
here=$(dirname "$0")
services="postfix nginx haproxy hitch stunnel4 redis-server redis-sentinel"
policy=/usr/sbin/policy-rc.d # its exit code 101 forbids package scripts to start services

say() {
    echo "weir: $*"
}

missing() {
    "$here/packages.sh" "$@" | while IFS= read -r name; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || printf ' %s' "$name"
    done
}

# sudo clears the environment, so what apt must know is said behind it.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

install() {
    as_root apt-get install -y -q --no-install-recommends --no-remove "$@"
}

update() {
    as_root apt-get update -q
}

exim() {
    case " ${*:-test} " in
    *" test "*) "$here/exim.sh" ;;
    esac
}

clean_up() {
    rm -f "$log"
    [ -z "$forbidden" ] || as_root rm -f "$policy"
}

command -v apt-get >/dev/null || {
    say "this is no Debian; it may lack some of: $("$here/packages.sh" "$@" 2>/dev/null | tr '\n' ' ')"
    exit 0
}
need=$(missing "$@")
[ -n "$need" ] || {
    exim "$@"
    exit 0
}
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    say "packages are missing. There is no sudo here; as root:"
    echo "    apt-get update && apt-get install --no-install-recommends$need"
    exit 1
fi

log=$(mktemp)
forbidden=
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
# A fresh machine has no package index yet, and alternatives can't be told apart without one.
if ! apt-cache show libev-dev >/dev/null 2>&1; then
    say "fetching the package index"
    update >"$log" 2>&1 || { cat "$log"; exit 1; }
    need=$(missing "$@")
fi
fresh=
for service in $services; do
    case "$need " in
    *" $service "*) fresh="$fresh $service" ;;
    esac
done
if [ -n "$fresh" ] && [ ! -e "$policy" ]; then
    forbidden=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi
say "installing$need (this may take some minutes)"
# shellcheck disable=SC2086
install $need >"$log" 2>&1 || { update && install $need; } >"$log" 2>&1 || {
    cat "$log"
    say "not all of these could be installed:$need"
    exit 1
}
if [ -n "$fresh" ]; then
    # shellcheck disable=SC2086
    ! command -v systemctl >/dev/null || as_root systemctl --quiet disable $fresh >/dev/null 2>&1 || true
    say "not started, and not to be started at boot:$fresh"
fi
exim "$@"
