"""Contracts: the columns and types of each raw table, read from dbt's `sources.yml` files.

The one place of a raw table's shape is its entry under `sources:` in `dbt/models/**/*.yml`, with a `data_type` for
every column in Databricks SQL names. The loader casts by it, dbt documents and tests by it, our tests read it too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from include.elt.errors import ContractError
from include.elt.freshness import PERIODS
from include.elt.paths import DBT_PROJECT, shown

_INTEGERS = {"tinyint": 8, "smallint": 16, "int": 32, "integer": 32, "bigint": 64}
_WHOLE_DIGITS = {"tinyint": 3, "smallint": 5, "int": 10, "integer": 10, "bigint": 19}
"""Decimal digits of the largest value. A decimal needs as many to hold the integer; the other way round the cast tells
what is out of range."""

_YEARS = "BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'"
"""Dates and times that every warehouse has."""

_MODERN = "BETWEEN '1973-01-01' AND '9999-12-30'"
"""Times whose text has no trap: no year with more or less than four digits, which no cast leads into these years; no
offset with seconds, the last of which ended in 1972 (Liberia, in the time zone database); none near the last year's
end, where an offset leads out of the years that every warehouse has."""

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")

TYPES = (
    *sorted(_INTEGERS),
    "boolean",
    "date",
    "decimal(p,s)",
    "double",
    "string",
    "timestamp",
    "timestamp_ntz",
    "varchar(n)",
)
"""Column types a contract may use, as they are written in `data_type`."""

LOADED_AT = "_loaded_at"
"""Column of a raw table in mode `snapshot`: when the rows were read."""

DELETED_AT = "_deleted_at"
"""Column of a raw table with `meta.deletes: soft`: when a row was missed in its source; NULL while it is there."""

ADDED = (LOADED_AT, DELETED_AT)
"""Columns that the load adds. They stand in the contract, with the type timestamp, and not in the source."""


@dataclass(frozen=True)
class Column:
    """One column of a contract and how its text becomes a value.

    Casting is stricter than the warehouse's own: DuckDB would round `2.7` to the integer 3 and cut decimals to their
    scale without a word. Text that does not fit exactly is a bad value.

    Attributes:
        name: the column's name, lower case.
        data_type: type as the contract says it, lower case, without spaces.
    """

    name: str
    data_type: str

    @property
    def duckdb_type(self) -> str:
        """The DuckDB type that holds this column.

        `timestamp` is an instant on Databricks, so it is one in DuckDB too; `timestamp_ntz` is a wall-clock time.
        """
        match self.data_type:
            case "timestamp":
                return "TIMESTAMP WITH TIME ZONE"
            case "timestamp_ntz":
                return "TIMESTAMP"
            case "string":
                return "VARCHAR"
            case other:
                return other.upper()

    @property
    def is_text(self) -> bool:
        """Whether the text itself is the value, so that an empty text is one too."""
        return self.data_type == "string" or self.data_type.startswith("varchar")

    def value(self, text: str, *, canonical: bool = False) -> str:
        """SQL that casts the SQL text expression `text`; NULL where it does not fit.

        Args:
            text: the expression.
            canonical: whether it is what a database prints of a type that `holds` says this one holds.
        """
        if self.is_text:
            return text
        cast = f"TRY_CAST({text if canonical else f'trim({text})'} AS {self.duckdb_type})"
        decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", self.data_type)
        if decimal and int(decimal[1]) > 18 >= int(decimal[2]):
            # Parsing 128-bit decimals takes DuckDB 4 µs each, those of 64 bits a fiftieth; most values are short.
            return f"coalesce(TRY_CAST(trim({text}) AS DECIMAL(18,{decimal[2]}))::{self.duckdb_type}, {cast})"
        return cast

    def strict_value(self, text: str, *, canonical: bool = False) -> str:
        """SQL that casts the SQL text expression `text`, and fails where it does not fit.

        Args:
            text: the expression.
            canonical: as for `value`.
        """
        if self.data_type == "string":
            return text
        refusal = f"error('{self.name}: not {self.data_type}: ' || {text})"
        if not canonical or self.is_text:
            return f"CASE WHEN {self.fits(text)} THEN {self.value(text)} ELSE {refusal} END"
        value = self.value(text, canonical=True)
        if not (spelt := self._spelling(text)):
            return f"coalesce({value}, {refusal})"
        # The look at the spelling takes most of the time, and DuckDB does it only for rows that get there
        modern = f"WHEN {value} {_MODERN} THEN {value} " if self.data_type.startswith("timestamp") else ""
        return f"CASE {modern}WHEN {spelt} THEN CAST({text} AS {self.duckdb_type}) ELSE {refusal} END"

    def holds(self, other: str) -> bool:
        """Whether every value of another contract type, but for infinities and odd years, is one of this type."""
        mine, theirs = _digits(self.data_type), _digits(other)
        if mine and theirs:
            return mine[0] >= theirs[0] and mine[1] >= theirs[1]
        return self.data_type == other and not self.is_text

    def fits(self, text: str, *, canonical: bool = False) -> str:
        """SQL condition: the SQL text expression `text` is NULL or becomes a value of this type without any change.

        Args:
            text: the expression.
            canonical: as for `value`; what a database prints needs no look at its spelling, which takes most of the
                time.
        """
        if canonical and not self.is_text:
            return f"({text} IS NULL OR ({self._canonical(text)}))"
        if self.data_type == "string":
            return "TRUE"
        if self.data_type.startswith("varchar"):
            return f"({text} IS NULL OR length({text}) <= {self.data_type[8:-1]})"
        exact = f"regexp_full_match(trim({text}), '{self._pattern()}', 'i') AND {self.value(text)} IS NOT NULL"
        if self.data_type == "double":  # 1e999 would become infinity, 1e-999 zero
            value, nonzero = self.value(text), f"regexp_matches({text}, '^[^e]*[1-9]', 'i')"
            infinite = f"regexp_matches({text}, 'n', 'i')"  # inf and nan
            exact += f" AND CASE WHEN {value} = 0 THEN NOT {nonzero} ELSE isfinite({value}) <> {infinite} END"
        if self.data_type.startswith(("date", "timestamp")):  # other years have no common spelling
            exact += f" AND {self.value(text)} {_YEARS}"
        return f"({text} IS NULL OR ({exact}))"

    def _canonical(self, text: str) -> str:
        """Condition for what a database prints: nothing is rounded, but the type may have no such value."""
        cast = f"{self.value(text, canonical=True)} IS NOT NULL"
        spelt = self._spelling(text)
        return f"{spelt} AND {cast}" if spelt else cast

    def _spelling(self, text: str) -> str:
        """Condition for what a database prints that tells which values the type has; empty where only the cast does."""
        conditions = []
        if self.data_type == "date":  # `2024-01-02`: longer with a fifth digit of the year or a BC, shorter if infinite
            conditions = [f"strlen({text}) = 10"]
        elif self.data_type.startswith("timestamp"):  # a year of four digits, which is not one BC
            conditions = [f"substr({text}, 5, 1) = '-'", f"right({text}, 1) <> 'C'"]
        if self.data_type == "timestamp":
            # an offset with seconds, as of the 19th century, is misread
            conditions.append(f"(substr({text}, -3, 1) IN ('+', '-') OR substr({text}, -6, 1) IN ('+', '-'))")
            instant = f"{self.value(text, canonical=True)} {_YEARS}"  # an offset may lead out of these years
            conditions.append(f"CASE WHEN left({text}, 4) IN ('0001', '9999') THEN {instant} ELSE TRUE END")
        return " AND ".join(conditions)

    def _pattern(self) -> str:
        """Regular expression of the texts that the type holds exactly (their range is left to the cast)."""
        if self.data_type in _INTEGERS:
            return r"[+-]?[0-9]+(\.0*)?"
        if decimal := re.fullmatch(r"decimal\((\d+),(\d+)\)", self.data_type):
            return rf"[+-]?([0-9]+(\.[0-9]{{0,{decimal[2]}}}0*)?|\.[0-9]{{0,{decimal[2]}}}0*)"
        date = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
        clock = r"[ T]([01][0-9]|2[0-3]):[0-9]{2}(:[0-9]{2}(\.[0-9]{0,6}0*)?)?"
        zone = r"(Z|[+-](0[0-9]|1[0-8])(:?[0-5][0-9])?)?"
        return {
            "boolean": "true|false|t|f|yes|no|y|n|1|0",
            "date": date,
            "double": r"[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity|nan)",
            "timestamp": f"{date}({clock}{zone})?",
            "timestamp_ntz": f"{date}({clock})?",
        }[self.data_type]


def _digits(data_type: str) -> tuple[int, int] | None:
    """Digits before and after the point that a whole number or decimal type holds; None for other types."""
    if decimal := re.fullmatch(r"decimal\((\d+),(\d+)\)", data_type):
        return int(decimal[1]) - int(decimal[2]), int(decimal[2])
    return (_WHOLE_DIGITS[data_type], 0) if data_type in _WHOLE_DIGITS else None


@dataclass(frozen=True)
class Contract:
    """Columns and types of one raw table.

    Attributes:
        table: schema and name of the raw table, e.g. `raw.raw_orders`.
        dbt_source: what dbt calls it: source and table, e.g. `shop.raw_orders`.
        columns: the columns that come from the source, in their order.
        file: the YAML file that says so.
        added: names of the columns that the load adds; see `ADDED`.
        late_after: seconds after its last load when the table is late, dbt's `warn_after`; None where nobody waits.
        stale_after: seconds when what depends on it is not built any more, dbt's `error_after`.
    """

    table: str
    dbt_source: str
    columns: tuple[Column, ...]
    file: Path
    added: tuple[str, ...] = ()
    late_after: int | None = None
    stale_after: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in their order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name, which has to be there."""
        return next(column for column in self.columns if column.name == name)

    def only(self, names: tuple[str, ...]) -> Contract:
        """The same contract with just these columns."""
        return replace(self, columns=tuple(self.column(name) for name in names))

    @property
    def schema_hash(self) -> str:
        """Sixteen hexadecimal digits that change when a column's name, type or place changes."""
        text = ",".join(f"{column.name} {column.data_type}" for column in self.columns)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _checked_type(data_type: str) -> str | None:
    """The type in its one spelling, or None when it is not one of `TYPES`."""
    text = re.sub(r"\s+", "", data_type.lower())
    if text in {*_INTEGERS, "boolean", "date", "double", "string", "timestamp", "timestamp_ntz"}:
        return text
    if decimal := re.fullmatch(r"decimal\((\d+),(\d+)\)", text):
        precision, scale = int(decimal[1]), int(decimal[2])
        return text if 1 <= precision <= 38 and scale <= precision else None
    return text if re.fullmatch(r"varchar\([1-9]\d*\)", text) else None


