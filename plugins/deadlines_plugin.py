"""Makes the project's deadlines known to Airflow: to those who make runs, the scheduler and the API server."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from include.elt.alerts.deadlines import RunQueued, TablesLoaded


class DeadlinesPlugin(AirflowPlugin):
    """What Airflow is told."""

    name = "deadlines"
    deadline_references: list[Any] = [RunQueued, TablesLoaded]
