#!/usr/bin/env bash
# Shows pg2any at work on real changes: a throwaway PostgreSQL, some traffic, a SQLite file that follows it.
#
#   ./scripts/quickstart.sh                runs, shows, cleans up, exits 0 when source and replica are equal
#   ./scripts/quickstart.sh --keep         leaves everything running and says how to play with it
#   ./scripts/quickstart.sh --dest kafka   the same into a throwaway Apache Kafka (needs Java 17)
#
#   PG2ANY_BIN=path   use this binary instead of building one
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

keep=no
dest=sqlite
while [ $# -gt 0 ]; do
    case "$1" in
        --keep) keep=yes ;;
        --dest) dest=${2:-}; shift ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "Unknown argument $1; there are --keep and --dest." ;;
    esac
    shift
done
case "$dest" in sqlite | kafka) ;; *) fail "There are --dest sqlite and --dest kafka, not $dest." ;; esac

# Settings of another set-up must not leak in here.
for name in $(compgen -e | grep -E '^(CDC_|PG2ANY_)' | grep -v '^PG2ANY_BIN$'); do unset "$name"; done

# --- what is needed -----------------------------------------------------------------------------------------------

find_postgres() {
    local directory
    for directory in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) "$(dirname "$(command -v postgres || echo /none/x)")"; do
        if [ -x "$directory/postgres" ] && [ -x "$directory/psql" ] && [ -x "$directory/initdb" ]; then
            printf '%s' "$directory"
            return
        fi
    done
}

say "what is needed"
pg=$(find_postgres)
if [ -z "$pg" ]; then
    install_packages postgresql || fail "Missing: PostgreSQL 14 or newer (Debian: postgresql). Install it, then run this again."
    pg=$(find_postgres)
    [ -n "$pg" ] || fail "PostgreSQL's programs (postgres, initdb, psql) are nowhere to be found."
fi
if [ "$dest" = kafka ]; then PG2ANY_TEST_REQUIRE=all need_kafka; else need_sqlite3; fi
if [ -n "${PG2ANY_BIN:-}" ]; then
    pg2any=$(realpath "$PG2ANY_BIN")
    unset PG2ANY_BIN
else
    need_build_tools
    cargo build --locked --release --bin pg2any $([ "$dest" = sqlite ] || echo --features "$dest")
    pg2any=${CARGO_TARGET_DIR:-target}/release/pg2any
fi
"$pg/postgres" --version
"$pg2any" --version

# --- a place of its own, and its end ------------------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/pg2any-quickstart.XXXXXX")
chmod 755 "$work"
server_pid=
broker_pid=
pg2any_pid=

