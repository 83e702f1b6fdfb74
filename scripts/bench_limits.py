"""What must not grow: memory, the time to recover, and the cost of a row, with backlog, open transactions and tables."""

import argparse
import os
import sqlite3
import subprocess
import sys
import time

from bench import BIN, ROOT, TARGET, Psql, Sampler, Server, clean_up, started

COLUMNS = "id bigint primary key, a text, b text, at timestamptz, n int, d float8, flag boolean"
VALUES = "repeat(md5(g::text), 2), repeat(md5((g + 1)::text), 2), now(), g::int, g * 1.1, g % 2 = 0"


class Pipeline:
    """A database with a publication and a slot, and pg2any on it."""

    def __init__(self, source, name):
        self.source, self.name, self.directory = source, name, ROOT / f"pipeline_{name}"
        self.directory.mkdir()
        subprocess.run([BIN / "createdb", name], env=source.environment(), check=True)
        self.sql = Psql(source, name)
        self.sql("create table marker (id int primary key); create publication bench for all tables")
        self.target = self.directory / "target.db"
        self.environment = {**os.environ, "CDC_SOURCE_CONNECTION_STRING": source.url(name, True), "CDC_DEST_TYPE": "SQLite",
                            "CDC_DEST_URI": str(self.target), "CDC_REPLICATION_SLOT": name, "CDC_PUBLICATION": "bench",
                            "PG2ANY_DATA_DIR": str(self.directory / "data"), "RUST_LOG": "warn"}

    def slot(self):
        """Everything from here on is replicated. One run with nothing to do makes the three known to each other."""
        self.sql(f"select pg_create_logical_replication_slot('{self.name}', 'pgoutput')")
        self.ended(self.start("--until-caught-up"))

    def mark(self):
        self.sql("insert into marker values (1)")
        self.sql("checkpoint")
        self.until = self.sql("select pg_current_wal_flush_lsn()")

    def start(self, *more):
        log = open(self.directory / "log", "a")
        process = subprocess.Popen([TARGET / "pg2any", "run", *more], env=self.environment, stdout=log, stderr=log)
        started.append(process)
        return process

    def ended(self, process):
        if process.wait():
            sys.exit(f"pg2any failed ({process.returncode}); its log:\n{(self.directory / 'log').read_text()[-3000:]}")

    def drain(self):
        """Wall, CPU and peak memory of one run to the end."""
        begin = time.monotonic()
        process = self.start("--until-lsn", self.until)
        sampler = Sampler(lambda: [process.pid])
        self.ended(process)
        wall = time.monotonic() - begin
        return wall, sampler.finish(), sampler.peak

    def receive_only(self):
        """Fills the spool while the destination is locked, and kills the process: wall, CPU, peak memory, bytes on the disk."""
        lock = sqlite3.connect(self.target, isolation_level=None)
        lock.execute("pragma journal_mode = wal")
        lock.execute("begin immediate")
        begin = time.monotonic()
        process = self.start()
        sampler = Sampler(lambda: [process.pid])
        while self.sql(f"select coalesce(confirmed_flush_lsn >= '{self.until}', false) from pg_replication_slots "
                       f"where slot_name = '{self.name}'") != "t":
            if process.poll() is not None:
                self.ended(process)
            time.sleep(0.1)
        wall, cpu = time.monotonic() - begin, sampler.finish()
        process.kill()
        process.wait()
        lock.execute("rollback")
        lock.close()
        held = sum(file.stat().st_blocks * 512 for file in (self.directory / "data").rglob("*") if file.is_file())
        return wall, cpu, sampler.peak, held

    def recover(self, table, rows):
        """Starts on the full spool: seconds to the first row at the destination, and those of each fifth of the rows."""
        begin = time.monotonic()
        process = self.start("--until-lsn", self.until)
        sampler = Sampler(lambda: [process.pid])
        fifths, first = [], None
        reader = sqlite3.connect(f"file:{self.target}?mode=ro", uri=True, timeout=30)
        running = True
        while running:
            running = process.poll() is None
            try:
                seen = reader.execute(f"select max(id) from {table}").fetchone()[0] or 0
            except sqlite3.OperationalError:
                seen = 0
            now = time.monotonic() - begin
            if seen and first is None:
                first = now
            while len(fifths) < 5 and seen >= rows * (len(fifths) + 1) // 5:
                fifths.append(now)
            time.sleep(0.01 if first is None else 0.05)
        self.ended(process)
        cpu = sampler.finish()
        times = [fifths[0], *(b - a for a, b in zip(fifths, fifths[1:]))] if fifths else []
        return first, times, cpu, sampler.peak

    def raw_bytes(self, slot):
        """The bytes of the frames, as a client sees them that throws them away."""
        out = subprocess.run([TARGET / "receive", self.source.url(self.name, True), slot, "bench", "off", self.until],
                             capture_output=True, text=True, check=True)
        return int((out.stdout + out.stderr).split()[0])


