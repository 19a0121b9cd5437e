"""Signals as exceptions, so that whatever ends a command goes through its cleaning up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a command to end."""


class Interrupted(BaseException):
    """A signal asked the command to end.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal ended."""
        return 128 + self.number

    def __str__(self) -> str:
        return signal.Signals(self.number).name


class _State:
    held = 0
    pending: int | None = None


def _handle(number: int, _frame: FrameType | None) -> None:
    if _State.held:
        _State.pending = number
        return
    for ending in ENDING:  # once is enough; the cleaning up is not to be interrupted
        signal.signal(ending, signal.SIG_IGN)
    raise Interrupted(number)


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Within the block, the first ending signal raises `Interrupted`; further ones are ignored.

    A signal that is ignored from the start (nohup, a shell's background job) stays ignored.
    """
    heeded = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Within the block a signal waits: something is started that must be noted, or ended that must be ended."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
        if not _State.held and _State.pending is not None:
            number, _State.pending = _State.pending, None
            _handle(number, None)
