"""An executor that starts each task as the KubernetesExecutor's pods do, as a process instead of a pod.

No cluster: the command is that of a pod (`airflow.sdk.execution_time.execute_workload`), nothing is imported before,
and each process has an AIRFLOW_HOME and a temporary folder of its own. It proves nothing about Kubernetes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.executors.base_executor import BaseExecutor

FOLDER = "PODS"
"""Environment variable of the folder in which each of them has its own."""


class ProcessPerTask(BaseExecutor):
    """Runs each task in a process of its own, with nothing of the scheduler's but its environment."""

    def start(self) -> None:
        """Nothing is running yet."""
        self._pods: dict[Any, subprocess.Popen[bytes]] = {}

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for workload in workload_items:
            del self.queued_tasks[workload.key]
            home = Path(tempfile.mkdtemp(prefix="pod_", dir=os.environ[FOLDER]))
            own = {"AIRFLOW_HOME": str(home), "TMPDIR": str(home), "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{home}/logs"}
            words = ["-m", "airflow.sdk.execution_time.execute_workload", "--json-string", workload.model_dump_json()]
            with (home / "output").open("wb") as output:
                self._pods[workload.key] = subprocess.Popen(
                    [sys.executable, *words], env=os.environ | own, stdout=output, stderr=subprocess.STDOUT
                )
            self.running.add(workload.key)

    def sync(self) -> None:
        """Tell the scheduler of those that have ended."""
        for key, process in list(self._pods.items()):
            if (code := process.poll()) is not None:
                del self._pods[key]
                (self.fail if code else self.success)(key)

    def end(self) -> None:
        """End what still runs."""
        for process in self._pods.values():
            process.terminate()

    def terminate(self) -> None:
        """The same."""
        self.end()