def _columns(entries: list[dict[str, Any]], where: str) -> Iterator[Column]:
    seen = set()
    for entry in entries:
        name = str(entry.get("name", ""))
        if not _IDENTIFIER.fullmatch(name):
            raise ContractError(
                f"{where}: column {name!r}: a column name is lower case letters, digits and underscores"
            )
        if name in seen:
            raise ContractError(f"{where}: column {name} is there twice")
        seen.add(name)
        if "data_type" not in entry:
            raise ContractError(f"{where}: column {name} has no data_type; allowed: {', '.join(TYPES)}")
        data_type = _checked_type(str(entry["data_type"]))
        if data_type is None:
            raise ContractError(
                f"{where}: column {name} has data_type {entry['data_type']!r}; allowed: {', '.join(TYPES)}"
            )
        yield Column(name, data_type)


def _contracts(document: dict[str, Any], file: Path) -> Iterator[Contract]:
    """The contracts in one YAML file of dbt."""
    for source in document.get("sources") or []:
        schema = source.get("schema", source["name"])
        for entry in source.get("tables") or []:
            table = f"{schema}.{entry.get('identifier', entry['name'])}"
            where = f"{shown(file)}: {table}"
            given = tuple(_columns(entry.get("columns") or [], where))
            columns = tuple(column for column in given if column.name not in ADDED)
            if not columns:
                raise ContractError(f"{where}: no columns; the loader needs every column with its data_type")
            added = tuple(column for column in given if column.name in ADDED)
            for column in added:
                if column.data_type != "timestamp":
                    raise ContractError(
                        f"{where}: column {column.name} is added by the load and has the data_type timestamp,"
                        f" got {column.data_type!r}"
                    )
            name = f"{source['name']}.{entry['name']}"
            late, stale = (_freshness(source, entry, key) for key in ("warn_after", "error_after"))
            yield Contract(table, name, columns, file, tuple(column.name for column in added), late, stale)


