"""Settings: a wrong one is refused with its name, what it got and what is allowed, before anything runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.elt import settings as module
from include.elt.errors import SettingsError
from include.elt.paths import REPLICATIONS, ROOT, SAMPLE_DATA
from include.elt.replication import read_replication
from include.elt.settings import EXTRACT_POOL, WAREHOUSE_POOL, Settings, load_settings, settings_table

pytestmark = pytest.mark.usefixtures("no_settings")


def settings(**overrides: Any) -> Settings:
    return load_settings(_env_file=None, **overrides)


def test_the_defaults_need_nothing() -> None:
    default = settings()
    assert default.warehouse == "duckdb"
    assert default.duckdb_path == ROOT / "data" / "warehouse.duckdb"
    assert default.lake == ROOT / "data" / "lake"
    assert default.shop_files == SAMPLE_DATA
    assert default.shop_replication() == REPLICATIONS / "shop_files.yaml"
    assert default.sling().is_file()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WAREHOUSE", "snowflake", "'duckdb'"),
        ("WAREHOUSE", "DuckDB", "'duckdb'"),
        ("DUCKDB_PATH", "md:prod://x", "a local path is needed, not a URL"),
        ("LAKE", "gs://bucket/lake", "a local path, s3://bucket/prefix or /Volumes/catalog/schema/volume is needed"),
        ("LAKE", "s3://", "s3://bucket/prefix is needed"),
        ("LAKE", "s3://Bucket/lake", "s3://bucket/prefix is needed"),
        ("LAKE", "s3://bucket/a//b", "s3://bucket/prefix is needed"),
        ("LAKE", "s3://bucket/a*", "s3://bucket/prefix is needed"),
        ("SCRATCH", "s3://bucket/x", "a local path is needed"),
        ("SHOP_S3", "/srv/shop", "s3://bucket/prefix is needed"),
        ("SHOP_S3", "s3://bucket/{x}", "s3://bucket/prefix is needed"),
        ("LAKE_KEEP", "0", "greater than or equal to 2"),
        ("LAKE_KEEP", "99999", "less than or equal to 10000"),
        ("LAKE_KEEP", "five", "integer"),
        ("ARTIFACTS", "dbfs://x", "a local path is needed"),
        ("SHOP_SOURCE", "oracle", "'files', 's3', 'postgres' or 'mssql'"),
        ("SHOP_FILES", "https://example.org/x", "a local path is needed"),
        ("SCHEMA_PREFIX", "Alice", "[a-z]"),
        ("SCHEMA_PREFIX", "a; drop", "[a-z]"),
        ("EXTRACT_SLOTS", "0", "greater than or equal to 1"),
        ("EXTRACT_SLOTS", "129", "less than or equal to 128"),
        ("EXTRACT_TIMEOUT", "0", "greater than 0"),
        ("EXTRACT_TIMEOUT", "-5", "greater than 0"),
        ("EXTRACT_TIMEOUT", "1h", "integer"),
        ("EXTRACT_TIMEOUT", "9999999", "less than or equal to 604800"),
        ("EXTRACT_MEMORY", "lots", "(MB|GB)"),
        ("EXTRACT_MEMORY", "512", "(MB|GB)"),
        ("LOAD_TIMEOUT", "0", "greater than 0"),
        ("LOCK_TIMEOUT", "1.5", "integer"),
        ("DBT_TIMEOUT", "never", "integer"),
    ],
)
def test_a_refusal_names_variable_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        settings()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{name}={value!r} is refused; ")
    assert allowed in line


def test_every_refused_setting_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_KEEP", "0")
    monkeypatch.setenv("WAREHOUSE", "oracle")
    monkeypatch.setenv("LAKE", "ftp://x")
    with pytest.raises(SettingsError) as caught:
        settings()
    assert sorted(line.split("=")[0] for line in str(caught.value).splitlines()) == ["LAKE", "LAKE_KEEP", "WAREHOUSE"]


def test_an_unknown_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings()
    monkeypatch.setenv("LAKE_KEEPS", "0")
    monkeypatch.setenv("PATHS", "x")
    assert settings() == before


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_KEEP", "")
    monkeypatch.setenv("SLING_BINARY", "")
    assert settings().lake_keep == 5
    assert settings().sling_binary is None


@pytest.mark.parametrize("name", ["LAKE_KEEP", "lake_keep"])
def test_the_environment_says(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "7")
    assert settings().lake_keep == 7


class TestDotEnv:
    def test_fills_what_the_environment_leaves_open(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("LAKE_KEEP=7\nEXTRACT_SLOTS=3\nSOMETHING_ELSE=1\nLOCK_TIMEOUT=\n")
        monkeypatch.setenv("EXTRACT_SLOTS", "4")
        found = load_settings(_env_file=file)
        assert (found.lake_keep, found.extract_slots, found.lock_timeout) == (7, 4, 120)

    def test_a_refusal_names_its_value_too(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("LAKE_KEEP=none\n")
        with pytest.raises(SettingsError, match="LAKE_KEEP='none' is refused"):
            load_settings(_env_file=file)

    def test_lies_in_the_project_s_root_whatever_the_working_folder(self, tmp_path: Path) -> None:
        """In a copy of the library, because the real root is not ours to write to."""
        copy = tmp_path / "project" / "include" / "elt"
        shutil.copytree(ROOT / "include" / "elt", copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy.parent / "__init__.py").touch()
        (tmp_path / "project" / ".env").write_text("LAKE_KEEP=7\nLAKE=here/lake\nLOAD_TIMEOUT=5\n")
        code = "from include.elt.settings import load_settings; print(load_settings().model_dump_json())"
        environment = {"PYTHONPATH": str(tmp_path / "project"), "LOAD_TIMEOUT": "6", "PATH": os.defpath}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        assert (found["lake_keep"], found["load_timeout"]) == (7, 6)
        assert found["lake"] == str(tmp_path / "project" / "here" / "lake")


class TestPaths:
    @pytest.mark.parametrize("name", ["duckdb_path", "lake", "artifacts", "shop_files", "sling_binary"])
    def test_a_relative_one_is_seen_from_the_root(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv(name.upper(), "some/../other/x")
        assert getattr(settings(), name) == ROOT / "other" / "x"

    def test_an_absolute_one_stays(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LAKE", str(tmp_path / "my lake"))
        assert settings().lake == tmp_path.resolve() / "my lake"

    def test_home_is_known(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("LAKE", "~/lake")
        assert settings().lake == tmp_path.resolve() / "lake"


class TestS3:
    @pytest.mark.parametrize("url", ["s3://bucket", "s3://my.bucket-1/lake", "s3://bucket/a/b c=1/ü"])
    @pytest.mark.parametrize("end", ["", "/"])
    def test_a_url_is_kept_without_a_slash_at_its_end(
        self, monkeypatch: pytest.MonkeyPatch, url: str, end: str
    ) -> None:
        monkeypatch.setenv("LAKE", url + end)
        monkeypatch.setenv("SHOP_S3", url + end)
        assert (settings().lake, settings().shop_s3) == (url, url)
        assert settings().variables()["SHOP_S3"] == url

    def test_as_the_source_of_the_shop_needs_a_folder(self) -> None:
        with pytest.raises(SettingsError, match="SHOP_SOURCE='s3' needs SHOP_S3"):
            settings(shop_source="s3").shop_replication()
        chosen = settings(shop_source="s3", shop_s3="s3://bucket/shop")
        assert chosen.shop_replication() == REPLICATIONS / "shop_s3.yaml"

    def test_of_the_shop_can_be_checked_without_one(self) -> None:
        shop = read_replication(REPLICATIONS / "shop_s3.yaml", settings().variables())
        assert [stream.is_file for stream in shop.streams] == [True] * 3


class TestSlingBinary:
    @pytest.mark.parametrize("kind", ["missing", "a folder", "not executable"])
    def test_that_cannot_be_executed_is_refused(self, tmp_path: Path, kind: str) -> None:
        file = tmp_path / "sling"
        if kind == "a folder":
            file.mkdir()
        elif kind == "not executable":
            file.write_text("#!/bin/sh\n")
            file.chmod(0o644)
        with pytest.raises(SettingsError, match=f"SLING_BINARY='{file}' is refused: not a file that can be executed"):
            settings(sling_binary=file).sling()

    def test_of_one_s_own(self, tmp_path: Path) -> None:
        file = tmp_path / "sling"
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
        assert settings(sling_binary=file).sling() == file.resolve()

    def test_of_the_locked_package(self) -> None:
        binary = settings().sling()
        version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        assert "1.4.11" in version.stdout

    def test_where_there_is_no_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("sling_linux_amd64", "sling_linux_arm64"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(SettingsError, match=r"no Sling binary for .*; set SLING_BINARY"):
            settings().sling()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings().lake_keep = 3  # type: ignore[misc]


def test_variables_are_what_a_replication_may_refer_to(tmp_path: Path) -> None:
    assert settings(shop_files=tmp_path).variables()["SHOP_FILES"] == str(tmp_path.resolve())


def test_variables_hold_the_whole_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCK_FILES", "/srv/stock")
    assert settings().variables()["STOCK_FILES"] == "/srv/stock"


def test_a_source_without_a_replication_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "shop_files.yaml").touch()
    (tmp_path / "shop_mssql.yaml").touch()
    monkeypatch.setattr(module, "REPLICATIONS", tmp_path)
    assert settings(shop_source="mssql").shop_replication() == tmp_path / "shop_mssql.yaml"
    with pytest.raises(SettingsError, match=r"SHOP_SOURCE='postgres'.*shop_postgres\.yaml; available: files, mssql"):
        settings(shop_source="postgres").shop_replication()


def test_pools() -> None:
    assert settings(extract_slots=7).pools() == {EXTRACT_POOL: 7, WAREHOUSE_POOL: 1}


def test_databricks_needs_a_lake_that_it_can_read() -> None:
    with pytest.raises(SettingsError, match=r"LAKE='data/lake' is refused with WAREHOUSE=databricks"):
        settings(warehouse="databricks")
    for lake in ("/Volumes/main/lake/files", "/Volumes/main/lake/files/a/b/", "s3://bucket/lake"):
        assert settings(warehouse="databricks", lake=lake).lake == lake.rstrip("/")


@pytest.mark.parametrize("lake", ["/Volumes", "/Volumes/main/lake", "/Volumes/a/b/c/../d", "/Volumes/a/b/c d"])
def test_a_volume_has_three_names(lake: str) -> None:
    with pytest.raises(SettingsError, match="/Volumes/catalog/schema/volume"):
        settings(lake=lake)


def test_databricks_has_several_slots_and_waits_longer() -> None:
    given = settings(warehouse="databricks", lake="s3://bucket", databricks_slots=9, databricks_catalog="prod")
    assert given.pools()[WAREHOUSE_POOL] == 9
    assert given.wait_timeout == given.databricks_wake_timeout > settings().wait_timeout
    assert given.dbt_environment()["DATABRICKS_CATALOG"] == "prod"
    assert "DATABRICKS_CATALOG" not in settings().dbt_environment()


def test_the_environment_of_dbt_is_text_without_secrets(tmp_path: Path) -> None:
    environment = settings(duckdb_path=tmp_path / "w.duckdb", schema_prefix="alice").dbt_environment()
    assert environment["DUCKDB_PATH"] == str(tmp_path.resolve() / "w.duckdb")
    assert environment["DBT_SCHEMA_PREFIX"] == "alice"
    assert all(isinstance(value, str) for value in environment.values())


def test_the_table_for_the_readme_has_every_setting_and_no_path_of_this_computer() -> None:
    table = settings_table()
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in table
    assert str(ROOT) not in table
    assert "(files / s3 / postgres / mssql)" in table