def backlog(source, quick):
    """Many rows behind a destination that is away, kill -9, and what comes after."""
    rows, each = (50_000, 1_000) if quick else (25_000_000, 10_000)
    pipeline = Pipeline(source, "backlog")
    pipeline.sql(f"create table t ({COLUMNS})")
    pipeline.slot()
    pipeline.sql("select pg_copy_logical_replication_slot('backlog', 'raw')")
    pipeline.sql(f"do $$ begin for i in 0..{rows // each - 1} loop insert into t select g, {VALUES} "
                 f"from generate_series(i * {each} + 1, (i + 1) * {each}) g; commit; end loop; end $$")
    pipeline.mark()
    raw = pipeline.raw_bytes("raw")
    wall, cpu, rss, held = pipeline.receive_only()
    say(f"backlog: {rows:,} rows in transactions of {each:,}, {raw / 2**30:.2f} GB of frames")
    say(f"  receiving into the spool: {wall:.1f} s, {cpu / rows * 1e6:.2f} µs CPU a row, RSS {rss:.0f} MB, "
        f"{held / 2**30:.2f} GB on the disk = {held / raw:.2f} × the frames")
    first, fifths, cpu, rss = pipeline.recover("t", rows)
    say(f"  after kill -9: first row after {first:.2f} s; each fifth of the rows {', '.join(f'{t:.1f}' for t in fifths)} s, "
        f"{cpu / rows * 1e6:.2f} µs CPU a row, RSS {rss:.0f} MB")


