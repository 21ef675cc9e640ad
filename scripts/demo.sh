#!/usr/bin/env bash
# `make demo`: the story of tests/src/story.rs with the release programs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec cargo run --release --locked --quiet -p zixt-tests --bin zixt-demo
