#!/usr/bin/env bash
# Builds Kryoptic, a software token that speaks PKCS#11 3.2 with ML-DSA and ML-KEM, as the tests' stand-in for an HSM
# that signs inside. From published crates only (tests/kryoptic); OpenSSL 3.6 is linked into it statically, because
# Debian 12's has no post-quantum algorithms. Takes minutes, once: the result is kept in the cache folder.
#
#   scripts/build-kryoptic.sh           build if it is not there, print the path of the module
#   scripts/build-kryoptic.sh --print   print the path; status 1 if it was not built
#
# Needs what install-deps.sh --test installs (libclang-dev, libsqlite3-dev, make, perl).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=$(sed -n 's/^kryoptic = { version = "=\([0-9.]*\)".*/\1/p' "$root/tests/kryoptic/Cargo.toml")
cache=${ZIXT_KRYOPTIC_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/zixt/kryoptic-$version}
module=$cache/libkryoptic_pkcs11.so

if [ -s "$module" ]; then
    printf '%s\n' "$module"
    exit 0
fi
[ "${1:-}" != --print ] || exit 1

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -s "$module" ]; then
    printf '%s\n' "$module"
    exit 0
fi
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$cache/build.log
jobs=$(nproc)

build() {
    cp -r "$root/tests/kryoptic" "$work/sources"
    (cd "$work/sources" && cargo vendor --locked "$work/vendor" >/dev/null)

    # The crate's OpenSSL is trimmed: without `no-legacy` it does not configure, and shared libraries do not link.
    cp -r "$work/vendor/openssl-src/openssl" "$work/openssl"
    cd "$work/openssl"
    chmod -R u+w .
    ./Configure "linux-$(uname -m)" no-shared no-tests no-apps no-docs no-legacy no-dtls no-ssl3
    make -j"$jobs" build_generated libcrypto.a

    # The published manifest turns ossl's default features off and with them its bindings.
    cp -r "$work/vendor/kryoptic" "$work/kryoptic"
    cd "$work/kryoptic"
    rm -f .cargo-checksum.json
    sed -i -e '/^\[dependencies.ossl\]$/,/^$/ s/^default-features = false$/&\nfeatures = ["ossl-sys"]/' \
        -e 's|^default = \["kryoptic-lib/default"\]$|default = []|' Cargo.toml
    printf '\n[workspace]\n' >>Cargo.toml
    KRYOPTIC_OPENSSL_SOURCES=$work/openssl CARGO_TARGET_DIR=$work/target \
        cargo build --locked --release --lib --no-default-features --features standard,pqc
    cp "$work/target/release/libkryoptic_pkcs11.so" "$module.new"
}

# Not as a condition of `if`, where bash would go on after a step that failed.
set +e
(
    set -e
    build
) >"$log" 2>&1
status=$?
set -e
if [ "$status" != 0 ]; then
    echo "build-kryoptic: it could not be built; the log is $log and closes with:" >&2
    tail -n 15 "$log" >&2
    exit 1
fi
mv "$module.new" "$module"
printf '%s\n' "$module"
