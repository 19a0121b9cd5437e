"""Parquet files: DuckDB reads them, each value as exact text for the cast by contract. Sling would change some.

What DuckDB itself would cut to microseconds when it reads (nanoseconds of an instant or a time, and INT96) is checked
with pyarrow, and refused where digits would be lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

from include.elt.columns import Wanted
from include.elt.errors import DataError
from include.elt.sources.files.found import Seen
from include.elt.sources.files.part import FileRows, Part
from include.elt.sql import file_list, literal, parquet, quoted

_PLAIN = re.compile(
    r"BOOLEAN|U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|DECIMAL\(\d+,\d+\)|DOUBLE|VARCHAR|DATE|UUID|INTERVAL"
    r"|TIME(_NS)?|TIMESTAMP(_S|_MS|_NS)?|TIME(STAMP)? WITH TIME ZONE"
)
"""Types of DuckDB whose text is exact and has the spelling of the contract's types."""

_NESTED = re.compile(r"(STRUCT|MAP)\(.*\)|.*\[\d*\]", re.DOTALL)


@dataclass(frozen=True)
class ParquetText:
    """Parquet files with columns of the same types; see `Text`.

    Attributes:
        paths: the files, in the order of their rows.
        types: DuckDB's type by column, in lower case; a column that is not here is NULL.
        null_if: text that stands for NULL.
        canonical: see `Text.canonical`.
    """

    paths: tuple[Path, ...]
    types: tuple[tuple[str, str], ...]
    null_if: str | None
    canonical: frozenset[str] = frozenset()

    def select(self, names: Iterable[str]) -> str:
        """See `Text.select`."""
        types = dict(self.types)
        values = [f"{self._value(name, types.get(name))} AS {quoted(name)}" for name in names]
        return f"SELECT {', '.join(values)} FROM {parquet(self.paths)}"

    def _value(self, name: str, data_type: str | None) -> str:
        if data_type is None:
            return "NULL::VARCHAR"
        column = quoted(name)
        if data_type == "FLOAT":  # its own text is shorter than its value
            text = f"{column}::DOUBLE::VARCHAR"
        elif data_type == "BLOB":
            text = f"lower(hex({column}))"
        elif _NESTED.fullmatch(data_type):
            text = f"to_json({column})::VARCHAR"
        else:
            text = f"{column}::VARCHAR"
        return text if self.null_if is None else f"nullif({text}, {literal(self.null_if)})"


def read_parquet(files: Sequence[Seen], wanted: Wanted, null_if: str | None) -> Iterator[Part]:
    """Look into Parquet files; their rows are read by the cast.

    Args:
        files: the files.
        wanted: the columns; names in any case.
        null_if: text that stands for NULL.

    Raises:
        DataError: a file is not Parquet, has other columns, or values that cannot be read exactly.
    """
    found = [(seen, *_described(seen, wanted)) for seen in files]
    for types, group in groupby(found, lambda each: each[1]):
        some = list(group)
        yield Part(
            files=tuple(FileRows(seen, rows) for seen, _, rows in some),
            text=ParquetText(tuple(seen.path.absolute() for seen, _, _ in some), types, null_if),
            missing=frozenset(wanted.names) - {name for name, _ in types},
        )


def _described(seen: Seen, wanted: Wanted) -> tuple[tuple[tuple[str, str], ...], int]:
    """Types of the wanted columns, and the number of rows."""
    try:
        with duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        ) as sql:
            described = sql.execute(f"DESCRIBE SELECT * FROM {parquet([seen.path.absolute()])}").fetchall()
            files = file_list([seen.path.absolute()])
            schema = sql.execute(
                f"SELECT name, type, coalesce(logical_type, ''), coalesce(num_children, 0) FROM parquet_schema({files})"
            ).fetchall()
            metadata = sql.execute(f"SELECT num_rows FROM parquet_file_metadata({files})").fetchone()
    except duckdb.Error as error:
        seen.check()
        raise DataError(f"{seen}: cannot be read as Parquet: {str(error)[:500]}") from error
    fields = list(_fields(schema))
    names = wanted.check([name for name, _ in fields], str(seen))
    types = {name: data_type for name, (_, data_type, *_) in zip(names, described, strict=True)}
    checks: dict[str, str] = {}
    for name, (given, leaves) in zip(names, fields, strict=True):
        if name in wanted.names:
            if fault := _fault(types[name], leaves):
                raise DataError(f"{seen}: column {name}: {fault}")
            if any(_loses_digits(*leaf) for leaf in leaves):
                checks[given] = name
    if checks:
        _check_nanoseconds(seen, checks)
    return tuple((name, types[name]) for name in names if name in wanted.names), metadata[0] if metadata else 0


