"""The shop as it is shipped: its files, replication and contracts, from the source to the raw tables and again."""

from __future__ import annotations

import csv
from pathlib import Path

from include.elt.contract import read_contracts
from include.elt.extract import Extraction
from include.elt.paths import SAMPLE_DATA
from include.elt.replication import read_replication
from tests.support.elt import Bench


def test_every_row_arrives_and_a_second_run_changes_nothing(bench: Bench) -> None:
    settings = bench.settings()
    replication = read_replication(settings.shop_replication(), settings.variables())
    contracts = read_contracts()
    for stream in replication.streams:
        loads = []
        for run in ("scheduled__1", "scheduled__2"):
            manifest, location = Extraction(replication, stream, contracts[stream.table], settings).run(run)
            assert location is not None
            result = bench.warehouse().load(manifest, Path(location))
            content = bench.query(f"SELECT COLUMNS(*)::VARCHAR FROM {stream.table}")
            loads.append((result.rows_loaded, result.rows_total, result.watermark, result.repeated, content))
        with (SAMPLE_DATA / f"{stream.id}.csv").open(encoding="utf-8", newline="") as file:
            _, *rows = csv.reader(file)
        assert loads[0] == loads[1]
        assert loads[0][0] == loads[0][1] == len(rows)
        assert loads[0][4] == [tuple(row) for row in rows]
        assert (loads[0][2] is None) == (stream.update_key is None)
    assert bench.query("SELECT count(*), count(DISTINCT table_name) FROM ops.load_log") == [(6, 3)]
