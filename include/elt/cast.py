"""From text to typed Parquet, by contract: every value fits exactly, or its row is named."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from include.elt.contract import Contract
from include.elt.errors import DataError, ExtractError
from include.elt.paths import shown
from include.elt.replication import Stream
from include.elt.sql import literal, parquet, quoted
from include.elt.text import Place, Text
from include.elt.typed import PARQUET, TypedText

log = logging.getLogger(__name__)

_KEYS_MEMORY = "128MB"
"""DuckDB's memory limit while primary keys are compared."""

_EXAMPLES = 3
"""Bad rows that an error message names."""

_ROW, _FIRST = quoted("#row"), quoted("#first row")
"""Our own columns, under names that no contract can have."""


@dataclass(frozen=True)
class CastResult:
    """What became of the text.

    Attributes:
        rows_read: rows in the text.
        characters: characters of all values that are not NULL; None where they were not counted.
        rows: rows in the Parquet file.
        rejects: rows left out, as written to the rejects file.
        duplicates: rows left out because a later one has the same primary key.
        files: the Parquet files in the order of their rows, with the rows of each.
    """

    rows_read: int
    characters: int | None
    rows: int
    rejects: int
    duplicates: int
    files: Mapping[Path, int]


@dataclass(frozen=True)
class _Fault:
    """One reason why a row does not fit.

    Attributes:
        row: number of the row in the text.
        column: name of the column, or of all columns of the primary key.
        value: its text.
        expected: what it should be.
        twin: number of the first row with the same primary key, where that is the reason.
    """

    row: int
    column: str
    value: str | None
    expected: str
    twin: int | None


