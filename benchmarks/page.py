"""The page's API on a metadata database of a size: seconds and queries per request, on SQLite and PostgreSQL.

`python -m benchmarks.page --streams 1000 --loads 20 --models 2000`. tests/support/metadata.py writes the database; what
is timed is what the API does behind its login: queries, read model, JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from include.elt.paths import ROOT


def measure() -> int:
    """In a process whose environment names the database: print one line of JSON per endpoint."""
    from airflow import settings
    from airflow.utils.session import create_session
    from sqlalchemy import event

    from plugins.data_platform import reading
    from plugins.data_platform.metadata import Metadata

    asked: list[str] = []
    event.listen(settings.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    dags = {"health_report", *(f"dag_{number}" for number in range(100))}
    endpoints: dict[str, Callable[[Metadata], Any]] = {
        "state": reading.state,
        "problems": reading.problems,
        "streams": reading.streams,
        "models": reading.models,
        "completeness": reading.completeness,
        "lineage": lambda metadata: reading.lineage(metadata, None, 3),
        "overview": reading.overview,
    }
    for name, endpoint in endpoints.items():
        times = []
        for _ in range(5):
            asked.clear()
            with create_session() as session:
                began = time.perf_counter()
                answer = endpoint(Metadata(session, dags)).model_dump_json()
                times.append(time.perf_counter() - began)
        print(
            json.dumps(
                {"endpoint": name, "seconds": statistics.median(times), "queries": len(asked), "bytes": len(answer)}
            )
        )
    return 0


def _filled(home: Path, url: str | None, plan: dict[str, int]) -> dict[str, str]:
    """An environment whose metadata database is filled."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    if url:
        environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
    for command in (["airflow", "db", "migrate"], ["tests.support.metadata", json.dumps(plan)]):
        subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=900
        )
    return environment


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("dags", 2), ("streams", 1000), ("loads", 20), ("models", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--url", help="SQLAlchemy URL of an empty PostgreSQL database; SQLite by default")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    url, inside = given.pop("url"), given.pop("inside")
    if inside:
        return measure()
    with tempfile.TemporaryDirectory() as folder:
        environment = _filled(Path(folder), url, given | {"counted": True})
        lines = subprocess.run(
            [sys.executable, "-m", "benchmarks.page", "--inside"],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=900,
        ).stdout.splitlines()
    table = Table(
        "request", "seconds", "queries", "kB", title=", ".join(f"{size:,} {name}" for name, size in given.items())
    )
    for line in (json.loads(each) for each in lines if each.startswith("{")):
        table.add_row(line["endpoint"], f"{line['seconds']:.2f}", str(line["queries"]), f"{line['bytes'] / 1000:,.0f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