def _fields(schema: list[tuple[str, str, str, int]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The top columns of a schema, which lists a tree depth first; each with type and logical type of its leaves."""
    rows = iter(schema)

    def leaves(row: tuple[str, str, str, int]) -> list[tuple[str, str]]:
        _, data_type, logical, children = row
        if not children:
            return [(data_type or "", logical)]
        return [leaf for _ in range(children) for leaf in leaves(next(rows))]

    (_, _, _, columns) = next(rows)
    for _ in range(columns):
        row = next(rows)
        yield row[0], leaves(row)


def _loses_digits(data_type: str, logical: str) -> bool:
    """Whether DuckDB 1.5 would cut values of a leaf to microseconds."""
    nanoseconds = "NANOS=Nano" in logical
    instant = logical.startswith("TimestampType(isAdjustedToUTC=1")
    return data_type == "INT96" or (nanoseconds and (instant or logical.startswith("TimeType")))


def _fault(data_type: str, leaves: list[tuple[str, str]]) -> str | None:
    """Why a column cannot be read exactly, if so."""
    for leaf, logical in leaves:
        precision = re.search(r"DecimalType\(.*precision=(\d+)", logical)
        if precision and int(precision[1]) > 38:
            return f"a decimal of {precision[1]} digits; more than 38 cannot be read exactly. Write it as text"
        if _NESTED.fullmatch(data_type) and _loses_digits(leaf, logical):
            return f"a {data_type} with nanoseconds cannot be read exactly. Write them as text, or as microseconds"
    if data_type in ("FLOAT", "BLOB") or _PLAIN.fullmatch(data_type) or _NESTED.fullmatch(data_type):
        return None
    return f"the type {data_type} has no text that is known to be exact; write it as text"


def _check_nanoseconds(seen: Seen, columns: Mapping[str, str]) -> None:
    """Refuse values with digits beyond microseconds.

    Args:
        seen: the file.
        columns: name in the contract by name in the file.

    Raises:
        DataError: the first such value, with column and row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(seen.path) as nanos, ParquetFile(seen.path, coerce_int96_timestamp_unit="us") as micros:
            first = 1
            pairs: Any = zip(
                nanos.iter_batches(columns=list(columns)), micros.iter_batches(columns=list(columns)), strict=True
            )
            for exact, cut in pairs:
                for given, name in columns.items():
                    lost = _lost(exact.column(given), cut.column(given), pc, pa)
                    row = lost.index(pa.scalar(True)).as_py()
                    if row >= 0:
                        raise DataError(
                            f"{seen}: row {first + row}: column {name}: {exact.column(given)[row].value} nanoseconds"
                            " are not whole microseconds, which is all that can be kept. Write them as text, or cut"
                            " them where the file is written"
                        )
                first += exact.num_rows
    except pa.ArrowException as error:
        seen.check()
        raise DataError(f"{seen}: cannot be read as Parquet: {error}") from error


def _lost(exact: Any, cut: Any, pc: Any, pa: Any) -> Any:
    """Whether each value has digits beyond microseconds.

    INT96 reaches beyond the years that nanoseconds in 64 bits can hold; there, `exact` is some other moment, and the
    value is taken for a whole one, like the 0001-01-01 and 9999-12-31 that stand for no end.
    """
    number = exact.cast(pa.int64())
    whole = pc.multiply(pc.divide(number, 1000), 1000)
    lost = pc.not_equal(number, whole)
    if pa.types.is_timestamp(cut.type) and cut.type.unit == "us":
        year = 2**63 // 1000 - 10**6
        inside = pc.and_(pc.less(cut.cast(pa.int64()), year), pc.greater(cut.cast(pa.int64()), -year))
        lost = pc.and_(lost, inside)
    return pc.fill_null(lost, False)
