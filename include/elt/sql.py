"""The ways a Python value becomes part of a SQL text. Everything else in a statement is written in the code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def quoted(name: str) -> str:
    """A SQL identifier; a dotted name becomes a qualified one."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def literal(text: str | Path) -> str:
    """A SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def parquet(files: Iterable[Path]) -> str:
    """SQL that reads exactly these Parquet files, as they are.

    DuckDB would take `*`, `?` and `[` in a path for a pattern, and a folder `id=5` for the value of the column `id`.
    """
    paths = ", ".join(literal(re.sub(r"[*?\[]", r"[\g<0>]", str(file))) for file in files)
    return f"read_parquet([{paths}], hive_partitioning=false)"
