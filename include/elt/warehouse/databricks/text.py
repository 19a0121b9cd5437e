"""Names, values and types as Databricks writes them.

Not those of DuckDB: a doubled quote does not stand for one here (`'a''b'` is `ab`), a backslash escapes, and a name in
double quotes is a string.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from include.elt.contract import DELETED_AT, LOADED_AT

STAMPS = (LOADED_AT, DELETED_AT)


def quoted(name: str) -> str:
    """A SQL identifier; a dotted name becomes a qualified one."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in name.split("."))


def literal(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def listed(names: Iterable[str]) -> str:
    """Identifiers with commas between them."""
    return ", ".join(map(quoted, names))


def type_of(data_type: str) -> str:
    """The type of a column for a contract type, in the words of a table that has it.

    A `varchar(n)` is a string: the extraction has counted its characters, and no table has to be rewritten for a longer
    one.
    """
    if data_type.startswith("varchar"):
        return "string"
    return "int" if data_type == "integer" else re.sub(r"\s+", "", data_type.lower())


def exact(value: str, old: str, new: str) -> str:
    """SQL of a value in another type; NULL where it would not be the same value."""
    if old == new:
        return value
    there = f"try_cast({value} AS {new})"
    return f"CASE WHEN try_cast({there} AS {old}) <=> {value} THEN {there} END"


def as_text(value: str, data_type: str) -> str:
    """SQL of a value as text, of an instant with its offset; the session's time zone is UTC."""
    return f"concat(CAST({value} AS STRING), '+00')" if data_type == "timestamp" else f"CAST({value} AS STRING)"
