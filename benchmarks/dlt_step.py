"""Tables into a DuckDB file by dlt; runs in the environment of dlt.lock, without anything of ours.

usage: python benchmarks/dlt_step.py connectorx|pyarrow FILE | shop FILE FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dlt
from dlt.sources.filesystem import filesystem, read_csv_duckdb
from dlt.sources.sql_database import sql_table


def main(backend: str, target: Path) -> None:
    """Read the table web.orders of a PostgreSQL server and load it."""
    server = json.loads(os.environ["BENCHMARK_SERVER"])
    user, password = (quote(server[key], safe="") for key in ("user", "password"))
    url = f"postgresql+psycopg2://{user}:{password}@{server['host']}:{server['port']}/{server['dbname']}"
    table = sql_table(credentials=url, schema="web", table="orders", backend=backend, chunk_size=50_000)
    _load(target, table)


def shop(target: Path, folder: Path) -> None:
    """Read the shop's three CSV files and load them."""
    files = sorted(folder.glob("raw_*.csv"))
    tables = [filesystem(bucket_url=folder.as_uri(), file_glob=file.name) | read_csv_duckdb() for file in files]
    _load(target, [table.with_name(file.stem) for table, file in zip(tables, files, strict=True)])


def _load(target: Path, tables: Any) -> None:
    """Replace the tables of the schema `raw`."""
    pipeline = dlt.pipeline(
        "benchmark",
        destination=dlt.destinations.duckdb(str(target)),
        dataset_name="raw",
        pipelines_dir=str(target.parent / "dlt"),
    )
    pipeline.run(tables, write_disposition="replace").raise_on_failed_jobs()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["shop", file, folder]:
            shop(Path(file), Path(folder))
        case [backend, file]:
            main(backend, Path(file))
        case _:
            raise SystemExit(__doc__)
