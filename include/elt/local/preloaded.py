"""Imported once by the fork server (`components.fork_airflow`): what its children find imported.

The import runs when the fork server starts, in its process. Its output goes to a log, not to the user's terminal.
"""

from __future__ import annotations

import gc
import importlib
import os
from pathlib import Path

from include.elt.local.components import PRELOAD_LOG, redirect_output
from include.elt.local.environment import Home
from include.elt.local.launch import ease_garbage_collection

_COMMANDS = ("scheduler", "dag_processor", "triggerer")


def preload() -> None:
    """Import Airflow's commands and what tasks need."""
    log: Path = Home.of(os.environ).component_logs / PRELOAD_LOG
    redirect_output(log)
    ease_garbage_collection()
    for name in ("airflow.__main__", *(f"airflow.cli.commands.{command}_command" for command in _COMMANDS)):
        importlib.import_module(name)
    settings = importlib.import_module("airflow_local_settings")
    settings.preload()
    settings.prepare_triggerer()  # a forked triggerer does not import the settings again
    # Everything up to here stays: the garbage collector of a child need not touch, and thereby copy, its memory.
    gc.collect()
    gc.freeze()


preload()
