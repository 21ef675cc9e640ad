#!/usr/bin/env bash
# Installs what tests talk to and Debian does not have, into a cache folder outside of the clone: oidc-provider (npm) and
# pysaml2 (PyPI), the identity providers of the tests of zixt-sso, and schemathesis (PyPI), which calls the API as
# openapi.json says; each with everything it needs, by lock files with hashes. Does nothing,
# quickly, when they are there; a changed lock file makes a new folder.
#
#   scripts/install-peers.sh                 install what is missing
#   scripts/install-peers.sh --print oidc    print the folder of a peer; status 1 if it was not installed
#   scripts/install-peers.sh --print saml
#   scripts/install-peers.sh --print schemathesis
#
# Needs what install-deps.sh --test installs (nodejs, npm, python3-venv).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sources=$root/appliance/sso/tests/peers
cache=${ZIXT_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/zixt}/peers

# The folder is named by what is locked, so that an older one is never taken for it.
folder() {
    local lock
    case $1 in
    oidc) lock=$sources/oidc/package-lock.json ;;
    saml) lock=$sources/saml/requirements.txt ;;
    schemathesis) lock=$root/tests/peers/schemathesis/requirements.txt ;;
    *)
        echo "install-peers: there is no peer '$1'; oidc, saml and schemathesis are" >&2
        exit 2
        ;;
    esac
    printf '%s/%s-%s' "$cache" "$1" "$(sha256sum "$lock" | cut -c1-16)"
}

if [ "${1:-}" = --print ]; then
    there=$(folder "${2:-}")
    [ -e "$there/done" ] || exit 1
    printf '%s\n' "$there"
    exit 0
fi
[ $# = 0 ] || {
    echo "install-peers: unknown option '$1'; only --print is known" >&2
    exit 2
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

# Python's packages hold the path that they were installed at, so nothing is moved: what is half done has no `done`.
fresh() {
    rm -rf "$1"
    mkdir -p "$1"
    echo "install-peers: installing $1"
}

oidc=$(folder oidc)
if [ ! -e "$oidc/done" ]; then
    fresh "$oidc"
    cp "$sources/oidc/package.json" "$sources/oidc/package-lock.json" "$oidc/"
    # No package's own scripts are run.
    (cd "$oidc" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    touch "$oidc/done"
fi

# name, requirements
python_peer() {
    local there
    there=$(folder "$1")
    [ ! -e "$there/done" ] || return 0
    fresh "$there"
    python3 -m venv "$there/venv"
    "$there/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        --requirement "$2"
    touch "$there/done"
}

python_peer saml "$sources/saml/requirements.txt"
python_peer schemathesis "$root/tests/peers/schemathesis/requirements.txt"
