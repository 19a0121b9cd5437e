"""The DuckDB file: one writer at a time, or several readers; who comes second waits."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from include.elt.errors import LoadError, WarehouseBusyError
from include.elt.paths import shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memory:
    """What DuckDB may take for its work.

    Its cache takes all that is allowed, so that the limit, and not the table, decides how large a process gets. With
    rows of 9 columns and two threads, 1, 10 and 30 million rows take 157, 208 and 221 MB under a limit of 128 MB; under
    one of 1 GB, 10 million take 470 MB, and no less time.

    Args:
        limit: as DuckDB writes it.
        threads: at most as many; each holds a row group of the table that it writes, 122,880 rows.
    """

    limit: str
    threads: int

    def __str__(self) -> str:
        return f"{self.limit} of memory and {self.threads} threads"


LEAN = Memory("128MB", 2)
"""Enough to copy rows that are neither very wide nor have hundreds of columns."""

AMPLE = Memory("1GB", 4)
"""For joins, and for what does not fit into less."""

LAST = Memory("1GB", 1)
"""For rows so wide that only one thread at a time can have some."""

_HELD = ("Could not set lock", "with a different configuration")
"""What DuckDB says of a file that another process holds, or this one in another way."""


@contextmanager
def connected(
    path: Path, lock_timeout: float, *, read_only: bool = False, memory: Memory = AMPLE
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the file. A transaction that is open at the end is rolled back.

    The rows of a table have no order: to keep the one in which they came would take half as much memory again.

    Raises:
        LoadError: it is no usable DuckDB file.
        WarehouseBusyError: somebody else holds it for longer than `lock_timeout` seconds.
    """
    connection = _wait_for_file(path, lock_timeout, read_only=read_only)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET memory_limit = '{memory.limit}'")
        (threads,) = connection.execute("SELECT current_setting('threads')").fetchone() or (1,)
        connection.execute(f"SET threads = {min(memory.threads, threads)}")
        connection.execute("SET preserve_insertion_order = false")
        yield connection
    finally:
        connection.close()


def _wait_for_file(path: Path, lock_timeout: float, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + lock_timeout
    pause = 0.1
    while True:
        try:
            return duckdb.connect(
                str(path),
                read_only=read_only,
                config={
                    "memory_limit": AMPLE.limit,
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                },
            )
        except (duckdb.IOException, duckdb.ConnectionException) as error:
            if not any(words in str(error) for words in _HELD):
                raise LoadError(f"{shown(path)} cannot be opened: {error}") from error
            if time.monotonic() + pause > deadline:
                holder = re.search(r"held in (.+?) \(PID (\d+)\)", str(error))
                who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
                raise WarehouseBusyError(
                    f"{shown(path)} is held by {who} for more than {lock_timeout} s;"
                    " a DuckDB file has one writer at a time: end that process, or wait longer with LOCK_TIMEOUT"
                ) from error
            log.info("%s is held by another process; waiting", shown(path))
        except duckdb.Error as error:
            raise LoadError(f"{shown(path)} is not a usable DuckDB file: {error}") from error
        time.sleep(pause)
        pause = min(pause * 2, 2.0)


@contextmanager
def time_limit(sql: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt a statement that runs too long; Python's own signals wait until DuckDB returns.

    An interrupt between two statements is lost, so it is repeated until the block has ended.
    """
    done = threading.Event()

    def watch() -> None:
        pause = seconds
        while not done.wait(pause):
            sql.interrupt()
            pause = 0.1

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
