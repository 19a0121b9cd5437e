"""The page and the webhook with FAB, the auth manager of the official Helm chart: its roles decide who sees what."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from include.elt.paths import ROOT
from tests.plugins.conftest import PASSWORDS, Server, serving

pytestmark = pytest.mark.slow

SECRET = "a shared secret of tests"
FAB = {
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "WEBHOOK_SECRET": SECRET,
    "WEBHOOK_DAGS": "main=dag_0",
}
USERS = {"admin": "Admin", "viewer": "Viewer", "nobody": "Public", "webhook": "User"}
MAKE_USERS = """
import json, sys
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.providers.fab.auth_manager.models.db import FABDBManager
from airflow.utils.session import create_session
with create_session() as session:
    FABDBManager(session).initdb()
with get_application_builder() as builder:
    builder.add_permissions(update_perms=True)
    builder.sm.sync_roles()
    for name, (role, password) in json.loads(sys.argv[1]).items():
        assert builder.sm.add_user(name, name, name, f"{name}@example.com", builder.sm.find_role(role), password)
"""


@pytest.fixture(scope="module")
def fab(migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose users are in FAB's tables, each with one of its roles."""
    home = tmp_path_factory.mktemp("fab")
    shutil.copytree(migrated_home, home, dirs_exist_ok=True)
    (home / "airflow.cfg").unlink(missing_ok=True)
    users = {name: (role, PASSWORDS.get(name, "webhook-password")) for name, role in USERS.items()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "PYTHONPATH": str(ROOT),
    }
    made = subprocess.run(
        [sys.executable, "-c", MAKE_USERS, json.dumps(users)],
        cwd=ROOT,
        env=environment | FAB,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    with serving(home, {"streams": 3, "models": 4, "loads": 2, "serialized": True}, "/af", **FAB) as running:
        yield running


@pytest.mark.parametrize(("user", "status"), [("admin", 200), ("viewer", 200), ("nobody", 403), (None, 401)])
def test_a_role_that_may_not_read_assets_and_dags_sees_nothing(fab: Server, user: str | None, status: int) -> None:
    with fab.client(user) as client:
        answers = {
            path: client.get(path) for path in ("/", "/api/state", "/api/problems", "/dbt-docs", "/openapi.json")
        }

    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(answers, status)
    if status == 200:
        assert len(answers["/api/state"].json()["streams"]) == 3


def test_the_webhook_starts_a_run_in_the_name_of_its_user(fab: Server) -> None:
    content = json.dumps({"ref": "refs/heads/main", "after": "1" * 40}).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), content, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": signature}
    url = f"{fab.url}/data-platform/webhook/github"

    first, again = (httpx.post(url, content=content, headers=headers, trust_env=False, timeout=60) for _ in range(2))

    assert (first.status_code, first.json()["status"]) == (202, "started"), first.text
    assert (again.json()["status"], again.json()["run_id"]) == ("already started", first.json()["run_id"])
    run = f"{fab.url}/api/v2/dags/dag_0/dagRuns/{first.json()['run_id']}"
    login = {"Authorization": f"Bearer {fab.token()}"}
    assert httpx.get(run, headers=login, trust_env=False, timeout=60).json()["triggering_user_name"] == "webhook"
