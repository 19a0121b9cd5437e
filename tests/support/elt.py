"""A bench for the tests of include/elt: a source file, a lake and a warehouse, all in one temporary folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb

from include.elt.contract import Column, Contract
from include.elt.extract import Extraction
from include.elt.lake import Lake, Manifest, describe
from include.elt.lake.local import LocalLake
from include.elt.modes import Reading
from include.elt.paths import ROOT
from include.elt.replication import Replication, Stream
from include.elt.settings import Settings, load_settings
from include.elt.sources.files import FileSource, Find
from include.elt.sql import literal, parquet
from include.elt.warehouse.duckdb import DuckDBWarehouse

COLUMNS = {"id": "bigint", "a": "string", "b": "string"}
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Extracted:
    """What an extraction left in the lake."""

    manifest: Manifest
    folder: Path
    rows: list[Row]
    rejects: list[dict[str, Any]]


class Bench:
    """Everything an extraction and a load need, below one folder; two benches of one folder are the same."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "source.csv"
        self.lake = LocalLake(root / "lake")
        self.database = root / "warehouse.duckdb"

    def settings(self, **overrides: Any) -> Settings:
        return load_settings(_env_file=None, **{"lake": self.lake.root, "duckdb_path": self.database} | overrides)

    def write(self, data: str | bytes, name: str = "source.csv") -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
        return file

    def contract(self, columns: Mapping[str, str] = COLUMNS, table: str = "raw.orders") -> Contract:
        shape = tuple(Column(name, data_type) for name, data_type in columns.items())
        return Contract(table, "shop.orders", shape, self.root / "sources.yml")

    def stream(
        self,
        key: tuple[str, ...] = ("id",),
        options: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        name: str | None = None,
        mode: str = "full-refresh",
    ) -> Stream:
        """The stream of the source file, or of what `name` says, seen from the bench's folder."""
        keys: dict[str, Any] = {"mode": mode, "object": "raw.orders", "primary_key": key}
        path = self.file if name is None else f"{self.root}/{name}"
        return Stream(name=f"file://{path}", source_options=options or {}, meta=meta or {}, **keys)

    def extraction(
        self,
        columns: Mapping[str, str] = COLUMNS,
        key: tuple[str, ...] = ("id",),
        options: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        name: str | None = None,
        mode: str = "full-refresh",
        find: Find | None = None,
        **settings: Any,
    ) -> Extraction:
        stream, contract = self.stream(key, options, meta, name, mode), self.contract(columns)
        replication = Replication(name="shop", file=self.root / "shop.yaml", source="LOCAL", streams=(stream,))
        given = self.settings(**settings)
        return Extraction(replication, stream, contract, given, FileSource(stream, contract, given, find))

    def extract(self, data: str | bytes | None = None, reading: Reading | None = None, **what: Any) -> Extracted:
        """Extract the source file, which is written first if its content is given."""
        if data is not None:
            self.write(data)
        extraction = self.extraction(**what)
        manifest, location = extraction.run("manual__1", reading) if reading else extraction.run("manual__1")
        assert location is not None
        folder = Path(location)
        rejects = folder / "rejects.jsonl"
        lines = rejects.read_text(encoding="utf-8").split("\n") if rejects.exists() else []
        return Extracted(manifest, folder, rows_of(folder), [json.loads(line) for line in lines if line])

    def publish(self, query: str, columns: Mapping[str, str] | None = None, **fields: Any) -> tuple[Manifest, Path]:
        """An extraction in the bench's lake whose rows come from a DuckDB query, without Sling."""
        manifest, location = self.publish_to(self.lake, query, columns, **fields)
        return manifest, Path(location)

    def publish_to(
        self, lake: Lake, query: str, columns: Mapping[str, str] | None = None, **fields: Any
    ) -> tuple[Manifest, str]:
        """The same in any lake."""
        contract = self.contract(columns or {"id": "bigint", "a": "string"})
        with lake.workplace("shop", "orders") as work:
            ready = work / "ready"
            ready.mkdir()
            file = ready / "part-00000.parquet"
            with duckdb.connect() as sql:
                count = sql.execute(f"COPY ({query}) TO {literal(file)} (FORMAT parquet)").fetchone()
            assert count is not None
            given: dict[str, Any] = {
                "id": uuid4().hex,
                "run_id": "manual__1",
                "replication": "shop",
                "stream": "orders",
                "source": {"files": []},
                "table": contract.table,
                "mode": "full-refresh",
                "columns": tuple((column.name, column.data_type) for column in contract.columns),
                "schema_hash": contract.schema_hash,
                "update_key": None,
                "rows_read": count[0],
                "rows_rejected": 0,
                "files": (describe(file, count[0]),),
                "seconds": 0.5,
                "extracted_at": datetime.now(UTC).isoformat(),
            }
            manifest = Manifest(**given | fields)
            return manifest, lake.publish(ready, manifest)

    def warehouse(self, lock_timeout: float = 0.5, load_timeout: float = 60) -> DuckDBWarehouse:
        return DuckDBWarehouse(self.database, lock_timeout, load_timeout)

    def query(self, sql: str) -> list[Row]:
        """Ask the warehouse's file; opened for this one question."""
        with duckdb.connect(str(self.database)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    def work_folders(self) -> list[Path]:
        return sorted((self.lake.root / ".work").glob("*"))

    def standin(self, behaviour: str, **details: Any) -> Path:
        """An executable that takes Sling's place and misbehaves; see tests/support/sling_standin.py."""
        file = self.root / "sling_standin"
        call = f"main({behaviour!r}, {details!r})"
        file.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            f"from tests.support.sling_standin import main\n{call}\n"
        )
        file.chmod(0o755)
        return file


def rows_of(folder: Path) -> list[Row]:
    """The rows of an extraction in their order; timestamps with a zone as UTC text."""
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        relation = f"SELECT * FROM {parquet(sorted(folder.glob('*.parquet')))}"
        zoned = [row[0] for row in sql.execute(f"DESCRIBE {relation}").fetchall() if "TIME ZONE" in row[1]]
        texts = ", ".join(f'"{name}"::VARCHAR AS "{name}"' for name in zoned)
        return sql.execute(relation.replace("*", f"* REPLACE ({texts})", 1) if zoned else relation).fetchall()
