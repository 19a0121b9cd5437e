"""SQL that makes typed values of text, by contract."""

from __future__ import annotations

from dataclasses import dataclass

from include.elt.contract import Column, Contract
from include.elt.replication import Stream
from include.elt.sql import literal, quoted
from include.elt.text import Text

ROW_GROUP = 56 * 2048
"""Rows of a row group, about; a little less than the 122,880 of a DuckDB table. A larger one would become a full and a
tiny one there, and DuckDB writes such a table again when it closes the file, which then has twice the size."""

PARQUET = (
    f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 2, DICTIONARY_SIZE_LIMIT 5000, ROW_GROUP_SIZE {ROW_GROUP})"
)
"""How the lake's files are written. With DuckDB's own level (3) and dictionaries (a fifth of the row group) 3 million
rows of 9 columns take 1.9 instead of 1.2 processor seconds, and are no smaller (66 MB). A file of up to 5,000 rows
is up to twice as large with it (17 kB instead of 10), for then a column of different values gets a dictionary too."""


@dataclass(frozen=True)
class TypedText:
    """Text and the contract that it is cast by.

    Attributes:
        text: the text.
        contract: columns and types.
        stream: its primary key and NULL rules.
    """

    text: Text
    contract: Contract
    stream: Stream

    def select(self) -> str:
        """SQL that reads the text; an empty field of a type that has no empty value is NULL."""
        values = []
        for column in self.contract.columns:
            text = quoted(column.name)
            has_empty = column.is_text and not self.stream.source_options.empty_as_null
            if not has_empty and not self._is_canonical(column):  # nothing that a database prints is empty
                text = f"nullif({text}, '')"
            values.append(f"{text} AS {quoted(column.name)}")
        return f"SELECT {', '.join(values)} FROM ({self.text.select(self.contract.names)})"

    def conditions(self) -> list[tuple[Column, str, str]]:
        """Per column: what has to hold for its text, and how a message says it."""
        conditions = [
            (column, column.fits(quoted(column.name), canonical=self._is_canonical(column)), column.data_type)
            for column in self.contract.columns
        ]
        conditions += [
            (column, f"{quoted(column.name)} IS NOT NULL", "a primary key, which is never NULL")
            for column in self.contract.columns
            if column.name in self.stream.primary_key
        ]
        return conditions

    def fits(self) -> str:
        """SQL condition: the row fits."""
        return " AND ".join(condition for _, condition, _ in self.conditions())

    def value(self, name: str) -> str:
        """SQL of a column's value, from its text; NULL where it does not fit."""
        column = self.contract.column(name)
        return column.value(quoted(name), canonical=self._is_canonical(column))

    def values(self) -> str:
        """SQL of all columns' values with their names, of rows that fit."""
        return ", ".join(f"{self.value(name)} AS {quoted(name)}" for name in self.contract.names)

    def strict_values(self) -> str:
        """SQL of all columns' values with their names; it fails at a row that does not fit.

        Each text is cast once, which `fits` and `values` together do twice.
        """
        values = []
        for column in self.contract.columns:
            value = column.strict_value(quoted(column.name), canonical=self._is_canonical(column))
            if column.name in self.stream.primary_key:
                refusal = f"error({literal(f'{column.name}: a primary key is never NULL')})"
                value = f"CASE WHEN {quoted(column.name)} IS NULL THEN {refusal} ELSE {value} END"
            values.append(f"{value} AS {quoted(column.name)}")
        return ", ".join(values)

    def characters(self) -> str:
        """SQL of the characters of a row's values that are not NULL."""
        return " + ".join(f"coalesce(length({quoted(name)}), 0)" for name in self.contract.names)

    def _is_canonical(self, column: Column) -> bool:
        return column.name in self.text.canonical
