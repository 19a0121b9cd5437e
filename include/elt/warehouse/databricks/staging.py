"""Tables of one load in the schema `ops`, which nobody but the loads reads: what arrived, and what it changes.

Their names hold the table and the extraction, so that a load that is tried again takes its own again, and every load of
a table removes what killed ones left.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress

from include.elt.errors import LoadError
from include.elt.lake import DataFile, Manifest, damaged, missing, slug
from include.elt.warehouse.databricks.session import Session
from include.elt.warehouse.databricks.table import Table
from include.elt.warehouse.databricks.text import literal, type_of

log = logging.getLogger(__name__)

_SCHEMA = "ops"
_READ = 1024**3
"""Bytes up to which a file's digest is computed by the warehouse, which has to hold it in memory for that; of a larger
one the size is compared."""

_NO_FILES = re.compile(r"\[(CF_EMPTY_DIR_FOR_SCHEMA_INFERENCE|PATH_NOT_FOUND)[\].]")


class Staging:
    """The tables of one load.

    Args:
        sql: the session.
        manifest: what was extracted.
        location: where it lies: a folder in a volume, or in S3.
    """

    def __init__(self, sql: Session, manifest: Manifest, location: str) -> None:
        self.sql = sql
        self.manifest = manifest
        self.location = location
        self._prefix = f"load__{manifest.table.replace('.', '__')}__"
        name = f"{_SCHEMA}.{self._prefix}{slug(manifest.id)[:12]}"
        self.rows = Table(sql, name)
        self.keys = Table(sql, f"{name}_keys")
        self.changes = Table(sql, f"{name}_changes")

    def verify(self) -> None:
        """Compare each file with its digest in the manifest, by the warehouse itself.

        Raises:
            LoadError: a file is missing or is not what was extracted.
        """
        every = self.manifest.everything
        small = {file.name: file for file in every if file.bytes <= _READ}
        found = dict(self._files("sha2(content, 256)", f"WHERE length <= {_READ}")) if small else {}
        sizes = dict(self._files("length", "")) if len(small) < len(every) else {}
        for file in every:
            url = f"{self.location}/{file.name}"
            there, wanted = (found, file.sha256) if file.name in small else (sizes, file.bytes)
            if file.name not in there:
                raise LoadError(missing(url))
            if there[file.name] != wanted:
                raise LoadError(damaged(url))

    def _files(self, what: str, where: str) -> list[tuple[str, object]]:
        """Name and something else of the Parquet files of the extraction."""
        statement = (
            f"SELECT path, {what} FROM read_files({literal(self.location)}, format => 'binaryFile',"
            f" fileNamePattern => '*.parquet') {where}".rstrip()
        )
        try:
            rows = self.sql.rows(statement)
        except LoadError as error:
            if _NO_FILES.search(str(error)):
                return []
            raise
        return [(str(path).rpartition("/")[2], value) for path, value in rows]

    def fill(self) -> None:
        """Copy the extraction into its tables.

        Raises:
            LoadError: other rows arrived than were extracted.
        """
        types = {name: type_of(data_type) for name, data_type in self.manifest.columns}
        self._copy(self.rows, types, self.manifest.files)
        if self.manifest.keys:
            of_key = {name: types[name] for name in self.manifest.primary_key}
            self._copy(self.keys, of_key, [self.manifest.keys])

    def _copy(self, table: Table, columns: dict[str, str], files: Sequence[DataFile]) -> None:
        table.empty(columns)
        table.copy_in(self.location, [file.name for file in files if file.rows])
        arrived, wanted = table.count(), sum(file.rows for file in files)
        if arrived != wanted:
            raise LoadError(f"{self.manifest.table}: {arrived} rows arrived of {wanted}; the raw table is as before")

    def sweep(self) -> None:
        """Remove what killed loads of the same table left."""
        pattern = literal(f"{self._prefix}*")
        # The pattern also finds those of a table whose name goes on behind two underscores; they are not ours.
        ours = re.compile(re.escape(self._prefix) + "[0-9a-f]{12}(_keys|_changes)?")
        for row in self.sql.rows(f"SHOW TABLES IN {self.sql.qualified(_SCHEMA)} LIKE {pattern}"):
            if not ours.fullmatch(str(row[1])):
                continue
            log.info("%s: removing %s, which a load that was killed has left", self.manifest.table, row[1])
            Table(self.sql, f"{_SCHEMA}.{row[1]}").drop()

    def remove(self) -> None:
        """Remove the tables of this load; what cannot be removed now, the next load of the table removes."""
        for table in (self.changes, self.keys, self.rows):
            with suppress(LoadError):
                table.drop()
