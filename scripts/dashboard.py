"""A real Prometheus scrapes a real run, and every query of the dashboard returns data. With --picture FILE, what it shows is drawn.

Called by scripts/dashboard.sh. The run has traffic, a large transaction, and a destination that is locked for a while.
"""

import argparse
import html
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from bench import BIN, ROOT, TARGET, Psql, Server, clean_up, free_port, started

COLOURS = ["#2a78d6", "#d9742b", "#2f9e5f", "#a347ba", "#c23b55"]
REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Prometheus:
    def __init__(self, target):
        directory = ROOT / "prometheus"
        directory.mkdir()
        self.port = free_port()
        (directory / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{REPOSITORY}/deploy/prometheus/alerts.yml]\n"
            f"scrape_configs: [{{job_name: pg2any, static_configs: [{{targets: ['{target}']}}]}}]\n")
        log = open(directory / "log", "w")
        started.append(subprocess.Popen(
            ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"], stdout=log, stderr=log))
        deadline = time.monotonic() + 60
        while not self.ready():
            if time.monotonic() > deadline:
                sys.exit(f"Prometheus does not start: {(directory / 'log').read_text()}")
            time.sleep(0.2)

    def ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def course(self, expression, begin, end, step):
        """Each series: its labels, and (time, value) where it has a number."""
        query = urllib.parse.urlencode({"query": expression, "start": begin, "end": end, "step": step})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query_range?{query}", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
        points = lambda series: [(t, float(v)) for t, v in series["values"] if math.isfinite(float(v))]
        return [(series["metric"], points(series)) for series in found if points(series)]


def traffic(source, database, target, seconds):
    """Small transactions, a large one among them, and a lock at the destination."""
    sql = Psql(source, database)
    sql("create table t (id bigint generated always as identity primary key, a text, n int)")
    load = subprocess.Popen([BIN / "pgbench", "-n", "-c", "2", "-R", "150", "-T", str(seconds), "-f", "-", database], stdin=subprocess.PIPE,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=source.environment())
    load.stdin.write(b"insert into t (a, n) values (md5(random()::text), 1); update t set n = n + 1 where id = 1;\n")
    load.stdin.close()
    time.sleep(seconds / 4)
    sql("insert into t (a, n) select md5(g::text), g from generate_series(1, 100000) g")
    time.sleep(seconds / 4)
    lock = sqlite3.connect(target, isolation_level=None)
    lock.execute("begin immediate")
    time.sleep(seconds / 8)
    lock.execute("rollback")
    lock.close()
    load.wait()
    time.sleep(3)


def legend(target, labels):
    text = target.get("legendFormat") or ""
    for name, value in labels.items():
        text = text.replace("{{" + name + "}}", value).replace("{{ " + name + " }}", value)
    return text


def human(value, unit):
    if not value:
        return "0"
    if unit == "s":
        return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"
    scale = [("G", 1e9), ("M", 1e6), ("k", 1e3)]
    word = {"bytes": "B", "Bps": "B/s", "cps": "/s"}.get(unit, "")
    for letter, size in scale:
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}{word}"
    return f"{value:.3g} {word}".strip()


def panel(described, courses, begin, end):
    """A panel as SVG: numbers for `stat`, curves for `timeseries`."""
    place, unit = described["gridPos"], described.get("fieldConfig", {}).get("defaults", {}).get("unit", "none")
    x, y, width, height = place["x"] * 50, place["y"] * 30, place["w"] * 50 - 8, place["h"] * 30 - 8
    out = f'<svg x="{x}" y="{y}" width="{width}" height="{height}">'
    title = html.escape(described["title"])
    if described["type"] == "row":
        return out + f'<text x="4" y="17" class="row">{title}</text></svg>'
    out += f'<rect width="100%" height="100%" rx="5" class="card"/><text x="10" y="18" class="title">{title}</text>'
    if described["type"] == "stat":
        name, points = courses[0]
        text = name or human(points[-1][1], unit)
        return out + f'<text x="{width / 2}" y="{height / 2 + 16}" text-anchor="middle" class="{"small" if name else "big"}">{html.escape(text)}</text></svg>'
    top = max((value for _, points in courses for _, value in points), default=0) or 1
    left, low, inner, rise = 62, height - 40, width - 74, height - 70
    for part in (0, 0.5, 1):
        line = low - rise * part
        out += f'<line x1="{left}" x2="{left + inner}" y1="{line}" y2="{line}" class="grid"/>'
        out += f'<text x="{left - 6}" y="{line + 4}" text-anchor="end" class="tick">{human(top * part, unit)}</text>'
    beside = left
    for number, (name, points) in enumerate(courses):
        spots = " ".join(f"{left + inner * (t - begin) / (end - begin):.1f},{low - rise * value / top:.1f}" for t, value in points)
        colour = COLOURS[number % len(COLOURS)]
        out += f'<polyline points="{spots}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        out += f'<text x="{beside}" y="{height - 10}" style="fill:{colour}" class="tick">{html.escape(name)}</text>'
        beside += 6 * len(name) + 14
    return out + "</svg>"


def draw(panels, begin, end, file):
    height = max(described["gridPos"]["y"] + described["gridPos"]["h"] for described, _ in panels) * 30 + 8
    style = ("text{font:13px system-ui,sans-serif;fill:#1d2733}.card{fill:#fff;stroke:#dde3ea}.grid{stroke:#e6ebf0}.row{font-weight:600;font-size:15px}"
             ".title{fill:#5a6875}.big{font-size:30px;font-weight:600}.small{font-size:16px}.tick{font-size:11px}")
    body = "".join(panel(described, courses, begin, end) for described, courses in panels)
    page = ROOT / "dashboard.html"
    page.write_text(f'<body style="margin:8px;background:#f4f6f8"><svg xmlns="http://www.w3.org/2000/svg" width="1200" height="{height}">'
                    f"<style>{style}</style>{body}</svg>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={ROOT}/browser"]
    subprocess.run(["chromium", *flags, f"--window-size=1216,{height + 16}", f"--screenshot={os.path.abspath(file)}", page.as_uri()],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--picture", help="write what the dashboard shows into this PNG file")
    arguments.add_argument("--seconds", type=int, default=24, help="of traffic")
    chosen = arguments.parse_args()
    # A limit, so that the metric about it is there.
    source = Server("source", max_slot_wal_keep_size="4GB")
    subprocess.run([BIN / "createdb", "shop"], env=source.environment(), check=True)
    Psql(source, "shop")("create publication cdc for all tables")
    target, metrics = ROOT / "target.db", f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "CDC_SOURCE_CONNECTION_STRING": source.url("shop", True), "CDC_DEST_TYPE": "SQLite", "CDC_DEST_URI": str(target),
                   "CDC_REPLICATION_SLOT": "shop", "CDC_PUBLICATION": "cdc", "PG2ANY_DATA_DIR": str(ROOT / "data"), "PG2ANY_DISK_QUOTA": "2GB",
                   "PG2ANY_METRICS_ADDRESS": metrics}
    log = open(ROOT / "log", "w")
    started.append(subprocess.Popen([TARGET / "pg2any", "run"], env=environment, stdout=log, stderr=log))
    while not target.exists():
        time.sleep(0.1)
    prometheus = Prometheus(metrics)
    begin = time.time() + 2
    traffic(source, "shop", target, chosen.seconds)
    end = time.time()
    with open(f"{REPOSITORY}/deploy/grafana/dashboards/pg2any.json") as file:
        dashboard = json.load(file)
    panels, queries, empty = [], 0, []
    for described in dashboard["panels"]:
        courses = []
        for query in described.get("targets", []):
            expression = query["expr"].replace("$__rate_interval", "5s").replace("$instance", ".*")
            found = prometheus.course(expression, begin, end, max(1, (end - begin) / 300))
            queries += 1
            if not found:
                empty.append(f"{described['title']}: {expression}")
            courses += [(legend(query, labels), points) for labels, points in found]
        if courses or described["type"] == "row":
            panels.append((described, courses))
    if empty:
        sys.exit("These queries of the dashboard returned nothing:\n  " + "\n  ".join(empty))
    if chosen.picture:
        draw(panels, begin, end, chosen.picture)
    print(f"{queries} queries of the dashboard returned data")


try:
    main()
finally:
    clean_up()
