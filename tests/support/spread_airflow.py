"""Airflow as it is spread over machines: each component has a home, logs and a temporary folder that no other sees.

They share the metadata database (PostgreSQL), the API, and with Celery its broker (Redis). The triggerers do not even
see the folder of the dbt project and its warehouse, where the kernel lets us hide it (root).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from include.elt.local.client import Client
from include.elt.local.environment import Keys, free_port
from tests.support.postgres import running_server
from tests.support.real_airflow import until

ROOT = Path(__file__).parents[2]
CELERY = ROOT / ".celery" / "venv" / "bin" / "python"
"""Python of the environment with what the image holds; `make test-celery` makes it."""

PODS = "tests.support.pods.ProcessPerTask"
HIDE = 'mount -t tmpfs none "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Spread:
    """A running Airflow.

    Attributes:
        client: logged in at its API.
        folder: each component's home is in it, by name.
        hidden: whether the triggerers see nothing of the project's folder.
    """

    client: Client
    folder: Path
    hidden: bool

    def watched_by(self, triggerer: str, dag_id: str) -> set[str]:
        """Tasks whose trigger has run in a triggerer, by the logs that only it has."""
        logs = (self.folder / triggerer / "logs").glob(f"dag_id={dag_id}/run_id=*/task_id=*/*.trigger.*.log")
        return {log.parent.name.removeprefix("task_id=") for log in logs}


def no_celery() -> str | None:
    """Why Celery cannot run here; None when it can."""
    if not CELERY.exists():
        return "there is no environment with Celery; `make test-celery` makes it"
    return None if shutil.which("redis-server") else "there is no redis-server here (a package of Debian)"


def can_hide() -> bool:
    """Whether a process may have a view of its own of the file system."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["unshare", "--mount", "sh", "-c", HIDE, "sh", folder, "true"]
        return shutil.which("unshare") is not None and not subprocess.run(words, check=False, timeout=30).returncode


@contextmanager
def spread_airflow(project: Path, executor: str) -> Iterator[Spread]:
    """Airflow with two triggerers, for as long as the block lasts.

    Args:
        project: folder of the dbt project, its warehouse and `dags`; API server and triggerers need nothing of it.
        executor: `CeleryExecutor` or `PODS`.
    """
    python = str(CELERY if executor == "CeleryExecutor" else sys.executable)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spread_")))
        keys, port = Keys.new(), free_port()
        server = stack.enter_context(running_server())
        server.execute("create role airflow login superuser password 'airflow'")
        server.execute("create database airflow owner airflow")
        common = _environment(keys, port, server.port, project, executor, folder)
        if executor == "CeleryExecutor":
            common |= _redis(stack, folder)
        components = {"api-server": ["api-server"], "scheduler": ["scheduler", "--skip-serve-logs"]}
        components |= {"dag-processor": ["dag-processor"]}
        components |= {f"triggerer-{number}": ["triggerer", "--skip-serve-logs"] for number in (1, 2)}
        if executor == "CeleryExecutor":
            components["worker"] = ["celery", "worker", "--skip-serve-logs", "--concurrency", "2"]
        (folder / "pods").mkdir()
        (folder / "api-server").mkdir()
        (folder / "api-server" / "passwords.json").write_text(json.dumps({"admin": keys.password}))
        migrated = [python, "-m", "airflow", "db", "migrate"]
        subprocess.run(
            migrated, env=common | _own(folder, "migration"), cwd=ROOT, check=True, capture_output=True, timeout=600
        )
        hidden = can_hide()
        for name, words in components.items():
            hide = ["unshare", "--mount", "sh", "-c", HIDE, "sh", str(project)]
            before = hide if hidden and name.startswith(("triggerer", "api")) else []
            _start(stack, [*before, python, "-m", "airflow", *words], common | _own(folder, name), folder / name)
        client = stack.enter_context(Client(f"http://127.0.0.1:{port}", "admin", keys.password))
        until(client.is_up, 400, f"Airflow is up ({folder})")
        client.ensure_pools({"warehouse": 1})
        yield Spread(client, folder, hidden)


def _own(folder: Path, name: str) -> dict[str, str]:
    """Settings that a component has for itself."""
    home = folder / name
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    own = {"AIRFLOW_HOME": home, "TMPDIR": home / "tmp", "AIRFLOW__LOGGING__BASE_LOG_FOLDER": home / "logs"}
    return {name: str(value) for name, value in own.items()}


def _environment(keys: Keys, port: int, database: int, project: Path, executor: str, folder: Path) -> dict[str, str]:
    place = f"airflow:airflow@127.0.0.1:{database}/airflow"
    url = f"http://127.0.0.1:{port}"
    manager = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
    given = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    return given | {
        "PYTHONPATH": str(ROOT),
        "PODS": str(folder / "pods"),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": keys.api,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": keys.jwt,
        "AIRFLOW__CORE__AUTH_MANAGER": manager,
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__EXECUTOR": executor,
        "AIRFLOW__CORE__FERNET_KEY": keys.fernet,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "api-server" / "passwords.json"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg://{place}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+psycopg_async://{place}",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__TRIGGERER__CAPACITY": "6",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "DO_NOT_TRACK": "1",
    }


def _redis(stack: ExitStack, folder: Path) -> Mapping[str, str]:
    """A Redis for this Airflow; the settings that name it."""
    port, home = free_port(), folder / "redis"
    home.mkdir()
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)]
    _start(stack, words, os.environ, home)
    place = f"redis://127.0.0.1:{port}"
    return {"AIRFLOW__CELERY__BROKER_URL": f"{place}/0", "AIRFLOW__CELERY__RESULT_BACKEND": f"{place}/1"}


def _start(stack: ExitStack, command: list[str], environment: Mapping[str, str], home: Path) -> psutil.Process:
    """A process that is ended, with what it started, at the end of the block."""
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    found = psutil.Process(process.pid)
    stack.callback(_end, found)
    return found


def _end(process: psutil.Process) -> None:
    """End a process and its descendants."""
    if not process.is_running():
        return
    everyone = [*process.children(recursive=True), process]
    for each in everyone:
        if each.is_running():
            each.terminate()
    _, left = psutil.wait_procs(everyone, 5)
    for each in left:
        if each.is_running():
            each.kill()
    psutil.wait_procs(left, 5)