def _freshness(source: dict[str, Any], entry: dict[str, Any], key: str) -> int | None:
    """Seconds of one of dbt's two limits of freshness; the table's own one, else that of its source."""
    for each in (entry, source):
        for place in (each.get("config") or {}, each):
            if "freshness" in place:
                limit = (place["freshness"] or {}).get(key) or {}
                seconds = PERIODS.get(str(limit.get("period")))
                return int(limit["count"]) * seconds if seconds and limit.get("count") is not None else None
    return None


def read_contracts(project: Path = DBT_PROJECT) -> dict[str, Contract]:
    """Read the contracts of all raw tables of a dbt project.

    Args:
        project: folder of the dbt project.

    Returns:
        Contracts by table (`schema.name`, with the source's `schema` and the table's `identifier` where given).

    Raises:
        ContractError: a file is no YAML, a table has no columns, a column has no usable type, or two sources declare
            one table. The message names file, table and column.
    """
    contracts: dict[str, Contract] = {}
    for file in sorted([*(project / "models").rglob("*.yml"), *(project / "models").rglob("*.yaml")]):
        try:
            document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            found = list(_contracts(document, file))
        except (yaml.YAMLError, UnicodeError) as error:
            raise ContractError(f"{shown(file)}: not YAML: {error}") from error
        except (AttributeError, KeyError, TypeError) as error:
            raise ContractError(f"{shown(file)}: not as dbt writes its sources: {error}") from error
        for contract in found:
            twin = contracts.setdefault(contract.table, contract)
            if twin is not contract:
                raise ContractError(f"{shown(file)}: {contract.table}: already declared in {shown(twin.file)}")
    return contracts