def small(source, quick):
    """Millions of small transactions, kill -9."""
    transactions = 20_000 if quick else 2_000_000
    pipeline = Pipeline(source, "small")
    pipeline.sql("create table t (id bigserial primary key, note text)")
    pipeline.slot()
    script = pipeline.directory / "insert.sql"
    script.write_text("insert into t (note) values ('a note of a few words');\n")
    subprocess.run([BIN / "pgbench", "-n", "-c", "16", "-t", str(transactions // 16), "-M", "prepared", "-f", script, "small"], check=True,
                   env=source.environment(PGOPTIONS="-c synchronous_commit=off"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pipeline.mark()
    wall, cpu, rss, held = pipeline.receive_only()
    say(f"small: {transactions:,} transactions of one row")
    say(f"  receiving into the spool: {wall:.1f} s, {cpu / transactions * 1e6:.2f} µs CPU each, RSS {rss:.0f} MB, {held / 2**20:.0f} MB on the disk")
    first, fifths, cpu, rss = pipeline.recover("t", transactions)
    say(f"  after kill -9: first row after {first:.2f} s; each fifth {', '.join(f'{t:.1f}' for t in fifths)} s, "
        f"{cpu / transactions * 1e6:.2f} µs CPU each, RSS {rss:.0f} MB")


def streams(source, quick):
    """Two hundred transactions that stream at the same time."""
    clients, statements = (20, 4) if quick else (200, 40)
    pipeline = Pipeline(source, "streams")
    pipeline.sql("alter database streams set logical_decoding_work_mem = '64kB'")
    pipeline.sql(f"create table t ({COLUMNS.replace('bigint', 'bigserial')})")
    pipeline.slot()
    script = pipeline.directory / "open.sql"
    insert = "insert into t (a, b, at, n, d, flag) select " + VALUES + " from generate_series(1, 50) g;\n"
    script.write_text("begin;\n" + insert * statements + "end;\n")
    subprocess.run([BIN / "pgbench", "-n", "-c", str(clients), "-t", "2", "-f", script, "streams"], check=True,
                   env=source.environment(PGOPTIONS="-c synchronous_commit=off"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pipeline.mark()
    wall, cpu, rss = pipeline.drain()
    rows = clients * 2 * statements * 50
    spilled = pipeline.sql("select stream_txns || ' transactions in ' || stream_count || ' pieces' from pg_stat_replication_slots where slot_name = 'streams'")
    say(f"streams: {clients} open transactions at a time, {rows:,} rows; PostgreSQL streamed {spilled}")
    say(f"  {wall:.1f} s, {cpu / rows * 1e6:.2f} µs CPU a row, RSS {rss:.0f} MB")


def tables(source, quick):
    """The same rows in one table, in a thousand and in ten thousand."""
    rows = 50_000 if quick else 1_000_000
    for count in (1, 50) if quick else (1, 1_000, 10_000):
        pipeline = Pipeline(source, f"tables_{count}")
        for n in range(count):
            pipeline.sql(f"create table t{n} ({COLUMNS})")
        pipeline.slot()
        for part in range(10):
            inserts = "; ".join(f"insert into t{n} select g, {VALUES} from generate_series({part * rows // count // 10 + 1}, "
                                f"{(part + 1) * rows // count // 10}) g" for n in range(count))
            pipeline.sql(f"begin; {inserts}; commit")
        pipeline.mark()
        wall, cpu, rss = pipeline.drain()
        say(f"tables: {rows:,} rows in {count} table(s), ten transactions: {wall:.1f} s, {cpu / rows * 1e6:.2f} µs CPU a row, RSS {rss:.0f} MB")


def savepoints(source, quick):
    """One streamed transaction with a savepoint around each row, of which every second is rolled back."""
    count = 20_000 if quick else 1_000_000
    pipeline = Pipeline(source, "savepoints")
    pipeline.sql("alter database savepoints set logical_decoding_work_mem = '64kB'")
    pipeline.sql("create table t (id bigint primary key, note text)")
    pipeline.slot()
    begin = time.monotonic()
    pipeline.sql(f"do $$ begin for i in 1..{count} loop begin insert into t values (i, 'a note of a few words'); "
                 "if i % 2 = 0 then raise exception 'no'; end if; exception when raise_exception then null; end; end loop; end $$")
    made = time.monotonic() - begin
    pipeline.mark()
    wall, cpu, rss = pipeline.drain()
    say(f"savepoints: {count:,} in one transaction, every second rolled back (PostgreSQL took {made:.1f} s to execute them)")
    say(f"  {wall:.1f} s, {cpu / count * 1e6:.2f} µs CPU each, RSS {rss:.0f} MB")
    arrived = sqlite3.connect(pipeline.target).execute("select count(*), sum(id % 2) from t").fetchone()
    if arrived != (count // 2, count // 2):
        sys.exit(f"savepoints: rows and odd rows at the destination are {arrived}")


def say(line):
    print(line, flush=True)


def main():
    scenarios = {"small": small, "streams": streams, "tables": tables, "savepoints": savepoints, "backlog": backlog}
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(scenarios))
    arguments = parser.parse_args()
    try:
        source = Server("source", max_connections=230, wal_sender_timeout="10min")
        for name in arguments.only.split(","):
            scenarios[name](source, arguments.quick)
    finally:
        clean_up()


if __name__ == "__main__":
    main()
