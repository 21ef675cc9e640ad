#!/usr/bin/env bash
# The checks that need no running program. Started by `make lint`, with the toolchain already chosen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
# Licences, sources, forbidden crates and duplicates are checked here too, without cargo-deny.
cargo test --quiet --locked -p zixt-tests --test tidy

if command -v shellcheck >/dev/null; then
    git ls-files -z -- '*.sh' .ci/run | xargs -0 shellcheck
else
    echo "lint: shellcheck is not installed; scripts were not checked"
fi

if command -v cargo-deny >/dev/null; then
    cargo deny --locked --offline check bans licenses sources
    # The advisory database is fetched over the network; without one that part alone is left out, aloud.
    if ! cargo deny --locked fetch db >/dev/null 2>&1; then
        echo "lint: the advisory database cannot be reached; advisories were not checked"
    else
        cargo deny --locked check advisories
    fi
else
    echo "lint: cargo-deny is not installed; advisories were not checked, the rest is covered by the tidy test"
fi
