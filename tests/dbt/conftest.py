"""A warehouse of its own for each test, filled by the contract, and the real dbt on top of it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "dbt"
CONTRACTS = [PROJECT / "models" / "staging" / source / "sources.yml" for source in ("shop", "web")]
OURS = ("DBT_", "DUCKDB_", "DATABRICKS_")

GOLDEN: dict[str, list[tuple[object, ...]]] = {
    "raw_customers": [
        (1, "Ada", "Byron"),
        (2, "Zoë", "O'Brien"),
        (3, "Émilie", "du Châtelet"),  # never ordered
        (4, 'Robert "Bob"', "Hayes, Jr."),
        (5, "美咲", "田中"),
    ],
    "raw_orders": [
        (10, 1, "2025-01-02", "completed"),
        (11, 1, "2025-03-01", "returned"),
        (12, 2, "2025-02-14", "shipped"),
        (13, 4, "2024-12-31", "return_pending"),
        (14, 4, "2025-03-02", "placed"),  # not paid yet
        (15, 2, "2025-03-01", "completed"),  # for free
        (16, 5, "2025-03-03", "completed"),
    ],
    "raw_payments": [
        (100, 10, "credit_card", 1999),
        (101, 10, "gift_card", 1000),
        (102, 10, "credit_card", 1),
        (103, 11, "bank_transfer", 4550),
        (104, 12, "coupon", 500),
        (105, 12, "credit_card", 1250),
        (106, 13, "gift_card", 333),
        (107, 15, "coupon", 0),
        (108, 16, "bank_transfer", 9007199254740993),  # the first whole number that a float cannot hold
    ],
    "raw_users": [
        ("u-1", "ada@example.com", "Ada", "GB", True, "12.50", "2026-01-01 00:00:00", "2026-01-02 10:00:00", None),
        ("u-2", "zoe@example.com", "", "NO", False, "0.00", "2025-12-31 23:59:59.999999", None, None),
        ("u-3", "ada@example.com", None, "JP", True, "1.00", "2026-01-02", None, "2026-01-03 05:00:00"),
    ],
    "raw_events": [
        (1, "u-1", "view", '{"page": "/cups?a=\\"b\\"\\n"}', "2026-01-01 00:00:00", "2026-01-01 00:00:01"),
        (2, "u-1", "search", "{}", "2026-01-01 23:59:59.999999", "2026-01-04 12:00:00"),  # three days late
        (3, "u-2", "purchase", '{"page": "/", "amount": "19.99"}', "2026-01-01 12:00:00", "2026-01-01 12:00:00"),
        (4, "u-3", "purchase", '{"amount": 0.01}', "2026-01-02 00:00:00", "2026-01-02 00:00:00"),
        (5, "u-9", "add_to_cart", '{"page": null}', "2026-01-02 00:00:00", "2026-01-02 00:00:00"),  # unknown yet
    ],
    "raw_inventory": [
        ("north", "A-1", 9, 0, "1.2500", True, "2026-01-01 04:00:00", "2026-01-01 05:00:00"),
        ("north", "A-1", 7, 8, "1.2500", True, "2026-01-01 16:00:00", "2026-01-01 23:59:59"),
        ("north", "A-1", 10, 0, "1.3333", True, "2026-01-02 04:00:00", "2026-01-02 00:00:00"),
        ("south", "A-1", 1, 0, "0.0001", False, "2026-01-01 04:00:00", "2026-01-02 00:00:00"),
    ],
    "raw_active_carts": [(1, "u-1", "2026-01-02 20:00:00", 2, "25.98")],
}


@dataclass
class Result:
    """What one dbt command did."""

    returncode: int
    events: list[dict[str, Any]]
    output: str
    statuses: dict[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        return [event["info"]["msg"] for event in self.events if event["info"]["level"] in {"warn", "error"}]

    def having(self, *statuses: str) -> set[str]:
        return {name for name, status in self.statuses.items() if status in statuses}


@dataclass
class Warehouse:
    """A DuckDB file with the folders that dbt writes to."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "warehouse.duckdb"

    @property
    def target(self) -> Path:
        return self.folder / "target"

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.target / "manifest.json").read_text(encoding="utf-8"))

    def sql(self, statement: str, parameters: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.path) as connection:
            return connection.execute(statement, list(parameters)).fetchall()

    def load(self, table: str, rows: Iterable[tuple[object, ...]], loaded_at: datetime | None = None) -> None:
        """Replace a raw table, as the loader does: the contract's columns and types, and a line in the log."""
        sources = [yaml.safe_load(file.read_text(encoding="utf-8"))["sources"] for file in CONTRACTS]
        entries = [entry for [source] in sources for entry in source["tables"]]
        [columns] = [entry["columns"] for entry in entries if entry["name"] == table]
        types = ", ".join(
            f"{column['name']} {column['data_type'].replace('timestamp', 'timestamptz')}" for column in columns
        )
        marks = ", ".join("?" * len(columns))
        with duckdb.connect(self.path) as connection:
            connection.execute("create schema if not exists raw")
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"create or replace table raw.{table} ({types})")
            rows = list(rows)
            if rows:
                connection.executemany(f"insert into raw.{table} values ({marks})", rows)
        self.log(table, loaded_at or datetime.now(UTC))

    def log(self, table: str, loaded_at: datetime, window_lower: str | None = None, changed: int = 1) -> None:
        self.sql("create schema if not exists ops")
        self.sql(
            "create table if not exists ops.load_log (table_name varchar, loaded_at timestamptz, window_lower varchar,"
            " rows_inserted bigint, rows_updated bigint, rows_deleted bigint)"
        )
        self.sql(
            "insert into ops.load_log values (?, ?, ?, ?, 0, 0)", [f"raw.{table}", loaded_at, window_lower, changed]
        )

    def load_all(self, tables: Mapping[str, Iterable[tuple[object, ...]]]) -> None:
        for table, rows in tables.items():
            self.load(table, rows)

    def dbt(self, *args: str, **env: str) -> Result:
        """Run dbt as a process of its own: it keeps global state."""
        results = self.target / "run_results.json"
        results.unlink(missing_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(OURS)} | {
            "DBT_PROJECT_DIR": str(PROJECT),
            "DBT_PROFILES_DIR": str(PROJECT),
            "DBT_TARGET_PATH": str(self.target),
            "DBT_LOG_PATH": str(self.folder / "logs"),
            "DUCKDB_PATH": self.path.name,  # the same in every folder, so that a parse result can be shared
            "TZ": "America/New_York",  # whoever takes local time for UTC is hours off here
        }
        dbt = str(Path(sys.executable).with_name("dbt"))
        done = subprocess.run(
            [dbt, "--log-format", "json", *args],
            env=environment | env,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        lines = done.stdout.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        output = "\n".join(event["info"]["msg"] for event in events) + done.stderr
        result = Result(done.returncode, events, output)
        if results.exists():
            for row in json.loads(results.read_text(encoding="utf-8"))["results"]:
                kind, _, *names = row["unique_id"].split(".")
                result.statuses[names[0] if kind == "test" else names[-1]] = row["status"]
        return result


@pytest.fixture
def warehouse(build: tuple[Warehouse, Result], tmp_path: Path) -> Warehouse:
    """An empty warehouse; the project is parsed already, which saves dbt the time."""
    empty = Warehouse(tmp_path)
    empty.target.mkdir()
    shutil.copy(build[0].target / "partial_parse.msgpack", empty.target)
    return empty


@pytest.fixture
def golden() -> dict[str, list[tuple[object, ...]]]:
    """Rows of the raw tables, small enough to be checked by hand; a copy to be changed at will."""
    return {table: list(rows) for table, rows in GOLDEN.items()}


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Result]:
    """One `dbt build` on the golden rows, to be looked at and not to be changed."""
    warehouse = Warehouse(tmp_path_factory.mktemp("golden"))
    warehouse.load_all(GOLDEN)
    return warehouse, warehouse.dbt("build")


@pytest.fixture
def built(build: tuple[Warehouse, Result], warehouse: Warehouse) -> Warehouse:
    """A copy of what that build left behind."""
    shutil.copy(build[0].path, warehouse.path)
    return warehouse


@pytest.fixture(scope="session")
def manifest(build: tuple[Warehouse, Result]) -> dict[str, Any]:
    """The manifest of that build."""
    return build[0].manifest


@pytest.fixture(scope="session")
def ours(manifest: dict[str, Any]) -> Callable[..., list[dict[str, Any]]]:
    """The project's own nodes of the given kinds: `ours("model", "snapshot")`."""

    def find(*kinds: str) -> list[dict[str, Any]]:
        nodes = [*manifest["nodes"].values(), *manifest["sources"].values(), *manifest["exposures"].values()]
        nodes += [*manifest["macros"].values(), *manifest["unit_tests"].values()]
        return [node for node in nodes if node["package_name"] == "jdbt" and node["resource_type"] in kinds]

    return find
