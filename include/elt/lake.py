"""The lake: typed Parquet files between source and warehouse, one folder per extraction.

    <lake>/<replication>/<stream>/<run>--<id>/part-00000.parquet   the rows, typed by the contract
                                              rejects.jsonl        rows that did not fit, if the stream rejects them
                                              manifest.json        what is there; written last
    <lake>/.work/<replication>.<stream>.<id>/                      an extraction on its way, held by a file lock

A folder appears under its final name in one step, complete or not at all. A killed extraction leaves only a working
folder whose lock nobody holds any more; the next extraction of the stream removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from include.elt.errors import LoadError
from include.elt.paths import shown

MANIFEST = "manifest.json"
_WORK = ".work"


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
        extracted_at: UTC time of its end, ISO 8601.
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


def describe(path: Path, rows: int) -> DataFile:
    """The manifest's entry of a finished Parquet file, made durable on disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return DataFile(path.name, rows, path.stat().st_size, digest)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an extraction.

    Raises:
        LoadError: there is none, or it is not one of ours.
    """
    file = folder / MANIFEST
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        fields["files"] = tuple(DataFile(**each) for each in fields["files"])
        for key in ("columns", "source_columns"):
            fields[key] = tuple((name, data_type) for name, data_type in fields.get(key, ()))
        for key in ("primary_key", "added"):
            fields[key] = tuple(fields.get(key, ()))
        fields["keys"] = DataFile(**fields["keys"]) if fields.get("keys") else None
        return Manifest(**fields)
    except FileNotFoundError:
        raise LoadError(f"{shown(file)} is not there; clear the extract task to extract the stream again") from None
    except (ValueError, TypeError, KeyError) as error:
        raise LoadError(f"{shown(file)} is not a manifest: {error}; clear the extract task") from error


def verify(folder: Path, manifest: Manifest) -> list[Path]:
    """The Parquet files of an extraction, each checked against size and digest in the manifest.

    Raises:
        LoadError: a file is missing or is not what was extracted.
    """
    paths = []
    for each in (*manifest.files, *([manifest.keys] if manifest.keys else ())):
        path = folder / each.name
        if not path.is_file():
            raise LoadError(f"{shown(path)} is not there; clear the extract task to extract the stream again")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != each.sha256:
            raise LoadError(
                f"{shown(path)} is not the file that was extracted (sha256 differs); clear the extract task"
            )
        paths.append(path)
    return paths[: len(manifest.files)]


class Lake:
    """A lake on a local disk.

    Args:
        root: its folder; made when it is first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def workplace(self, replication: str, stream: str) -> Iterator[Path]:
        """A folder of its own for one extraction; gone afterwards, whatever happens.

        Folders that a killed extraction of the same stream left behind are removed first.
        """
        work = self.root / _WORK
        work.mkdir(parents=True, exist_ok=True)
        prefix = f"{slug(replication)}.{slug(stream)}."
        folder = work / f"{prefix}{uuid4().hex[:12]}"
        with ExitStack() as held:
            with _lock(work, wait=True):  # nobody may take the new folder for a dead one before its lock is held
                for left in work.glob(f"{prefix}*"):
                    with _lock(left) as free:
                        if free:
                            shutil.rmtree(left, ignore_errors=True)
                folder.mkdir()
                held.enter_context(_lock(folder))
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            yield folder

    def publish(self, folder: Path, manifest: Manifest) -> Path:
        """Give a finished extraction its final place, in one step.

        Args:
            folder: holds the files of the manifest and nothing else; on the lake's disk.
            manifest: what is in it; written as the last file.

        Returns:
            The final folder.
        """
        with (folder / MANIFEST).open("w", encoding="utf-8") as stream:
            json.dump(asdict(manifest), stream, indent=1, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        name = f"{slug(manifest.run_id)[:200]}--{manifest.id[:12]}"  # a file name has 255 bytes, a run_id up to 250
        final = self._stream(manifest.replication, manifest.stream) / name
        final.parent.mkdir(parents=True, exist_ok=True)
        _sync(folder)
        folder.rename(final)
        _sync(final.parent)
        return final

    def prune(self, replication: str, stream: str, keep: int) -> list[Path]:
        """Remove all but the `keep` newest extractions of a stream; returns what was removed."""
        folders = [path.parent for path in self._stream(replication, stream).glob(f"*/{MANIFEST}")]
        folders.sort(key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True)
        for old in folders[keep:]:
            shutil.rmtree(old, ignore_errors=True)
        return folders[keep:]

    def _stream(self, replication: str, stream: str) -> Path:
        return self.root / slug(replication) / slug(stream)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable; a load that was committed must not outlive its extraction's folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _lock(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a folder's lock, until the process ends at the latest; yields False when another process holds it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
