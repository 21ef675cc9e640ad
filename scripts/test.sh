#!/usr/bin/env bash
# Everything CI checks, in the order of what fails fastest. Started by `make test` and `make test-full`, with the
# toolchain already chosen. Prints one line for each test program, every failure in full, and a summary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log="${CARGO_TARGET_DIR:?is set by scripts/with-rust.sh}/zixt-test.log"
mkdir -p "$CARGO_TARGET_DIR"
started=$SECONDS

step() {
    printf '\n== %s (at %d s)\n' "$1" "$((SECONDS - started))"
}

step "formatting"
cargo fmt --all --check

step "clippy, warnings are errors"
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

# Programs and tests in one build, so that they share their dependencies' features: building the programs alone
# would resolve other features and compile a part of the graph twice.
step "build"
cargo build --workspace --bins --lib --tests --locked --quiet

# The token that signs inside takes minutes once, and is kept outside of the clone. Without it the tests that need it
# say so, and are compared with the list below.
step "test token Kryoptic"
scripts/build-kryoptic.sh || echo "the tests that need Kryoptic will not run"

# The identity providers of other people that zixt-sso is tested against: kept outside of the clone. The tests that talk
# to them fail without.
step "test peers"
scripts/install-peers.sh

step "tests${ZIXT_TEST_FULL:+ (full)}"
status=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" | awk -f scripts/test-output.awk || status=$?

# A test that does not run counts as a failure, unless tests/SKIPPED.md names it with a reason. The tidy test reads
# the sources for that; this reads what was printed, for a test that skips itself while it runs.
while IFS= read -r line; do
    name=${line#*ZIXT-SKIP: }
    name=${name%%:*}
    if ! grep -qF "::$name\` |" tests/SKIPPED.md; then
        echo "not on the list of tests/SKIPPED.md: $line"
        status=1
    fi
done < <(grep -F 'ZIXT-SKIP: ' "$log" || true)

awk -v seconds="$((SECONDS - started))" '
    /^test result: / { passed += $4; failed += $6; ignored += $8 }
    END { printf "\n== summary: %d passed, %d failed, %d ignored, %d s\n", passed, failed, ignored, seconds
          if (passed == 0 || failed > 0) exit 1 }' "$log" || status=1

if [ "$status" != 0 ]; then
    echo "FAILED; the whole output is in $log"
    exit 1
fi
echo "passed"
