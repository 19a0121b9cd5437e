"""The two ways a Python value becomes part of a SQL text. Everything else in a statement is written in the code."""

from __future__ import annotations

from pathlib import Path


def quoted(name: str) -> str:
    """A SQL identifier; a dotted name becomes a qualified one."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def literal(text: str | Path) -> str:
    """A SQL string."""
    return "'" + str(text).replace("'", "''") + "'"
