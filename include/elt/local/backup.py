"""`backup` and `restore`: the DuckDB file and the lake, as one folder that proves itself.

    <backups>/<UTC time>/warehouse.duckdb      a copy that was made while nobody wrote
                         lake/…                the extractions, whole ones only
                         index.json            every file with its size and SHA-256, and what tables held; written last

A backup is there when its index is. A restore checks every file against the index, opens the warehouse and compares its
tables, all beside the places where they belong, and only then renames them into place.

The DuckDB file is held for as long as it is copied, as a load would hold it: no load can come in between, and a load
that runs is waited for, `LOCK_TIMEOUT` seconds. The lake is copied while it is held, too. An extraction that comes or
goes meanwhile is in the backup or is not; none is there in part. A lake in a bucket is not copied; docs/backup.md says
what protects it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from uuid import uuid4

import duckdb

from include.elt.errors import EltError, LoadError, WarehouseBusyError
from include.elt.lake import MANIFEST, read_manifest, verify
from include.elt.paths import ROOT, shown
from include.elt.settings import Settings, load_settings
from include.elt.warehouse.duckdb.file import connected

INDEX = "index.json"
WAREHOUSE = "warehouse.duckdb"
LAKE = "lake"
FORMAT = 1
"""Changes when an older restore could not read a newer backup."""

BACKUPS = ROOT / "data" / "backups"
"""Where backups are kept unless another place is named; better a disk that does not fail with this one."""


class BackupError(EltError):
    """A backup could not be made or cannot be trusted, or a restore would overwrite something."""

    final = True


@dataclass(frozen=True)
class Entry:
    """One file of a backup.

    Attributes:
        path: seen from the backup's folder, with slashes.
        bytes: its size.
        sha256: hexadecimal digest of its bytes.
    """

    path: str
    bytes: int
    sha256: str


def back_up(settings: Settings, backups: Path = BACKUPS) -> Path:
    """Copy the warehouse and the lake.

    Args:
        settings: `DUCKDB_PATH`, `LAKE`, `LOCK_TIMEOUT`.
        backups: folder of the backups; made if it is missing.

    Returns:
        The new backup's folder.

    Raises:
        BackupError: there is no warehouse, or there is no room.
        WarehouseBusyError: somebody writes for longer than `LOCK_TIMEOUT` seconds.
        LoadError: an extraction of the lake is not what its manifest says.
    """
    warehouse, lake = settings.duckdb_path, _local_lake(settings)
    if not warehouse.is_file():
        raise BackupError(f"{shown(warehouse)} does not exist; there is nothing to back up")
    backups = backups.resolve()
    if lake and backups.is_relative_to(lake):
        raise BackupError(f"{shown(backups)} lies within the lake; choose another folder with BACKUPS=…")
    now = datetime.now(UTC)
    final = backups / f"{now:%Y%m%dT%H%M%S.%fZ}"
    new = backups / f".{final.name}.{uuid4().hex[:8]}"
    try:
        # What is in the warehouse is nobody's business but the owner's.
        backups.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.mkdir(mode=0o700)
        # The lock on a file ends when its process closes any handle of it, so this one is closed after DuckDB's.
        with warehouse.open("rb") as reader, _held(warehouse, settings.lock_timeout) as tables:
            entries = [Entry(WAREHOUSE, *_write(reader, new / WAREHOUSE))]
            if lake:
                for manifest in sorted(lake.glob(f"*/*/*/{MANIFEST}")):
                    entries += _copy_extraction(manifest.parent, new, lake)
        index = {
            "format": FORMAT,
            "made_at": now.isoformat(),
            "duckdb": duckdb.__version__,
            "tables": tables,
            "files": [asdict(each) for each in entries],
        }
        _write(BytesIO(json.dumps(index, indent=1, ensure_ascii=False).encode()), new / INDEX)
        _sync(new)
        new.rename(final)
        _sync(final.parent)
    except OSError as error:
        raise BackupError(f"{shown(final)} could not be written: {error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return final


def restore(settings: Settings, backup: Path, *, force: bool = False) -> int:
    """Put a backup's warehouse and lake where the settings say.

    Everything is copied beside its place and verified there; until that is done nothing is touched. What stood in the
    place before, with `force`, is kept beside it under a name that ends with `.before-…`.

    Args:
        settings: `DUCKDB_PATH`, `LAKE`, `LOCK_TIMEOUT`.
        backup: folder of the backup.
        force: whether a warehouse or lake that is there may be replaced.

    Returns:
        How many files were restored.

    Raises:
        BackupError: the backup is damaged or incomplete, or something is in its place and `force` is not given.
        WarehouseBusyError: somebody uses the warehouse for longer than `LOCK_TIMEOUT` seconds.
    """
    warehouse, lake = settings.duckdb_path, _local_lake(settings)
    index, entries = _read_index(backup)
    if lake is None and len(entries) > 1:
        raise BackupError(f"{shown(backup)} holds a lake, and LAKE={settings.lake!r} is no folder to put it")
    if not force:
        for place in filter(None, (warehouse, lake)):
            if place.is_file() or (place.is_dir() and any(place.iterdir())):
                raise BackupError(f"{shown(place)} is there already; FORCE=1 replaces it and keeps it beside itself")
    mark = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"
    new_warehouse = warehouse.with_name(f"{warehouse.name}.new-{mark}")
    new_lake = lake.with_name(f"{lake.name}.new-{mark}") if lake else None
    try:
        warehouse.parent.mkdir(parents=True, exist_ok=True)
        if new_lake:
            new_lake.mkdir(parents=True)
        for entry in entries:
            place = new_warehouse
            if new_lake and entry.path != WAREHOUSE:
                place = new_lake / PurePosixPath(entry.path).relative_to(LAKE)
            _verified_copy(backup / entry.path, place, entry)
        _verify(new_warehouse, new_lake, index["tables"], settings.lock_timeout)
        moves = [(new_warehouse, warehouse), *([(new_lake, lake)] if lake and new_lake else [])]
        _into_place(moves, mark, settings.lock_timeout)
    except OSError as error:
        raise BackupError(f"{shown(backup)} could not be restored: {error}") from error
    finally:
        new_warehouse.unlink(missing_ok=True)
        if new_lake:
            shutil.rmtree(new_lake, ignore_errors=True)
    return len(entries)


def latest(backups: Path = BACKUPS) -> Path:
    """The newest complete backup.

    Raises:
        BackupError: there is none.
    """
    found = sorted(file.parent for file in backups.glob(f"[0-9]*/{INDEX}"))
    if not found:
        raise BackupError(f"{shown(backups)} holds no backup; `make backup` makes one")
    return found[-1]


def backup_command(backups: str | None) -> int:
    """The command `backup`; returns the exit code."""
    settings = load_settings()
    folder = back_up(settings, _place(backups))
    index, entries = _read_index(folder)
    size = sum(each.bytes for each in entries)
    print(f"{shown(folder)}: {len(index['tables'])} tables, {len(entries)} files, {size:,} bytes")
    return 0


def restore_command(backups: str | None, backup: str | None, *, force: bool) -> int:
    """The command `restore`; returns the exit code."""
    settings = load_settings()
    folder = (ROOT / Path(backup).expanduser()).resolve() if backup else latest(_place(backups))
    count = restore(settings, folder, force=force)
    print(f"{shown(folder)} restored: {count} files, all verified")
    return 0


def _place(backups: str | None) -> Path:
    return (ROOT / Path(backups).expanduser()).resolve() if backups else BACKUPS


def _local_lake(settings: Settings) -> Path | None:
    """The lake's folder; None for a bucket."""
    lake = settings.lake if isinstance(settings.lake, Path) else None
    if lake and settings.duckdb_path.is_relative_to(lake):
        raise BackupError(f"DUCKDB_PATH={shown(settings.duckdb_path)} lies within the lake; give it a place of its own")
    return lake


