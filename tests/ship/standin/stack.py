"""The Airflow services of compose.yml in containers, as they stand there, over a real PostgreSQL.

`run` does that in a network of its own, which has the loopback and nothing else: the ports are the ones of compose.yml,
and nothing can reach out. What differs from Compose: the databases are a PostgreSQL of this computer instead of
an image, and the names of the services are this computer's address.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml
from rich.console import Console
from rich.table import Table

from include.elt.local.client import ApiError, Client
from include.elt.paths import ROOT
from tests.ship.standin import container
from tests.support.postgres import Server, running_server

IMAGE = "dbx-project:airflow"
RUNS_ON = ("api-server", "scheduler", "dag-processor", "triggerer")
PREFIX = "dbx-project-standin-"


def run() -> str:
    """Run the stack in a network of its own; returns the report.

    Raises:
        container.FailedError: something in it failed.
    """
    command = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" -m tests.ship.standin.stack')
    return container.run(*command, sys.executable, cwd=ROOT, timeout=1500)


def secrets() -> dict[str, str]:
    """What `make env` writes."""
    made = runpy.run_path(str(ROOT / "docker" / "make_env.py"))["SECRETS"]
    return {name: make() for name, make in made.items()}


def services(variables: dict[str, str], port: int) -> dict[str, Any]:
    """The services of compose.yml, its variables filled in as Compose does, PostgreSQL at a port of ours."""

    def fill(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, _, default = found[1].partition(":")
        return variables.get(name) or default.removeprefix("-")

    def walk(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: walk(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [walk(value) for value in tree]
        return (
            re.sub(r"\$\$|\$\{([^}]+)\}", fill, tree).replace(":5432/", f":{port}/") if isinstance(tree, str) else tree
        )

    return walk(yaml.safe_load((ROOT / "compose.yml").read_text(encoding="utf-8"))["services"])  # type: ignore[no-any-return]


class Stack:
    """The containers of some services."""

    def __init__(self, defined: dict[str, Any], volumes: dict[Path, str], cleanup: ExitStack) -> None:
        self.defined = defined
        self.volumes = volumes
        self.cleanup = cleanup

    def _options(self, name: str) -> list[str]:
        """The service as podman's options; what it does not know of Compose fails here instead of being left out."""
        service = self.defined[name]
        known = {"image", "build", "profiles", "restart", "configs", "volumes", "depends_on", "environment", "command"}
        known |= {"read_only", "cap_drop", "security_opt", "tmpfs", "healthcheck", "ports", "entrypoint"}
        assert service.keys() <= known, service.keys() - known
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"] == ["/tmp:mode=1777"]
        options = ["--network", "host", *container.CONFINED]
        for host in ("metadata", "postgres", "api-server"):
            options += ["--add-host", f"{host}:127.0.0.1"]
        for key, value in service.get("environment", {}).items():
            options += ["--env", f"{key}={value}"]
        for place, inside in self.volumes.items():
            options += ["--volume", f"{place}:{inside}"]
        if "entrypoint" in service:
            options += ["--entrypoint", service["entrypoint"][0]]
        return options

    def _command(self, name: str) -> list[str]:
        service = self.defined[name]
        return [*service.get("entrypoint", [])[1:], *service["command"]]

    def finish(self, name: str) -> str:
        """Run a service that ends; returns what it printed."""
        return container.podman("run", "--rm", *self._options(name), IMAGE, *self._command(name))

    def start(self, name: str) -> None:
        """Start a service that stays, and wait until it says that it is healthy, by its own check."""
        full = PREFIX + name
        container.podman("run", "--detach", "--name", full, *self._options(name), IMAGE, *self._command(name))
        self.cleanup.callback(container.podman, "rm", "--force", "--time", "5", full)
        kind, *words = self.defined[name]["healthcheck"]["test"]
        check = words if kind == "CMD" else ["sh", "-c", words[0]]
        deadline = time.monotonic() + 180
        while True:
            try:
                container.podman("exec", full, *check)
            except container.FailedError as error:
                if time.monotonic() > deadline:
                    raise container.FailedError(f"{name} is not healthy: {error}\n{self.log(name)}") from error
                time.sleep(2)
            else:
                return

    def log(self, name: str) -> str:
        """The end of what a service has said."""
        return container.podman("logs", "--tail", "60", PREFIX + name)

    def process(self, name: str) -> psutil.Process:
        """The first process of a service."""
        return psutil.Process(int(container.podman("inspect", "--format", "{{.State.Pid}}", PREFIX + name)))


