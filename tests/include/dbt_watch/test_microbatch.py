"""Of a microbatch model the next try of a build builds the batches that failed, as `dbt retry` does, and no other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from airflow.sdk.exceptions import AirflowException
from cosmos.config import ProfileConfig
from dbt.adapters.duckdb.connections import DuckDBConnectionManager

from include.dbt_watch.operators import DbtBuild, Plan
from include.dbt_watch.project import DbtProject
from tests.support import watched

pytestmark = pytest.mark.timeout(600)

MODELS = {
    "readings": "{{ config(materialized='view', event_time='moment') }}"
    " select moment::timestamp as moment, value from read_csv('%s/readings.csv', all_varchar=true)",
    "daily": "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='moment',"
    " begin='2026-01-01', batch_size='day') }}"
    " select moment, value::int as value, now() as built_at from {{ ref('readings') }}",
}
GOOD = ["moment,value", *(f"2026-01-0{day} 12:00:00,{day}" for day in range(1, 5))]


class Tries:
    """Tries of one build, as Airflow would make them; Airflow's store is a dictionary."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.number, self.stored = folder, 0, dict[str, Any]()
        profile = ProfileConfig(watched.PROFILE, "dev", profiles_yml_filepath=folder / "dbt" / "profiles.yml")
        plan = Plan(
            options=[*options, "--event-time-start", "2026-01-01", "--event-time-end", "2026-01-05"],
            environment={"WATCHED_WAREHOUSE": str(folder / "warehouse.duckdb")},
        )
        self.build = DbtBuild(
            task_id="dbt_build",
            project=DbtProject(folder / "dbt", folder / "dbt" / "target" / "manifest.json", profile),
            plan=lambda _: plan,
            keep=lambda *_: None,
            assets={},
        )

    def next(self) -> None:
        self.number += 1
        store = SimpleNamespace(get=self.stored.get, set=self.stored.__setitem__)
        ti = SimpleNamespace(id=self.number, try_number=self.number, max_tries=2, xcom_push=lambda *_: None)
        context: Any = {"ti": ti, "task_state_store": store}
        try:
            self.build.execute(context)
        finally:
            DuckDBConnectionManager.close_all_connections()  # a task's process would end here

    def built(self) -> dict[int, Any]:
        """When each day's row was built."""
        with duckdb.connect(str(self.folder / "warehouse.duckdb"), read_only=True) as connection:
            return dict(connection.execute("select value, built_at from daily").fetchall())


@pytest.mark.parametrize("options", [(), ("--full-refresh",)])
def test_only_the_failed_batches_are_built_again(options: tuple[str, ...], tmp_path: Path) -> None:
    watched.write_project(tmp_path, {name: sql.replace("%s", str(tmp_path)) for name, sql in MODELS.items()}, {})
    file = tmp_path / "readings.csv"
    file.write_text("\n".join([*GOOD[:3], GOOD[3].replace(",3", ",many"), GOOD[4]]) + "\n")
    tries = Tries(tmp_path, *options)
    with tries.build.project.session({"WATCHED_WAREHOUSE": str(tmp_path / "warehouse.duckdb")}) as dbt:
        assert dbt._not_reusable() is None, "also a project with dates in it starts from the one parsed ahead of time"

    with pytest.raises(AirflowException, match=r"model\.watched\.daily failed"):
        tries.next()
    before = tries.built()
    assert set(before) == {1, 2, 4}

    with pytest.raises(AirflowException, match=r"model\.watched\.daily failed"):
        tries.next()
    assert tries.built() == before, "the one that was left failed again"

    file.write_text("\n".join(GOOD) + "\n")
    tries.next()
    after = tries.built()
    assert {value: after[value] for value in before} == before, "what was built is not built again"
    assert set(after) == {1, 2, 3, 4}
