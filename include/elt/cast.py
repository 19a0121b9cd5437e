"""From text to typed Parquet, by contract: every value fits exactly, or its row is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from include.elt.contract import Column, Contract
from include.elt.errors import DataError, ExtractError
from include.elt.paths import shown
from include.elt.replication import Stream
from include.elt.sql import literal, parquet, quoted

_EXAMPLES = 3
"""Bad rows that an error message names."""

_ROW, _FIRST = quoted("#row"), quoted("#first row")
"""Our own columns, under names that no contract can have."""


@dataclass(frozen=True)
class TextFile:
    """CSV that Sling wrote: comma, double quotes, LF, UTF-8, a header.

    Attributes:
        path: the file.
        header: its column names in order.
        null: text that stands for NULL; no value holds it. Where it is empty, an empty field without quotes is NULL and
            one with quotes is ''.
        cr: text that stands for a CR inside a value; no value holds it.
        longest: characters of its longest record, at most.
    """

    path: Path
    header: tuple[str, ...]
    null: str
    cr: str
    longest: int


@dataclass(frozen=True)
class CastResult:
    """What became of the text.

    Attributes:
        rows_read: rows in the text.
        characters: characters of all values that are not NULL.
        rows: rows in the Parquet file.
        rejects: rows left out, as written to the rejects file.
    """

    rows_read: int
    characters: int
    rows: int
    rejects: int


@dataclass(frozen=True)
class _Fault:
    """One reason why a row does not fit."""

    row: int
    column: str
    value: str | None
    expected: str


class Caster:
    """Casts the text of one stream. One use, one DuckDB in memory.

    Args:
        text: what Sling wrote.
        contract: columns and types.
        stream: its primary key, NULL rules and policy for bad rows.
        scratch: an existing folder for what does not fit into memory.
        memory: DuckDB's memory limit, e.g. `512MB`.
        lines_of: tells the lines of data rows in the source, where it has lines; for messages.
    """

    def __init__(
        self,
        text: TextFile,
        contract: Contract,
        stream: Stream,
        scratch: Path,
        memory: str,
        lines_of: Callable[[Iterable[int]], Mapping[int, int]],
    ) -> None:
        self.text = text
        self.contract = contract
        self.stream = stream
        self.lines_of = lines_of
        self._sql = duckdb.connect(
            config={
                "memory_limit": memory,
                "temp_directory": str(scratch),
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            }
        )

    def cast(self, target: Path, rejects: Path) -> CastResult:
        """Write the rows that fit to `target` and, if the stream allows it, the others to `rejects`.

        Args:
            target: Parquet file, zstd-compressed.
            rejects: one JSON object per line: row, line, reasons, record. Not made without rejects.

        Returns:
            The counts of both.

        Raises:
            DataError: rows do not fit and the stream's policy is `fail`, or there are more than `max_rejects`. The
                message names row, line, column, value and the type it should have.
            ExtractError: the text itself cannot be read.
        """
        try:
            with self._sql:
                self._sql.execute("SET TimeZone = 'UTC'")
                self._sql.execute(f"CREATE VIEW text AS {self._select_text()}")
                rows_read, characters, bad = self._fetch_one(
                    f"SELECT count(*), coalesce(sum({self._characters()}), 0)::BIGINT,"
                    f" count(*) FILTER (NOT ({self._row_fits()})) FROM text"
                )
                if not bad:
                    self._write(target, "text")
                    if not self._has_repeated_keys(target):
                        return CastResult(rows_read, characters, rows_read, 0)
                rejected = self._sort_out(rejects)
                self._write(target, f"numbered WHERE {_ROW} NOT IN (SELECT {_ROW} FROM faulty)")
                return CastResult(rows_read, characters, rows_read - rejected, rejected)
        except duckdb.Error as error:
            raise ExtractError(f"stream {self.stream.id}: casting to Parquet failed: {str(error)[:2000]}") from error

    def _fetch_one(self, sql: str) -> tuple[int, ...]:
        row = self._sql.execute(sql).fetchone()
        return tuple(row or ())

    def _select_text(self) -> str:
        """SQL that reads the text, its columns in the contract's order, NULL and '' as the stream says."""
        line = max(2**21, 4 * self.text.longest + 2**16)
        types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in self.text.header)
        source = (
            f"read_csv({literal(self.text.path)}, auto_detect=false, header=true, columns={{{types}}}, delim=',',"
            f" quote='\"', escape='\"', nullstr={literal(self.text.null)}, allow_quoted_nulls={bool(self.text.null)},"
            " strict_mode=true, null_padding=false,"
            f" new_line='\\n', max_line_size={line}, buffer_size={max(2**25, 2 * line)},"
            # DuckDB 1.5 refuses to read long records with several threads
            f" parallel={line == 2**21}, hive_partitioning=false)"
        )
        return f"SELECT {', '.join(map(self._text_of, self.contract.columns))} FROM {source}"

    def _text_of(self, column: Column) -> str:
        """The column's text with its CRs put back; an empty field of a type that has no empty value is NULL."""
        text = quoted(column.name)
        if self.text.cr:
            text = f"replace({text}, {literal(self.text.cr)}, chr(13))"
        if not column.is_text or self.stream.source_options.empty_as_null:
            text = f"nullif({text}, '')"
        return f"{text} AS {quoted(column.name)}"

    def _characters(self) -> str:
        return " + ".join(f"coalesce(length({quoted(name)}), 0)" for name in self.contract.names)

    def _conditions(self) -> list[tuple[Column, str, str]]:
        """Per column: what has to hold for its text, and how a message says it."""
        conditions = [(column, column.fits(quoted(column.name)), column.data_type) for column in self.contract.columns]
        conditions += [
            (column, f"{quoted(column.name)} IS NOT NULL", "a primary key, which is never NULL")
            for column in self.contract.columns
            if column.name in self.stream.primary_key
        ]
        return conditions

    def _row_fits(self) -> str:
        return " AND ".join(condition for _, condition, _ in self._conditions())

    def _write(self, target: Path, source: str) -> None:
        values = ", ".join(
            f"{column.value(quoted(column.name))} AS {quoted(column.name)}" for column in self.contract.columns
        )
        self._sql.execute(
            f"COPY (SELECT {values} FROM {source}) TO {literal(target)} (FORMAT parquet, COMPRESSION zstd)"
        )

    def _has_repeated_keys(self, file: Path) -> bool:
        keys = ", ".join(map(quoted, self.stream.primary_key))
        repeated = f"SELECT 1 FROM {parquet([file])} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
        return bool(self._fetch_one(repeated))

    def _sort_out(self, rejects: Path) -> int:
        """Find every row that does not fit, in temporary tables `numbered` and `faulty`, and apply the policy."""
        self._sql.execute(f"CREATE TABLE numbered AS SELECT row_number() OVER () AS {_ROW}, * FROM text")
        self._sql.execute(f"CREATE TABLE faulty ({_ROW} BIGINT, col VARCHAR, val VARCHAR, expected VARCHAR)")
        for column, condition, expected in self._conditions():
            name = quoted(column.name)
            self._sql.execute(
                f"INSERT INTO faulty SELECT {_ROW}, {literal(column.name)}, {name}, {literal(expected)}"
                f" FROM numbered WHERE NOT ({condition})"
            )
        keys = [self._column(name).value(quoted(name)) for name in self.stream.primary_key]
        shown_key = " || ', ' || ".join(map(quoted, self.stream.primary_key))
        self._sql.execute(
            f"INSERT INTO faulty SELECT {_ROW}, {literal(', '.join(self.stream.primary_key))}, {shown_key},"
            f" 'a primary key, and row ' || {_FIRST} || ' has the same one' FROM"
            f" (SELECT *, min({_ROW}) OVER (PARTITION BY {', '.join(keys)}) AS {_FIRST} FROM numbered"
            f" WHERE {_ROW} NOT IN (SELECT {_ROW} FROM faulty)) WHERE {_ROW} <> {_FIRST}"
        )
        (count,) = self._fetch_one(f"SELECT count(DISTINCT {_ROW}) FROM faulty")
        meta = self.stream.meta
        if meta.on_bad_row == "fail":
            raise DataError(self._message(count, "meta.on_bad_row: reject would set such rows aside"))
        if count > meta.max_rejects:
            raise DataError(self._message(count, f"meta.max_rejects allows {meta.max_rejects}"))
        self._write_rejects(rejects)
        return count

    def _column(self, name: str) -> Column:
        return next(column for column in self.contract.columns if column.name == name)

    def _faults(self, limit: int | None = None) -> list[_Fault]:
        rows = self._sql.execute(
            f"SELECT {_ROW}, col, val, expected FROM faulty ORDER BY {_ROW}, col {f'LIMIT {limit}' if limit else ''}"
        )
        return [_Fault(*row) for row in rows.fetchall()]

    def _message(self, count: int, advice: str) -> str:
        """The error of a failed stream: how many rows, the first of them in full, what to do."""
        lines = [f"{self.stream.label}: {count:,} row{'s do' if count > 1 else ' does'} not fit the contract"]
        faults = self._faults(_EXAMPLES)
        line_of = self.lines_of({fault.row for fault in faults})
        for fault in faults:
            value = "NULL" if fault.value is None else repr(fault.value[:100])
            lines.append(
                f"  row {fault.row}{self._line(line_of, fault.row)}: column {fault.column}:"
                f" {value} is not {_article(fault.expected)}"
            )
        lines.append(f"  The contract is {self.contract.table} in {shown(self.contract.file)}; {advice}.")
        return "\n".join(lines)

    @staticmethod
    def _line(line_of: Mapping[int, int], row: int) -> str:
        return f" (line {line_of[row]})" if row in line_of else ""

    def _write_rejects(self, path: Path) -> None:
        names = self.contract.names
        records = {
            row[0]: dict(zip(names, row[1:], strict=True))
            for row in self._sql.execute(
                f"SELECT {_ROW}, {', '.join(map(quoted, names))} FROM numbered"
                f" WHERE {_ROW} IN (SELECT {_ROW} FROM faulty) ORDER BY {_ROW}"
            ).fetchall()
        }
        reasons: dict[int, list[dict[str, str | None]]] = {row: [] for row in records}
        for fault in self._faults():
            reasons[fault.row].append({"column": fault.column, "value": fault.value, "expected": fault.expected})
        line_of = self.lines_of(records)
        with path.open("w", encoding="utf-8") as stream:
            for row, record in records.items():
                entry = {"row": row, "line": line_of.get(row), "reasons": reasons[row], "record": record}
                stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _article(expected: str) -> str:
    """`bigint` → `a bigint`; phrases that have their article keep it."""
    if " " in expected:
        return expected
    return f"{'an' if expected[0] in 'aeiou' else 'a'} {expected}"
