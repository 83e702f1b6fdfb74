#!/usr/bin/env bash
# The short loop: format, lints, documentation and the tests that need no server.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

say "format"
cargo fmt --all --check
say "lints"
cargo clippy --locked --all-targets --features sqlite,failpoints -- -D warnings
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --features sqlite,failpoints
say "tests without a server"
cargo test --locked --features sqlite,failpoints --lib --bins
