"""The guard: ends what a local command has started when that command is gone, whatever ended it.

`python -m include.elt.local.guard` reads session ids, one a line; a negative one is no longer to be ended. When the
pipe closes, which the kernel does also for a SIGKILLed command, it ends these sessions. Once the command has ended them
itself, there is nothing left to do.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from include.elt.local import sessions
from include.elt.paths import ROOT

GRACE = 3.0
"""Seconds between asking and killing; nobody watches any more."""


class Guard:
    """The command's end of the pipe.

    A context manager; at its end the guard process looks after what is left and ends.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "include.elt.local.guard"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        """Process id of the guard."""
        return self._process.pid

    def watch(self, session: int) -> None:
        """Add a session to what is ended with the command."""
        self._tell(session)

    def forget(self, session: int) -> None:
        """Take a session out again: it has ended, and its number may be given to somebody else."""
        self._tell(-session)

    def _tell(self, word: int) -> None:
        assert self._process.stdin is not None  # noqa: S101  (asked for above)
        with suppress(BrokenPipeError):  # somebody killed the guard; the command still ends everything itself
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(GRACE + 10)


def main(stream: TextIO = sys.stdin) -> None:
    """Read sessions until the pipe closes, then end them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: set[int] = set()
    for line in stream:
        session = int(line)
        if session > 0:
            watched.add(session)
        else:
            watched.discard(-session)
    sessions.end(watched, GRACE)


if __name__ == "__main__":
    main()