def connect(scratch: Path, memory: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory, to cast with.

    Args:
        scratch: an existing folder for what does not fit into memory.
        memory: its memory limit, e.g. `512MB`.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory,
        "temp_directory": str(scratch),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    sql = duckdb.connect(config=config)
    sql.execute("SET TimeZone = 'UTC'")
    return sql


def cast_strictly(sql: duckdb.DuckDBPyConnection, typed: TypedText, target: Path, rows: int) -> bool:
    """Write text as typed Parquet if every row of it fits; each value is looked at once.

    Args:
        sql: a DuckDB to cast with.
        typed: the text.
        target: the file to write.
        rows: rows that the text has to have.

    Returns:
        Whether it is written. If not, why not is for `Caster` to say.
    """
    select = f"SELECT {typed.strict_values()} FROM ({typed.select()})"
    try:
        written = sql.execute(f"COPY ({select}) TO {literal(target)} {PARQUET}").fetchone()
    except duckdb.Error as error:
        log.debug("%s: %s", target, error)
        return False
    return written == (rows,)


class Caster:
    """Casts the text of one stream. One use, one DuckDB in memory.

    Args:
        text: what the source gave.
        contract: columns and types.
        stream: its primary key, NULL rules and policy for bad rows.
        scratch: an existing folder for what does not fit into memory.
        memory: DuckDB's memory limit, e.g. `512MB`.
        locate: tells where rows stand in the source, where it has files; for messages.
        latest_wins: whether of several rows with one primary key that with the largest update key is kept; the others
            are counted. Without, they do not fit.
    """

    def __init__(
        self,
        text: Text,
        contract: Contract,
        stream: Stream,
        scratch: Path,
        memory: str,
        locate: Callable[[Iterable[int]], Mapping[int, Place]],
        *,
        latest_wins: bool = False,
    ) -> None:
        self.typed = TypedText(text, contract, stream)
        self.contract = contract
        self.stream = stream
        self.locate = locate
        self.latest_wins = latest_wins
        self._sql = connect(scratch, memory)

    def cast(
        self, target: Path, rejects: Path, rows: int | None = None, early: Mapping[Path, int] | None = None
    ) -> CastResult:
        """Write the rows that fit to `target` and, if the stream allows it, the others to `rejects`.

        Args:
            target: Parquet file, zstd-compressed.
            rejects: one JSON object per line: file, row, line, reasons, record. Not made without rejects.
            rows: rows of the text, where the source knows them for sure. Then one pass is enough for good data, and
                characters are not counted.
            early: the whole text as Parquet files that `EarlyCast` made, with the rows of each, where all rows fit.
                Then nothing is written, if no primary key is there twice.

        Returns:
            The counts of both.

        Raises:
            DataError: rows do not fit and the stream's policy is `fail`, or there are more than `max_rejects`. The
                message names row, line, column, value and the type it should have.
            ExtractError: the text itself cannot be read.
        """
        try:
            with self._sql:
                self._sql.execute(f"CREATE VIEW text AS {self.typed.select()}")
                files, characters = early or {}, None
                if rows is not None and not files and cast_strictly(self._sql, self.typed, target, rows):
                    files = {target: rows}
                if rows is None or not files:
                    rows, characters, bad = self._fetch_one(
                        f"SELECT count(*), coalesce(sum({self.typed.characters()}), 0)::BIGINT,"
                        f" count(*) FILTER (NOT ({self.typed.fits()})) FROM text"
                    )
                    if bad:
                        return self._sorted_out(target, rejects, characters)
                    files = {target: self._write(target, "text")}
                if not self._has_repeated_keys(files):
                    return CastResult(rows, characters, rows, 0, 0, files)
                if self.latest_wins:
                    kept = self._write(target, f"text {self._latest()}")
                    return CastResult(rows, characters, kept, 0, rows - kept, {target: kept})
                return self._sorted_out(target, rejects, characters)
        except duckdb.Error as error:
            raise ExtractError(f"stream {self.stream.id}: casting to Parquet failed: {str(error)[:2000]}") from error

    def _sorted_out(self, target: Path, rejects: Path, characters: int | None) -> CastResult:
        """Write what fits and what does not, row by row."""
        rejected = self._sort_out(rejects)
        (rows,) = self._fetch_one("SELECT count(*) FROM numbered")
        fitting = f"numbered WHERE {_ROW} NOT IN (SELECT {_ROW} FROM faulty)"
        kept = self._write(target, f"{fitting} {self._latest()}" if self.latest_wins else fitting)
        return CastResult(rows, characters, kept, rejected, rows - rejected - kept, {target: kept})

    def _latest(self) -> str:
        """SQL that keeps one row per primary key: that of the largest update key, then of the largest other values."""
        keys = [self.typed.value(name) for name in self.stream.primary_key]
        update_key = self.stream.update_key
        order = [f"{self.typed.value(update_key)} DESC NULLS LAST"] if update_key in self.contract.names else []
        order += [f"{quoted(name)} DESC NULLS LAST" for name in self.contract.names]
        return f"QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {', '.join(order)}) = 1"

    def _fetch_one(self, sql: str) -> tuple[int, ...]:
        row = self._sql.execute(sql).fetchone()
        return tuple(row or ())

    def _write(self, target: Path, source: str) -> int:
        """Write typed Parquet from a table with its conditions; returns its rows."""
        (rows,) = self._fetch_one(f"COPY (SELECT {self.typed.values()} FROM {source}) TO {literal(target)} {PARQUET}")
        return rows

    def _has_repeated_keys(self, files: Iterable[Path]) -> bool:
        keys = ", ".join(map(quoted, self.stream.primary_key))
        repeated = f"SELECT 1 FROM {parquet(files)} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
        # A GROUP BY fills what memory it may have, and is as quick with less: 10 million keys in 1.3 s
        (memory,) = self._fetch_one("SELECT current_setting('memory_limit')")
        self._sql.execute(f"SET memory_limit = '{_KEYS_MEMORY}'")
        try:
            return bool(self._fetch_one(repeated))
        except duckdb.OutOfMemoryException:  # long keys
            self._sql.execute(f"SET memory_limit = {literal(str(memory))}")
            return bool(self._fetch_one(repeated))
        finally:
            self._sql.execute(f"SET memory_limit = {literal(str(memory))}")

    def _sort_out(self, rejects: Path) -> int:
        """Find every row that does not fit, in temporary tables `numbered` and `faulty`, and apply the policy."""
        self._sql.execute(f"CREATE TABLE numbered AS SELECT row_number() OVER () AS {_ROW}, * FROM text")
        self._sql.execute(
            f"CREATE TABLE faulty ({_ROW} BIGINT, col VARCHAR, val VARCHAR, expected VARCHAR, twin BIGINT)"
        )
        for column, condition, expected in self.typed.conditions():
            name = quoted(column.name)
            self._sql.execute(
                f"INSERT INTO faulty SELECT {_ROW}, {literal(column.name)}, {name}, {literal(expected)}, NULL"
                f" FROM numbered WHERE NOT ({condition})"
            )
        if not self.latest_wins:
            self._find_repeated_keys()
        (count,) = self._fetch_one(f"SELECT count(DISTINCT {_ROW}) FROM faulty")
        meta = self.stream.meta
        if meta.on_bad_row == "fail":
            raise DataError(self._message(count, "meta.on_bad_row: reject would set such rows aside"))
        if count > meta.max_rejects:
            raise DataError(self._message(count, f"meta.max_rejects allows {meta.max_rejects}"))
        self._write_rejects(rejects)
        return count

    def _find_repeated_keys(self) -> None:
        """Add every row to `faulty` whose primary key an earlier one has."""
        keys = [self.typed.value(name) for name in self.stream.primary_key]
        shown_key = " || ', ' || ".join(map(quoted, self.stream.primary_key))
        self._sql.execute(
            f"INSERT INTO faulty SELECT {_ROW}, {literal(', '.join(self.stream.primary_key))}, {shown_key},"
            f" 'a primary key', {_FIRST} FROM"
            f" (SELECT *, min({_ROW}) OVER (PARTITION BY {', '.join(keys)}) AS {_FIRST} FROM numbered"
            f" WHERE {_ROW} NOT IN (SELECT {_ROW} FROM faulty)) WHERE {_ROW} <> {_FIRST}"
        )

    def _faults(self, limit: int | None = None) -> list[_Fault]:
        rows = self._sql.execute(
            f"SELECT {_ROW}, col, val, expected, twin FROM faulty"
            f" ORDER BY {_ROW}, col {f'LIMIT {limit}' if limit else ''}"
        )
        return [_Fault(*row) for row in rows.fetchall()]

    def _places(self, faults: list[_Fault]) -> Callable[[int], Place]:
        """Where the rows of faults stand in the source."""
        found = self.locate({row for fault in faults for row in (fault.row, fault.twin) if row is not None})
        return lambda row: found.get(row) or Place(None, row, None)

    def _message(self, count: int, advice: str) -> str:
        """The error of a failed stream: how many rows, the first of them in full, what to do."""
        lines = [f"{self.stream.label}: {count:,} row{'s do' if count > 1 else ' does'} not fit the contract"]
        faults = self._faults(_EXAMPLES)
        place_of = self._places(faults)
        for fault in faults:
            place = place_of(fault.row)
            # the first line names a single file already
            file = f"{place.file}: " if place.file and not self.stream.label.endswith(place.file) else ""
            line = "" if place.line is None else f" (line {place.line})"
            value = "NULL" if fault.value is None else repr(fault.value[:100])
            lines.append(
                f"  {file}row {place.row}{line}: column {fault.column}:"
                f" {value} is not {_article(_expected(fault, place_of))}"
            )
        lines.append(f"  The contract is {self.contract.table} in {shown(self.contract.file)}; {advice}.")
        return "\n".join(lines)

    def _write_rejects(self, path: Path) -> None:
        names = self.contract.names
        records = {
            row[0]: dict(zip(names, row[1:], strict=True))
            for row in self._sql.execute(
                f"SELECT {_ROW}, {', '.join(map(quoted, names))} FROM numbered"
                f" WHERE {_ROW} IN (SELECT {_ROW} FROM faulty) ORDER BY {_ROW}"
            ).fetchall()
        }
        faults = self._faults()
        place_of = self._places(faults)
        reasons: dict[int, list[dict[str, str | None]]] = {row: [] for row in records}
        for fault in faults:
            reasons[fault.row].append(
                {"column": fault.column, "value": fault.value, "expected": _expected(fault, place_of)}
            )
        with path.open("w", encoding="utf-8") as stream:
            for row, record in records.items():
                place = place_of(row)
                entry = {"file": place.file, "row": place.row, "line": place.line}
                stream.write(json.dumps(entry | {"reasons": reasons[row], "record": record}, ensure_ascii=False) + "\n")


def _expected(fault: _Fault, place_of: Callable[[int], Place]) -> str:
    """What was expected; of a repeated key also where it is already, with the file if it is another one."""
    if fault.twin is None:
        return fault.expected
    twin = place_of(fault.twin)
    other = f" of {twin.file}" if twin.file != place_of(fault.row).file else ""
    return f"{fault.expected}, and row {twin.row}{other} has the same one"


def _article(expected: str) -> str:
    """`bigint` → `a bigint`; phrases that have their article keep it."""
    if " " in expected:
        return expected
    return f"{'an' if expected[0] in 'aeiou' else 'a'} {expected}"
