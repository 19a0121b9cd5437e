"""The page's API on a real API server, below a path prefix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.elt.completeness import GONE
from include.elt.paths import ROOT
from tests.plugins.conftest import PASSWORDS, Server

pytestmark = pytest.mark.slow

PUBLIC = {"/health", "/webhook/github", "/register", "/track/usage"}
"""Routes that answer without a login of Airflow; a new one has to be added here by hand."""


@pytest.fixture(scope="module")
def routes(server: Server) -> list[tuple[str, str]]:
    """Every route of the application as the server has it: method and path."""
    code = (
        "import json\nfrom plugins.data_platform.app import application\n"
        "print(json.dumps([[m, r.path] for r in application().routes for m in sorted(r.methods or ())]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [(method, path) for method, path in json.loads(result.stdout.splitlines()[-1])]


def test_no_route_but_the_listed_ones_answers_without_a_login(server: Server, routes: list[tuple[str, str]]) -> None:
    assert len(routes) > 8
    with server.client(user=None) as anonymous:
        for method, path in routes:
            place = path.replace("{name}", "app.js")
            answer = anonymous.request(method, place)
            if path in PUBLIC:
                assert answer.status_code in ({"/health": 200, "/webhook/github": 503}.get(path, 404),), (method, path)
            else:
                assert answer.status_code in (401, 403), (method, path, answer.status_code)
                assert "stream_" not in answer.text


def test_a_wrong_token_and_a_user_without_a_role_get_nothing(server: Server, routes: list[tuple[str, str]]) -> None:
    closed = [path for method, path in routes if method == "GET" and path not in PUBLIC]
    wrong = {"Authorization": "Bearer not.a.token"}
    with server.client("nobody") as nobody, server.client(user=None) as anonymous:
        for path in closed:
            place = path.replace("{name}", "app.js")
            assert nobody.get(place).status_code == 403, path
            assert anonymous.get(place, headers=wrong).status_code in (401, 403), path


def test_a_viewer_may_read_everything(server: Server) -> None:
    with server.client("viewer") as viewer:
        for path in (
            "/",
            "/api/overview",
            "/api/state",
            "/api/problems",
            "/api/streams",
            "/api/models",
            "/api/completeness",
            "/api/lineage",
            "/openapi.json",
        ):
            assert viewer.get(path).status_code == 200, path


def test_the_streams_tell_their_last_load_and_why_one_failed(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/api/streams").json()

    by_name = {each["stream"]: each for each in answer["streams"]}
    assert answer["total"] == 6
    assert by_name["stream_0"]["status"] == "ok"
    assert by_name["stream_0"]["freshness"] == "fresh"
    assert len(by_name["stream_0"]["history"]) == 20
    assert by_name["stream_0"]["history"][0] == by_name["stream_0"]["rows"]
    assert (by_name["stream_2"]["status"], by_name["stream_2"]["rejected"]) == ("rejected", 2)
    assert by_name["stream_2"]["difference"] == 0, "rejected rows are no difference"
    assert by_name["stream_4"]["schema_change"]
    failed = by_name["stream_3"]
    assert (failed["status"], failed["failed_task"]) == ("failed", "shop.stream_3.extract")
    assert failed["problem"].startswith("row 57")
    assert failed["loaded_at"] < by_name["stream_1"]["loaded_at"], "the load before the failure"


def test_the_problems_tell_since_when_whose_and_what_waits(server: Server) -> None:
    with server.client() as client:
        problems = client.get("/api/problems").json()["problems"]
        state = client.get("/api/state").json()
        overview = client.get("/api/overview").json()

    assert [(each["severity"], each["kind"], each["subject"]) for each in problems] == [
        ("failed", "failed stream", "stream_3"),
        ("failed", "failed test", "model_5"),
        ("warning", "rejected rows", "stream_2"),
        ("warning", "schema change", "stream_4"),
    ]
    stream, test = problems[:2]
    assert stream["held_up"] == len(stream["holds_up"]) == 4
    assert test["what_to_do"].startswith("Look at the rows")
    assert (stream["target"], stream["task_id"], stream["owner"]) == (
        "raw.stream_3",
        "shop.stream_3.extract",
        "data-platform",
    )
    begun = {each["dag_id"]: each["started_at"] for each in state["runs"]}
    assert stream["since"] == begun["dag_1"], "the run after its last good load"
    assert test["since"] < begun["dag_0"], "it failed in the run before as well"
    assert problems == state["problems"]
    assert overview["problems"] == 4


def test_the_answers_can_be_narrowed_to_a_dag_and_a_run(server: Server) -> None:
    with server.client() as client:
        of_dag = client.get("/api/streams", params={"dag_id": "dag_1"}).json()
        [run] = of_dag["runs"]
        names = {"dag_id": "dag_1", "run_id": run["run_id"]}
        of_run = client.get("/api/streams", params=names).json()
        models = client.get("/api/models", params=names).json()
        alone = client.get("/api/streams", params={"run_id": run["run_id"]})
        nowhere = client.get("/api/streams", params={"dag_id": "no_such_dag"}).json()

    assert {each["dag_id"] for each in of_dag["streams"]} == {"dag_1"}
    assert {each["loaded_by"] for each in of_run["streams"]} == {run["run_id"], None}
    assert {each["run_id"] for each in models["models"]} == {run["run_id"]}
    assert {each["dag_id"] for each in alone.json()["runs"]} == {"dag_0", "dag_1"}, "both have a run of that id"
    assert nowhere["streams"] == []


def test_the_models_tell_status_tests_and_trend(server: Server) -> None:
    with server.client() as client:
        models = {each["name"]: each for each in client.get("/api/models").json()["models"]}

    assert models["model_0"]["status"] == "ok"
    assert len(models["model_0"]["trend"]) == 12
    assert models["model_0"]["freshness"] == "fresh"
    failing = models["model_5"]
    assert failing["tests"] == {"ok": 2, "failed": 1}
    assert failing["failed_tests"][0]["failures"] == 7


def test_the_lineage_goes_from_source_to_exposure(server: Server) -> None:
    with server.client() as client:
        whole = client.get("/api/lineage").json()
        around = client.get("/api/lineage", params={"node": "raw.stream_0", "depth": 1}).json()

    types = {each["type"] for each in whole["nodes"]}
    assert types == {"source", "model", "exposure"}
    assert len(around["nodes"]) < len(whole["nodes"])
    assert around["total"] == len(whole["nodes"])
    assert "source.jdbt.shop.stream_0" in {each["id"] for each in around["nodes"]}


def test_the_loads_of_a_table(server: Server) -> None:
    with server.client() as client:
        loads = client.get("/api/loads", params={"table": "raw.stream_3"}).json()

    assert len(loads["loads"]) == 19, "its last run failed"
    assert loads["loads"][0]["at"] > loads["loads"][1]["at"]
    assert {"rows", "rejected", "bytes", "seconds", "run_id"} <= set(loads["loads"][0])


def test_every_answer_forbids_foreign_scripts_frames_and_caches(server: Server) -> None:
    with server.client() as client:
        for path in ("/", "/api/streams", "/static/app.js"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "'unsafe-inline'" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"


def test_only_files_of_the_page_are_served(server: Server) -> None:
    with server.client() as client:
        assert client.get("/static/app.js").headers["content-type"].startswith("text/javascript")
        for name in ("..%2Fapp.py", "%2e%2e%2fapp.py", "nothing.js", "..%5Capp.py"):
            assert client.get(f"/static/{name}").status_code == 404, name


def test_no_secret_of_the_server_is_told(server: Server, routes: list[tuple[str, str]]) -> None:
    secrets = ["j" * 64, "k" * 64, *PASSWORDS.values()]
    with server.client() as client:
        for _, path in routes:
            text = client.get(path.replace("{name}", "app.js")).text
            assert not [secret for secret in secrets if secret in text], path


def test_the_schema_is_what_the_api_does(server: Server) -> None:
    """schemathesis sends what the schema allows, and what it does not, to every operation."""
    schema = server.url + "/data-platform/openapi.json"
    result = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", schema),
            *("--header", f"Authorization: Bearer {server.token()}", "--max-examples", "12", "--seed", "1"),
            *("--phases", "examples,coverage,fuzzing", "--no-color", "--request-timeout", "30"),
            *("--exclude-path-regex", "^/(webhook|register|track)"),
        ],
        cwd=server.environment["AIRFLOW_HOME"],  # it leaves files where it runs
        env=server.environment | {"NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


def test_the_completeness_is_what_was_counted_and_of_a_run_what_it_loaded(serve: Callable[..., Any]) -> None:
    """Raw tables and marts as health_report counted them: one mart has shrunk, one raw table is gone."""
    with serve({"streams": 3, "models": 4, "counted": True}) as running, running.client("viewer") as viewer:
        told = viewer.get("/api/completeness").json()
        tables = {each["table"]: each for each in told["tables"]}
        problems = viewer.get("/api/problems", params={"dag_id": "dag_0"}).json()["problems"]
        [run] = viewer.get("/api/streams").json()["runs"]
        of_run = viewer.get("/api/completeness", params={"dag_id": "dag_0", "run_id": run["run_id"]}).json()
        overview = viewer.get("/api/overview").json()

    assert told["total"] == len(tables) == 7
    assert (tables["raw.stream_0"]["rows"], tables["raw.stream_0"]["rows_usual"]) == (500, 500)
    assert len(tables["raw.stream_0"]["before"]) == 20
    assert (tables["raw.stream_1"]["rows"], tables["raw.stream_1"]["unusual"]) == (None, GONE)
    shrunk = tables["marts.model_2"]
    assert shrunk["unusual"] == "shrank: 50 rows, 500 are usual"
    assert (shrunk["target"], shrunk["dag_id"], shrunk["owner"]) == ("model.jdbt.model_2", "dag_0", "data")
    unusual = [each for each in problems if each["kind"] == "unusual size"]
    assert {each["target"] for each in unusual} == {"raw.stream_1", "model.jdbt.model_2"}
    assert {each["severity"] for each in unusual} == {"warning"}
    assert overview["problems"] == len(problems)
    assert {each["table"] for each in of_run["tables"]} == {"raw.stream_0", "raw.stream_1", "raw.stream_2"}
    assert {each["counted_at"] for each in of_run["tables"]} == {None}, "it was counted later"
    assert of_run["tables"][0]["rows"] > 1000, "after the load of that run"


def test_the_number_of_queries_does_not_grow_with_what_there_is(migrated_home: Path, tmp_path: Path) -> None:
    code = """
