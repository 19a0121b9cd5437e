"""The table web.orders into a DuckDB file by dlt; runs in the environment of dlt.lock, without anything of ours.

usage: python benchmarks/dlt_step.py connectorx|pyarrow FILE
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from urllib.parse import quote

import dlt
from dlt.sources.sql_database import sql_table


def main(backend: str, target: Path) -> None:
    """Read and load."""
    server = json.loads(os.environ["BENCHMARK_SERVER"])
    user, password = (quote(server[key], safe="") for key in ("user", "password"))
    url = f"postgresql+psycopg2://{user}:{password}@{server['host']}:{server['port']}/{server['dbname']}"
    pipeline = dlt.pipeline(
        "benchmark",
        destination=dlt.destinations.duckdb(str(target)),
        dataset_name="raw",
        pipelines_dir=str(target.parent / "dlt"),
    )
    table = sql_table(credentials=url, schema="web", table="orders", backend=backend, chunk_size=50_000)
    pipeline.run(table, write_disposition="replace").raise_on_failed_jobs()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
