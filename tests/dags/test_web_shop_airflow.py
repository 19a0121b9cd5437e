"""web_shop in a real Airflow with its scheduler: backfills, cleared tasks, and the password nowhere."""

from __future__ import annotations

import base64
import html
import json
import os
import shlex
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, quote_plus

import pytest

from tests.support.postgres import PASSWORD, Server, running_server
from tests.support.real_airflow import RealAirflow, pages, real_airflow, until
from tests.support.web import STREAMS, Shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WRONG = "wr0ng $@/:%'\"é pass"
DAYS = [f"2026-01-0{day}" for day in (1, 2, 3, 4, 5)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def airflow_on(tmp_path_factory: pytest.TempPathFactory, new_deployment: Any) -> Iterator[tuple[RealAirflow, Any]]:
    """An Airflow that the tests share, and its deployment. It knows no connection yet."""
    deployment = new_deployment(tmp_path_factory.mktemp("airflow"))
    with real_airflow(deployment) as airflow:
        yield airflow, deployment


@pytest.fixture
def airflow(airflow_on: tuple[RealAirflow, Any]) -> RealAirflow:
    return airflow_on[0]


@pytest.fixture
def shop(airflow_on: tuple[RealAirflow, Any], server: Server) -> Iterator[Shop]:
    """A shop of five days, connected in Airflow's own database, and an empty warehouse."""
    airflow, deployment = airflow_on
    deployment.warehouse.unlink(missing_ok=True)
    with Shop.on(server, deployment) as shop:
        connect(airflow, shop.connection())
        yield shop


def connect(airflow: RealAirflow, connection: dict[str, Any]) -> None:
    """Make or replace the connection `web_postgres`."""
    airflow.client.call("DELETE", "/connections/web_postgres")
    body = connection | {"connection_id": "web_postgres", "extra": json.dumps(connection["extra"])}
    airflow.client.call("POST", "/connections", json=body)


def test_a_backfill_of_every_day_gives_what_a_full_refresh_gives(airflow: RealAirflow, shop: Shop) -> None:
    until(lambda: airflow.client.dag("web_shop"), 120, "web_shop is read")
    airflow.client.pause("web_shop", paused=False)
    conf = {"streams": ["raw_users", "raw_events"], "dbt_select": "stg_users stg_events daily_active_users"}

    with airflow.standing_still():
        airflow.command(
            *("backfill", "create", "--dag-id", "web_shop", "--from-date", DAYS[0], "--to-date", DAYS[-1]),
            *("--max-active-runs", "2", "--dag-run-conf", json.dumps(conf)),
        )
    until(lambda: len(airflow.runs("web_shop", "backfill")) == len(DAYS), 60, "the runs of the backfill")
    for run in airflow.runs("web_shop", "backfill"):
        airflow.wait("web_shop", run["dag_run_id"])

    runs = airflow.runs("web_shop", "backfill")
    assert [(run["state"], run["data_interval_start"][:10]) for run in runs] == [("success", day) for day in DAYS]
    for table in conf["streams"]:
        assert shop.raw(table) == shop.source(table), table
    per_day = shop.ask("SELECT occurred_at::date::text, count(*) FROM web.events GROUP BY 1 ORDER BY 1")
    extras = [airflow.extras("web_shop", run["dag_run_id"])["raw.raw_events"] for run in runs]
    assert [(day, extra["rows_read"]) for day, extra in zip(DAYS, extras, strict=True)] == per_day
    assert {extra["mode"] for extra in extras} == {"backfill"}

    after_backfill = shop.deployment.checksums()
    run_id = airflow.trigger("web_shop", full_refresh=True, **conf)
    assert airflow.client.run("web_shop", run_id).state() == "success"
    assert airflow.extras("web_shop", run_id)["raw.raw_events"]["mode"] == "full-refresh"
    assert shop.deployment.checksums() == after_backfill


def test_cleared_tasks_double_nothing(airflow: RealAirflow, shop: Shop) -> None:
    run_id = airflow.trigger("web_shop")
    assert airflow.client.run("web_shop", run_id).state() == "success"
    checksums = shop.deployment.checksums()
    readings = shop.rows("SELECT _loaded_at, count(*) FROM raw.raw_inventory GROUP BY 1")
    assert len(readings) == 1

    airflow.clear("web_shop", run_id, [f"web.{table}.load" for table in STREAMS])

    assert shop.deployment.checksums() == checksums, "a load that is repeated changed something"
    assert all(airflow.extras("web_shop", run_id)[f"raw.{table}"]["repeated"] for table in STREAMS)

    airflow.clear("web_shop", run_id, [f"web.{table}.{task}" for table in STREAMS for task in ("extract", "load")])

    assert set(airflow.states("web_shop", run_id).values()) == {"success"}
    [(_, count)] = shop.rows("SELECT _loaded_at, count(*) FROM raw.raw_inventory GROUP BY 1")
    assert count == readings[0][1], "the same run added another reading"
    for table in STREAMS:
        assert shop.raw(table) == shop.source(table), table


def spellings(secret: str) -> set[bytes]:
    """A secret as it may be written down: plain, in a URL, in JSON, in Python, in a shell line, in a page."""
    texts = {
        secret,
        *(quote(secret, safe=safe) for safe in ("", "/", "@:/")),
        quote_plus(secret),
        *(json.dumps(secret, ensure_ascii=plain)[1:-1] for plain in (True, False)),
        *(json.dumps(json.dumps(secret, ensure_ascii=plain))[3:-3] for plain in (True, False)),
        repr(secret)[1:-1],
        repr(repr(secret))[2:-2],
        shlex.quote(secret),
        html.escape(secret),
        secret.replace("'", "''"),
        base64.b64encode(secret.encode()).decode(),
    }
    encoded = {text.encode() for text in texts} | {secret.encode("latin-1"), secret.encode("utf-16-le")}
    return encoded | {each.lower() for each in encoded}


class Watch:
    """Looks at all processes, and at the files of a deployment's extractions at work, while the block lasts."""

    def __init__(self, secrets: set[bytes], deployment: Path) -> None:
        self.secrets = secrets
        self.deployment = deployment
        self.found: Counter[str] = Counter()
        self.seen: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        to_the_end = self._thread.is_alive()
        self._end.set()
        self._thread.join(30)
        assert to_the_end, "the watch ended early"

    def _look(self) -> None:
        while not self._end.wait(0.02):
            for entry in Path("/proc").glob("[0-9]*"):
                if int(entry.name) == os.getpid():
                    continue
                with suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    program = Path(os.fsdecode(command.split(b"\0")[0])).name
                    self.seen.add(program)
                    self._search(f"command line of {program}", command)
                    environment = (entry / "environ").read_bytes()
                    if (entry / "cmdline").read_bytes() != command:
                        continue  # a process just turned into another program: whose environment this is cannot be said
                    ours = os.fsencode(self.deployment) in environment  # tests beside this one may use the password too
                    if ours and not program.startswith("sling"):
                        self._search(f"environment of {program}", environment)
            for folder, _, names in os.walk(self.deployment / "lake" / ".work"):  # which does not mind what goes away
                for name in names:
                    with suppress(OSError):
                        file = Path(folder, name)
                        if file.stat().st_size < 1_000_000:
                            self._search(f"file {name}", file.read_bytes())

    def _search(self, where: str, data: bytes) -> None:
        if any(secret in data for secret in self.secrets):
            self.found[where] += 1


def in_database(file: Path, secrets: set[bytes]) -> set[str]:
    """Columns of the metadata database that hold one of the secrets."""
    hits = set()
    with closing(sqlite3.connect(file)) as connection:
        connection.text_factory = bytes
        tables = [
            name.decode() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        assert {"xcom", "rendered_task_instance_fields", "connection", "log", "asset_event"} <= set(tables)
        for table in tables:
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            for row in cursor:
                for column, value in zip(cursor.description, row, strict=True):
                    if isinstance(value, bytes) and any(secret in value for secret in secrets):
                        hits.add(f"{table}.{column[0]}")
    return hits


def test_the_password_is_nowhere(airflow: RealAirflow, shop: Shop) -> None:
    """It goes to the Sling process in its environment, and to the database; nothing else has it, or a wrong one."""
    secrets = spellings(PASSWORD) | spellings(WRONG)
    folder = shop.deployment.folder
    with Watch(secrets, folder) as watch:
        good = airflow.trigger("web_shop")
        connect(airflow, shop.connection() | {"password": WRONG})
        bad = airflow.trigger("web_shop", streams=["raw_users"])
    states = airflow.states("web_shop", bad)

    assert airflow.client.run("web_shop", good).state() == "success"
    assert states["web.raw_users.extract"] == "failed"
    log = " ".join(str(line) for line in airflow.client.run("web_shop", bad).log("web.raw_users.extract", 1))
    assert "password authentication failed" in log
    assert any(program.startswith("sling") for program in watch.seen), "no Sling process was seen"
    assert watch.found == {}
    told = [page for run_id in (good, bad) for page in pages(airflow, "web_shop", run_id)]
    assert len(told) > 100
    assert [path for path, text in told if any(secret in text.encode() for secret in secrets)] == []
    assert in_database(airflow.home / "airflow.db", secrets) == set()
    places = [path for path in folder.rglob("*") if path.is_file()]
    assert {"warehouse.duckdb", "manifest.json", "run_results.json", "attempt=1.log"} <= {path.name for path in places}
    assert [path for path in places if any(secret in path.read_bytes() for secret in secrets)] == []
