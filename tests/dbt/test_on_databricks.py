"""The web shop on Databricks and on DuckDB: the same rows in tables, in views of JSON, and in an incremental mart.

The shop's own models and the snapshots are compared in tests/dags/test_jaffle_shop_databricks.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.elt.connections.databricks import Workspace
from include.elt.contract import DELETED_AT, read_contracts
from include.elt.paths import DBT_PROJECT
from include.elt.replication import Meta
from tests.support.databricks_standin.bench import DatabricksBench
from tests.support.databricks_standin.running import StandIn
from tests.support.elt import Bench
from tests.support.loads import Raw

pytestmark = [pytest.mark.databricks_standin, pytest.mark.timeout(900)]

LOADED = ("raw_users", "raw_events", "raw_active_carts")
RELATIONS = {
    "staging.stg_events": "*",
    "staging.stg_users": "*",
    "marts.daily_active_users": "*",
    "marts.inventory_days": "*",
    "marts.purchases": "event_id, user_id, page, amount, occurred_at",  # each warehouse has a load log of its own
}


@dataclass
class Both:
    """A warehouse of each kind, and dbt on them."""

    folder: Path
    standin: StandIn

    def __post_init__(self) -> None:
        for name in ("duckdb", "databricks"):
            (self.folder / name).mkdir()
        benches = Bench(self.folder / "duckdb"), DatabricksBench(self.folder / "databricks", self.standin)
        self.duckdb, self.databricks = (Raw(bench) for bench in benches)

    def load(self, table: str, rows: Iterable[tuple[object, ...]], **fields: Any) -> None:
        """Load the same into both raw tables."""
        contract = read_contracts()[f"raw.{table}"]
        own = {column.name: column.data_type for column in contract.columns}
        given: dict[str, Any] = {
            "columns": own,
            "table": f"raw.{table}",
            "stream": table,
            "primary_key": ("id",),
            "added": contract.added,
        }
        for raw in (self.duckdb, self.databricks):
            soft = Meta(deletes="soft") if DELETED_AT in contract.added else Meta()
            raw.take(raw.extract([row[: len(own)] for row in rows], **given | fields), soft)

    def build(self) -> None:
        """`dbt build` of what reads the web shop's tables."""
        connection = Workspace.of(self.standin.connection())
        targets = {
            "duckdb": {"DUCKDB_PATH": str(self.duckdb.bench.database)},
            "databricks": {"DATABRICKS_CATALOG": "main"} | connection.dbt_environment({"by": "test"}, 600),
        }
        for target, own in targets.items():
            where = ["--project-dir", DBT_PROJECT, "--profiles-dir", DBT_PROJECT, "--target", target]
            where += ["--target-path", self.folder / target / "target", "--log-path", self.folder / target]
            result = subprocess.run(
                [sys.executable, "-m", "dbt.cli.main", "build", *where, "--select", "source:web+"],
                env={**os.environ, **own},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=600,
                check=False,
            )
            assert result.returncode == 0, result.stdout[-5000:]

    def compare(self) -> dict[str, int]:
        """Each relation has the same rows in both; how many."""
        counts = {}
        for relation, columns in RELATIONS.items():
            query = f"SELECT {columns} FROM {relation}"
            ours, theirs = (_sorted(raw.bench.query(query)) for raw in (self.duckdb, self.databricks))
            assert theirs == ours, relation
            counts[relation] = len(ours)
        return counts


def _sorted(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """In an order of their own; instants as DuckDB's `timestamp` has them, in UTC and without a zone."""
    plain = [
        tuple(
            value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value
            for value in row
        )
        for row in rows
    ]
    return sorted(plain, key=str)


def test_the_web_shop_is_the_same_and_purchases_are_merged(workspace: StandIn, tmp_path: Path, golden: Any) -> None:
    both = Both(tmp_path, workspace)
    for table in LOADED:
        mode = "full-refresh" if table == "raw_active_carts" else "incremental"
        both.load(table, golden[table], mode=mode, update_key="occurred_at" if table == "raw_events" else None)
    for moment in sorted({row[-1] for row in golden["raw_inventory"]}):
        levels = [row for row in golden["raw_inventory"] if row[-1] == moment]
        key = {"primary_key": ("site", "sku")}
        both.load("raw_inventory", levels, mode="snapshot", extracted_at=f"{moment}+00:00", **key)
    both.load("raw_users", [], mode="incremental", keys=[("u-1",), ("u-2",)])  # the third one is deleted
    both.build()
    assert both.compare()["marts.purchases"] == 2
    properties = dict(workspace.rows("SHOW TBLPROPERTIES marts.purchases"))
    assert properties["delta.enableChangeDataFeed"] == "true"

    # One came late, one changed, one is new; what lies before the window is not read again.
    purchase = '{"page": "/", "amount": "5.00"}'
    rows = [
        (6, "u-1", "purchase", purchase, "2026-01-02 00:00:00.000001", "2026-01-04 00:00:00"),
        (4, "u-3", "purchase", purchase, "2026-01-02 00:00:00", "2026-01-02 00:00:00"),
        (7, "u-2", "purchase", purchase, "2026-01-03 08:00:00", "2026-01-03 08:00:00"),
    ]
    window = {"column": "occurred_at", "lower": "2026-01-02 00:00:00+00:00", "upper": None, "closed": True}
    both.load("raw_events", rows, mode="incremental", update_key="occurred_at", window=window)
    since = workspace.mark()
    both.build()
    assert both.compare()["marts.purchases"] == 4
    statements = {" ".join(entry["sql"].split()): entry["how"] for entry in workspace.entries(since=since)}
    merges = {text: how for text, how in statements.items() if " merge into " in text}
    assert list(merges.values()) == ["native"]
    assert "merge into `main`.`marts`.`purchases`" in next(iter(merges))
    assert not [text for text in statements if "replace table `main`.`marts`.`purchases`" in text]
