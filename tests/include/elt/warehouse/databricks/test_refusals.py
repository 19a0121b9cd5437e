"""What a workspace refuses, or does late: one line without a secret, and another try where that helps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.elt.connections.databricks import Workspace
from include.elt.errors import EltError, LoadError, SettingsError, WarehouseBusyError, WarehouseRefusedError
from include.elt.paths import ROOT
from include.elt.warehouse.databricks import DatabricksWarehouse
from tests.support.databricks_standin.bench import DatabricksBench
from tests.support.databricks_standin.running import CLIENT_ID, StandIn
from tests.support.loads import Raw

pytestmark = pytest.mark.databricks_standin

LOGINS = ("principal", "token")


def warehouse(standin: StandIn, login: str = "principal", catalog: str = "main", **fields: Any) -> DatabricksWarehouse:
    workspace = Workspace.of(standin.connection(login, **fields))
    return DatabricksWarehouse(workspace, catalog, 60, 60, {"dag": "shop", "task": "load", "run": "a:b"})


def one_line(error: EltError, standin: StandIn, *secrets: str) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    assert not any(secret in text for secret in (standin.token, standin.secret, *secrets))
    assert error.__cause__ is None
    return text


@pytest.mark.parametrize("login", LOGINS)
def test_a_wrong_secret(workspace: StandIn, login: str) -> None:
    with pytest.raises((WarehouseRefusedError, SettingsError)) as caught:
        warehouse(workspace, login, password="dose-wrong-secret").count("raw.orders")
    text = one_line(caught.value, workspace, "dose-wrong-secret")
    assert caught.value.final
    assert "databricks_default" in text


def test_a_missing_catalog(workspace: StandIn) -> None:
    with pytest.raises(WarehouseRefusedError, match="Catalog 'nowhere' was not found") as caught:
        warehouse(workspace, catalog="nowhere").count("raw.orders")
    assert "databricks_default" in one_line(caught.value, workspace)


@pytest.mark.parametrize(
    "statement",
    [r"^CREATE SCHEMA", r"^CREATE TABLE IF NOT EXISTS", r"^COPY INTO", r"^CREATE TABLE `main`\.`raw`", "read_files"],
)
def test_a_missing_grant(workspace: StandIn, tmp_path: Path, statement: str) -> None:
    raw = Raw(DatabricksBench(tmp_path, workspace))
    extraction = raw.extract([(1, "a")])
    workspace.order(denied=[(statement, "User does not have MODIFY on Table 'main.raw.orders'.")])
    with pytest.raises(WarehouseRefusedError, match="does not have MODIFY on Table") as caught:
        raw.take(extraction)
    assert "raw.orders" in one_line(caught.value, workspace)
    workspace.order()
    assert raw.take(extraction).rows_inserted == 1
    assert raw.bench.query("SHOW TABLES IN ops LIKE 'load__*'") == []


def test_with_everything_in_place_no_right_to_make_a_schema_is_needed(workspace: StandIn, tmp_path: Path) -> None:
    raw = Raw(DatabricksBench(tmp_path, workspace))
    raw.load([(1, "a")])
    workspace.order(denied=[(r"^CREATE SCHEMA", "User does not have CREATE SCHEMA on Catalog 'main'.")])
    raw.load([(2, "b")])


def test_a_warehouse_that_is_waking_up_is_waited_for(workspace: StandIn) -> None:
    since = workspace.mark()
    workspace.order(cold=3)
    assert warehouse(workspace).count("raw.orders") is None
    assert len(workspace.entries("asleep", since)) == 3


def test_one_that_does_not_wake_up_is_tried_again_later(workspace: StandIn) -> None:
    workspace.order(cold=1000)
    sleeper = warehouse(workspace)
    sleeper.wake_timeout = 3
    with pytest.raises(WarehouseBusyError, match="cannot be reached") as caught:
        sleeper.count("raw.orders")
    assert not caught.value.final
    one_line(caught.value, workspace)


def test_a_load_that_takes_too_long(workspace: StandIn, tmp_path: Path) -> None:
    raw = Raw(DatabricksBench(tmp_path, workspace))
    extraction = raw.extract([(1, "a")])
    with pytest.raises(LoadError, match="took longer than 0 s; LOAD_TIMEOUT allows more"):
        raw.bench.warehouse(load_timeout=0).load(*extraction)


@pytest.mark.parametrize("damage", ["another", "missing", "more"])
def test_a_damaged_extraction_is_not_loaded(workspace: StandIn, tmp_path: Path, damage: str) -> None:
    raw = Raw(DatabricksBench(tmp_path, workspace), mode="full-refresh")
    raw.load([(1, "a")])
    manifest, folder = raw.extract([(2, "b")])
    file = folder / manifest.files[0].name
    if damage == "another":
        file.write_bytes(raw.extract([(2, "B")])[1].joinpath(file.name).read_bytes())
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(LoadError, match=r"clear the extract task|is not there"):
        raw.take((manifest, folder))
    assert raw.rows() == [(1, "a")]


def test_tags_tell_what_asked(workspace: StandIn) -> None:
    since = workspace.mark()
    warehouse(workspace).count("raw.orders")
    [opened] = workspace.entries("open", since)
    assert opened["settings"]["QUERY_TAGS"] == "dag:shop,task:load,run:a_b,table:raw.orders"
    assert opened["settings"]["STATEMENT_TIMEOUT"] == "60"
    assert opened["user"] == f"principal:{CLIENT_ID}"


def test_the_hook_of_the_provider_takes_the_same_connection(workspace: StandIn, tmp_path: Path) -> None:
    code = (
        "from airflow.providers.databricks.hooks.databricks_sql import DatabricksSqlHook as H;"
        "h = H(catalog='prod', query_tags={'by': 'hook'});"
        "print(tuple(h.get_first('SELECT current_catalog(), 42')), h.test_connection())"
    )
    for login in LOGINS:
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "AIRFLOW_HOME": str(tmp_path / "airflow"),
                "AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection_json(login),
                **workspace.trust,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "('prod', 42)" in result.stdout, result.stdout + result.stderr
        assert "Connection successfully tested" in result.stdout
