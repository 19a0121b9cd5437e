"""Volumes of Unity Catalog as folders, and COPY INTO from them or from S3."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from tests.support.databricks_standin.engine import Session, quoted

_COPY = re.compile(
    r"COPY\s+INTO\s+(?P<table>\S+)\s+FROM\s+(?:\(\s*SELECT\s+(?P<select>.*?)\s+FROM\s+)?'(?P<source>[^']+)'\s*\)?\s*"
    r"FILEFORMAT\s*=\s*PARQUET\s*(?:FILES\s*=\s*\((?P<files>[^)]*)\)\s*)?(?P<rest>.*)",
    re.I | re.S,
)


class Volumes:
    """The files of all volumes.

    Args:
        folder: holds `Volumes/<catalog>/<schema>/<volume>`.
        s3: endpoint, key and secret of the S3 server that stands behind external locations.
    """

    def __init__(self, folder: Path, s3: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.s3 = s3 or {}
        self._copied: set[tuple[str, str]] = set()

    def path(self, name: str) -> Path:
        """The local path of a path in a volume."""
        if not name.startswith("/Volumes/") or ".." in name.split("/"):
            raise ValueError(f"[INVALID_PATH] not a path in a volume: {name}")
        return self.folder / name.lstrip("/")

    def exists(self, name: str) -> bool:
        """Whether the volume of a path is there."""
        return self.path("/".join(name.split("/")[:5])).is_dir()

    def make(self, path: list[str]) -> None:
        """Make a volume."""
        self.folder.joinpath("Volumes", *path).mkdir(parents=True, exist_ok=True)

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder of a volume or of S3; of one that is not there, none."""
        if not folder.startswith("s3://"):
            here = self.path(folder)
            return sorted(file.name for file in here.iterdir()) if here.is_dir() else []
        selector = pyarrow.fs.FileSelector(folder.removeprefix("s3://"), allow_not_found=True)
        return sorted(each.base_name for each in self._bucket().get_file_info(selector))

    def local(self, source: str) -> Path:
        """A file of a volume or of S3 as a local one."""
        if not source.startswith("s3://"):
            return self.path(source)
        target = self.folder / "fetched" / source.removeprefix("s3://")
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._bucket().open_input_stream(source.removeprefix("s3://")) as stream:
            target.write_bytes(stream.read())
        return target

    def _bucket(self) -> pyarrow.fs.S3FileSystem:
        if not self.s3:
            raise ValueError("[UNITY_CATALOG_EXTERNAL_LOCATION_DOES_NOT_EXIST] there is no external location")
        scheme, _, address = self.s3["endpoint"].partition("://")
        return pyarrow.fs.S3FileSystem(
            access_key=self.s3["key"], secret_key=self.s3["secret"], endpoint_override=address, scheme=scheme
        )

    def copy_into(self, session: Session, sql: str) -> pa.Table | None:
        """Carry out a COPY INTO of Parquet files that are listed; None for any other statement.

        Files that were copied into this table are left out, unless it was replaced since.
        """
        found = _COPY.fullmatch(sql.strip())
        if not found:
            return None
        table = quoted(session.path(found["table"]))
        types = {field.name.lower(): field.dataType.simpleString() for field in session.spark.table(table).schema}
        made = str(session.spark.sql(f"SHOW TBLPROPERTIES {table}").collect())
        names = re.findall(r"'([^']+)'", found["files"] or "")
        force = bool(re.search(r"'force'\s*=\s*'true'", found["rest"], re.I))
        count = 0
        for name in names:
            source = f"{found['source'].rstrip('/')}/{name}"
            if (table + made, source) in self._copied and not force:
                continue
            file = self.local(source)
            if not file.is_file():
                raise ValueError(f"[PATH_NOT_FOUND] Path does not exist: {source}")
            frame = session.spark.read.parquet(f"file://{file}")
            unknown = [column for column in frame.columns if column.lower() not in types]
            if unknown:
                raise ValueError(f"[COPY_INTO_SCHEMA_MISMATCH_WITH_TARGET_TABLE] {', '.join(unknown)} not in {table}")
            for column in frame.schema:
                here, there = column.dataType.simpleString(), types[column.name.lower()]
                if here != there:  # Delta merges no other type into a column without a cast
                    raise ValueError(f"[DELTA_FAILED_TO_MERGE_FIELDS] '{column.name}': {here} into {there}")
            frame.createOrReplaceTempView("__copied")
            columns = ", ".join(f"`{column}`" for column in frame.columns)
            session.spark.sql(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM __copied")
            count += frame.count()
            self._copied.add((table + made, source))
        return pa.table(
            {
                "num_affected_rows": pa.array([count], pa.int64()),
                "num_inserted_rows": pa.array([count], pa.int64()),
                "num_skipped_corrupt_files": pa.array([0], pa.int32()),
            }
        )