@contextmanager
def _held(warehouse: Path, lock_timeout: float) -> Iterator[dict[str, dict[str, Any]]]:
    """Hold the file against every other writer, with nothing left in its log; gives what its tables hold.

    A connection that may write excludes all other processes; after a checkpoint the file alone is everything.
    """
    with connected(warehouse, lock_timeout) as sql:
        tables = _contents(sql)
        sql.execute("FORCE CHECKPOINT")
        wal = warehouse.with_name(f"{warehouse.name}.wal")
        if wal.is_file() and wal.stat().st_size:
            raise BackupError(f"{shown(wal)} is not empty after a checkpoint; the copy would not be complete")
        yield tables


def _contents(sql: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """Rows and a checksum, which no order of rows changes, of every table."""
    names = sql.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT temporary AND NOT internal ORDER BY ALL"
    ).fetchall()
    found = {}
    for schema, table in names:
        place = f"{_identifier(schema)}.{_identifier(table)}"
        # A sum in a wide type: equal rows do not cancel each other out, as they would with xor.
        checksum = "coalesce(sum(hash(t)::HUGEINT), 0)::VARCHAR"
        row = sql.execute(f"SELECT count(*), {checksum} FROM {place} AS t").fetchone()  # noqa: S608
        if row is not None:
            found[f"{schema}.{table}"] = {"rows": row[0], "checksum": row[1]}
    return found


def _identifier(name: str) -> str:
    """One name in SQL; a dot in it is part of it."""
    return '"' + name.replace('"', '""') + '"'


