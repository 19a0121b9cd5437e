"""What a test wants to go wrong, or to wait."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Faults:
    """Faults that a test orders through `POST /standin/faults`; an empty order ends them all.

    | key | what it does |
    |---|---|
    | `cold` | as many requests to the warehouse are answered with 503 |
    | `denied` | pairs of a pattern and a message: a statement that matches is refused with it |
    | `files_denied` | the Files API refuses everything |
    | `hold` | pattern: a statement that matches waits before it is carried out |
    | `release` | `run` lets a statement that waits go on, `drop` ends it without having carried it out |
    """

    def __init__(self) -> None:
        self.cold = 0
        self.denied: list[tuple[str, str]] = []
        self.hold: str | None = None
        self.held = 0
        self.files_denied = False
        self._release = ""
        self._changed = threading.Condition()

    def order(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Take an order; returns how many statements wait."""
        with self._changed:
            if not wanted:
                self.cold, self.denied, self.hold, self.files_denied, self._release = 0, [], None, False, "drop"
            self.cold = wanted.get("cold", self.cold)
            self.denied = [(str(pattern), str(text)) for pattern, text in wanted.get("denied", self.denied)]
            self.files_denied = wanted.get("files_denied", self.files_denied)
            if "hold" in wanted:
                self.hold, self._release = wanted["hold"], ""
            if "release" in wanted:
                self.hold, self._release = None, wanted["release"]
            self._changed.notify_all()
            return {"held": self.held}

    def asleep(self) -> bool:
        """Whether the warehouse is still waking up; each question brings it nearer to being awake."""
        with self._changed:
            asleep = self.cold > 0
            self.cold -= asleep
            return asleep

    @contextmanager
    def around(self, statement: str) -> Iterator[None]:
        """Refuse a statement, or let it wait; it counts as held until it has ended.

        Raises:
            PermissionError: it is denied.
            InterruptedError: a test let it wait, and dropped it.
        """
        for pattern, text in self.denied:
            if re.search(pattern, statement, re.I | re.S):
                raise PermissionError(f"[INSUFFICIENT_PERMISSIONS] Insufficient privileges: {text} SQLSTATE: 42501")
        with self._changed:
            held = bool(self.hold and re.search(self.hold, statement, re.I | re.S))
            self.held += held
            if held:
                self._changed.wait_for(lambda: self._release, timeout=300)
        try:
            if held and self._release != "run":
                raise InterruptedError("[CANCELLED] the statement was cancelled")
            yield
        finally:
            with self._changed:
                self.held -= held
