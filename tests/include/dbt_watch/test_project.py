"""When a build may start from the project as it was parsed ahead of time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cosmos.config import ProfileConfig

from include.dbt_watch.parse import GRAPH
from include.dbt_watch.project import PARSED, SCHEMA, DbtProject, Session
from include.elt.manifest import MANIFEST, PROJECT, build_manifest
from include.elt.paths import DBT_PROJECT, ROOT
from include.elt.settings import load_settings


def refused(environment: dict[str, str], manifest: Path = MANIFEST, **variables: Any) -> str | None:
    settings = load_settings()
    build_manifest(settings)
    profile = ProfileConfig(PROJECT, "duckdb", profiles_yml_filepath=DBT_PROJECT / "profiles.yml")
    with DbtProject(DBT_PROJECT, manifest, profile).session(
        {**settings.dbt_environment(), **environment}, variables
    ) as session:
        return session._not_reusable()


def test_it_serves_every_path_of_the_warehouse(tmp_path: Path) -> None:
    assert refused({"DUCKDB_PATH": str(tmp_path / "warehouse.duckdb")}) is None


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"DUCKDB_PATH": "/data/other.duckdb"}, "this is ('duckdb', 'other')"),
        ({"DBT_SCHEMA_PREFIX": "alice"}, "other values of DBT_SCHEMA_PREFIX"),
    ],
)
def test_it_is_refused_where_parsing_would_give_something_else(environment: dict[str, str], why: str) -> None:
    assert why in str(refused(environment))


def test_with_vars_dbt_parses() -> None:
    assert refused({}, answer=42) == "with vars it has to be parsed again"


def test_another_schema_or_a_broken_file_is_named(tmp_path: Path) -> None:
    build_manifest(load_settings())
    for name in ("manifest.json", PARSED, GRAPH, SCHEMA):
        shutil.copy(MANIFEST.with_name(name), tmp_path)
    (tmp_path / SCHEMA).write_text("elsewhere\n")
    assert "parsed for the schema elsewhere" in str(refused({}, tmp_path / "manifest.json"))
    (tmp_path / PARSED).write_bytes(b"no")
    assert "cannot be read" in str(refused({}, tmp_path / "manifest.json"))


def test_only_what_is_asked_for_is_selected(tmp_path: Path) -> None:
    build_manifest(load_settings())
    profile = ProfileConfig(PROJECT, "duckdb", profiles_yml_filepath=DBT_PROJECT / "profiles.yml")
    environment = {**load_settings().dbt_environment(), "DUCKDB_PATH": str(tmp_path / "warehouse.duckdb")}
    wanted = {"model.jdbt.orders", "test.jdbt.payments_add_up_per_order"}

    with DbtProject(DBT_PROJECT, MANIFEST, profile).session(environment) as session:
        assert isinstance(session, Session)
        known = {*session.manifest.nodes}
        assert wanted <= known
        words = session.only(wanted)
        result = session.invoke("list", "--quiet", "--output", "json", "--output-keys", "unique_id", *words)

    assert {line.split('"')[3] for line in result.result if line.startswith("{")} == wanted


def test_a_session_leaves_no_semaphore_on_the_computer(tmp_path: Path) -> None:
    """Airflow ends a task's process with `os._exit`, and so does this one: nothing else gives them back."""
    program = f"""
import os
from pathlib import Path
from cosmos.config import ProfileConfig
from include.dbt_watch.project import DbtProject
from include.elt.manifest import MANIFEST, PROJECT
from include.elt.paths import DBT_PROJECT, ROOT
profile = ProfileConfig(PROJECT, "duckdb", profiles_yml_filepath=DBT_PROJECT / "profiles.yml")
environment = {{"DUCKDB_PATH": {str(tmp_path / "warehouse.duckdb")!r}}}
with DbtProject(DBT_PROJECT, MANIFEST, profile).session(environment) as dbt:
    dbt.invoke("list", "--quiet")
    dbt.invoke("parse", "--quiet")
    print("called", flush=True)
os._exit(0)
"""
    build_manifest(load_settings())
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )

    assert "called" in done.stdout
    assert "leaked semaphore" not in done.stderr
