"""What the dbt tasks decide, without running any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.elt import manifest
from include.elt.errors import ContractError
from include.elt.lake import slug
from include.elt.manifest import build_manifest, changed_files
from include.elt.settings import load_settings
from include.elt.transform import Build, transform


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (None, ["source:web.users+", "source:web.events+"]),
        ("", ["source:web.users+", "source:web.events+"]),
        ("stg_users", ["stg_users,source:web.users+", "stg_users,source:web.events+"]),
        (
            "+a tag:mart,b",
            [
                *("+a,source:web.users+", "+a,source:web.events+"),
                *("tag:mart,b,source:web.users+", "tag:mart,b,source:web.events+"),
            ],
        ),
    ],
)
def test_the_form_chooses_among_what_the_dag_builds(chosen: str | None, told: list[str]) -> None:
    build = Build(load_settings(), {}, "dbt", ("source:web.users+", "source:web.events+"))

    assert build.selection(chosen) == told


def test_a_dag_that_loads_nothing_for_dbt_does_not_build_everything() -> None:
    with pytest.raises(ContractError, match="no source of dbt is loaded"):
        transform(load_settings(), after={})


def test_a_build_names_what_changed_since_the_project_was_parsed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build_manifest(load_settings())
    assert changed_files() == []
    project = tmp_path / "dbt"
    shutil.copytree(manifest.DBT_PROJECT, project)
    (project / "models" / "marts" / "orders.sql").write_text("select 1 as order_id")
    (project / "models" / "marts" / "orders.yml").unlink()
    (project / "models" / "new.sql").write_text("select 1 as id")
    monkeypatch.setattr(manifest, "DBT_PROJECT", project)
    build = Build(load_settings(duckdb_path=tmp_path / "warehouse.duckdb"), {}, "dbt", ("source:shop.raw_orders+",))
    monkeypatch.setattr(build, "_states", lambda *_: {})
    context: Any = {"params": dict.fromkeys(["dry_run", "dbt_select", "full_refresh"]), "run_id": "r"}
    context["ti"] = SimpleNamespace(dag_id="d", task_id="t", try_number=1, map_index=-1)

    build.plan(context)

    told = "manifest.json is older than the project: models/marts/orders.sql, models/marts/orders.yml, models/new.sql"
    assert told in caplog.text
    assert "`make manifest` parses the project again" in caplog.text


class TestArtifacts:
    """The results of dbt that stay with a run."""

    RUN = "manual__2026-01-01T00:00:00+00:00"

    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        return Build(load_settings(artifacts=tmp_path / "artifacts"), {}, "dbt")

    def keep(
        self, build: Build, project: Path, task_id: str, try_number: int = 1, max_tries: int = 1, **statuses: str
    ) -> list[dict[str, Any]]:
        target = project / "target"
        target.mkdir(parents=True, exist_ok=True)
        results = [{"unique_id": f"model.jdbt.{name}", "status": status} for name, status in statuses.items()]
        (target / "run_results.json").write_text(json.dumps({"results": results}))
        (target / "manifest.json").write_text("{}")
        self.told: dict[str, str] = {}
        ti = SimpleNamespace(
            dag_id="web_shop",
            task_id=task_id,
            try_number=try_number,
            max_tries=max_tries,
            xcom_push=lambda key, value: self.told.update({key: value}),
        )
        context: Any = {"run_id": self.RUN, "ti": ti, "task": SimpleNamespace(retries=1)}
        build.keep_artifacts(target, context)
        kept = build.settings.artifacts / "web_shop" / slug(self.RUN) / "run_results.json"
        return list(json.loads(kept.read_text())["results"])

    def test_a_node_that_is_built_again_replaces_its_result(self, build: Build, tmp_path: Path) -> None:
        self.keep(build, tmp_path / "a", build.task_id, orders="error", customers="success")
        results = self.keep(build, tmp_path / "b", "dbt.orders", orders="success")

        assert {result["unique_id"]: result["status"] for result in results} == {
            "model.jdbt.orders": "success",
            "model.jdbt.customers": "success",
        }

    def test_old_runs_are_removed(self, tmp_path: Path) -> None:
        build = Build(load_settings(artifacts=tmp_path / "artifacts", artifacts_keep=2), {}, "dbt")
        for number in range(4):
            self.RUN = f"run {number}"
            self.keep(build, tmp_path / "project", build.task_id, orders="success")

        assert {folder.name for folder in (build.settings.artifacts / "web_shop").iterdir()} == {"run_2", "run_3"}

    def test_an_invocation_without_results_keeps_those_of_before(self, build: Build, tmp_path: Path) -> None:
        before = self.keep(build, tmp_path / "a", build.task_id, orders="success")
        (tmp_path / "b" / "target").mkdir(parents=True)
        context: Any = {"run_id": self.RUN, "ti": SimpleNamespace(dag_id="web_shop", task_id="dbt.source_x")}

        build.keep_artifacts(tmp_path / "b" / "target", context)

        kept = build.settings.artifacts / "web_shop" / slug(self.RUN) / "run_results.json"
        assert json.loads(kept.read_text())["results"] == before

    def test_the_next_try_of_the_build_adds_to_the_one_before(self, build: Build, tmp_path: Path) -> None:
        self.keep(build, tmp_path / "a", build.task_id, orders="error", customers="success")
        results = self.keep(build, tmp_path / "b", build.task_id, try_number=2, orders="success")

        assert {result["unique_id"] for result in results} == {"model.jdbt.orders", "model.jdbt.customers"}
        assert {result["status"] for result in results} == {"success"}

    def test_a_build_that_was_cleared_replaces_all(self, build: Build, tmp_path: Path) -> None:
        self.keep(build, tmp_path / "a", build.task_id, orders="error", customers="success")
        results = self.keep(build, tmp_path / "b", build.task_id, try_number=2, max_tries=2, orders="success")

        assert [result["unique_id"] for result in results] == ["model.jdbt.orders"]
