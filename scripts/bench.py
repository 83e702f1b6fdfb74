"""The measuring part of bench.sh: two throwaway PostgreSQL servers, the workloads, the contenders, the table."""

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

BIN = Path(os.environ.get("PG2ANY_TEST_PG15_BIN", "/usr/lib/postgresql/15/bin"))
TARGET = Path(os.environ["CARGO_TARGET_DIR"]) / "release"
TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(tempfile.mkdtemp(prefix="pg2any-bench-"))
ROOT.chmod(0o755)
USER = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
started = []
# Ended by a signal it cleans up as well.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def as_user(command):
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command] if os.geteuid() == 0 else command


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A PostgreSQL server of our own, with fsync on."""

    def __init__(self, name, **more):
        self.directory = ROOT / name
        self.directory.mkdir()
        shutil.chown(self.directory, USER)
        self.port = free_port()
        command = [BIN / "initdb", "-D", self.directory / "data", "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(as_user([str(c) for c in command]), check=True, stdout=subprocess.DEVNULL)
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "wal_level": "logical",
            "max_wal_senders": 60, "max_replication_slots": 60, "max_logical_replication_workers": 20,
            "max_worker_processes": 30, "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min",
            "autovacuum": "off",
            # A subscription that is enabled again starts at once, not after the launcher's five seconds.
            "wal_retrieve_retry_interval": "100ms", "wal_sender_timeout": "60s", **more,
        }
        with open(self.directory / "data" / "postgresql.conf", "a") as conf:
            conf.writelines(f"{k} = '{v}'\n" for k, v in settings.items())
        log = open(self.directory / "log", "w")
        self.process = subprocess.Popen(as_user([str(BIN / "postgres"), "-D", str(self.directory / "data")]), stdout=log, stderr=log)
        started.append(self.process)
        while subprocess.run([BIN / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode:
            time.sleep(0.1)

    def url(self, database, replication=False):
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}" + ("?replication=database" if replication else "")

    def environment(self, **more):
        return {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres", **more}


class Broker:
    """Apache Kafka of our own, in KRaft mode."""

    def __init__(self):
        directory, libraries = ROOT / "broker", os.environ["PG2ANY_TEST_KAFKA_LIBS"]
        directory.mkdir()
        self.port, controller = free_port(), free_port()
        (directory / "server.properties").write_text(
            f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}\ncontroller.listener.names=CONTROLLER\n"
            f"log.dirs={directory}/data\noffsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n"
            "transaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n")
        java = ["java", "-Xmx1g", "-cp", f"{libraries}/*"]
        log = open(directory / "log", "w")
        subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", "server.properties"], cwd=directory,
                       check=True, stdout=log, stderr=log)
        self.process = subprocess.Popen([*java, "kafka.Kafka", "server.properties"], cwd=directory, stdout=log, stderr=log)
        started.append(self.process)
        self.data = directory / "data"
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            time.sleep(0.1)

    def committed(self, topic):
        """Records of transactions that are committed in a topic of one partition: its batches are followed by a marker."""
        records, committed = 0, 0
        try:
            log = (self.data / f"{topic}-0" / "00000000000000000000.log").read_bytes()
        except FileNotFoundError:
            return 0
        while len(log) >= 61:
            length, attributes, last = int.from_bytes(log[8:12], "big"), int.from_bytes(log[21:23], "big"), int.from_bytes(log[23:27], "big")
            if len(log) < 12 + length:
                break
            if attributes & 32:
                committed = records
            else:
                records += last + 1
            log = log[12 + length:]
        return committed


class MariaDb:
    """A MariaDB server of our own, with every commit synced."""

    def __init__(self):
        directory, binaries = ROOT / "mariadb", Path(os.environ.get("PG2ANY_TEST_MARIADB_BIN", "/usr/sbin"))
        directory.mkdir()
        shutil.chown(directory, USER)
        self.port, self.data = free_port(), directory / "data"
        subprocess.run(as_user(["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
                                f"--datadir={self.data}"]), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = open(directory / "log", "w")
        self.process = subprocess.Popen(as_user([str(binaries / "mariadbd"), "--no-defaults", f"--datadir={self.data}", f"--port={self.port}",
            f"--socket={directory}/socket", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=512M", "--innodb-log-file-size=1G",
            "--skip-name-resolve"]), stdout=log, stderr=log)
        started.append(self.process)
        while self.query("select 1") != "1":
            time.sleep(0.1)
        self.query("create user bench@'127.0.0.1' identified by 'bench'; grant all on *.* to bench@'127.0.0.1'")

    def client(self, *more):
        return ["mariadb", "--no-defaults", "-h127.0.0.1", f"-P{self.port}", "-uroot", "-BNn", *more]

    def query(self, sql):
        return subprocess.run(self.client("-e", sql), capture_output=True, text=True).stdout.strip()

    def terminal(self, database):
        """An error (a table that is not there yet) answers nothing."""
        self.query(f"create database if not exists {database}")
        command = self.client("--force", database)
        return Terminal(["sh", "-c", 'exec "$@" 2>/dev/null', "mariadb", *command], "select '=end=';")

    def environment(self, database):
        return {"CDC_DEST_TYPE": "MySQL", "CDC_DEST_URI": f"mysql://bench:bench@127.0.0.1:{self.port}/{database}"}


class SqlServer:
    """The SQL Server of PG2ANY_TEST_SQLSERVER_URL, each contender in a database of its own."""

    def __init__(self):
        self.url = urllib.parse.urlsplit(os.environ["PG2ANY_TEST_SQLSERVER_URL"])
        self.parameters = dict(urllib.parse.parse_qsl(self.url.query))
        self.databases = []

    def ado(self, database):
        quoted = lambda text: "'" + urllib.parse.unquote(text).replace("'", "''") + "'"
        encrypt = {"off": "DANGER_PLAINTEXT"}.get(self.parameters.get("encrypt", "true"), self.parameters.get("encrypt", "true"))
        return (f"server=tcp:{self.url.hostname},{self.url.port or 1433};user={quoted(self.url.username)};password={quoted(self.url.password)};"
                f"database={database};encrypt={encrypt};TrustServerCertificate={self.parameters.get('trustServerCertificate', 'false')}")

    def tool(self, what, argument, database="master"):
        out = subprocess.run([TARGET / "sqlserver", what, self.ado(database), str(argument)], capture_output=True, text=True)
        return out.stdout.strip()

    def terminal(self, database):
        return Terminal([str(TARGET / "sqlserver"), "session", self.ado(database)], "=end=")

    def environment(self, database):
        if database not in self.databases:
            self.databases.append(database)
            sql = self.terminal("master")
            # A run that was killed left its own.
            sql(f"IF DB_ID('{database}') IS NOT NULL DROP DATABASE {database}")
            sql(f"CREATE DATABASE {database}")
            sql.close()
        return {"CDC_DEST_TYPE": "SqlServer", "CDC_DEST_URI": urllib.parse.urlunsplit(self.url._replace(path=f"/{database}"))}

    def close(self):
        sql = self.terminal("master")
        for database in self.databases:
            sql(f"DROP DATABASE {database}")


class Terminal:
    """A client program that stays open, so that polling costs no process."""

    def __init__(self, command, end, environment=None):
        self.end = end
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def __call__(self, sql):
        self.process.stdin.write(f"{sql.rstrip().rstrip(';')};\n{self.end}\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line == "=end=\n":
                return "\n".join(lines)
            lines.append(line.rstrip("\n"))
        raise RuntimeError(f"{self.process.args[0]} ended at: {sql}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def Psql(server, database):
    return Terminal([str(BIN / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database], "\\echo =end=", server.environment())


def cpu_of(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    except (OSError, IndexError):
        return None


class Sampler(threading.Thread):
    """Follows other processes while something runs: CPU, peak memory, bytes written."""

    def __init__(self, find):
        super().__init__(daemon=True)
        self.find, self.first, self.last, self.peak, self.written, self.stop = find, {}, {}, 0, {}, threading.Event()
        self.start()

    def run(self):
        pids, looked = [], 0
        while not self.stop.is_set():
            if not pids or time.time() - looked > 1:
                pids, looked = self.find(), time.time()
            for pid in pids:
                cpu = cpu_of(pid)
                if cpu is not None:
                    self.first.setdefault(pid, cpu)
                    self.last[pid] = cpu
                try:
                    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                        if line.startswith("VmHWM"):
                            self.peak = max(self.peak, int(line.split()[1]) / 1024)
                    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
                    self.written[pid] = int(io["write_bytes"]) / 2**20
                except (OSError, ValueError):
                    pass
            time.sleep(0.05)

    def finish(self):
        self.stop.set()
        self.join()
        return sum(self.last.values()) - sum(self.first.values())


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        quick = arguments.quick
        self.rounds = arguments.rounds or (1 if quick else 3)
        self.rows = 20_000 if quick else 1_000_000
        self.transactions = 2_000 if quick else 200_000
        self.big = 50_000 if quick else 10_000_000
        self.w3 = (10, 1_000) if quick else (100, 10_000)
        self.seconds = 5 if quick else 60
        self.source, self.target = Server("source"), Server("target")
        self.results = {}
        subprocess.run([BIN / "createdb", "bench"], env=self.source.environment(), check=True)
        self.sql = Psql(self.source, "bench")
        self.schema(self.sql, "bench", self.source)
        self.sql("create publication bench for all tables")
        self.sql("create table marker (id int primary key)")
        self.markers = 0
        self.contenders = []
        for n in range(self.rounds):
            if arguments.dest == "kafka":
                self.contenders += [("kafka", n), ("kafka off", n), ("kafka schemas", n), ("native off", n)]
                continue
            if arguments.dest == "mysql":
                self.contenders += [("mysql", n), ("mysql off", n), ("native off", n), ("native on", n)]
                continue
            if arguments.dest == "sqlserver":
                self.contenders += [("sqlserver", n), ("sqlserver off", n), ("native off", n)]
                continue
            if arguments.against:
                pair = [("pg2any", n), ("against", n)]
                self.contenders += (pair if n % 2 == 0 else pair[::-1]) + [("native off", n)]
                continue
            self.contenders += [("pg2any", n), ("pg2any off", n), ("native off", n), ("native on", n), ("receive off", n), ("receive on", n)]
        self.broker = Broker() if arguments.dest == "kafka" else None
        self.mariadb = MariaDb() if arguments.dest == "mysql" else None
        self.sqlserver = SqlServer() if arguments.dest == "sqlserver" else None
        if not quick and not arguments.no_ancestor and arguments.dest in ("sqlite", "mysql"):
            self.contenders.append(("pg2any_lib", 0))
        for kind, n in self.contenders:
            self.sql(f"select pg_create_logical_replication_slot('{self.slot(kind, n)}', 'pgoutput')")
            if kind.startswith("native"):
                database = self.slot(kind, n)
                subprocess.run([BIN / "createdb", database], env=self.target.environment(), check=True)
                sql = Psql(self.target, database)
                self.schema(sql, database, self.target)
                sql("create table marker (id int primary key)")
                sql(f"create subscription {database} connection 'host=127.0.0.1 port={self.source.port} user=postgres dbname=bench' "
                    f"publication bench with (create_slot = false, slot_name = '{database}', enabled = false, copy_data = false, "
                    f"streaming = {kind.split()[1]})")

    @staticmethod
    def slot(kind, n):
        return f"{kind.replace(' ', '_')}_{n}"

    @staticmethod
    def schema(sql, database, server):
        sql("create table w1 (id bigint primary key, a text, b text, at timestamptz, n int, d float8, flag boolean)")
        sql("create table w4 (id bigint primary key, note text)")
        subprocess.run([BIN / "pgbench", "-i", "-I", "dtp", "-q", database], env=server.environment(), check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def mark(self):
        """A last small transaction; whoever shows it has everything before it. Returns the LSN behind it."""
        self.markers += 1
        self.sql(f"insert into marker values ({self.markers})")
        self.sql("checkpoint")
        return self.sql("select pg_current_wal_flush_lsn()")

    def rows_sql(self, first, count):
        return (f"insert into w1 select g, repeat(md5(g::text), 2), repeat(md5((g + 1)::text), 2), now(), g::int, g * 1.1, "
                f"g % 2 = 0 from generate_series({first}, {first + count - 1}) g")

    def workload(self, name):
        if name == "init":
            subprocess.run([BIN / "pgbench", "-i", "-I", "g", "-s", "10", "-q", "bench"], env=self.source.environment(), check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        elif name == "w1":
            self.sql(self.rows_sql(1, self.rows))
        elif name == "w2":
            self.sql("select 1")
            subprocess.run([BIN / "pgbench", "-n", "-c", "8", "-t", str(self.transactions // 8), "bench"], check=True,
                           env=self.source.environment(PGOPTIONS="-c synchronous_commit=off"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        elif name == "w3":
            transactions, each = self.w3
            for t in range(transactions):
                at = t * (self.rows // transactions)
                self.sql(f"begin; update w1 set n = n + 1, a = b where id > {at} and id <= {at + each * 8 // 10}; "
                         f"delete from w1 where id > {at + each * 8 // 10 - each * 2 // 10} and id <= {at + each * 8 // 10}; commit")
        elif name == "w5":
            self.sql(self.rows_sql(10_000_000, self.big))

    def walsender(self, slot):
        pid = subprocess.run([BIN / "psql", "-XAtc", f"select active_pid from pg_replication_slots where slot_name = '{slot}'", "bench"],
                             env=self.source.environment(), capture_output=True, text=True).stdout.strip()
        return [int(pid)] if pid else []

    def process(self, slot, command, environment=None, shows=None):
        """Runs a contender to its end, or until `shows`, when it is asked to end: wall, CPU, memory, bytes written, CPU of its walsender."""
        sender = Sampler(lambda: self.walsender(slot))
        log = open(ROOT / f"{slot}.log", "a")
        begin = time.monotonic()
        process = subprocess.Popen([str(c) for c in command], env={**os.environ, **(environment or {})}, stdout=log, stderr=log)
        mine = Sampler(lambda: [process.pid])
        seen, ended = [], threading.Event()
        watch = threading.Thread(target=lambda: seen.append(self.watch(process, begin, shows, ended)), daemon=True)
        if shows:
            watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        whole = wall = time.monotonic() - begin
        ended.set()
        if shows:
            watch.join()
            if seen[0] is None:
                sys.exit(f"{command[0]} ended ({status}) before its destination showed the marker; its log:\n{Path(log.name).read_text()[-3000:]}")
            wall = seen[0]
        mine.finish()
        if status:
            sys.exit(f"{command[0]} failed ({status}); its log:\n{Path(log.name).read_text()[-3000:]}")
        return {"wall": wall, "ended": whole, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024,
                "written": sum(mine.written.values()), "sender": sender.finish()}

    @staticmethod
    def watch(process, begin, shows, ended):
        while not ended.is_set():
            if shows():
                wall = time.monotonic() - begin
                os.kill(process.pid, signal.SIGTERM)
                return wall
            time.sleep(0.02)
        return None

    def marked(self, path):
        """Whether a SQLite file shows the last marker. No connection stays open: the last one to be closed tidies the file."""
        import sqlite3
        if not path.exists():
            return False
        try:
            database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                return database.execute("select 1 from marker where id = ?", (self.markers,)).fetchone() is not None
            finally:
                database.close()
        except sqlite3.OperationalError:
            return False

    def pg2any_environment(self, slot):
        directory = ROOT / slot
        directory.mkdir(exist_ok=True)
        return {"CDC_SOURCE_CONNECTION_STRING": self.source.url("bench", True), "CDC_DEST_TYPE": "SQLite",
                "CDC_DEST_URI": str(directory / "target.db"), "CDC_REPLICATION_SLOT": slot, "CDC_PUBLICATION": "bench",
                "PG2ANY_DATA_DIR": str(directory / "data"), "RUST_LOG": "warn"}

    def kafka_environment(self, slot):
        place = {"CDC_DEST_TYPE": "Kafka", "CDC_DEST_URI": f"kafka://127.0.0.1:{self.broker.port}/{slot}"}
        return self.pg2any_environment(slot) | place

    def drain(self, kind, n, until):
        slot = self.slot(kind, n)
        if kind.startswith("pg2any") or kind == "against":
            more = {"CDC_STREAMING": "false"} if kind == "pg2any off" else {}
            binary = self.arguments.against if kind == "against" else TARGET / "pg2any"
            return self.process(slot, [binary, "run"], self.pg2any_environment(slot) | more,
                                lambda: self.marked(ROOT / slot / "target.db"))
        if kind.startswith("kafka"):
            more = {"CDC_STREAMING": str(kind != "kafka off").lower(), "PG2ANY_KAFKA_SCHEMAS": str(kind == "kafka schemas").lower()}
            broker = cpu_of(self.broker.process.pid)
            shows = lambda: self.broker.committed(f"{slot}.public.marker") >= self.markers
            result = self.process(slot, [TARGET / "pg2any", "run"], self.kafka_environment(slot) | more, shows)
            print(f"broker cpu {cpu_of(self.broker.process.pid) - broker:.2f} s", flush=True)
            return result
        if kind.startswith("mysql"):
            more = self.mariadb.environment(slot) | {"CDC_STREAMING": str(kind != "mysql off").lower()}
            server, sql = cpu_of(self.mariadb.process.pid), self.mariadb.terminal(slot)
            shows = lambda: sql(f"select 1 from marker where id = {self.markers}") == "1"
            result = self.process(slot, [TARGET / "pg2any", "run"], self.pg2any_environment(slot) | more, shows)
            print(f"mariadb cpu {cpu_of(self.mariadb.process.pid) - server:.2f} s", flush=True)
            return result
        if kind.startswith("sqlserver"):
            more = self.sqlserver.environment(slot) | {"CDC_STREAMING": str(kind != "sqlserver off").lower()}
            sql = self.sqlserver.terminal(slot)
            shows = lambda: sql(f"select 1 from marker where id = {self.markers}") == "1"
            result = self.process(slot, [TARGET / "pg2any", "run"], self.pg2any_environment(slot) | more, shows)
            sql.close()
            return result
        if kind.startswith("receive"):
            return self.process(slot, [TARGET / "receive", self.source.url("bench", True), slot, "bench", kind.split()[1], until])
        return self.native(slot)

    def native(self, slot):
        sql = Psql(self.target, slot)
        sender = Sampler(lambda: self.walsender(slot))

        def worker():
            pid = subprocess.run([BIN / "psql", "-XAtc", f"select pid from pg_stat_subscription where subname = '{slot}' and pid is not null",
                                  "postgres"], env=self.target.environment(), capture_output=True, text=True).stdout.split()
            return [int(p) for p in pid]

        begin = time.monotonic()
        sql(f"alter subscription {slot} enable")
        mine = Sampler(worker)
        while not sql(f"select 1 from marker where id = {self.markers}"):
            time.sleep(0.02)
        wall = time.monotonic() - begin
        cpu = mine.finish()
        result = {"wall": wall, "cpu": cpu, "rss": mine.peak, "written": sum(mine.written.values()), "sender": sender.finish()}
        sql(f"alter subscription {slot} disable")
        while worker():
            time.sleep(0.1)
        return result

    def ancestor(self, name, limit):
        """Runs the ancestor until it shows the marker, or for `limit` seconds: its rate then."""
        slot = self.slot("pg2any_lib", 0)
        environment = self.pg2any_environment(slot) | {"CDC_TRANSACTION_FILE_BASE_PATH": str(ROOT / slot / "files"),
                                                         "CDC_LAST_LSN_FILE": str(ROOT / slot / "lsn"), "CDC_STREAMING": "true", "CDC_PROTOCOL_VERSION": "2"}
        if self.mariadb:
            environment |= self.mariadb.environment(slot)
            ask = self.mariadb.terminal(slot)
        else:
            import sqlite3
            database = sqlite3.connect(ROOT / slot / "target.db", isolation_level=None)
            ask = lambda sql: "\n".join(str(row[0]) for row in database.execute(sql))
        moment, double, key = ("datetime(6)", "double", "bigint primary key") if self.mariadb else ("text", "real", "integer primary key")
        for table in (f"w1 (id {key}, a text, b text, at {moment}, n int, d {double}, flag int)", f"marker (id {key})", f"w4 (id {key}, note text)",
                      f"pgbench_history (tid int, bid int, aid int, delta int, mtime {moment}, filler text)",
                      f"pgbench_accounts (aid {key}, bid int, abalance int, filler text)", f"pgbench_branches (bid {key}, bbalance int, filler text)",
                      f"pgbench_tellers (tid {key}, bid int, tbalance int, filler text)"):
            ask(f"create table if not exists {table}")
        count = lambda: int(ask("select count(*) from pgbench_history"))
        done = lambda: ask(f"select count(*) from marker where id = {self.markers}") == "1"
        log = open(ROOT / f"{slot}.log", "a")
        process = subprocess.Popen([TARGET / "bench-ancestor"], env={**os.environ, **environment}, stdout=log, stderr=log)
        mine, begin, had = Sampler(lambda: [process.pid]), time.monotonic(), count()
        while not done() and time.monotonic() - begin < limit and process.poll() is None:
            time.sleep(0.2)
        if process.poll() is not None:
            sys.exit(f"bench-ancestor ended ({process.returncode}); its log:\n{Path(log.name).read_text()[-3000:]}")
        wall, rows, whole = time.monotonic() - begin, count() - had, bool(done())
        cpu = mine.finish()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return {"wall": wall, "cpu": cpu, "rss": mine.peak, "written": sum(mine.written.values()), "sender": 0, "rows": rows, "whole": whole}

    def note(self, name, kind, result):
        self.results.setdefault(name, {}).setdefault(kind, []).append(result)
        ended = f"ended {result['ended']:7.2f} s  " if "ended" in result else ""
        print(f"{name} {kind:12} wall {result['wall']:7.2f} s  {ended}cpu {result['cpu']:6.2f} s  sender {result['sender']:6.2f} s  "
              f"rss {result['rss']:6.0f} MB  written {result['written']:7.0f} MB", flush=True)

    def phase(self, name):
        self.workload(name)
        until = self.mark()
        kinds = [c for c in self.contenders if c[0] != "pg2any_lib"]
        if name == "w5":
            kinds = [("pg2any", 0)]
        for kind, n in kinds:
            result = self.drain(kind, n, until)
            if name not in ("init", "settle"):
                self.note(name, kind, result)
        if name in ("w1", "w3") and self.arguments.dest == "sqlite":
            self.floor(name)
        if self.sqlserver and name in ("w1", "w2"):
            self.server_alone(name)
        if ("pg2any_lib", 0) in self.contenders and name in ("init", "w1", "w3", "w2"):
            result = self.ancestor(name, {"w2": 30}.get(name, 300))
            if name != "init":
                self.note(name, "pg2any_lib", result)

    def server_alone(self, name):
        """SQL Server alone: W1's rows by a plain bulk load; of W2 its updates row by row."""
        slot = self.slot("sqlserver", 0)
        what, rows = ("bulk", self.rows) if name == "w1" else ("rows", 3 * self.transactions // 20)
        wall = float(self.sqlserver.tool(what, rows, slot) or "nan")
        print(f"{name} {what} by itself: {rows / wall:.0f} rows/s", flush=True)
        # Row by row a twentieth of the updates is enough to tell.
        self.note(name, f"{what} alone", {"wall": wall * (1 if name == "w1" else 20), "cpu": 0, "rss": 0, "written": 0, "sender": 0})

    def floor(self, name):
        """SQLite alone, by prepared statements: the same rows changed and committed as often, with as many syncs."""
        import sqlite3
        path = ROOT / "floor.db"
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute("pragma cache_size = -24576")
        row = lambda g, text, n: (g, text, text, "2026-01-01 00:00:00+00:00", n, g * 1.1, g % 2)
        text = "0123456789abcdef" * 4
        begin = time.monotonic(), time.process_time()
        if name == "w1":
            database.execute("create table w1 (id integer primary key, a text, b text, at text, n integer, d real, flag integer)")
            database.execute("begin")
            database.executemany("insert into w1 values (?, ?, ?, ?, ?, ?, ?)", (row(g, text, g) for g in range(1, self.rows + 1)))
            database.execute("commit")
        else:
            transactions, each = self.w3
            for t in range(transactions):
                at = t * (self.rows // transactions)
                updated, deleted = each * 8 // 10, each * 2 // 10
                database.execute("begin")
                database.executemany("update w1 set id = ?, a = ?, b = ?, at = ?, n = ?, d = ?, flag = ? where id = ?",
                                     ((*row(g, text, g + 1), g) for g in range(at + 1, at + updated + 1)))
                database.executemany("delete from w1 where id = ?", ((g,) for g in range(at + updated - deleted + 1, at + updated + 1)))
                database.execute("commit")
        database.close()
        wall, cpu = time.monotonic() - begin[0], time.process_time() - begin[1]
        self.note(name, "sqlite alone", {"wall": wall, "cpu": cpu, "rss": 0, "written": 0, "sender": 0})

    def latency(self):
        connection = self.source.url("bench")
        ours = "kafka" if self.broker else "mysql" if self.mariadb else "sqlserver" if self.sqlserver else "pg2any"
        # Makes the topic, which is done once.
        self.sql("insert into w4 values (0, 'the first')")
        for kind in (ours, "native off"):
            slot = self.slot(kind, 0)
            if kind == ours:
                log = open(ROOT / f"{slot}.log", "a")
                environment = self.kafka_environment(slot) if self.broker else self.pg2any_environment(slot)
                destination = f"sqlite:{ROOT / slot / 'target.db'}"
                if self.broker:
                    destination = f"kafka:127.0.0.1:{self.broker.port}/{slot}.public.w4"
                if self.mariadb:
                    environment |= self.mariadb.environment(slot)
                    destination = f"mariadb:{self.mariadb.port}/{slot}"
                if self.sqlserver:
                    environment |= self.sqlserver.environment(slot)
                    destination = f"sqlserver:{self.sqlserver.ado(slot)}"
                process = subprocess.Popen([TARGET / "pg2any", "run"], env={**os.environ, **environment}, stdout=log, stderr=log)
                started.append(process)
            else:
                sql = Psql(self.target, slot)
                sql(f"alter subscription {slot} enable")
                destination = self.target.url(slot)
            time.sleep(3)
            if self.broker and kind == ours:
                # A broker that has just started compiles its code first: its first commits take 50 ms.
                subprocess.run([TARGET / "latency", connection, destination, "500", "15"], capture_output=True)
            out = subprocess.run([TARGET / "latency", connection, destination, "500", str(self.seconds)], capture_output=True, text=True)
            print(f"w4 {kind:12} p50/p95/p99/max ms, missing: {out.stdout.strip()}{out.stderr[-500:]}", flush=True)
            values = [float(v) for v in out.stdout.split()]
            self.results.setdefault("w4", {})[kind] = [dict(zip(("p50", "p95", "p99", "max", "missing"), values))]
            if kind == ours:
                peak = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
                self.results["w4"][kind][0]["rss"] = int(peak.split()[1]) / 1024
                process.send_signal(signal.SIGTERM)
                process.wait(10)
            else:
                sql(f"alter subscription {slot} disable")

    def table(self):
        median = lambda values: statistics.median(values)
        lines = ["| workload | contender | wall s | to native | process ended s | CPU s | walsender CPU s | peak RSS MB | written MB |", "|---|---|---|---|---|---|---|---|---|"]
        for name in ("w1", "w2", "w3", "w5"):
            per = self.results.get(name, {})
            native = min((median([r["wall"] for r in per[k]]) for k in per if k.startswith("native")), default=None)
            for kind, runs in per.items():
                m = {key: median([r[key] for r in runs]) for key in ("wall", "cpu", "sender", "rss", "written")}
                ratio = f"{m['wall'] / native:.2f}" if native else "–"
                if not runs[0].get("whole", True):
                    ratio = f"not done: {runs[0]['rows'] / runs[0]['wall']:.0f} tx/s" if name == "w2" else "not done"
                ended = f"{median([r['ended'] for r in runs]):.2f}" if "ended" in runs[0] else "–"
                lines.append(f"| {name.upper()} | {kind} | {m['wall']:.2f} | {ratio} | {ended} | {m['cpu']:.2f} | {m['sender']:.2f} | {m['rss']:.0f} | {m['written']:.0f} |")
        for kind, runs in self.results.get("w4", {}).items():
            r = runs[0]
            lines.append(f"| W4 | {kind} | p50 {r['p50']:.1f} ms, p95 {r['p95']:.1f} ms, p99 {r['p99']:.1f} ms | | | | | {r.get('rss', 0):.0f} | |")
        return "\n".join(lines)

    def picture(self):
        """The walls of W1 to W3 as bars, against the native subscription's faster mode."""
        ours = {"pg2any": "SQLite", "kafka": "Kafka", "mysql": "MariaDB", "sqlserver": "SQL Server"}
        options = {"": "", "off": ", streaming off", "schemas": ", schemas embedded", "on": ", streaming on"}
        others = {"native": "native subscription", "receive": "receiving alone", "against": "another build", "pg2any_lib": "pg2any_lib 0.11.2",
                  "sqlite": "SQLite alone, its statements", "bulk": "a plain bulk load", "rows": "row by row"}
        greys = {"native": "#94a3b8", "against": "#a78bfa", "pg2any_lib": "#f59e0b"}

        def named(kind):
            name, _, option = kind.partition(" ")
            who = f"pg2any into {ours[name]}" if name in ours else others[name]
            return who + options.get(option, "")

        def colour(kind):
            name, _, option = kind.partition(" ")
            return ("#60a5fa" if option else "#2563eb") if name in ours else greys.get(name, "#d6d3d1")

        titles = {"w1": f"W1: one transaction of {self.rows:,} inserts", "w2": f"W2: {self.transactions:,} pgbench transactions",
                  "w3": f"W3: {self.w3[0]} transactions of {self.w3[1]:,} updates and deletes"}
        parts, y = [], 10
        for name, title in titles.items():
            walls = {kind: statistics.median(r["wall"] for r in runs) for kind, runs in self.results.get(name, {}).items()}
            runs = self.results.get(name, {}).get("pg2any_lib")
            if runs and name == "w2" and not runs[0]["whole"]:
                walls["pg2any_lib"] = self.transactions * runs[0]["wall"] / max(1, runs[0]["rows"])
            native = min((wall for kind, wall in walls.items() if kind.startswith("native")), default=None)
            if not native:
                continue
            parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{title}</text>')
            y += 22
            for kind, wall in walls.items():
                share = wall / native
                width = min(share, 2) * 200
                more = " →" if share > 2 else ""
                parts.append(f'<text x="250" y="{y + 13}" text-anchor="end">{named(kind)}</text>'
                             f'<rect x="260" y="{y}" width="{width:.0f}" height="17" rx="2" fill="{colour(kind)}"/>'
                             f'<text x="{268 + width:.0f}" y="{y + 13}">{wall:.1f} s ({share:.2f} ×){more}</text>')
                y += 21
            y += 14
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {y}" font-family="sans-serif" font-size="13" fill="#1f2937">'
                f'<rect width="800" height="{y}" fill="#ffffff"/>{"".join(parts)}</svg>\n')


def clean_up():
    """Stops what was started, and removes what was written."""
    for process in reversed(started):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in started:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    if os.environ.get("PG2ANY_BENCH_KEEP") is None:
        shutil.rmtree(ROOT, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default="w1,w3,w2,w4,w5")
    parser.add_argument("--dest", choices=["sqlite", "kafka", "mysql", "sqlserver"], default="sqlite")
    parser.add_argument("--no-ancestor", action="store_true")
    parser.add_argument("--against", type=Path, help="another build of pg2any, which takes turns with this one (SQLite, w1 to w3)")
    parser.add_argument("--output", default=None)
    arguments = parser.parse_args()
    chosen, bench = arguments.only.split(","), None
    try:
        bench = Bench(arguments)
        bench.phase("init")
        # Once more with nothing to do, here and below: lets each slot's restart position pass what it got, or the next start decodes it again.
        bench.phase("settle")
        for name in ("w1", "w3", "w2"):
            if name in chosen or (name == "w1" and "w3" in chosen):
                bench.phase(name)
                bench.phase("settle")
        if "w4" in chosen:
            bench.latency()
        if "w5" in chosen:
            bench.phase("w5")
        print("\n" + bench.table())
        if arguments.output:
            out = Path(arguments.output)
            out.mkdir(parents=True, exist_ok=True)
            (out / "results.json").write_text(json.dumps(bench.results, indent=1))
            (out / "table.md").write_text(bench.table() + "\n")
            (out / "benchmark.svg").write_text(bench.picture())
        print("1 passed, 0 failed")
    finally:
        clean_up()
        if bench and bench.sqlserver:
            bench.sqlserver.close()


if __name__ == "__main__":
    main()
