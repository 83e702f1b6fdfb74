# The second half of quickstart.sh with --dest kafka: sourced there, with a source that runs. A throwaway broker, some changes, their
# events, and the topic folded into a table again.

topic=shop.public.orders
libraries=$(realpath "$PG2ANY_TEST_KAFKA_LIBS")

java_at_broker() { (cd "$work/broker" && exec java -Xmx512m -cp "$libraries/*" "$@"); }

say "a throwaway Apache Kafka"
mkdir "$work/broker"
for _ in 1 2 3 4 5; do
    kafka_port=$((20000 + RANDOM % 12000))
    if (exec 3<>"/dev/tcp/127.0.0.1/$kafka_port") 2>/dev/null; then continue; fi
    cat >"$work/broker/server.properties" <<CONFIG
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((kafka_port + 1))
listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$((kafka_port + 1))
controller.listener.names=CONTROLLER
log.dirs=$work/broker/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
CONFIG
    rm -rf "$work/broker/data"
    java_at_broker kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAA -c server.properties >"$work/format.log" 2>&1
    (cd "$work/broker" && detached java -Xmx512m -cp "$libraries/*" kafka.Kafka server.properties) </dev/null >>"$work/broker.log" 2>&1 &
    broker_pid=$!
    for _ in $(seq 1 300); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$kafka_port") 2>/dev/null; then break 2; fi
        kill -0 "$broker_pid" 2>/dev/null || break
        sleep 0.1
    done
    broker_pid=
done
[ -n "$broker_pid" ] || fail "Kafka did not start."
echo "listens on 127.0.0.1:$kafka_port"

# Keys and values of the orders' topic, a line each, from the broker's own file.
events() {
    java_at_broker kafka.tools.DumpLogSegments --print-data-log --files "$work/broker/data/$topic-0/00000000000000000000.log" 2>/dev/null |
        sed -n 's/^| offset: .* key: \(.*\) payload: \(.*\)$/\1 \2/p; s/^| offset: .* key: \({[^ ]*}\)$/\1 null/p'
}

# Waits until the topic has a record with this in it.
arrives() {
    local deadline=$((SECONDS + 60))
    while [ "$SECONDS" -lt "$deadline" ]; do
        if grep -qs -- "$1" "$work/broker/data/$topic-0/"*.log; then return; fi
        kill -0 "$pg2any_pid" 2>/dev/null || fail "pg2any has ended."
        sleep 0.1
    done
    fail "Topic $topic has nothing like $1."
}

say "pg2any run"
# Without compression the broker's file can be read with the naked eye.
export CDC_DEST_URI="kafka://127.0.0.1:$kafka_port/shop?compression.type=none" PG2ANY_KAFKA_DECIMAL_HANDLING=string
follow
echo "follows slot cdc_slot into the topics shop.public.*"

say "insert, update, delete, and a step that is taken back"
sql <<'SQL'
INSERT INTO orders (id, customer, total, note) VALUES (1, 'Ada', 12.50, 'first'), (2, 'Grace', 99.90, NULL), (3, 'Edsger', 7.00, 'to be cancelled');
UPDATE orders SET total = 13.75, note = 'raised' WHERE id = 1;
DELETE FROM orders WHERE id = 3;
BEGIN;
INSERT INTO orders (id, customer, total) VALUES (10, 'Barbara', 1.00);
SAVEPOINT doubt;
INSERT INTO orders (id, customer, total) VALUES (11, 'nobody', 666);
ROLLBACK TO SAVEPOINT doubt;
UPDATE orders SET id = 12 WHERE id = 10;
COMMIT;
SQL
arrives '"id":12,'
events | cut -c -300

say "one transaction with 100,000 rows"
sql -c "INSERT INTO orders (id, customer, total, note) SELECT n, 'customer ' || n % 997, n / 7.0, repeat('x', n % 40) FROM generate_series(1000, 100999) n"
arrives '"id":100999,'

say "pg2any inspect"
"$pg2any" inspect

say "source and topic, row by row"
sql -At -c "SELECT format('{\"id\":%s,\"customer\":\"%s\",\"total\":\"%s\"', id, customer, total) FROM orders" | sort >"$work/source.txt"
# The last record of each key counts; a tombstone takes the key away.
events | awk '
    { key = $1; $1 = "" }
    $2 == "null" { delete rows[key]; next }
    match($0, /"after":\{"id":[0-9]+,"customer":"[^"]*","total":"[^"]*"/) { rows[key] = substr($0, RSTART + 8, RLENGTH - 8) }
    END { for (key in rows) print rows[key] }' | sort >"$work/folded.txt"
if cmp -s "$work/source.txt" "$work/folded.txt"; then
    echo "equal: $(wc -l <"$work/source.txt") rows of orders"
else
    diff "$work/source.txt" "$work/folded.txt" | head -20 >&2 || true
    fail "Source and topic differ."
fi

if [ "$keep" = yes ]; then
    trap - EXIT INT TERM
    cat <<END

Everything goes on running. To play with it:
  $pg/psql -h 127.0.0.1 -p $port -U postgres shop
  a consumer of 127.0.0.1:$kafka_port with isolation.level=read_committed, topics shop.public.orders and shop.public.stock
  $pg2any inspect --data-dir $work/spool
  tail -f $work/pg2any.log
To end it:
  kill $pg2any_pid $broker_pid; kill -INT $server_pid; sleep 2; rm -rf $work
END
    exit 0
fi

finish
exit 0
