"""Processes of their own, for what happens between two of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from include.elt.paths import ROOT
from tests.support.elt import Bench


def python(code: str, *args: str, until: str = "ready") -> subprocess.Popen[str]:
    """A process of its own; it has printed the line `until` when this returns."""
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    process = subprocess.Popen([sys.executable, "-c", head + code, *args], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert until in (line.strip() for line in process.stdout)
    return process


@contextmanager
def held(bench: Bench, seconds: float, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """The warehouse's file, held by another process for so long."""
    code = f"import duckdb, time; c = duckdb.connect(sys.argv[1], **{how!r}); print('ready', flush=True); "
    code += f"time.sleep({seconds})"
    process = python(code, str(bench.database))
    try:
        yield process
    finally:
        process.kill()
        process.wait()