class Memory(threading.Thread):
    """The largest memory that each service, and each single task, was seen with.

    For a service the proportional set size of its processes: shared pages count once. A task is the executor's worker
    and its children, as they are in a pod of their own, where they share with nobody else: their resident sizes are
    added, which counts twice what these few share. The scheduler is counted without its tasks.
    """

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        super().__init__(daemon=True)
        self.processes = processes
        self.peak: defaultdict[str, int] = defaultdict(int)
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.3):
            for name, process in self.processes.items():
                try:
                    self._look(name, process)
                except psutil.Error:
                    continue

    def _look(self, name: str, process: psutil.Process) -> None:
        tree = [process, *process.children(recursive=True)]
        of_tasks: set[int] = set()
        for worker in tree[1:]:
            if name != "scheduler" or "LocalExecutor" not in _title(worker):
                continue
            family = [worker, *worker.children(recursive=True)]
            of_tasks |= {each.pid for each in family}
            if len(family) > 1:
                self.peak["a task"] = max(self.peak["a task"], sum(_memory(each, "rss") for each in family))
        total = sum(_memory(each, "pss") for each in tree if each.pid not in of_tasks)
        self.peak[name] = max(self.peak[name], total)

    def stop(self) -> None:
        self._over.set()
        self.join(10)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _memory(process: psutil.Process, kind: str) -> int:
    try:
        return int(getattr(process.memory_full_info(), kind))
    except psutil.Error:
        return 0


def prepare(server: Server, variables: dict[str, str]) -> None:
    """The users that the images of PostgreSQL would make."""
    for name, superuser, password in (
        ("airflow", "", "STACK_METADATA_PASSWORD"),
        ("shopkeeper", "SUPERUSER", "STACK_POSTGRES_PASSWORD"),
    ):
        server.execute(f"CREATE ROLE {name} LOGIN {superuser} PASSWORD '{variables[password]}'")
    with psycopg.connect(**server.arguments | {"dbname": "postgres"}, autocommit=True) as connection:
        connection.execute("CREATE DATABASE airflow OWNER airflow")


def wait_for_run(client: Client, dag_id: str) -> tuple[str, int, float]:
    """Trigger a DAG and wait; returns state, number of tasks and seconds."""
    deadline = time.monotonic() + 180
    while not client.dag(dag_id):
        if time.monotonic() > deadline:
            raise container.FailedError(f"{dag_id} was not parsed: {client.import_errors()}")
        time.sleep(1)
    client.pause(dag_id, paused=False)
    started = time.monotonic()
    run_id = client.trigger(dag_id, {})
    while time.monotonic() < started + 600:
        run = client.run(dag_id, run_id)
        if run.state() in {"success", "failed"}:
            return run.state(), len(run.tasks()), time.monotonic() - started
        time.sleep(1)
    raise container.FailedError(f"{dag_id} did not end within 600 s")


def main() -> int:
    """Run the stack in the network that this process has; prints the report and returns the exit code."""
    variables = secrets()
    table = Table("service", "MB, peak", title="jaffle_shop, LocalExecutor", title_justify="left")
    with ExitStack() as cleanup:
        server = cleanup.enter_context(running_server())
        prepare(server, variables)
        defined = services(variables, server.port)
        defined["seed"]["command"] = ["postgres"]  # the image of the S3 server cannot be had
        defined["seed"]["environment"]["SEED_POSTGRES_PORT"] = str(server.port)
        stack = Stack(defined, container.volumes(cleanup, "airflow", "stack"), cleanup)
        seeded = stack.finish("seed")
        stack.finish("airflow-init")
        for name in RUNS_ON:
            stack.start(name)
        memory = Memory({name: stack.process(name) for name in RUNS_ON})
        memory.start()
        with Client("http://127.0.0.1:8080", "admin", variables["STACK_AIRFLOW_PASSWORD"]) as client:
            try:
                state, tasks, seconds = wait_for_run(client, "jaffle_shop")
            except ApiError as error:
                raise container.FailedError(f"{error}\n{stack.log('api-server')}") from error
            health = client.health()
        memory.stop()
        if state != "success":
            raise container.FailedError(f"jaffle_shop: {state}\n{stack.log('scheduler')}")
        for name, size in sorted(memory.peak.items(), key=lambda each: -each[1]):
            table.add_row(name, f"{size / 1e6:,.0f}")
    console = Console(width=100, highlight=False)
    console.print(f"seed: {seeded.strip().splitlines()[-1]}")
    console.print(f"jaffle_shop from PostgreSQL: {state}, {tasks} tasks, {seconds:.0f} s; health: {health}")
    console.print(table)
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(main())
    except (container.FailedError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
