"""`make bench-sources`: a PostgreSQL table into DuckDB, by this project and by others.

usage: python -m benchmarks.sources [--rows N ...] [--runs N] [--only WORD ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Cost, measure, median, whole
from benchmarks.others import UnavailableError, WrongResultError, programs
from include.elt.paths import ROOT
from include.elt.settings import load_settings
from include.elt.sql import literal
from tests.support.postgres import Server, installed_server, running_server

STEP = [sys.executable, "-m", "benchmarks.step"]
CONSOLE = Console(width=None if sys.stdout.isatty() else 130)
HEADER = ("way", "seconds", "of COPY", "CPU seconds", "peak MB", "peak MB of each process")

TABLE = """
CREATE TABLE web.orders AS SELECT
    id,
    hash % 100000 AS customer_id,
    (hash % 1000000 / 100.0)::numeric(12,2) AS amount,
    (ARRAY['placed', 'shipped', 'completed', 'returned'])[1 + hash % 4] AS status,
    CASE WHEN hash % 10 = 0 THEN NULL
         WHEN hash % 10 < 4 THEN 'said "thanks", order ' || id || ', twice'
         ELSE 'note number ' || hash END AS note,
    timestamptz '2025-01-01 00:00:00+00' + id * interval '1.5 seconds' + hash % 1000000 * interval '1 us' AS updated_at,
    timestamp '2025-01-01' + id * interval '1 second' AS created_at,
    hash % 3 = 0 AS paid,
    date '2025-01-01' + (hash % 365)::int AS due
FROM (SELECT id, abs(hashint8extended(id, 42) / 4096) AS hash FROM generate_series(1::bigint, {rows}) AS id) AS ids
"""
"""Nine columns: whole numbers, a decimal, texts with quotes, commas and NULLs, times with and without a zone, a truth
value, a date. The same rows each time."""

PROOF = "count(*), sum(amount)::varchar, count(DISTINCT note), sum(CASE WHEN paid THEN 1 ELSE 0 END)::varchar"
"""What has to be equal in every result, beside the largest `updated_at`."""


@dataclass(frozen=True)
class Place:
    """Where one way works.

    Attributes:
        folder: empty, on the disk of the others.
        server: the source, as arguments of psycopg.
    """

    folder: Path
    server: Mapping[str, str | int]

    @property
    def warehouse(self) -> Path:
        """The DuckDB file to write."""
        return self.folder / "w.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the measured processes."""
        lake = str(self.folder / "lake")
        return {"BENCHMARK_SERVER": json.dumps(self.server), "LAKE": lake, "DUCKDB_PATH": str(self.warehouse)}


Way = Callable[[Place], dict[str, Cost]]
"""Does it and returns the cost of each step."""


def ours(parallel: int, place: Place) -> dict[str, Cost]:
    """Extract and load, each in a process as in Airflow."""
    extracted = measure([*STEP, "extract-table", str(parallel)], place.environment)
    return {"extract": extracted, "load": measure([*STEP, "load", place.environment["LAKE"]], place.environment)}


def dlt(backend: str, place: Place) -> dict[str, Cost]:
    """A pipeline of dlt."""
    command = [str(programs("dlt") / "python"), str(ROOT / "benchmarks" / "dlt_step.py"), backend, str(place.warehouse)]
    return {"": measure(command, place.environment | {"HOME": str(place.folder), "RUNTIME__DLTHUB_TELEMETRY": "false"})}


def sling(place: Place) -> dict[str, Cost]:
    """`sling run` straight into DuckDB, as a person would write it."""
    replication = place.folder / "by_hand.yaml"
    streams = {"web.orders": {"mode": "full-refresh", "object": "raw.orders"}}
    replication.write_text(yaml.safe_dump({"source": "SOURCE", "target": "TARGET", "streams": streams}))
    server = place.server
    source = {"type": "postgres", "host": server["host"], "port": server["port"], "user": server["user"]}
    source |= {"database": server["dbname"], "sslmode": "disable"}
    target = {"type": "duckdb", "instance": str(place.warehouse), "copy_method": "csv_files"}
    environment = {
        "SOURCE": json.dumps(source),
        "TARGET": json.dumps(target),
        "PGPASSWORD": str(server["password"]),
        "DUCKDB_PATH": str(programs("dlt") / "duckdb"),
        "DUCKDB_USE_INSTALLED_EXTENSIONS": "true",
        "SLING_HOME_DIR": str(place.folder),
        "SLING_TEMP_DIR": str(place.folder),
        "SLING_DISABLE_TELEMETRY": "TRUE",
    }
    return {"": measure([str(load_settings().sling()), "run", "-r", str(replication)], environment)}


def copy(place: Place) -> dict[str, Cost]:
    """COPY to a CSV file, by psycopg; nothing is typed or loaded."""
    return {"": measure([*STEP, "copy", str(place.folder / "orders.csv")], place.environment)}


COPY = "COPY to a CSV file"

