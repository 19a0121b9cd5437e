"""The local Airflow as a whole: one at a time per home, started as fast as it goes, with what every run needs."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from include.elt.local import signals
from include.elt.local.client import Client
from include.elt.local.components import airflow_components, fork_server
from include.elt.local.database import finish_migration, is_migrated, migrate
from include.elt.local.environment import LOOPBACK, USER, Home, Keys, airflow_environment
from include.elt.local.errors import StartError
from include.elt.local.supervisor import Supervisor, wait_for
from include.elt.paths import ROOT, shown

START_TIMEOUT = 300.0
"""Seconds until we give up on a start; it takes ten on two quiet cores."""


@dataclass(frozen=True)
class Airflow:
    """A running Airflow.

    Attributes:
        home: its home.
        url: its user interface.
        client: its API.
        supervisor: its processes.
        started: when it was started.
    """

    home: Home
    url: str
    client: Client
    supervisor: Supervisor
    started: datetime


def in_use(home: Home) -> dict[str, int] | None:
    """Process id and port of the command that uses a home, or None."""
    try:
        with home.lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                try:
                    return {name: int(value) for name, value in json.load(file).items()}
                except (ValueError, AttributeError):
                    return {}
    except OSError:
        pass
    return None


@contextmanager
def exclusive(home: Home, port: int) -> Iterator[None]:
    """Use a home alone.

    Raises:
        StartError: another command uses it; the message names its process.
    """
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = (in_use(home) or {}).get("pid", "?")
            raise StartError(
                f"process {pid} is using {shown(home.folder)} already; wait for it to end or stop it"
            ) from None
        file.truncate()
        json.dump({"pid": os.getpid(), "port": port}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def pause_again(home: Home, environment: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """Pause the DAG that a killed `run` has left unpaused; otherwise its schedule would begin by itself."""
    if not home.unpaused.exists():
        return
    dag_id = home.unpaused.read_text().strip()
    tell(f"pausing {dag_id} again, which a killed run has left unpaused")
    command = ["airflow", "dags", "pause", "--yes", dag_id]
    log = home.component_logs / "pause.log"
    with log.open("wb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            check=False,
        )
    if done.returncode:
        tell(f"{dag_id} could not be paused; see {shown(log)}")
    home.unpaused.unlink()


@contextmanager
def running_airflow(
    home: Home, keys: Keys, port: int, pools: Mapping[str, int], tell: Callable[[str], None], *, one_shot: bool
) -> Iterator[Airflow]:
    """Start Airflow, and end every process of it at the end.

    Args:
        home: where it writes.
        keys: of that home.
        port: for its API and user interface.
        pools: made before anything can run.
        tell: prints a line for the user.
        one_shot: see `environment.airflow_environment`.

    Raises:
        StartError: it does not start; the message says why.
    """
    environment = airflow_environment(os.environ, home, keys, port, one_shot=one_shot)
    os.environ.update(environment)  # for everything that is started from here on
    url = f"http://{LOOPBACK}:{port}"
    with (
        exclusive(home, port),
        Client(url, USER, keys.password) as client,
        fork_server(),
        Supervisor(airflow_components(), home.component_logs, tell) as supervisor,
    ):
        if not is_migrated(home, environment):
            tell("preparing the metadata database (once)")
            with signals.held():
                migration = migrate(home, environment)
                supervisor.watch(migration.pid)
            finish_migration(migration, home, environment)
        pause_again(home, environment, tell)
        tell("starting Airflow")
        started = datetime.now(UTC)
        supervisor.start()
        if not wait_for(client.is_up, supervisor, START_TIMEOUT):
            log = supervisor.log("api-server")
            raise StartError(f"Airflow's API did not answer within {START_TIMEOUT:.0f} s; see {shown(log)}")
        for change in client.ensure_pools(pools):
            tell(change)
        yield Airflow(home, url, client, supervisor, started)
        client.close()  # the API server would wait for our connection
