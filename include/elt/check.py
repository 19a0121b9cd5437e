"""`make check`: every replication against its contracts and the settings, without running anything."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from include.dbt_watch.parse import GRAPH
from include.elt import freshness
from include.elt.alerts.silences import read_silences
from include.elt.contract import read_contracts
from include.elt.errors import EltError
from include.elt.manifest import build_manifest
from include.elt.paths import REPLICATIONS, shown
from include.elt.replication import check_against, read_replication
from include.elt.settings import load_settings


def main() -> int:
    """Check everything and print a table of the streams, or every fault.

    Returns:
        0 when all is well, 1 otherwise.
    """
    console = Console(width=None if sys.stdout.isatty() else 120)
    faults: list[str] = []
    table = Table("stream", "mode", "raw table", "primary key", "update key", "columns")
    try:
        settings = load_settings()
        settings.shop_replication()
        settings.sling()
        contracts = read_contracts()
        silences = read_silences()
        graph = json.loads(build_manifest(settings).with_name(GRAPH).read_bytes())
    except EltError as error:
        console.print(f"[red]{error}[/red]", soft_wrap=True)
        return 1
    faults += freshness.faults(graph)
    for file in sorted(REPLICATIONS.glob("*.yaml")):
        try:
            replication = read_replication(file, settings.variables())
            check_against(replication, contracts)
        except EltError as error:
            faults.append(str(error))
            continue
        for stream in replication.streams:
            table.add_row(
                f"{replication.name}: {stream.id}",
                stream.mode,
                stream.table,
                ", ".join(stream.primary_key),
                stream.update_key or "",
                str(len(contracts[stream.table].columns)),
            )
    console.print(table)
    for silence in silences:
        if silence.until < datetime.now(UTC).date():
            console.print(
                f"[yellow]silence ended on {silence.until}, remove it: {silence.reason}[/yellow]", soft_wrap=True
            )
    for fault in faults:
        console.print(fault, style="red", markup=False, soft_wrap=True)
    print(f"{shown(REPLICATIONS)}: {table.row_count} streams are right, {len(faults)} replications are not")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
