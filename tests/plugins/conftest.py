"""Airflow's API server alone, on a metadata database that was written and not run: see tests/support/metadata.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.elt.local.environment import free_port
from include.elt.paths import ROOT
from tests.support.real_airflow import until

PASSWORDS = {"admin": "admin-password", "viewer": "viewer-password", "nobody": "nobody-password"}


@dataclass(frozen=True)
class Server:
    """A running API server.

    Attributes:
        url: its address with the path prefix.
        environment: what it was started with.
    """

    url: str
    environment: dict[str, str]

    def token(self, user: str = "admin") -> str:
        body = {"username": user, "password": PASSWORDS[user]}
        answer = httpx.post(f"{self.url}/auth/token", json=body, trust_env=False, timeout=60)
        return str(answer.json()["access_token"])

    def client(self, user: str | None = "admin") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        return httpx.Client(base_url=f"{self.url}/data-platform", headers=headers, trust_env=False, timeout=60)


@contextmanager
def serving(home: Path, plan: dict[str, Any] | None, prefix: str = "", **settings: str) -> Iterator[Server]:
    """An API server on a home with a migrated database, which is filled first."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{prefix}"
    (home / "airflow.cfg").unlink(missing_ok=True)
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer,nobody:",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": "k" * 64,
        "AIRFLOW__API_AUTH__JWT_SECRET": "j" * 64,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "PYTHONPATH": str(ROOT),
        "DO_NOT_TRACK": "1",
        **settings,
    }
    if plan is not None:
        filled = subprocess.run(
            [sys.executable, "-m", "tests.support.metadata", json.dumps(plan)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert filled.returncode == 0, filled.stderr[-3000:]
    log = home / f"api-{port}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server"],
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                return httpx.get(f"{url}/data-platform/health", trust_env=False, timeout=5).is_success
            except httpx.TransportError:
                return False

        until(answers, 120, "the API server answers")
        yield Server(url, environment)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def serve(migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Starts an API server on a new home: `with serve(plan, prefix, NAME=value) as server`."""

    def start(plan: dict[str, Any] | None, prefix: str = "", **settings: str) -> Any:
        home = tmp_path_factory.mktemp("api")
        shutil.copytree(migrated_home, home, dirs_exist_ok=True)
        return serving(home, plan, prefix, **settings)

    return start


@pytest.fixture(scope="session")
def server(serve: Callable[..., Any]) -> Iterator[Server]:
    """One server for all tests of a process: two DAGs, six streams, ten models, below a path prefix."""
    with serve({"dags": 2, "streams": 6, "models": 20}, prefix="/team/airflow") as running:
        yield running
