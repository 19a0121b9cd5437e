"""The lake: typed Parquet files between source and warehouse, one folder per extraction.

    <lake>/<replication>/<stream>/<run>--<id>/part-00000.parquet   the rows, typed by the contract
                                              rejects.jsonl        rows that did not fit, if the stream rejects them
                                              manifest.json        what is there

An extraction is there when its manifest is: complete, or not at all. A lake is a folder on a local disk (`local`), in a
bucket of S3 or in a volume of Unity Catalog (`remote`); what is on its way lies in a working folder on a local disk
(`places`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from include.elt.connections import AirflowConnection
from include.elt.errors import LoadError, SettingsError
from include.elt.paths import shown
from include.elt.settings import Settings

MANIFEST = "manifest.json"

ABANDONED = timedelta(days=1)
"""Age from which a folder without a manifest is what a killed task left, and is removed."""


def slug(text: str) -> str:
    """`text` as a file name: letters, digits, dots, dashes and underscores; anything else becomes one underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of an extraction.

    Attributes:
        name: its name within the extraction's folder.
        rows: rows in it.
        bytes: its size.
        sha256: hexadecimal digest of its bytes.
    """

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What one extraction holds. Complete knowledge for the load; the source is not asked again.

    Attributes:
        id: unique name of the extraction; loading one twice changes nothing.
        run_id: Airflow run that made it.
        replication: name of the replication.
        stream: short name of the stream.
        source: where the rows came from: for files `file`, `bytes`, `sha256`.
        table: schema and name of the raw table.
        mode: how it has to be loaded.
        columns: name and contract type of each column, in order.
        schema_hash: digest of `columns`.
        update_key: column of the watermark, if there is one.
        rows_read: rows that the source holds, counted independently of Sling.
        rows_rejected: rows in the rejects file.
        files: the Parquet files.
        seconds: wall-clock time of the extraction.
        extracted_at: UTC time of its start, ISO 8601. What it holds is as new as that at least, and of two extractions
            that overlap the one that began later counts as the newer one.
        primary_key: columns that identify a row.
        added: columns of the raw table that the load adds; see `contract.ADDED`.
        window: range of the update key that was read, as the fields of `modes.Window`; None for everything.
        keys: Parquet file with the primary keys of all rows that the source holds, read after the rows; where the load
            has to find deleted ones.
        rows_duplicate: rows left out because a later one has the same primary key.
        source_rows: rows of the whole source within its `where`, where it was counted to reconcile.
        source_columns: name and type of each column of the source, in the source's own words, where it has types.
    """

    id: str
    run_id: str
    replication: str
    stream: str
    source: dict[str, Any]
    table: str
    mode: str
    columns: tuple[tuple[str, str], ...]
    schema_hash: str
    update_key: str | None
    rows_read: int
    rows_rejected: int
    files: tuple[DataFile, ...]
    seconds: float
    extracted_at: str
    primary_key: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    window: dict[str, Any] | None = None
    keys: DataFile | None = None
    rows_duplicate: int = 0
    source_rows: int | None = None
    source_columns: tuple[tuple[str, str], ...] = ()

    @property
    def rows(self) -> int:
        """Rows that a load brings into the warehouse."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Size of all Parquet files."""
        return sum(file.bytes for file in self.files)

    @property
    def everything(self) -> tuple[DataFile, ...]:
        """The Parquet files with the rows, and the one with the keys."""
        return (*self.files, *([self.keys] if self.keys else ()))

    @property
    def folder(self) -> str:
        """Name of the extraction's folder: its run, for people, and its id."""
        return f"{slug(self.run_id)[:200]}--{self.id[:12]}"  # a file name has 255 bytes, a run_id up to 250


def describe(path: Path, rows: int) -> DataFile:
    """The manifest's entry of a finished Parquet file, made durable on disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return DataFile(path.name, rows, path.stat().st_size, digest)


def manifest_text(manifest: Manifest) -> str:
    """A manifest as it is written."""
    return json.dumps(asdict(manifest), indent=1, ensure_ascii=False)


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """A manifest as it was written.

    Args:
        text: the content of the file.
        where: what a message calls the file.

    Raises:
        LoadError: it is not one of ours.
    """
    try:
        fields = json.loads(text)
        fields["files"] = tuple(DataFile(**each) for each in fields["files"])
        for key in ("columns", "source_columns"):
            fields[key] = tuple((name, data_type) for name, data_type in fields.get(key, ()))
        for key in ("primary_key", "added"):
            fields[key] = tuple(fields.get(key, ()))
        fields["keys"] = DataFile(**fields["keys"]) if fields.get("keys") else None
        return Manifest(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise LoadError(f"{where} is not a manifest: {error}; clear the extract task") from error


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an extraction on a local disk.

    Raises:
        LoadError: there is none, or it is not one of ours.
    """
    file = folder / MANIFEST
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise LoadError(missing(shown(file))) from None
    return parse_manifest(text, shown(file))