import json, sys
from airflow import settings
from airflow.utils.session import create_session
from sqlalchemy import event
from tests.support.metadata import Plan, fill
from plugins.data_platform import reading
from plugins.data_platform.metadata import Metadata
with create_session() as session:
    fill(session, Plan(**json.loads(sys.argv[1])))
asked = []
event.listen(settings.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
counts = {}
for name in ("streams", "models", "overview", "problems", "completeness", "state"):
    asked.clear()
    with create_session() as session:
        getattr(reading, name)(Metadata(session, {"dag_0", "dag_1", "health_report"}))
    counts[name] = len(asked)
print(json.dumps(counts))
"""
    counts = []
    many = {"dags": 2, "streams": 60, "models": 80, "loads": 25, "counted": True}
    for plan in ({"streams": 4, "models": 6, "loads": 3, "counted": True}, many):
        home = tmp_path / str(len(counts))
        shutil.copytree(migrated_home, home)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        }
        result = subprocess.run(
            [sys.executable, "-c", code, json.dumps(plan)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        counts.append(json.loads(result.stdout.splitlines()[-1]))

    assert counts[0] == counts[1]
    assert max(counts[0].values()) <= 11


def test_dbt_docs_stand_behind_the_login_and_in_a_sandbox(server: Server) -> None:
    with server.client() as client, server.client(user=None) as anonymous:
        answer = client.get("/dbt-docs")
        assert anonymous.get("/dbt-docs").status_code == 401

    assert answer.status_code == 200
    assert "model.jdbt.orders" in answer.text
    assert "INLINE DATA" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy


def test_cosmos_serves_no_docs_to_everyone(server: Server) -> None:
    for path in (
        "/cosmos/dbt_docs",
        "/cosmos/dbt_docs_index.html",
        "/cosmos/manifest.json",
        "/cosmos/jdbt/manifest.json",
    ):
        answer = httpx.get(f"{server.url}{path}", trust_env=False, timeout=30, follow_redirects=True)
        assert "model.jdbt" not in answer.text, path


def test_health_says_ok_to_everyone(server: Server) -> None:
    answer = httpx.get(f"{server.url}/data-platform/health", trust_env=False, timeout=30)

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