cleanup() {
    local code=$?
    trap - EXIT INT TERM
    if [ -n "$pg2any_pid" ] && kill -TERM "$pg2any_pid" 2>/dev/null; then wait "$pg2any_pid" || true; fi
    if [ -n "$broker_pid" ] && kill -TERM "$broker_pid" 2>/dev/null; then wait "$broker_pid" || true; fi
    if [ -n "$server_pid" ] && kill -INT "$server_pid" 2>/dev/null; then wait "$server_pid" || true; fi
    if [ "$code" != 0 ]; then
        printf '\nSomething went wrong. The last lines of the logs:\n' >&2
        tail -n 15 "$work"/*.log >&2 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# PostgreSQL refuses to run as root.
as_server=()
if [ "$(id -u)" = 0 ]; then
    account=nobody
    if id postgres >/dev/null 2>&1; then account=postgres; fi
    as_server=(setpriv "--reuid=$account" "--regid=$(id -g "$account")" --clear-groups --)
    install -d -m 700 -o "$account" "$work/source"
else
    install -d -m 700 "$work/source"
fi

# A command that outlives this script when it is to be kept.
detached() {
    if [ "$keep" = yes ]; then exec setsid "$@"; else exec "$@"; fi
}

sql() { "$pg/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres -d shop "$@"; }
replica() { sqlite3 -cmd '.timeout 5000' "$work/replica.db" "$@"; }

# Waits until the replica answers a query with this.
arrives() {
    local query=$1 wanted=$2 deadline=$((SECONDS + 60)) got=
    while [ "$SECONDS" -lt "$deadline" ]; do
        if [ -e "$work/replica.db" ]; then
            got=$(replica "$query" 2>/dev/null || true)
            if [ "$got" = "$wanted" ]; then return; fi
        fi
        kill -0 "$pg2any_pid" 2>/dev/null || fail "pg2any has ended."
        sleep 0.1
    done
    fail "The replica says '$got' to: $query; expected was '$wanted'."
}

# Runs pg2any from here on.
follow() {
    export CDC_SOURCE_CONNECTION_STRING="postgresql://postgres@127.0.0.1:$port/shop" PG2ANY_DATA_DIR="$work/spool"
    (detached "$pg2any" run) </dev/null >>"$work/pg2any.log" 2>&1 &
    pg2any_pid=$!
    # Changes from before the slot existed are not its business, so wait for it.
    for _ in $(seq 1 300); do
        if [ "$(sql -At -c "SELECT count(*) FROM pg_replication_slots WHERE active")" = 1 ]; then break; fi
        kill -0 "$pg2any_pid" 2>/dev/null || fail "pg2any has ended."
        sleep 0.1
    done
}

# Ends it.
finish() {
    local code=0
    say "the end"
    kill -TERM "$pg2any_pid"
    wait "$pg2any_pid" || code=$?
    pg2any_pid=
    [ "$code" = 0 ] || fail "pg2any ended with exit code $code."
    echo "pg2any ended in good order; everything is removed"
}

# --- the source ---------------------------------------------------------------------------------------------------

say "a throwaway PostgreSQL"
# It must not see where this script was started: another user may not look there.
(cd "$work" && ${as_server[@]+"${as_server[@]}"} "$pg/initdb" -D "$work/source" -U postgres -A trust -E UTF8 --no-locale >"$work/initdb.log" 2>&1)
for _ in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 12000))
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue; fi
    (cd "$work" && detached ${as_server[@]+"${as_server[@]}"} "$pg/postgres" -D "$work/source" -c port="$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c wal_level=logical -c logical_decoding_work_mem=64kB) </dev/null >>"$work/postgres.log" 2>&1 &
    server_pid=$!
    for _ in $(seq 1 200); do
        if "$pg/psql" -X -q -h 127.0.0.1 -p "$port" -U postgres -d postgres -c 'SELECT' >/dev/null 2>&1; then break 2; fi
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    server_pid=
done
[ -n "$server_pid" ] || fail "PostgreSQL did not start."
"$pg/psql" -X -q -h 127.0.0.1 -p "$port" -U postgres -d postgres -c 'CREATE DATABASE shop'
sql <<'SQL'
CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, total numeric(12,2), note text, placed timestamptz DEFAULT now());
CREATE TABLE stock (warehouse int, article text, pieces int, PRIMARY KEY (warehouse, article));
CREATE PUBLICATION cdc_pub FOR TABLE orders, stock;
SQL
echo "listens on 127.0.0.1:$port, has a database, two tables and a publication"

if [ "$dest" = kafka ]; then . scripts/quickstart_kafka.sh; fi

# --- pg2any -------------------------------------------------------------------------------------------------------

say "pg2any run"
export CDC_DEST_TYPE=SQLite CDC_DEST_URI="$work/replica.db"
follow
echo "follows slot cdc_slot into $work/replica.db"

say "insert, update, delete"
sql <<'SQL'
INSERT INTO orders (id, customer, total, note) VALUES (1, 'Ada', 12.50, 'first'), (2, 'Grace', 99.90, NULL), (3, 'Edsger', 7.00, 'to be cancelled');
UPDATE orders SET total = 13.75, note = 'raised' WHERE id = 1;
DELETE FROM orders WHERE id = 3;
INSERT INTO stock VALUES (1, 'bolt', 100), (1, 'nut', 250), (2, 'bolt', 0);
SQL
arrives "SELECT count(*) FROM stock" 3
arrives "SELECT group_concat(id || ' ' || customer, ', ') FROM (SELECT * FROM orders ORDER BY id)" "1 Ada, 2 Grace"
replica -header -column "SELECT id, customer, total, note FROM orders ORDER BY id" "SELECT * FROM stock ORDER BY 1, 2"

say "a transaction that takes one of its steps back"
sql <<'SQL'
BEGIN;
INSERT INTO orders (id, customer, total) VALUES (10, 'Barbara', 1.00);
SAVEPOINT doubt;
INSERT INTO orders (id, customer, total) VALUES (11, 'nobody', 666);
UPDATE stock SET pieces = -1;
ROLLBACK TO SAVEPOINT doubt;
INSERT INTO orders (id, customer, total) VALUES (12, 'Donald', 3.14);
COMMIT;
SQL
arrives "SELECT count(*) FROM orders WHERE id = 12" 1
replica -header -column "SELECT id, customer, total FROM orders WHERE id BETWEEN 10 AND 19 ORDER BY id"
[ "$(replica "SELECT count(*) FROM orders WHERE id = 11")" = 0 ] || fail "What was rolled back has arrived."
echo "order 11 was rolled back and is nowhere"

say "one transaction with 100,000 rows"
sql -c "INSERT INTO orders (id, customer, total, note) SELECT n, 'customer ' || n % 997, n / 7.0, repeat('x', n % 40) FROM generate_series(1000, 100999) n"
arrives "SELECT count(*) FROM orders WHERE id >= 1000" 100000
replica -header -column "SELECT count(*) AS rows, min(id), max(id) FROM orders WHERE id >= 1000"

say "pg2any inspect"
"$pg2any" inspect
"$pg2any" inspect transactions

say "source and replica, row by row"
# SQLite keeps numeric(12,2) as a number, and prints no trailing zeros unless it is asked to.
sql -At -c "SELECT id, customer, total, coalesce(note, '-') FROM orders ORDER BY id" >"$work/source.txt"
replica "SELECT id, customer, printf('%.2f', total), coalesce(note, '-') FROM orders ORDER BY id" >"$work/replica.txt"
if cmp -s "$work/source.txt" "$work/replica.txt"; then
    echo "equal: $(wc -l <"$work/source.txt") rows of orders"
else
    diff "$work/source.txt" "$work/replica.txt" | head -20 >&2 || true
    fail "Source and replica differ."
fi

# --- the end ------------------------------------------------------------------------------------------------------

if [ "$keep" = yes ]; then
    trap - EXIT INT TERM
    cat <<END

Everything goes on running. To play with it:
  $pg/psql -h 127.0.0.1 -p $port -U postgres shop
  sqlite3 $work/replica.db
  $pg2any inspect --data-dir $work/spool
  tail -f $work/pg2any.log
To end it:
  kill $pg2any_pid; kill -INT $server_pid; sleep 2; rm -rf $work
END
    exit 0
fi

finish
