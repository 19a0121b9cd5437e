"""One measured step in a process of its own.

usage: python -m benchmarks.step extract|load|parse FILE_OR_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path


def extract() -> None:
    """Extract the stream raw_orders; prints the folder in the lake."""
    from include.elt.contract import read_contracts
    from include.elt.extract import Extraction
    from include.elt.replication import read_replication
    from include.elt.settings import load_settings

    settings = load_settings()
    shop = read_replication(settings.shop_replication(), settings.variables())
    stream = shop.stream("raw_orders")
    Extraction(shop, stream, read_contracts()[stream.table], settings).run("benchmark")


def load(lake: Path) -> None:
    """Load the only extraction of raw_orders."""
    from include.elt.lake import read_manifest
    from include.elt.settings import load_settings
    from include.elt.warehouse import open_warehouse

    [manifest] = lake.glob("*/raw_orders/*/manifest.json")
    open_warehouse(load_settings()).load(read_manifest(manifest.parent), manifest.parent)


def parse(file: Path) -> None:
    """Parse one DAG file as a DAG processor would."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(file))
    if bag.import_errors:
        raise SystemExit(str(bag.import_errors))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["extract"]:
            extract()
        case ["load", lake]:
            load(Path(lake))
        case ["parse", file]:
            parse(Path(file))
        case _:
            raise SystemExit(__doc__)
