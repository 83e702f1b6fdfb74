#!/usr/bin/env bash
# Fuzzes one target, or each of them in turn, for so many seconds (default 60): scripts/fuzz.sh [target] [seconds]
#
# Begins with the committed corpus; what it finds beyond goes into fuzz/found/ (not committed), what breaks something into
# fuzz/artifacts/. Such a file, named after what it shows, belongs into fuzz/corpus/<target>/: every test run replays it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

targets=$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)
case "${1:-}" in
    "" | all) ;;
    -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit ;;
    *) grep -qx "$1" <<<"$targets" || fail "There is no target $1. There are: $(tr '\n' ' ' <<<"$targets")"; targets=$1 ;;
esac
command -v cargo-fuzz >/dev/null || fail "cargo-fuzz is missing: cargo install cargo-fuzz"
# Coverage and the address sanitizer are switched on with flags that only a nightly compiler takes, or one that is told so.
export RUSTC_BOOTSTRAP=1
for target in $targets; do
    say "$target"
    mkdir -p "fuzz/found/$target"
    cargo fuzz run "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="${2:-60}" -timeout=20 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1
done
