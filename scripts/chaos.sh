#!/usr/bin/env bash
# Lets everything happen to a pipeline that can happen, for as long as wanted, and compares source and destination row by row:
#
#   scripts/chaos.sh DEST [--seed N] [--rounds N] [--minutes N]
#
# DEST is sqlite, mysql (MariaDB and, where its packages can be had, MySQL), mariadb (alone), sqlserver (where PG2ANY_TEST_SQLSERVER_URL names one) or
# kafka. Without --rounds and --minutes: 3 rounds, as in every run of the tests. The last line says rounds, kills and rows; a loss, a doubled row
# or a wrong order ends it with what differs. See tests/it/chaos.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

destination=${1:-}
case "$destination" in
    sqlite | mysql | mariadb | kafka) ;;
    sqlserver) [ -n "${PG2ANY_TEST_SQLSERVER_URL:-}" ] || fail "Set PG2ANY_TEST_SQLSERVER_URL (scripts/test_sqlserver.sh says how)." ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
shift
while [ $# -gt 0 ]; do
    case "$1" in
        --seed | --rounds | --minutes)
            [[ "${2:-}" =~ ^[0-9]+$ ]] || fail "$1 needs a number."
            declare -x "PG2ANY_CHAOS_$(tr a-z A-Z <<<"${1#--}")=$2"
            shift 2
            ;;
        *) fail "Unknown: $1. There are --seed N, --rounds N and --minutes N." ;;
    esac
done
export PG2ANY_TEST_REQUIRE=all
need_build_tools
need_postgres_15
features=sqlite,failpoints
filters=("chaos::${destination}_")
case "$destination" in
    kafka)
        need_kafka
        features=$features,kafka
        ;;
    mariadb) need_mariadb ;;
    sqlite)
        # Its failover rounds, whose slot is carried over to a standby.
        need_postgres_18
        trap remove_copies EXIT
        ;;
    mysql)
        need_mariadb
        need_mysql
        filters+=(chaos::mariadb_)
        ;;
esac
cargo test --locked --features "$features" --test it -- "${filters[@]}" --nocapture --test-threads=1
