"""What the stand-in was asked, one JSON object per line, and how each statement was answered.

| class | what it means |
|---|---|
| native | Spark parsed, analysed and ran exactly the text that the client sent |
| rewritten | Spark ran it after a rewrite that has a name |
| emulated | the stand-in answered it itself |
| accepted | Databricks only; it was taken and not carried out |
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any


class Journal:
    """The file. Safe to use from several threads.

    Args:
        file: where it is written.
    """

    def __init__(self, file: Path) -> None:
        self._stream = file.open("a", buffering=1, encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, event: str, **details: Any) -> None:
        """One line."""
        line = json.dumps({"at": round(time.time(), 3), "event": event, **details}, ensure_ascii=False)
        with self._lock:
            self._stream.write(line + "\n")
