#!/usr/bin/env bash
# Lets a real Prometheus scrape a real run, and checks that every query of the Grafana dashboard returns data.
#   scripts/dashboard.sh [--picture FILE.png] [--seconds N]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
command -v prometheus >/dev/null || install_packages prometheus || fail "Missing: prometheus (Debian: prometheus)."
case " $* " in *" --picture "*) need_chromium ;; esac
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
cargo build --release --locked --bin pg2any
exec python3 scripts/dashboard.py "$@"
