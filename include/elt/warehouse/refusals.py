"""When a load is refused and in which words, and what else every load has in common whatever the warehouse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from include.elt.contract import ADDED, DELETED_AT, LOADED_AT
from include.elt.errors import RefusedLoadError
from include.elt.lake import Manifest
from include.elt.modes import Window
from include.elt.replication import Meta
from include.elt.warehouse.rules import files_of, window_of
from include.elt.warehouse.schema import way_out

_EMPTY = {
    "full-refresh": ("the source", "an empty full-refresh would lose them"),
    "snapshot": ("the source", "an empty snapshot would replace them"),
}
"""What is empty and what would become of the rows that are there, in words, by mode."""


@dataclass(frozen=True)
class Changes:
    """What a load does to the rows of its table."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0


def added_columns(manifest: Manifest, policy: Meta) -> list[str]:
    """The columns that the load adds: those of the contract, and those that mode and policy cannot do without."""
    needed = {LOADED_AT: manifest.mode == "snapshot", DELETED_AT: policy.deletes == "soft"}
    return [name for name in ADDED if name in manifest.added or needed[name]]


def every(conditions: Iterable[str]) -> str:
    """SQL condition: all of these hold."""
    return " AND ".join(conditions)


def within(column: str, windows: Sequence[Window], value: Callable[[str], str]) -> str:
    """SQL condition: a row was read by newer extractions as it is, for its update key is in one of their ranges.

    Args:
        column: SQL of the row's update key.
        windows: the ranges.
        value: SQL of a limit of a range, in the type of the update key.
    """
    ranges = []
    for each in windows:
        limits = [] if each.lower is None else [f"{column} >= {value(each.lower)}"]
        if each.upper is not None:
            limits.append(f"{column} {'<=' if each.closed else '<'} {value(each.upper)}")
        ranges.append(f"({every(limits) or 'TRUE'})")
    return f"{column} IS NULL OR {' OR '.join(ranges)}"


def refuse_empty(manifest: Manifest, policy: Meta, rows: int, there: int) -> None:
    """Refuse to lose rows for a source that is empty.

    Args:
        manifest: the extraction.
        policy: the stream's `meta`, which may allow it.
        rows: what was read: rows, or where rows are merged the source's primary keys.
        there: rows that would go.

    Raises:
        RefusedLoadError: that would happen, and nobody has allowed it.
    """
    if rows or not there or policy.allow_empty:
        return
    what, why = _EMPTY.get(manifest.mode, ("the list of keys", "each of them would count as deleted"))
    raise RefusedLoadError(
        f"{manifest.table}: {what} of stream {manifest.stream} is empty, and the table has {there:,} rows; {why}. If it"
        " is right, set meta.allow_empty: true for the stream"
    )


def refuse_part(manifest: Manifest, loaded: frozenset[tuple[str, str]]) -> None:
    """Refuse to fill a table that is not there with the latest rows only, as if the others had never been.

    Args:
        manifest: the extraction.
        loaded: name and sha256 of the files that were loaded into the table that was there.

    Raises:
        RefusedLoadError: the extraction is only a part.
    """
    window = window_of(manifest)
    known = loaded - files_of(manifest.source)
    if manifest.mode == "incremental" and (known or (window and window.lower is not None)):
        raise RefusedLoadError(
            f"{manifest.table}: the table is gone, and this extraction holds only what is new; clear the extract task"
            " together with this one, or run the DAG with full_refresh"
        )


def check_key_is_there(manifest: Manifest, columns: Iterable[str]) -> None:
    """Check that rows of the table can be recognised in the source, to mark those that it has no more.

    Args:
        manifest: the extraction.
        columns: those of the table.

    Raises:
        RefusedLoadError: there is no primary key, or the table lacks a column of it.
    """
    there = set(columns)
    lost = [name for name in manifest.primary_key if name not in there]
    if lost or not manifest.primary_key:
        raise RefusedLoadError(
            f"{manifest.table}: the table has no column {', '.join(lost)}, so nobody can tell which of its rows are"
            " deleted in the source; move the table away, or set meta.deletes: ignore for the stream"
        )


def repeated(manifest: Manifest, key: Iterable[Any]) -> RefusedLoadError:
    """The refusal of a table that holds a primary key more than once.

    Args:
        manifest: the extraction.
        key: values of that key.
    """
    shown = ", ".join(f"{name} = {value}" for name, value in zip(manifest.primary_key, key, strict=False))
    return RefusedLoadError(
        f"{manifest.table}: the table holds a primary key more than once: {shown}; remove the surplus rows, or run the"
        " DAG with full_refresh"
    )


def misfit(manifest: Manifest, what: str, value: object, column: str, data_type: str) -> RefusedLoadError:
    """The refusal of a value that would be another one in the type of its column.

    Args:
        manifest: the extraction.
        what: whose value it is, in words.
        value: the value.
        column: its column.
        data_type: the contract type that it does not fit.
    """
    return RefusedLoadError(
        f"{manifest.table}: {what} {value!r} in the column {column}, which does not fit its type {data_type} exactly;"
        f" {way_out(manifest.mode)}, or change the contract"
    )
