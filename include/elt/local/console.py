"""The console that local commands print to."""

from __future__ import annotations

import sys

from rich.console import Console

PIPE_WIDTH = 200
"""Columns when there is no terminal: tables are as wide as they need to be, not cut at 80."""


def make_console() -> Console:
    """A console on stdout. Text is printed as it is: nothing in it is taken for markup or coloured by guess."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)
