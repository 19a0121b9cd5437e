"""Whole runs of web_shop from a real PostgreSQL: after every one the raw tables are what the source is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import Server, running_server
from tests.support.web import STREAMS, Shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def shop(server: Server, deployment: Any) -> Iterator[Shop]:
    """The sample shop of five days, and a deployment that has not run yet."""
    with Shop.on(server, deployment) as shop:
        yield shop


@pytest.fixture(scope="module")
def loaded(server: Server, tmp_path_factory: pytest.TempPathFactory, new_deployment: Any) -> Iterator[Any]:
    """The sample shop after a first run, and what became of that run. Only to look at and to copy."""
    deployment = new_deployment(tmp_path_factory.mktemp("loaded"))
    with Shop.on(server, deployment, name="loaded") as shop:
        yield shop, deployment.run("web_shop")


@pytest.fixture
def used(server: Server, loaded: Any, tmp_path: Path) -> Iterator[Shop]:
    """A copy of the shop and of the deployment with one run behind it."""
    first, outcome = loaded
    assert outcome.state == "success", (outcome.tasks, outcome.log[-200000:])
    shutil.copytree(first.deployment.folder, tmp_path / "used")
    deployment = type(first.deployment)(tmp_path / "used")
    with Shop.on(server, deployment, template=first.database) as shop:
        yield shop


def purchases(shop: Shop, table: str = "") -> list[tuple[Any, ...]]:
    """The mart `purchases`, or what it should be by a raw table."""
    if table:
        names = "id, user_id, CAST(payload ->> 'amount' AS decimal(12, 2)), occurred_at"
        return shop.sorted(f"SELECT {names} FROM {table} WHERE kind = 'purchase'")
    return shop.sorted("SELECT event_id, user_id, amount, occurred_at::timestamptz FROM marts.purchases")


class TestFirstRun:
    def test_it_equals_the_source(self, loaded: Any) -> None:
        shop, outcome = loaded

        assert set(outcome.tasks.values()) == {"success"}
        for table in STREAMS:
            assert shop.raw(table) == shop.source(table), table
        assert shop.rows("SELECT count(*) FROM raw.raw_users WHERE _deleted_at IS NOT NULL") == [(0,)]
        assert shop.rows("SELECT count(DISTINCT _loaded_at) FROM raw.raw_inventory") == [(1,)]

    def test_the_models_are_built_and_only_the_shops_own(self, loaded: Any) -> None:
        shop, _ = loaded

        events = len(shop.source("raw_events"))
        days = shop.rows("SELECT sum(events), count(*) FROM marts.daily_active_users")
        assert days == [(events, 5)]
        levels = len(shop.source("raw_inventory"))
        assert shop.rows("SELECT count(*), count(change) FROM marts.inventory_days") == [(levels, 0)]
        assert shop.rows("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'marts' ORDER BY 1") == [
            ("daily_active_users",),
            ("inventory_days",),
            ("purchases",),
        ]
        assert purchases(shop) == purchases(shop, "raw.raw_events")

    def test_the_assets_tell_mode_rows_and_watermark(self, loaded: Any) -> None:
        shop, outcome = loaded

        marts = {"marts.daily_active_users", "marts.inventory_days", "marts.purchases"}
        assert set(outcome.assets) == {f"raw.{table}" for table in STREAMS} | marts
        modes = {table: outcome.assets[f"raw.{table}"]["mode"] for table in STREAMS}
        assert modes == {
            "raw_users": "incremental",
            "raw_events": "incremental",
            "raw_inventory": "snapshot",
            "raw_active_carts": "full-refresh",
        }
        for table in STREAMS:
            assert outcome.assets[f"raw.{table}"]["rows_total"] == len(shop.source(table))
        newest = shop.ask("SELECT max(occurred_at) FROM web.events")[0][0]
        assert shop.moment(outcome.assets["raw.raw_events"]["watermark"]) == newest


@pytest.fixture(scope="module")
def later(server: Server, loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The shop after another day and another run: the shop, what the source was before it, the outcome."""
    first, outcome = loaded
    assert outcome.state == "success", (outcome.tasks, outcome.log[-200000:])
    folder = tmp_path_factory.mktemp("later") / "deployment"
    shutil.copytree(first.deployment.folder, folder)
    with Shop.on(server, type(first.deployment)(folder), name="later", template=first.database) as shop:
        before = {table: shop.source(table) for table in STREAMS}
        shop.next_day()
        outcome = shop.deployment.run("web_shop")
        assert outcome.state == "success", (outcome.tasks, outcome.log[-200000:])
        yield shop, before, outcome


