"""The trial for a real workspace, on the stand-in: it does what it says, and leaves nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.elt.errors import SettingsError
from include.elt.paths import ROOT
from include.elt.smoke import Smoke, SmokeError, workspace_of
from tests.support.databricks_standin.environment import HOST

LOGIN = {
    "DATABRICKS_HOST": "dbc-1.cloud.databricks.com",
    "DATABRICKS_HTTP_PATH": "/sql/1.0/warehouses/abc",
    "DATABRICKS_CATALOG": "dev",
    "DATABRICKS_CLIENT_ID": "client",
    "DATABRICKS_CLIENT_SECRET": "dose-secret",
}


def test_what_is_missing_is_named() -> None:
    for name in LOGIN:
        with pytest.raises(SettingsError, match=name):
            workspace_of({key: value for key, value in LOGIN.items() if key != name})
    workspace, catalog = workspace_of(LOGIN)
    assert (workspace.client_secret, workspace.token, catalog) == ("dose-secret", "", "dev")
    workspace, _ = workspace_of({**LOGIN, "DATABRICKS_TOKEN": "dapi-secret"})
    assert (workspace.client_secret, workspace.token) == ("", "dapi-secret")


def test_nothing_but_its_own_schemas_is_ever_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Smoke(*workspace_of(LOGIN), tmp_path, lambda _: None)
    asked: list[str] = []
    monkeypatch.setattr(trial, "_sql", asked.append)
    trial.clean()
    assert all(each.startswith(f"DROP SCHEMA IF EXISTS `dev`.`{trial.prefix}") for each in asked)
    trial.prefix = ""
    with pytest.raises(SmokeError, match="nothing was removed"):
        trial.clean()


@pytest.mark.databricks_standin
@pytest.mark.timeout(900)
def test_the_whole_trial_with_100_000_orders(workspace: Any) -> None:
    own = {
        "DATABRICKS_HOST": f"https://{HOST}/",
        "DATABRICKS_HTTP_PATH": "/sql/1.0/warehouses/standin",
        "DATABRICKS_CATALOG": "main",
        "DATABRICKS_CLIENT_ID": workspace.connection().login,
        "DATABRICKS_CLIENT_SECRET": workspace.secret,
        **workspace.trust,
    }
    before = workspace.rows("SHOW SCHEMAS IN main")
    result = subprocess.run(
        [sys.executable, "-m", "include.elt.smoke", "--orders", "100000"],
        cwd=ROOT,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "everything was as it should be" in result.stdout
    print(result.stdout)
    equal = re.findall(
        r"run (\d): every raw table and mart is equal to DuckDB's \(5 tables, ([\d,]+) rows\)", result.stdout
    )
    assert [number for number, _ in equal] == ["1", "2"]
    assert all(int(rows.replace(",", "")) > 300_000 for _, rows in equal)
    assert workspace.secret not in result.stdout + result.stderr
    assert workspace.rows("SHOW SCHEMAS IN main") == before
