"""What the dbt tasks decide, without running any."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.elt.errors import ContractError
from include.elt.lake import slug
from include.elt.results import KEY, unpacked
from include.elt.settings import load_settings
from include.elt.transform import Build, stale_nodes, transform

NODES = {
    "source.jdbt.shop.raw_orders": [],
    "source.jdbt.shop.raw_customers": [],
    "model.jdbt.stg_orders": ["source.jdbt.shop.raw_orders"],
    "model.jdbt.stg_customers": ["source.jdbt.shop.raw_customers"],
    "snapshot.jdbt.history": ["source.jdbt.shop.raw_orders"],
    "test.jdbt.unique_orders": ["model.jdbt.stg_orders"],
    "model.jdbt.customers": ["model.jdbt.stg_customers", "model.jdbt.stg_orders"],
    "model.jdbt.only_customers": ["model.jdbt.stg_customers"],
}


def left_out(**statuses: str) -> set[str]:
    nodes = {name: SimpleNamespace(depends_on=upstream) for name, upstream in NODES.items()}
    results = [{"unique_id": f"source.jdbt.shop.{name}", "status": status} for name, status in statuses.items()]
    pairs = stale_nodes({}, None, None, nodes, {"results": results})  # type: ignore[typeddict-item]
    assert {state for _, state in pairs} <= {"skipped"}
    return {name for name, _ in pairs}


@pytest.mark.parametrize("status", ["error", "runtime error"])
def test_everything_after_a_stale_source_is_left_out(status: str) -> None:
    assert left_out(raw_orders=status, raw_customers="pass") == {
        "model.jdbt.stg_orders",
        "snapshot.jdbt.history",
        "model.jdbt.customers",
    }


def test_a_warning_stops_nothing() -> None:
    assert left_out(raw_orders="warn", raw_customers="warn") == set()


def test_no_result_stops_nothing() -> None:
    assert stale_nodes({}, None, None, None, None) == []  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (None, "source:web.users+ source:web.events+"),
        ("", "source:web.users+ source:web.events+"),
        ("stg_users", "stg_users,source:web.users+ stg_users,source:web.events+"),
        (
            "+a tag:mart,b",
            "+a,source:web.users+ +a,source:web.events+ tag:mart,b,source:web.users+ tag:mart,b,source:web.events+",
        ),
    ],
)
def test_the_form_chooses_among_what_the_dag_builds(chosen: str | None, told: str) -> None:
    build = Build(load_settings(), {}, "dbt", ("source:web.users+", "source:web.events+"))

    assert build.selection(chosen) == told


def test_a_dag_that_loads_nothing_for_dbt_does_not_build_everything() -> None:
    with pytest.raises(ContractError, match="no source of dbt is loaded"):
        transform(load_settings(), after={})


class TestArtifacts:
    """The results of dbt that stay with a run."""

    RUN = "manual__2026-01-01T00:00:00+00:00"

    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        return Build(load_settings(artifacts=tmp_path / "artifacts"), {}, "dbt")

    def keep(self, build: Build, project: Path, task_id: str, **statuses: str) -> list[dict[str, Any]]:
        target = project / "target"
        target.mkdir(parents=True, exist_ok=True)
        results = [{"unique_id": f"model.jdbt.{name}", "status": status} for name, status in statuses.items()]
        (target / "run_results.json").write_text(json.dumps({"results": results}))
        (target / "manifest.json").write_text("{}")
        self.told: dict[str, str] = {}
        ti = SimpleNamespace(
            dag_id="web_shop", task_id=task_id, xcom_push=lambda key, value: self.told.update({key: value})
        )
        build.keep_artifacts(str(project), {"run_id": self.RUN, "ti": ti})  # type: ignore[typeddict-item]
        kept = build.settings.artifacts / "web_shop" / slug(self.RUN) / "run_results.json"
        return list(json.loads(kept.read_text())["results"])

    def test_a_node_that_is_built_again_replaces_its_result(self, build: Build, tmp_path: Path) -> None:
        self.keep(build, tmp_path / "a", build.producer, orders="error", customers="success")
        results = self.keep(build, tmp_path / "b", "dbt.orders.run", orders="success")

        assert {result["unique_id"]: result["status"] for result in results} == {
            "model.jdbt.orders": "success",
            "model.jdbt.customers": "success",
        }

    def test_each_invocation_is_told_to_the_page_as_what_it_did_itself(self, build: Build, tmp_path: Path) -> None:
        self.keep(build, tmp_path / "a", build.producer, orders="error", customers="success")
        self.keep(build, tmp_path / "b", "dbt.orders.run", orders="success")

        told = unpacked(self.told[KEY])
        assert told is not None
        assert [(node["name"], node["status"]) for node in told["nodes"]] == [("orders", "ok")]

    def test_another_try_of_the_producer_tells_the_results_again(self, build: Build, tmp_path: Path) -> None:
        """Airflow removes what a task has told when it is tried again, and Cosmos' producer then builds nothing."""
        self.keep(build, tmp_path / "a", build.producer, orders="error", customers="success")
        for tries, expected in ((1, set()), (2, {"orders", "customers"})):
            told: dict[str, str] = {}
            ti = SimpleNamespace(
                dag_id="web_shop", try_number=tries, xcom_push=lambda key, value, told=told: told.update({key: value})
            )
            context: Any = {"run_id": self.RUN, "ti": ti}
            build._tell_again(context)
            assert {node["name"] for node in (unpacked(told.get(KEY)) or {"nodes": []})["nodes"]} == expected

    def test_old_runs_are_removed(self, tmp_path: Path) -> None:
        build = Build(load_settings(artifacts=tmp_path / "artifacts", artifacts_keep=2), {}, "dbt")
        for number in range(4):
            self.RUN = f"run {number}"
            self.keep(build, tmp_path / "project", build.producer, orders="success")

        assert {folder.name for folder in (build.settings.artifacts / "web_shop").iterdir()} == {"run_2", "run_3"}

    def test_an_invocation_without_results_keeps_those_of_before(self, build: Build, tmp_path: Path) -> None:
        before = self.keep(build, tmp_path / "a", build.producer, orders="success")
        (tmp_path / "b" / "target").mkdir(parents=True)
        context: Any = {"run_id": self.RUN, "ti": SimpleNamespace(dag_id="web_shop", task_id="dbt.x.source")}

        build.keep_artifacts(str(tmp_path / "b"), context)

        kept = build.settings.artifacts / "web_shop" / slug(self.RUN) / "run_results.json"
        assert json.loads(kept.read_text())["results"] == before

    def test_another_build_of_the_run_replaces_all(self, build: Build, tmp_path: Path) -> None:
        self.keep(build, tmp_path / "a", build.producer, orders="error", customers="success")
        results = self.keep(build, tmp_path / "b", build.producer, orders="success")

        assert [result["unique_id"] for result in results] == ["model.jdbt.orders"]
