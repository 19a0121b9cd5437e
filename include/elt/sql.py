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


def file_list(files: Iterable[Path]) -> str:
    """A SQL list of exactly these files; DuckDB would take `*`, `?` and `[` in a path for a pattern."""
    return "[" + ", ".join(literal(re.sub(r"[*?\[]", r"[\g<0>]", str(file))) for file in files) + "]"


def parquet(files: Iterable[Path]) -> str:
    """SQL that reads exactly these Parquet files; a folder `id=5` is no value of the column `id`."""
    return f"read_parquet({file_list(files)}, hive_partitioning=false)"
