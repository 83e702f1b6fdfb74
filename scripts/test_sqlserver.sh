#!/usr/bin/env bash
# Runs the tests of the SQL Server destination against a SQL Server in a container (docker-compose.yml), or against another one:
#
#   scripts/test_sqlserver.sh [FILTER…]
#   PG2ANY_TEST_SQLSERVER_URL='sqlserver://user:password@host:1433?trustServerCertificate=true' scripts/test_sqlserver.sh [FILTER…]
#
# The user must be one who may make databases; each test makes its own, and drops it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_build_tools
need_postgres_18
if [ -z "${PG2ANY_TEST_SQLSERVER_URL:-}" ]; then
    command -v docker >/dev/null || fail "Install Docker with its compose plugin, or set PG2ANY_TEST_SQLSERVER_URL."
    say "SQL Server"
    docker compose --profile sqlserver up --detach --wait sqlserver
    trap 'docker compose --profile sqlserver rm --force --stop sqlserver' EXIT
    export PG2ANY_TEST_SQLSERVER_URL='sqlserver://sa:Pg2any-playground-1@127.0.0.1:14333?trustServerCertificate=true'
fi
say "tests"
[ $# -gt 0 ] || set -- sqlserver:: conformance::the_contract_is_kept_by_sql_server
cargo test --locked --features sqlite,failpoints,fuzzing --test it -- "$@"