def _copy_extraction(folder: Path, backup: Path, lake: Path) -> list[Entry]:
    """Copy an extraction and verify the copy; nothing when it goes meanwhile, because newer ones took its place.

    Raises:
        LoadError: a file is missing or is not what was extracted.
    """
    copy = backup / LAKE / folder.relative_to(lake)
    try:
        entries = []
        for file in sorted(each for each in folder.iterdir() if each.is_file()):
            target = copy / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as reader:
                entries.append(Entry(target.relative_to(backup).as_posix(), *_write(reader, target)))
        verify(copy, read_manifest(copy))
    except (OSError, LoadError):
        if (folder / MANIFEST).exists():
            raise
        shutil.rmtree(copy, ignore_errors=True)
        return []
    return entries


def _verified_copy(source: Path, target: Path, entry: Entry) -> None:
    """Copy a file out of a backup.

    Raises:
        BackupError: it is missing, or another than the index says.
    """
    if not source.is_file() or source.is_symlink():
        raise BackupError(f"{shown(source)} is missing; nothing was restored")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader:
        copied = _write(reader, target)
    if copied != (entry.bytes, entry.sha256):
        raise BackupError(f"{shown(source)} is not what was backed up (SHA-256 differs); nothing was restored")


def _write(reader: BinaryIO, target: Path) -> tuple[int, str]:
    """Copy to a new file; returns size and SHA-256 of what was written, which is on the disk by then."""
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as writer:
        while block := reader.read(1 << 20):
            digest.update(block)
            size += len(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return size, digest.hexdigest()


def _sync(folder: Path) -> None:
    """Make the names in a folder and in those below it durable."""
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read_index(backup: Path) -> tuple[Mapping[str, Any], list[Entry]]:
    """The index of a backup.

    Raises:
        BackupError: there is none, it is not one of ours, or it names a place outside of the backup.
    """
    file = backup / INDEX
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise BackupError(f"{shown(file)} has the format {index['format']!r}; this version reads {FORMAT}")
        entries = [Entry(**each) for each in index["files"]]
        dict(index["tables"])
    except FileNotFoundError:
        raise BackupError(f"{shown(file)} is not there: no backup, or one that was not finished") from None
    except (ValueError, TypeError, KeyError) as error:
        raise BackupError(f"{shown(file)} is damaged: {error!r}") from error
    for entry in entries:
        parts = PurePosixPath(entry.path).parts
        if entry.path != WAREHOUSE and (parts[:1] != (LAKE,) or len(parts) < 2 or ".." in parts):
            raise BackupError(f"{shown(file)} names {entry.path!r}, which no backup holds")
    if [entry.path for entry in entries].count(WAREHOUSE) != 1:
        raise BackupError(f"{shown(file)} names no warehouse")
    return index, entries


def _verify(warehouse: Path, lake: Path | None, tables: Mapping[str, Any], lock_timeout: float) -> None:
    """Open what was copied: the tables hold what they held, and each extraction is what its manifest says.

    Raises:
        BackupError: something is not.
    """
    try:
        with connected(warehouse, lock_timeout, read_only=True) as sql:
            found = _contents(sql)
        for manifest in lake.glob(f"*/*/*/{MANIFEST}") if lake else ():
            verify(manifest.parent, read_manifest(manifest.parent))
    except (LoadError, duckdb.Error) as error:
        raise BackupError(f"the backup cannot be used: {error}; nothing was restored") from error
    wrong = sorted(name for name in {*tables, *found} if tables.get(name) != found.get(name))
    if wrong:
        raise BackupError(f"the backup's {', '.join(wrong)} are not what was backed up; nothing was restored")


def _into_place(moves: Sequence[tuple[Path, Path]], mark: str, wait: float) -> None:
    """Rename what was verified into place, and what stood there out of the way; undone if it does not work out.

    Args:
        moves: new and place, those of the warehouse first.
        mark: what names of the old ones end with.
        wait: seconds to wait for somebody who uses the warehouse, and would go on writing to the old file.
    """
    warehouse = moves[0][1]
    if warehouse.is_file():
        try:
            with connected(warehouse, wait):
                pass
        except WarehouseBusyError:
            raise
        except LoadError:  # damaged: that is why it is replaced
            pass
    done: list[tuple[Path, Path]] = []
    try:
        # A log that belongs to the old file must not be applied to the new one.
        for place in (warehouse.with_name(f"{warehouse.name}.wal"), *(place for _, place in moves)):
            if place.exists():
                aside = place.with_name(f"{place.name}.before-{mark}")
                place.rename(aside)
                done.append((place, aside))
        for new, place in reversed(moves):  # the warehouse last: with it the restore is there
            if new.is_dir():
                _sync(new)
            new.rename(place)
            done.append((new, place))
    except OSError:
        for before, after in reversed(done):
            after.rename(before)
        raise
