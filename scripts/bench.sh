#!/usr/bin/env bash
# End-to-end benchmark on this machine: pg2any against a client that only receives, PostgreSQL's own subscription and the
# ancestor crate, in one run, alternating. `--quick` checks that it works, with sizes that say nothing about speed.
#   scripts/bench.sh [--quick] [--rounds N] [--only w1,w2,w3,w4,w5] [--no-ancestor] [--output DIR]
#   scripts/bench.sh --against BINARY --no-ancestor --only w1,w2,w3    another build of pg2any takes turns with this one
#   scripts/bench.sh --dest kafka [--quick] [--rounds N] [--only w1,w2,w3,w4]    into a broker of its own, against the native subscription
#   scripts/bench.sh --dest mysql [--quick] [--rounds N] [--only w1,w2,w3,w4] [--no-ancestor]    into a MariaDB of its own, against the native subscription
#   scripts/bench.sh --dest sqlserver [--quick] [--rounds N] [--only w1,w2,w3,w4]    into the SQL Server of PG2ANY_TEST_SQLSERVER_URL, against a plain bulk load
#   scripts/bench.sh --limits [--quick] [--only backlog,small,streams,tables]    what does not grow: memory, recovery, cost a row
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
quick=; for arg in "$@"; do [ "$arg" = --quick ] && quick=1; done
kafka=; case " $* " in *" --dest kafka "*) kafka=1; . scripts/lib.sh; need_kafka ;; esac
case " $* " in *" --dest mysql "*) . scripts/lib.sh; need_mariadb ;; esac
sqlserver=; case " $* " in *" --dest sqlserver "*) sqlserver=1; : "${PG2ANY_TEST_SQLSERVER_URL:?Set it: sqlserver://user:password@host:port?…}" ;; esac
cargo build --release --locked --bin pg2any ${kafka:+--features kafka}
cargo build --release --locked --manifest-path benches/clients/Cargo.toml ${kafka:+--features kafka} ${sqlserver:+--features sqlserver}
if [ "${1:-}" = --limits ]; then shift; exec python3 scripts/bench_limits.py "$@"; fi
case " $* " in *" --no-ancestor "* | *" --dest sqlserver "*) ;; *) [ -n "$quick$kafka" ] || cargo build --release --locked --manifest-path benches/ancestor/Cargo.toml ;; esac
exec python3 scripts/bench.py "$@"
