"""A small dbt project whose models can be made to fail, to wait and to recover, as a DAG of include/dbt_watch.

Every model is a table that says when it was built. What disturbs it lies in files beside the warehouse:

    a ─┬─ b (fails while b.csv is missing) ── c
       └─ d (its test fails while bad.csv holds a row) ── e (lasts as long as slow.csv says)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROFILE = "watched"
DAG_FILE = """# airflow looks for its own name in a file before it reads it.
from tests.support.watched import declare

dag = declare({folder!r}, {dag_id!r}, retries={retries})
"""
MODELS = {
    "a": "select 1 as x, now() as built_at",
    "b": "select n, now() as built_at from {b} where (select count(*) from {{{{ ref('a') }}}}) > 0",
    "c": "select now() as built_at from {{{{ ref('b') }}}}",
    "d": "select now() as built_at from {{{{ ref('a') }}}}",
    "e": "select (select max(md5(i::varchar)) from range((select n from {slow})) as t(i)) as x, now() as built_at"
    " from {{{{ ref('d') }}}}",
}


def write_project(folder: Path, models: Mapping[str, str], tests: Mapping[str, str], schema: str = "") -> None:
    """A dbt project on a DuckDB file, parsed ahead of time.

    Args:
        folder: where; the project is `dbt` in it, the DuckDB file `warehouse.duckdb`.
        models: SQL by name of the model.
        tests: SQL by name of the singular test.
        schema: YAML of the models' generic tests.
    """
    project = folder / "dbt"
    (project / "models").mkdir(parents=True)
    (project / "tests").mkdir()
    (project / "dbt_project.yml").write_text(
        f"name: {PROFILE}\nprofile: {PROFILE}\nversion: '1.0'\nmodels: {{+materialized: table}}\n"
        "flags: {send_anonymous_usage_stats: false}\n"
    )
    # One thread of DuckDB's own: a model that works hard must leave a core to Airflow, which watches it.
    output = {"type": "duckdb", "path": "{{ env_var('WATCHED_WAREHOUSE') }}", "schema": "main", "threads": 4}
    output |= {"settings": {"threads": 1}}
    output["retries"] = {"connect_attempts": 5, "retryable_exceptions": ["IOException"]}
    (project / "profiles.yml").write_text(json.dumps({PROFILE: {"target": "dev", "outputs": {"dev": output}}}))
    for kind, sqls in (("models", models), ("tests", tests)):
        for name, sql in sqls.items():
            (project / kind / f"{name}.sql").write_text(sql)
    if schema:
        (project / "models" / "schema.yml").write_text(schema)
    parse(folder)


def parse(folder: Path) -> None:
    """Parse the project again, after a change."""
    project = folder / "dbt"
    shutil.rmtree(project / "target", ignore_errors=True)
    (project / "target").mkdir()
    command = [sys.executable, "-m", "include.dbt_watch.parse"]
    command += [str(project), str(project / "profiles.yml"), PROFILE, "dev"]
    # Parsed for another path of a file of the same name, as in an image.
    environment = os.environ | {"WATCHED_WAREHOUSE": "/elsewhere/warehouse.duckdb"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def write_drill(folder: Path) -> None:
    """The project of this module's first lines."""
    files = {name: f"read_csv('{folder}/{name}.csv')" for name in ("slow", "b", "bad")}
    models = {name: sql.format(**files) for name, sql in MODELS.items()}
    schema = "models: [{name: a, columns: [{name: x, data_tests: [not_null]}]}]"
    test = f"select * from {files['bad']}, {{{{ ref('d') }}}} where n > 0"
    write_project(folder, models, {"d_is_good": test}, schema)
    calm(folder)


def calm(folder: Path) -> None:
    """Let every model and test succeed, quickly."""
    for name, number in (("slow", 10), ("b", 1), ("bad", 0)):
        (folder / f"{name}.csv").write_text(f"n\n{number}\n")


def write_dag(folder: Path, dag_id: str = "watched", retries: int = 1) -> None:
    """The DAG file, in the folder `dags`."""
    dags = folder / "dags"
    dags.mkdir(exist_ok=True)
    (dags / f"{dag_id}.py").write_text(DAG_FILE.format(folder=str(folder), dag_id=dag_id, retries=retries))


def declare(folder: str, dag_id: str, retries: int) -> Any:
    """The DAG."""
    import pendulum
    from airflow.sdk import DAG
    from cosmos.config import ProfileConfig

    from include.dbt_watch.group import watched_group
    from include.dbt_watch.operators import Plan
    from include.dbt_watch.project import DbtProject
    from include.elt.tasks import raw_asset

    place = Path(folder)
    project = place / "dbt"

    def plan(context: Any) -> Plan:
        params = context["params"]
        environment = {"WATCHED_WAREHOUSE": str(place / "warehouse.duckdb")}
        return Plan(params.get("select", "").split(), chosen=params.get("select", ""), environment=environment)

    def keep(target: Path, context: Any) -> None:
        results = target / "run_results.json"
        if results.is_file():
            name = f"{context['ti'].task_id}.{context['ti'].try_number}.json"
            shutil.copy(results, place / name)

    with DAG(dag_id, schedule=None, start_date=pendulum.datetime(2026, 1, 1), catchup=False, tags=["test"]) as dag:
        profile = ProfileConfig(PROFILE, "dev", profiles_yml_filepath=project / "profiles.yml")
        watched_group(
            "dbt",
            DbtProject(project, project / "target" / "manifest.json", profile),
            select=[],
            plan=plan,
            keep=keep,
            asset=lambda name, _tags: raw_asset(f"test.{name}") if name in ("c", "e") else None,
            timeout=timedelta(minutes=20),
            retries=retries,
            retry_delay=timedelta(seconds=1),
            pool="warehouse",
        )
    return dag
