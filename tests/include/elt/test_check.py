"""`make check` and `make manifest`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.elt import check, manifest
from include.elt.errors import EltError
from include.elt.paths import DBT_PROJECT, REPLICATIONS, ROOT
from include.elt.settings import load_settings


def test_the_replications_of_the_project_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 0
    assert "0 replications are not" in capsys.readouterr().out


def test_every_fault_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = (REPLICATIONS / "shop_files.yaml").read_text()
    (tmp_path / "a.yaml").write_text(shipped.replace("primary_key", "primry_key"))
    (tmp_path / "b.yaml").write_text(shipped.replace("raw.raw_orders", "raw.orders_of_nobody"))
    (tmp_path / "c.yaml").write_text(shipped)
    monkeypatch.setattr(check, "REPLICATIONS", tmp_path)

    assert check.main() == 1
    output = capsys.readouterr().out
    assert "did you mean primary_key?" in output
    assert "raw.orders_of_nobody has no contract" in output
    assert "3 streams are right, 2 replications are not" in output


def test_a_freshness_that_is_not_understood_is_told_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {
        "name": "orders",
        "original_file_path": "models/marts/orders.yml",
        "config": {"meta": {"freshness": "1 fortnight"}},
    }
    (tmp_path / check.GRAPH).write_text(json.dumps({"nodes": {"model.jdbt.orders": node}}))
    monkeypatch.setattr(check, "build_manifest", lambda _: tmp_path / "manifest.json")

    assert check.main() == 1
    assert "models/marts/orders.yml: orders: meta.freshness is '1 fortnight'" in capsys.readouterr().out


class TestManifest:
    @pytest.fixture
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        target = tmp_path / "dbt"
        shutil.copytree(DBT_PROJECT, target, ignore=shutil.ignore_patterns("target", "logs"))
        monkeypatch.setattr(manifest, "DBT_PROJECT", target)
        monkeypatch.setattr(manifest, "MANIFEST", target / "target" / "manifest.json")
        monkeypatch.setattr(manifest, "_STAMP", target / "target" / ".parsed")
        return target

    def test_it_is_built_once_and_again_after_a_change(
        self, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = load_settings()
        built = manifest.build_manifest(settings)
        assert built.is_file()
        assert "parsing" in capsys.readouterr().out

        calls: list[Any] = []
        real = subprocess.run
        monkeypatch.setattr(subprocess, "run", lambda *args, **more: calls.append(args) or real(*args, **more))
        manifest.build_manifest(settings)
        assert not calls

        (project / "models" / "marts" / "more.sql").write_text("select 1 as one")
        (project / "models" / "marts" / "more.yml").write_text(
            "models: [{name: more, columns: [{name: one, data_type: int}]}]"
        )
        assert manifest.changed_files() == ["models/marts/more.sql", "models/marts/more.yml"]
        manifest.build_manifest(settings)
        assert len(calls) == 1
        assert manifest.changed_files() == []

    def test_a_project_that_dbt_cannot_parse_is_refused_with_its_words(self, project: Path) -> None:
        (project / "models" / "broken.sql").write_text("select * from {{ ref('nothing_of_that_name') }}")

        with pytest.raises(EltError, match="nothing_of_that_name"):
            manifest.build_manifest(load_settings())


def test_a_wrong_setting_ends_make_with_exit_code_2() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "include.elt.manifest"],
        cwd=ROOT,
        env={"WAREHOUSE": "snowflake", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 2
    assert result.stderr.strip() == "WAREHOUSE='snowflake' is refused; allowed: 'duckdb' or 'databricks'"
