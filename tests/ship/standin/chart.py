"""Pods of the chart in containers: what it makes of the profile `base`, with its commands, variables and volumes.

The migration job runs to its end over a real PostgreSQL; then API server, DAG processor and triggerer see by their init
containers that it has, start, and are live by their own probes. The scheduler is left out: it wants a cluster.
Secrets come from helm/try-out-secrets.sh. Logs stay here, for there is no S3. Helm and the chart are needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml
from rich.console import Console

from include.elt.paths import ROOT
from tests.helm.profiles import HELM, one, real_render
from tests.ship.standin import container
from tests.ship.standin.stack import PREFIX
from tests.support.postgres import Server, running_server

IMAGE = "dbx-project:airflow"
RUNS_ON = ("api-server", "dag-processor", "triggerer")
DIFFERENT = {
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
}
"""What is not as in the cluster."""


def secrets(server: Server) -> dict[str, dict[str, str]]:
    """The Secrets of a try-out, for a PostgreSQL of this computer."""
    made = container.run(HELM / "try-out-secrets.sh")
    found = {each["metadata"]["name"]: each["stringData"] for each in yaml.safe_load_all(made)}
    password = found["airflow-postgresql"]["postgres-password"]
    server.execute(f"CREATE ROLE postgres LOGIN SUPERUSER PASSWORD '{password}'")
    with psycopg.connect(**server.arguments | {"dbname": "template1"}, autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'postgres'").fetchall():
            connection.execute("CREATE DATABASE postgres")
    return {
        name: {key: value.replace("airflow-postgresql:5432", f"127.0.0.1:{server.port}") for key, value in data.items()}
        for name, data in found.items()
    }


class Pod:
    """A pod of the render, its containers run one at a time.

    Args:
        spec: of the pod.
        made: the Secrets by name.
        files: the keys of the ConfigMap airflow-config as files.
    """

    def __init__(self, spec: dict[str, Any], made: dict[str, dict[str, str]], files: Path) -> None:
        self.spec = spec
        self.made = made
        self.files = files

    def _options(self, given: dict[str, Any]) -> list[str]:
        context = {**self.spec["securityContext"], **given["securityContext"]}
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        options = [
            "--network",
            "host",
            "--user",
            f"{context['runAsUser']}:{context['runAsGroup']}",
            *container.CONFINED,
        ]
        variables: dict[str, str] = {}
        for source in given.get("envFrom", []):
            variables |= self.made[source["secretRef"]["name"]]
        for each in given.get("env", []):
            if "value" in each:
                variables[each["name"]] = str(each["value"])
            elif reference := each["valueFrom"].get("secretKeyRef"):
                variables[each["name"]] = self.made[reference["name"]][reference["key"]]
        for name, value in (variables | DIFFERENT).items():
            options += ["--env", f"{name}={value}"]
        for mount in given["volumeMounts"]:
            (volume,) = (each for each in self.spec["volumes"] if each["name"] == mount["name"])
            if "configMap" in volume:
                options += ["--volume", f"{self.files / mount['subPath']}:{mount['mountPath']}:ro"]
            elif mount["mountPath"] != "/tmp":  # of every container of ours
                options += ["--tmpfs", f"{mount['mountPath']}:mode=2775"]
        words = [*given.get("command", []), *given.get("args", [])]
        if "command" in given:
            options += ["--entrypoint", words.pop(0)]
        return [*options, IMAGE, *words]

    def finish(self, given: dict[str, Any]) -> None:
        """Run a container to its end."""
        container.podman("run", "--rm", *self._options(given))

    def start(self, given: dict[str, Any], cleanup: ExitStack) -> None:
        """Start a container that stays."""
        name = f"{PREFIX}chart-{given['name']}"
        container.podman("run", "--detach", "--name", name, *self._options(given))
        cleanup.callback(container.podman, "rm", "--force", "--time", "5", name)

    def is_live(self, given: dict[str, Any]) -> None:
        """Wait until the container's own liveness probe is content."""
        probe, deadline = given["livenessProbe"], time.monotonic() + 240
        while True:
            try:
                if "httpGet" in probe:
                    httpx.get(f"http://127.0.0.1:8080{probe['httpGet']['path']}", timeout=10).raise_for_status()
                else:
                    container.podman("exec", f"{PREFIX}chart-{given['name']}", *probe["exec"]["command"])
            except (container.FailedError, httpx.HTTPError) as error:
                if time.monotonic() > deadline:
                    log = container.podman("logs", "--tail", "40", f"{PREFIX}chart-{given['name']}")
                    raise container.FailedError(f"{given['name']} is not live: {error}\n{log}") from error
                time.sleep(3)
            else:
                return


def run() -> str:
    """Run the pods in a network of their own; returns the report.

    Raises:
        container.FailedError: something in it failed.
    """
    command = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" -m tests.ship.standin.chart')
    return container.run(*command, sys.executable, cwd=ROOT, timeout=1500)


def main() -> int:
    """Run the pods in the network that this process has; returns the exit code."""
    console = Console(width=100, highlight=False)
    documents = real_render("base")
    with ExitStack() as cleanup:
        server = cleanup.enter_context(running_server())
        files = container.WORK / "chart"
        files.mkdir(exist_ok=True)
        for key, text in one(documents, "ConfigMap", "airflow-config")["data"].items():
            (files / key).write_text(text)
        made = secrets(server)

        job = one(documents, "Job", "airflow-run-airflow-migrations")["spec"]["template"]["spec"]
        Pod(job, made, files).finish(job["containers"][0])
        console.print("the migration job: done, as uid 50000, pools made")
        for name in RUNS_ON:
            spec = one(documents, "Deployment", f"airflow-{name}")["spec"]["template"]["spec"]
            pod = Pod(spec, made, files)
            (given,) = (each for each in spec["containers"] if each["name"] == name)
            for before in spec["initContainers"]:
                pod.finish(before)
            pod.start(given, cleanup)
            pod.is_live(given)
            console.print(f"{name}: live, by its own probe")
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(main())
    except (container.FailedError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
