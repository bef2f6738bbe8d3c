#!/bin/sh
# Install what the package list names and this machine lacks. Arguments: kinds, as for packages.sh.
set -eu
here=$(dirname "$0")
command -v apt-get >/dev/null || { echo "weir: not a Debian; install by hand: $("$here/packages.sh" "$@" | tr '\n' ' ')"; exit 0; }
missing() {
    "$here/packages.sh" "$@" | while IFS= read -r name; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$name"
    done
}
# A fresh machine has no package index yet, and alternatives can't be told apart without one.
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
if ! apt-cache show libev-dev >/dev/null 2>&1; then
    $sudo apt-get update -q
fi
need=$(missing "$@")
[ -n "$need" ] || exit 0
echo "weir: installing $need"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get install -y -q --no-install-recommends $need >/tmp/weir-packages.$$.log 2>&1 ||
    { $sudo apt-get update -q && $sudo apt-get install -y -q --no-install-recommends $need; } >/tmp/weir-packages.$$.log 2>&1 ||
    { cat /tmp/weir-packages.$$.log; echo "weir: the packages above could not be installed"; exit 1; }
rm -f /tmp/weir-packages.$$.log
