"""Text that we write ourselves, for formats that Sling would change."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Writer


@contextmanager
def text_writer(target: Path, header: tuple[str, ...]) -> Iterator[Writer]:
    """A new file as `TextFile` reads it. Every field has quotes: without them, a CR would have none either."""
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(header)
        yield writer
