#!/usr/bin/env bash
# Runs a command with a Rust toolchain that is recent enough, and with the project's build folder.
#
#   scripts/with-rust.sh cargo build      run a command
#   scripts/with-rust.sh --print          print the folder of the toolchain, or fail
#
# A machine can have several toolchains (an old one of the distribution, one of rustup, one of Debian's
# security archive). The first that is at least `rust-version` of Cargo.toml and has both cargo and rustc wins.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
needed=$(sed -n 's/^rust-version = "\([0-9.]*\)"$/\1/p' "$root/Cargo.toml")

at_least() { # at_least HAVE NEEDED
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

toolchain() {
    local dir cargo_version rustc_version seen=:
    local -a folders
    IFS=: read -r -a folders <<<"${PATH}:${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin:/usr/local/bin:/usr/bin"
    for dir in "${folders[@]}"; do
        case $seen in *":$dir:"*) continue ;; esac
        seen+="$dir:"
        if [ ! -x "$dir/cargo" ] || [ ! -x "$dir/rustc" ]; then continue; fi
        # From the root of the file system, so that a toolchain file of some folder cannot change the answer.
        cargo_version=$(cd / && "$dir/cargo" --version 2>/dev/null | cut -d ' ' -f 2) || continue
        rustc_version=$(cd / && "$dir/rustc" --version 2>/dev/null | cut -d ' ' -f 2) || continue
        if at_least "$cargo_version" "$needed" && at_least "$rustc_version" "$needed"; then
            printf '%s\n' "$dir"
            return 0
        fi
    done
    return 1
}

if ! dir=$(toolchain); then
    echo "with-rust: no cargo and rustc of version $needed or newer; run scripts/install-deps.sh" >&2
    exit 1
fi
if [ "${1:-}" = --print ]; then
    printf '%s\n' "$dir"
    exit 0
fi
[ $# -gt 0 ] || { echo "usage: scripts/with-rust.sh COMMAND [ARGUMENT...]" >&2; exit 2; }

# One build folder for all clones of a user: a fresh clone starts with a warm cache.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/zixt/target}"
export PATH="$dir:$PATH"
exec "$@"
