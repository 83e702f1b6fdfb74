#!/usr/bin/env bash
# Drives spool and applier between a scripted source and a destination in memory, eight seeds at a time:
#
#   scripts/simulate.sh [--seed N] [--seeds N]
#
# Without --seeds: 1000, from --seed (default 1) on. Spools lie in memory. A failing seed is named; --seed N --seeds 1 runs it alone.
# See src/apply/simulation.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

declare -x PG2ANY_SIMULATION_SEEDS=1000
while [ $# -gt 0 ]; do
    case "$1" in
        --seed | --seeds)
            [[ "${2:-}" =~ ^[0-9]+$ ]] || fail "$1 needs a number."
            declare -x "PG2ANY_SIMULATION_$(tr a-z A-Z <<<"${1#--}")=$2"
            shift 2
            ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit ;;
        *) fail "Unknown: $1. There are --seed N and --seeds N." ;;
    esac
done
[ -d /dev/shm ] && export TMPDIR=/dev/shm
# With the checks of a debug build; most of a seed is waiting.
exec cargo test --locked --no-default-features --lib -- simulation --nocapture