def missing(file: str) -> str:
    """What is said of a file that the lake should hold and does not."""
    return f"{file} is not there; clear the extract task to extract the stream again"


def damaged(file: str) -> str:
    """What is said of a file that is another than its manifest says."""
    return f"{file} is not the file that was extracted (sha256 differs); clear the extract task"


def verify(folder: Path, manifest: Manifest) -> list[Path]:
    """The Parquet files of an extraction, each checked against size and digest in the manifest.

    Raises:
        LoadError: a file is missing or is not what was extracted.
    """
    paths = []
    for each in manifest.everything:
        path = folder / each.name
        if not path.is_file():
            raise LoadError(missing(shown(path)))
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != each.sha256:
            raise LoadError(damaged(shown(path)))
        paths.append(path)
    return paths[: len(manifest.files)]


class Lake(Protocol):
    """What every lake can do. A location is what `publish` returned: a path, in a volume too, or an `s3://` URL."""

    def workplace(self, replication: str, stream: str) -> AbstractContextManager[Path]:
        """A local folder of its own for one extraction; gone afterwards, whatever happens.

        Folders that a killed extraction of the same stream left behind are removed first.

        Raises:
            LakeError: the lake cannot be reached, or lets us in no further; better said before the source is read.
        """

    def publish(self, folder: Path, manifest: Manifest) -> str:
        """Give a finished extraction its final place; it is there as a whole or not at all.

        Args:
            folder: holds the files of the manifest, and the rejects if there are any; below the workplace.
            manifest: what is in it; written as the last file.

        Returns:
            Its location.

        Raises:
            LakeError: the lake cannot be reached, or lets us in no further.
        """

    def read_manifest(self, location: str) -> Manifest:
        """Read the manifest of an extraction.

        Raises:
            LoadError: there is none, or it is not one of ours.
            LakeError: the lake cannot be reached, or lets us in no further.
        """

    def fetch(self, location: str, manifest: Manifest) -> AbstractContextManager[Path]:
        """A local folder with the files of an extraction, for as long as the block lasts.

        Raises:
            LoadError: a file is missing or is not what was extracted.
            LakeError: the lake cannot be reached, or lets us in no further.
        """

    def prune(self, replication: str, stream: str, keep: int) -> list[str]:
        """Remove all but the `keep` newest extractions of a stream, and what killed tasks left of others.

        Returns:
            The locations of the extractions that were removed.

        Raises:
            LakeError: the lake cannot be reached, or lets us in no further.
        """


def open_lake(settings: Settings, look_up: Callable[[str], AirflowConnection] | None = None) -> Lake:
    """The lake that the settings choose.

    Args:
        settings: `LAKE`, `LAKE_CONNECTION`, `DATABRICKS_CONNECTION`, `SCRATCH`.
        look_up: gives the Airflow connection of an id; for a lake in S3 or a volume.

    Raises:
        SettingsError: there is no such connection, or it is none for such a lake.
    """
    if isinstance(settings.lake, Path):
        from include.elt.lake.local import LocalLake

        return LocalLake(settings.lake)
    if look_up is None:
        raise SettingsError(f"LAKE='{settings.lake}' needs an Airflow connection; here is no Airflow to ask for it")
    from include.elt.lake.remote import RemoteLake

    if settings.lake.startswith("/Volumes/"):
        from include.elt.connections.databricks import Workspace
        from include.elt.connections.databricks_files import Volume

        parts = settings.lake.split("/")
        workspace = Workspace.of(look_up(settings.databricks_connection), settings.databricks_catalog)
        return RemoteLake(Volume(workspace, "/".join(parts[:5])), "/".join(parts[5:]), settings.scratch)
    from include.elt.connections.aws import Bucket
    from include.elt.errors import LakeError, LakeRefusedError

    name, _, prefix = settings.lake.removeprefix("s3://").partition("/")
    connection = look_up(settings.lake_connection)
    return RemoteLake(Bucket.open(connection, name, lost=LakeError, refused=LakeRefusedError), prefix, settings.scratch)