class TestADayLater:
    def test_every_table_equals_the_source_row_by_row(self, later: Any) -> None:
        """With what changed, what came late within the look-back, and what changed without an update key."""
        shop, before, _ = later

        for table in STREAMS:
            assert shop.source(table) != before[table], "nothing happened"
            assert shop.raw(table) == shop.source(table), table

    def test_deleted_rows_are_marked_and_kept_as_they_were(self, later: Any) -> None:
        shop, before, outcome = later

        there = {row[0] for row in shop.source("raw_users")}
        gone = [row for row in before["raw_users"] if row[0] not in there]
        assert gone
        assert shop.sorted("SELECT * EXCLUDE (_deleted_at) FROM raw.raw_users WHERE _deleted_at IS NOT NULL") == gone
        extra = outcome.assets["raw.raw_users"]
        assert extra["rows_deleted"] == len(gone)
        assert extra["rows_total"] == len(there) + len(gone)
        assert shop.rows("SELECT count(*), count(deleted_at) FROM staging.stg_users") == [
            (len(there) + len(gone), len(gone))
        ]

    def test_only_what_is_new_is_read(self, later: Any) -> None:
        shop, before, outcome = later

        extra = outcome.assets["raw.raw_events"]
        new = len(shop.source("raw_events")) - len(before["raw_events"])
        assert extra["rows_inserted"] == new
        assert extra["rows_updated"] == 0, "rows that were read again are the same"
        assert new < extra["rows_read"] < len(shop.source("raw_events"))

    def test_an_incremental_model_has_what_is_new_and_what_came_late(self, later: Any) -> None:
        shop, before, _ = later

        assert purchases(shop) == purchases(shop, "raw.raw_events")
        assert len(purchases(shop)) > len([row for row in before["raw_events"] if row[2] == "purchase"])
        assert shop.rows("SELECT count(DISTINCT loaded_at) FROM marts.purchases") == [(2,)], (
            "all of it was written anew"
        )

    def test_a_snapshot_is_added_and_the_old_one_stays(self, later: Any) -> None:
        shop, before, _ = later

        [(first,), (second,)] = shop.rows("SELECT DISTINCT _loaded_at FROM raw.raw_inventory ORDER BY 1")
        levels = "SELECT * EXCLUDE (_loaded_at) FROM raw.raw_inventory WHERE _loaded_at = TIMESTAMPTZ '{}'"
        assert shop.sorted(levels.format(first)) == before["raw_inventory"]
        assert shop.sorted(levels.format(second)) == shop.source("raw_inventory")

    def test_another_run_without_a_change_adds_a_snapshot_and_nothing_else(
        self, server: Server, later: Any, tmp_path: Path
    ) -> None:
        shutil.copytree(later[0].deployment.folder, tmp_path / "used")
        deployment = type(later[0].deployment)(tmp_path / "used")
        with Shop.on(server, deployment, template=later[0].database) as shop:
            self.nothing_has_changed(shop)

    def nothing_has_changed(self, shop: Shop) -> None:
        checksums = {table: sums for table, sums in shop.deployment.checksums().items() if "inventory" not in table}

        outcome = shop.deployment.run("web_shop")

        assert outcome.state == "success"
        after = shop.deployment.checksums()
        assert {table: after[table] for table in checksums} == checksums
        assert shop.rows("SELECT count(DISTINCT _loaded_at) FROM raw.raw_inventory") == [(3,)]
        for table in ("raw_users", "raw_events"):
            extra = outcome.assets[f"raw.{table}"]
            changes = {name: extra[name] for name in ("rows_inserted", "rows_updated", "rows_deleted")}
            assert set(changes.values()) == {0}, (table, changes)


