"""Casting beside the reading: text becomes Parquet, piece by piece, while the source sends the rest."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import duckdb

from include.elt.cast import cast_strictly, connect
from include.elt.contract import Contract
from include.elt.replication import Stream
from include.elt.text import Text, TextFile
from include.elt.typed import TypedText

Early = Callable[[Contract, TextFile, int], None]
"""Takes a piece of the text, in one file, while the rest still comes: its contract, the piece, its rows."""


def later(contract: Contract, text: TextFile, rows: int) -> None:
    """An `Early` that takes nothing."""


class EarlyCast:
    """Casts what a source has proven already. A context manager, with a DuckDB in memory of its own.

    It says nothing of what does not fit: then, and when the source starts again in another way, there is no result, and
    the whole text is cast by `Caster`, which names row, column and value.

    Args:
        stream: the stream.
        folder: for the Parquet files, and for what does not fit into memory; it is made when it is needed.
        memory: DuckDB's memory limit, e.g. `512MB`.
    """

    def __init__(self, stream: Stream, folder: Path, memory: str) -> None:
        self.stream = stream
        self.folder = folder
        self.memory = memory
        self._sql: duckdb.DuckDBPyConnection | None = None
        self._pool = ThreadPoolExecutor(1)
        self._pieces: dict[Path, tuple[int, Future[Path | None]]] = {}
        self._unfit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what is still at work."""
        self._unfit = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._sql is not None:
            self._sql.interrupt()
        self._pool.shutdown(wait=True)
        if self._sql is not None:
            self._sql.close()

    def take(self, contract: Contract, text: TextFile, rows: int) -> None:
        """Begin to cast a piece of the text. Returns at once; any thread may call it.

        Args:
            contract: columns and types.
            text: the piece, in one file.
            rows: its rows, which are proven.
        """
        [file] = text.paths
        target = self.folder / f"{len(self._pieces):05d}.parquet"
        typed = TypedText(text, contract, self.stream)
        self._pieces[file] = rows, self._pool.submit(self._cast, typed, rows, target)

    def files(self, text: Text, rows: int) -> dict[Path, int]:
        """Wait for the pieces of a text.

        Args:
            text: the whole text.
            rows: its rows.

        Returns:
            Rows by Parquet file, in the order of the text; empty where some piece is missing or holds a row that does
            not fit.
        """
        made = {}
        for file in getattr(text, "paths", ()):
            if file not in self._pieces:
                return {}
            held, piece = self._pieces[file]
            if (target := piece.result()) is None:
                return {}
            made[target] = held
        return made if sum(made.values()) == rows else {}

    def _cast(self, typed: TypedText, rows: int, target: Path) -> Path | None:
        """Write a piece as Parquet; None where something does not fit, and for everything after it."""
        if self._unfit:
            return None
        if self._sql is None:
            self.folder.mkdir(exist_ok=True)
            self._sql = connect(self.folder, self.memory)
        self._unfit = not cast_strictly(self._sql, typed, target, rows)
        return None if self._unfit else target
