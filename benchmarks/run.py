"""`make bench`: what the platform adds to Sling by hand, and to an empty DAG file.

usage: python -m benchmarks.run [--rows N] [--runs N]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Cost, measure, median
from include.elt.paths import ROOT
from include.elt.settings import load_settings

STEP = [sys.executable, "-m", "benchmarks.step"]
CONSOLE = Console(width=None if sys.stdout.isatty() else 110)


def _repeat(what: str, runs: int, once: Callable[[], Cost]) -> Cost:
    """Median of several runs, after a first one that only warms up."""
    with CONSOLE.status(what):
        once()
        cost = median([once() for _ in range(runs)])
    CONSOLE.print(f"{what}: {cost.wall:.2f} s")
    return cost


def _sling_by_hand(folder: Path, source: Path) -> tuple[list[str], dict[str, str]]:
    """`sling run` from the CSV file into another, as a person would write it."""
    replication = folder / "by_hand.yaml"
    stream = {"mode": "full-refresh", "object": f"file://{folder}/by_hand.csv"}
    replication.write_text(
        yaml.safe_dump({"source": "LOCAL", "target": "LOCAL", "streams": {f"file://{source}": stream}})
    )
    environment = {"SLING_HOME_DIR": str(folder), "SLING_DISABLE_TELEMETRY": "TRUE"}
    return [str(load_settings().sling()), "run", "-r", str(replication)], environment


def rows(count: int, runs: int) -> None:
    """Orders through extract and load, beside Sling by hand."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        generate = [sys.executable, "-m", "include.sample_data.generate", "--out", str(folder / "files")]
        with CONSOLE.status(f"making {count:,} orders"):
            measure([*generate, "--orders", str(count), "--customers", str(max(count // 10, 1))])
        source = folder / "files" / "raw_orders.csv"
        lake = folder / "lake"
        ours = {"SHOP_FILES": str(source.parent), "LAKE": str(lake), "DUCKDB_PATH": str(folder / "w.duckdb")}

        def extract() -> Cost:
            shutil.rmtree(lake, ignore_errors=True)
            return measure([*STEP, "extract"], ours)

        def load() -> Cost:
            (folder / "w.duckdb").unlink(missing_ok=True)
            return measure([*STEP, "load", str(lake)], ours)

        command, environment = _sling_by_hand(folder, source)
        by_hand = _repeat("sling run by hand", runs, lambda: measure(command, environment))
        extracted = _repeat("extract", runs, extract)
        loaded = _repeat("load", runs, load)
        both = loaded.after(extracted)
        title = f"{count:,} orders ({source.stat().st_size / 1e6:.0f} MB of CSV), median of {runs}"
        table = Table("step", "seconds", "CPU seconds", "peak MB", "of Sling by hand", title=title)
        for name, cost in (
            ("sling run by hand, CSV → CSV", by_hand),
            ("extract: CSV → checked, typed Parquet", extracted),
            ("load: Parquet → DuckDB", loaded),
            ("extract + load", both),
        ):
            ratio = f"{cost.wall / by_hand.wall:.2f}"
            table.add_row(name, f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.peak:.0f}", ratio)
        CONSOLE.print(table)


def parse(runs: int) -> None:
    """The DAG file beside an empty one, each in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        empty = Path(scratch) / "empty.py"
        empty.write_text("from airflow.sdk import DAG\n\nwith DAG('empty', schedule=None):\n    pass\n")
        airflow = {"AIRFLOW_HOME": scratch, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        costs = {
            name: _repeat(f"parsing {name}", runs, partial(measure, [*STEP, "parse", str(file)], airflow))
            for name, file in (("an empty DAG", empty), ("jaffle_shop", ROOT / "dags" / "jaffle_shop.py"))
        }
        table = Table(
            "DAG file", "seconds", "CPU seconds", "peak MB", "of empty", title=f"whole process, median of {runs}"
        )
        for name, cost in costs.items():
            ratio = f"{cost.wall / costs['an empty DAG'].wall:.2f}"
            table.add_row(name, f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.peak:.0f}", ratio)
        CONSOLE.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    CONSOLE.print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0]}))
    rows(options.rows, options.runs)
    parse(options.runs)


if __name__ == "__main__":
    main()