class TestForm:
    """What a run is asked for by hand."""

    OLD = "occurred_at >= '2026-01-01 00:00Z' AND occurred_at < '2026-01-02 00:00Z'"

    def test_a_range_reads_what_an_incremental_run_does_not(self, used: Shop) -> None:
        used.ask(f"UPDATE web.events SET kind = 'search' WHERE kind = 'view' AND {self.OLD}")
        correct, stale = used.source("raw_events"), used.raw("raw_events")
        assert used.deployment.run("web_shop").state == "success"
        assert used.raw("raw_events") == stale, "older than the watermark minus the look-back"

        outcome = used.deployment.run("web_shop", range_start="2026-01-01", range_end="2026-01-01")

        assert outcome.state == "success"
        assert outcome.assets["raw.raw_events"]["mode"] == "backfill"
        [(read,)] = used.ask(f"SELECT count(*) FROM web.events WHERE {self.OLD}")
        assert outcome.assets["raw.raw_events"]["rows_read"] == read
        assert used.raw("raw_events") == correct
        assert purchases(used) == purchases(used, "raw.raw_events")
        assert used.raw("raw_users") == used.source("raw_users")

    def test_half_a_range_is_an_error(self, used: Shop) -> None:
        checksums = used.deployment.checksums()

        outcome = used.deployment.run("web_shop", streams=["raw_events"], range_start="2026-01-01")

        assert outcome.state == "failed"
        assert "the range of the run's form has one end only" in outcome.log
        assert used.deployment.checksums() == checksums

    def test_a_full_refresh_reads_everything_and_keeps_the_snapshots(self, used: Shop) -> None:
        levels = used.sorted("SELECT * FROM raw.raw_inventory")
        used.ask(f"DELETE FROM web.events WHERE id % 2 = 0 AND {self.OLD}")
        used.ask("DELETE FROM web.users WHERE id IN (SELECT id FROM web.users ORDER BY id LIMIT 3)")
        used.ask("UPDATE web.users SET credit = credit + 1, updated_at = created_at WHERE updated_at IS NULL")

        outcome = used.deployment.run("web_shop", full_refresh=True)

        assert outcome.state == "success"
        for table in STREAMS:
            assert used.raw(table) == used.source(table), table
        assert used.rows("SELECT count(*) FROM raw.raw_users WHERE _deleted_at IS NOT NULL") == [(3,)], (
            "what is deleted in the source stays, marked"
        )
        [(first, _)] = used.rows("SELECT min(_loaded_at), count(*) FROM raw.raw_inventory")
        kept = used.sorted(f"SELECT * FROM raw.raw_inventory WHERE _loaded_at = TIMESTAMPTZ '{first}'")
        assert kept == levels, "history that the source does not have any more was lost"

    def test_models_are_chosen_among_the_dags_own(self, used: Shop) -> None:
        outcome = used.deployment.run("web_shop", streams=["raw_inventory"], dbt_select="tag:mart")

        assert outcome.state == "success"
        assert outcome.state_of("dbt.daily_active_users", "dbt.inventory_days") == {"success"}
        assert outcome.state_of("dbt.stg_users", "dbt.stg_inventory") == {"skipped"}

    def test_models_of_another_dag_are_none(self, used: Shop) -> None:
        outcome = used.deployment.run("web_shop", dbt_select="orders customers")

        assert outcome.state == "failed"
        assert "dbt_select='orders customers' selects nothing of what this DAG builds" in outcome.log

    def test_a_dry_run_changes_nothing(self, used: Shop) -> None:
        checksums = used.deployment.checksums()
        used.next_day()

        outcome = used.deployment.run("web_shop", dry_run=True)

        assert outcome.state == "success"
        assert used.deployment.checksums() == checksums
        assert not outcome.assets


def test_a_stream_that_fails_stops_only_the_models_that_depend_on_it(used: Shop) -> None:
    used.next_day()
    used.ask("ALTER TABLE web.events RENAME COLUMN kind TO sort")
    before = used.raw("raw_events")

    outcome = used.deployment.run("web_shop")

    assert outcome.state == "failed"
    assert outcome.with_state("failed") == {"web.raw_events.extract"}
    assert outcome.state_of("dbt.stg_events", "dbt.daily_active_users") == {"upstream_failed"}
    assert outcome.state_of("dbt.stg_users", "dbt.inventory_days") == {"success"}
    assert used.raw("raw_events") == before
    assert used.raw("raw_users") == used.source("raw_users")


def test_the_two_shops_share_a_warehouse(shop: Shop) -> None:
    """Whichever DAG comes first: it neither needs nor touches what is the other's."""
    assert shop.deployment.run("jaffle_shop").state == "success"
    checksums = shop.deployment.checksums()

    outcome = shop.deployment.run("web_shop")

    assert outcome.state == "success"
    after = shop.deployment.checksums()
    assert {table: after[table] for table in checksums} == checksums
    assert {"raw.raw_users", "marts.inventory_days"} <= after.keys()
