"""The bench of the warehouse tests on Databricks, and a pair of warehouses that have to agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from include.elt.connections.databricks import Workspace
from include.elt.errors import LoadError
from include.elt.lake import Manifest
from include.elt.lake.local import LocalLake
from include.elt.replication import Meta
from include.elt.warehouse import LoadResult, TableState
from include.elt.warehouse.databricks import DatabricksWarehouse
from include.elt.warehouse.databricks.text import type_of
from include.elt.warehouse.duckdb.table import contract_type
from tests.support.databricks_standin.running import StandIn
from tests.support.elt import Bench, Row
from tests.support.loads import Raw

VOLUME = "/Volumes/main/lake/files"


class Loader(DatabricksWarehouse):
    """Databricks, told folders of its volume as the paths that they have on this computer."""

    def __init__(self, standin: StandIn, login: str = "principal", load_timeout: int = 60) -> None:
        connection = standin.connection(login)
        super().__init__(Workspace.of(connection), "main", 60, load_timeout, {"dag": "tests"})
        self.root = standin.folder

    def load(self, manifest: Manifest, location: Path | str, policy: Meta = Meta()) -> LoadResult:  # noqa: B008
        if isinstance(location, Path):
            location = "/" + str(location.relative_to(self.root))
        return super().load(manifest, location, policy)


class DatabricksBench(Bench):
    """A bench whose lake is a folder in the stand-in's volume."""

    def __init__(self, root: Path, standin: StandIn) -> None:
        super().__init__(root)
        self.standin = standin
        self.lake = LocalLake(standin.folder / VOLUME.lstrip("/") / root.name)

    def warehouse(self, lock_timeout: float = 0.5, load_timeout: float = 60) -> Any:
        return Loader(self.standin, load_timeout=int(load_timeout))

    def query(self, sql: str) -> list[Row]:
        return self.standin.rows(sql)


_NOT_COMPARED = ("seconds",)


@dataclass
class Pair:
    """The raw table `raw.orders` in DuckDB and in Databricks, loaded with the same and compared each time."""

    duckdb: Raw
    databricks: Raw

    @classmethod
    def make(cls, folder: Path, standin: StandIn, **fields: Any) -> Pair:
        for name in ("duckdb", "databricks"):
            (folder / name).mkdir(exist_ok=True)
        databricks = DatabricksBench(folder / "databricks", standin)
        # Folders of different tests have one name; their extractions have not.
        databricks.lake = LocalLake(databricks.lake.root / folder.name)
        return cls(Raw(Bench(folder / "duckdb"), **fields), Raw(databricks, **fields))

    def load(self, rows: Sequence[Row] | str, keys: Sequence[Row] | None = None, **fields: Any) -> Any:
        """Extract and load the same on both."""
        return self.take([raw.extract(rows, keys, **fields) for raw in (self.duckdb, self.databricks)])

    def take(self, extractions: Any, policy: Meta | None = None) -> Any:
        """Load on both; the result, or the kind of error, of both, which has to be the same, and so have the rows."""
        told: list[Any] = []
        for raw, extraction in zip((self.duckdb, self.databricks), extractions, strict=True):
            try:
                found = asdict(raw.take(extraction, policy))
            except LoadError as error:
                told.append((type(error).__name__, str(error)))
            else:
                told.append({name: value for name, value in found.items() if name not in (*_NOT_COMPARED, "bytes")})
        ours, theirs = told
        if isinstance(ours, dict) and isinstance(theirs, dict):
            for each in (ours, theirs):
                each["watermark"] = each["watermark"] and each["watermark"].rstrip("0").rstrip(".")
            assert theirs == ours
        else:
            assert theirs[0] == ours[0], told
        self.compare()
        return ours if isinstance(ours, dict) else theirs

    def compare(self) -> None:
        """Both tables hold the same, in columns of the same name, place and type."""
        assert self.shape(self.databricks) == self.shape(self.duckdb)
        if self.shape(self.duckdb):
            assert _sorted(self.databricks.rows()) == _sorted(self.duckdb.rows())

    @staticmethod
    def shape(raw: Raw) -> list[tuple[str, str]]:
        """Columns and contract types."""
        if isinstance(raw.bench, DatabricksBench):
            if not raw.bench.query("SHOW SCHEMAS LIKE 'raw'") or not raw.bench.query(
                "SHOW TABLES IN raw LIKE 'orders'"
            ):
                return []
            return [(name, type_of(kind)) for name, kind, *_ in raw.bench.query("DESCRIBE TABLE raw.orders")]
        if not raw.bench.database.exists():
            return []
        found = raw.bench.query(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name || '.' || table_name = 'raw.orders'"
            " ORDER BY column_index"
        )
        return [(name, type_of(contract_type(kind))) for name, kind in found]

    def states(self, update_key: str | None) -> TableState | None:
        """Where the table stands, which has to be the same."""
        ours, theirs = (raw.bench.warehouse().state("raw.orders", update_key) for raw in (self.duckdb, self.databricks))
        assert theirs == ours
        return ours

    def policy(self, **fields: Any) -> None:
        """Change the stream's policy."""
        for raw in (self.duckdb, self.databricks):
            raw.policy = replace_meta(raw.policy, **fields)


def replace_meta(meta: Meta, **fields: Any) -> Meta:
    """A policy with other values."""
    return Meta(**{**meta.model_dump(), **fields})


def _sorted(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: [(value is None, str(value)) for value in row])


__all__ = ["VOLUME", "DatabricksBench", "Loader", "Pair", "replace", "replace_meta"]