WAYS: dict[str, Way] = {
    COPY: copy,
    "extract + load": partial(ours, 1),
    "extract + load, parallel 2": partial(ours, 2),
    "extract + load, parallel 4": partial(ours, 4),
    "dlt, connectorx": partial(dlt, "connectorx"),
    "dlt, pyarrow": partial(dlt, "pyarrow"),
    "Sling straight into DuckDB": sling,
}


def _proven(place: Place, wanted: tuple[object, ...]) -> None:
    """Compare what arrived with what the server holds.

    Raises:
        WrongResultError: it is not the same.
    """
    csv = place.folder / "orders.csv"
    with duckdb.connect(":memory:" if csv.exists() else str(place.warehouse), config={"memory_limit": "2GB"}) as sql:
        sql.execute("SET TimeZone = 'UTC'")
        types = "types={'amount': 'DECIMAL(12,2)', 'note': 'VARCHAR', 'updated_at': 'TIMESTAMPTZ'}"
        table = f"read_csv({literal(csv)}, {types})" if csv.exists() else "raw.orders"
        found = sql.execute(f"SELECT {PROOF}, epoch_us(max(updated_at)) FROM {table}").fetchone()  # noqa: S608
    if found != wanted:
        raise WrongResultError(f"the server holds {wanted}, but {found} arrived")


def _filled(server: Server, rows: int) -> tuple[object, ...]:
    """Make the table; returns what every result has to hold."""
    server.execute("DROP SCHEMA IF EXISTS web CASCADE")
    server.execute("CREATE SCHEMA web")
    server.execute(TABLE.format(rows=rows))
    server.execute("ALTER TABLE web.orders ADD PRIMARY KEY (id)")
    server.execute("VACUUM (ANALYZE) web.orders")
    server.execute("CHECKPOINT")
    latest = "(extract(epoch FROM max(updated_at)) * 1000000)::bigint"
    [held] = server.execute(f"SELECT {PROOF}, {latest} FROM web.orders")  # noqa: S608
    return held


def compare(server: Server, rows: int, runs: int, ways: Mapping[str, Way]) -> None:
    """Run every way several times, in turns, and print the medians."""
    with CONSOLE.status(f"making {rows:,} rows"):
        wanted = _filled(server, rows)
    costs: dict[str, list[dict[str, Cost]]] = {name: [] for name in ways}
    missing: dict[str, str] = {}
    for run in range(runs):
        for name, way in ways.items():
            if name in missing:
                continue
            with tempfile.TemporaryDirectory() as scratch, CONSOLE.status(f"{name}, run {run + 1} of {runs}"):
                place = Place(Path(scratch), server.arguments)
                try:
                    steps = way(place)
                    _proven(place, wanted)
                except UnavailableError as error:
                    missing[name] = str(error)
                    continue
                except subprocess.CalledProcessError as error:
                    raise SystemExit(f"{name}: {error}\n{error.output}") from error
            costs[name].append(steps)
            took = whole(steps)
            CONSOLE.print(f"{name}: {took.wall:.2f} s, {took.peak:.0f} MB")
    show(rows, runs, costs, missing)


def show(rows: int, runs: int, costs: Mapping[str, list[dict[str, Cost]]], missing: Mapping[str, str]) -> None:
    """Print the table, and the same as Markdown."""
    lines: list[tuple[str, ...]] = []
    copied = [whole(each).wall for each in costs.get(COPY, ())]
    base = statistics.median(copied) if copied else None
    for name, measured in costs.items():
        if not measured:
            lines.append((name, missing.get(name, "not measured"), "", "", "", ""))
            continue
        lines.append((name, *_figures(median([whole(each) for each in measured]), base)))
        if len(measured[0]) > 1:
            lines += [(f"· {step}", *_figures(median([each[step] for each in measured]), base)) for step in measured[0]]
    title = f"{rows:,} rows of 9 columns, PostgreSQL → DuckDB, median of {runs}; every result proven equal"
    table = Table(*HEADER, title=title)
    for line in lines:
        table.add_row(*line)
    CONSOLE.print(table)
    CONSOLE.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. As Markdown:\n")
    for line in ((f"{rows:,} rows", *HEADER[1:]), ("---",) * len(HEADER), *lines):
        print("|" + "|".join(f" {cell} " if cell != "---" else cell for cell in line) + "|")


def _figures(cost: Cost, base: float | None) -> tuple[str, ...]:
    processes = ", ".join(f"{name} {peak:.0f}" for name, peak in cost.processes.items())
    return (
        f"{cost.wall:.2f}",
        f"{cost.wall / base:.1f}" if base else "",
        f"{cost.cpu:.2f}",
        f"{cost.peak:.0f}",
        processes,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="ways whose name holds one of these words")
    options = parser.parse_args()
    ways = {name: way for name, way in WAYS.items() if not options.only or any(word in name for word in options.only)}
    with running_server(installed_server()) as server:
        CONSOLE.print(server.execute("SELECT version()")[0][0])
        for rows in options.rows:
            compare(server, rows, options.runs, ways)


if __name__ == "__main__":
    main()
