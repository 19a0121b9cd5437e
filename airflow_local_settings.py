"""Airflow imports this file in each of its processes. Here it makes tasks start and end quicker; it changes no setting.

The triggerer gets what include/dbt_watch/triggerer.py tells, unless FAST_TRIGGERER says no. A process that forks one
child per task or per parsed file imports dbt, Cosmos and the rest once, and every child has them at once: about two
seconds of CPU less for each task that uses them. Only what is installed is imported there, never this project's own
code, which may change while Airflow runs.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence

__all__: list[str] = []
"""Airflow takes nothing from here into its settings."""

MODULES = (
    "airflow.models.dagbag",
    "airflow.sdk.execution_time.task_runner",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.python",
    "cosmos.airflow.task_group",
    "cosmos.operators.local",
    "cosmos.plugin.airflow3",
    "dbt.cli.main",
    "dbt.adapters.duckdb",
    "duckdb",
    "pydantic_settings",
)
"""What tasks and DAG files of this project import."""


def forks_tasks(arguments: Sequence[str]) -> bool:
    """Whether an Airflow process with this command line forks children that run this project's code.

    Args:
        arguments: the command line without the program, e.g. `["celery", "worker"]`.
    """
    if list(arguments[:1]) == ["scheduler"]:
        from airflow.configuration import conf

        return "LocalExecutor" in conf.get("core", "executor")
    return list(arguments[:1]) == ["dag-processor"] or list(arguments[:2]) == ["celery", "worker"]


def preload() -> list[str]:
    """Import what tasks need; what cannot be imported is left to the task that needs it.

    Returns:
        The modules that could not be imported.
    """
    missing = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with a package, Airflow itself must start)
            logging.getLogger(__name__).warning("not imported ahead of time: %s (%s)", name, error)
            missing.append(name)
    try:
        # Cosmos opens the manifest through this, and the search through all providers takes a second.
        from airflow.sdk.io.fs import _register_filesystems

        _register_filesystems()
    except Exception as error:  # noqa: BLE001
        logging.getLogger(__name__).warning("file systems not registered ahead of time: %s", error)
        missing.append("airflow.sdk.io.fs")
    return missing


def prepare_triggerer() -> None:
    """Make a triggerer quicker. Whatever is wrong with that, it must start."""
    try:
        from include.dbt_watch import triggerer

        if triggerer.wanted():
            triggerer.apply()
    except Exception as error:  # noqa: BLE001
        logging.getLogger(__name__).warning("the triggerer stays as Airflow made it: %s", error)


if forks_tasks(sys.argv[1:]):
    preload()
if sys.argv[1:2] == ["triggerer"]:
    prepare_triggerer()
