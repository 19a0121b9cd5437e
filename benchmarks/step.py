"""One measured step in a process of its own.

usage: python -m benchmarks.step extract | extract-table PARALLEL | load LAKE | copy FILE | parse FILE
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

COLUMNS = {
    "id": "bigint",
    "customer_id": "bigint",
    "amount": "decimal(12,2)",
    "status": "string",
    "note": "string",
    "updated_at": "timestamp",
    "created_at": "timestamp_ntz",
    "paid": "boolean",
    "due": "date",
}
"""The contract of the table `web.orders` that benchmarks/sources.py makes."""


def extract() -> None:
    """Extract the stream raw_orders from a CSV file."""
    from include.elt.contract import read_contracts
    from include.elt.extract import Extraction
    from include.elt.replication import read_replication
    from include.elt.settings import load_settings

    settings = load_settings()
    shop = read_replication(settings.shop_replication(), settings.variables())
    stream = shop.stream("raw_orders")
    Extraction(shop, stream, read_contracts()[stream.table], settings).run("benchmark")


def extract_table(parallel: int) -> None:
    """Extract the table web.orders from the PostgreSQL server that `BENCHMARK_SERVER` tells of."""
    from include.elt.contract import Column, Contract
    from include.elt.extract import Extraction
    from include.elt.modes import Reading
    from include.elt.replication import Replication, Stream
    from include.elt.settings import load_settings
    from include.elt.sources import open_source

    settings, told = load_settings(), _server()
    given = {"object": "raw.orders", "primary_key": "id", "update_key": "updated_at", "meta": {"parallel": parallel}}
    stream = Stream.model_validate({"name": "web.orders", "mode": "full-refresh", **given})
    replication = Replication(name="web", file=Path("web.yaml"), source="web_postgres", streams=(stream,))
    columns = tuple(Column(*each) for each in COLUMNS.items())
    contract = Contract(stream.table, "web.orders", columns, Path("sources.yml"))
    connection: Any = SimpleNamespace(
        conn_id="web_postgres",
        conn_type="postgres",
        host=told["host"],
        port=told["port"],
        login=told["user"],
        password=told["password"],
        schema=told["dbname"],
        extra_dejson={"sslmode": "disable"},
    )
    source = open_source(replication, stream, contract, settings, lambda _: connection)
    Extraction(replication, stream, contract, settings, source).run("benchmark", Reading())


def load(lake: Path) -> None:
    """Load the only extraction of a lake."""
    from include.elt.lake import read_manifest
    from include.elt.lake.local import LocalLake
    from include.elt.settings import load_settings
    from include.elt.warehouse import open_warehouse

    [file] = lake.glob("[!.]*/*/*/manifest.json")
    open_warehouse(load_settings()).load_from(LocalLake(lake), str(file.parent), read_manifest(file.parent))


def copy(file: Path) -> None:
    """Have the server write the table web.orders as CSV: what no other way can undercut."""
    import psycopg

    with (
        psycopg.connect(**_server()) as connection,
        connection.cursor().copy("COPY web.orders TO STDOUT (FORMAT csv, HEADER)") as rows,
        file.open("wb") as target,
    ):
        for some in rows:
            target.write(some)


def parse(file: Path) -> None:
    """Parse one DAG file as a DAG processor would."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(file))
    if bag.import_errors:
        raise SystemExit(str(bag.import_errors))


def _server() -> dict[str, Any]:
    return dict(json.loads(os.environ["BENCHMARK_SERVER"]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["extract"]:
            extract()
        case ["extract-table", parallel]:
            extract_table(int(parallel))
        case ["load", lake]:
            load(Path(lake))
        case ["copy", file]:
            copy(Path(file))
        case ["parse", file]:
            parse(Path(file))
        case _:
            raise SystemExit(__doc__)
