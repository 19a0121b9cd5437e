"""Every mode and policy on Databricks and on DuckDB: the same table, the same figures, the same refusals."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.elt.replication import Meta
from tests.support.databricks_standin.bench import Pair

pytestmark = pytest.mark.databricks_standin

MakePair = Callable[..., Pair]


@pytest.fixture
def pair(workspace: Any, tmp_path: Path) -> MakePair:
    return lambda **fields: Pair.make(tmp_path, workspace, **fields)


def window(lower: Any = None, upper: Any = None, closed: bool = True, column: str = "at") -> dict[str, Any]:
    return {"column": column, "lower": lower, "upper": upper, "closed": closed}


def test_a_full_refresh_takes_the_place_of_what_was_there(pair: MakePair) -> None:
    both = pair(mode="full-refresh")
    assert both.load([(1, "a"), (2, None), (3, "")])["rows_inserted"] == 3
    assert both.load([(2, "b")])["rows_total"] == 1


def test_every_type_and_every_awkward_value_arrives_as_it_is(pair: MakePair) -> None:
    columns = {
        "id": "bigint",
        "tiny": "tinyint",
        "small": "smallint",
        "whole": "int",
        "yes": "boolean",
        "day": "date",
        "price": "decimal(38,10)",
        "double": "double",
        "text": "string",
        "short": "varchar(10)",
        "at": "timestamp",
        "local_at": "timestamp_ntz",
    }
    awkward = 'it\'s \\n "x" `y` \t ; -- /* 中 \N{GRINNING FACE}'
    rows = [
        (
            *(2**63 - 1, 127, 32767, 2**31 - 1, True, "9999-12-31", "1234567890123456789012345678.0123456789", 0.1),
            *(awkward, "'", "2026-03-29 01:30:00.123456+00", "2026-03-29 02:30:00.999999"),
        ),
        (
            *(-(2**63), -128, -32768, -(2**31), False, "0001-01-01", "-0.0000000001", -1e300, "", " ", "0001-01-01"),
            "0001-01-01 00:00:00",
        ),
        (0, *(None,) * 11),
    ]
    both = pair(mode="full-refresh", columns=columns)
    both.load(rows)
    both.load(rows[1:], mode="incremental")


def test_a_merge_inserts_what_is_new_and_updates_what_differs(pair: MakePair) -> None:
    both = pair()
    both.load([(1, "a"), (2, "b"), (3, None)])
    result = both.load([(2, "B"), (3, None), (4, "d")])
    assert (result["rows_inserted"], result["rows_updated"], result["rows_deleted"]) == (1, 1, 0)
    assert both.load([])["rows_updated"] == 0


def test_a_merge_by_several_columns(pair: MakePair) -> None:
    both = pair(columns={"site": "string", "sku": "string", "pieces": "int"}, key=("site", "sku"))
    both.load([("x", "1", 1), ("x", "2", 2), ("y", "1", 3)])
    both.load([("x", "2", 20), ("y", "2", 4)])


@pytest.mark.parametrize("deletes", ["soft", "hard"])
def test_rows_that_the_source_has_no_more(pair: MakePair, deletes: str) -> None:
    both = pair(policy=Meta(deletes=deletes))
    first = both.load([(1, "a"), (2, "b"), (3, "c")], keys=[(1,), (2,)])  # one went between the two questions
    assert first["rows_total"] == (3 if deletes == "soft" else 2)
    assert both.load([(1, "A")], keys=[(1,)])["rows_deleted"] == 1
    both.load([(2, "b")], keys=[(1,), (2,)])  # it came back
    both.load([], keys=[(2,)])
    assert both.load([], keys=[])[0] == "RefusedLoadError"
    both.policy(allow_empty=True)
    both.load([], keys=[])


def test_a_full_refresh_keeps_what_is_marked(pair: MakePair) -> None:
    both = pair(mode="full-refresh", policy=Meta(deletes="soft"))
    both.load([(1, "a"), (2, "b"), (3, "c")])
    assert both.load([(2, "B")])["rows_deleted"] == 2
    assert both.load([(2, "B"), (3, "c")])["rows_deleted"] == 0
    assert both.load([])[0] == "RefusedLoadError"


def test_snapshots_are_appended_and_one_run_has_one(pair: MakePair) -> None:
    both = pair(mode="snapshot")
    both.load([(1, "a"), (2, "b")])
    both.load([(1, "a")])
    again = both.load([(1, "x"), (2, "y"), (3, "z")], run_id="run 2")
    assert again["rows_total"] == 5
    assert both.load([], run_id="run 2")[0] == "RefusedLoadError"


def test_an_empty_source_empties_nothing(pair: MakePair) -> None:
    both = pair(mode="full-refresh")
    assert both.load([])["rows_total"] == 0
    both.load([(1, "a")])
    assert both.load([])[0] == "RefusedLoadError"
    both.policy(allow_empty=True)
    assert both.load([])["rows_total"] == 0


def test_an_extraction_is_loaded_once_and_never_after_a_newer_one(pair: MakePair) -> None:
    both = pair(mode="full-refresh")
    extractions = [raw.extract([(1, "a")]) for raw in (both.duckdb, both.databricks)]
    both.take(extractions)
    assert both.take(extractions)["repeated"]
    late = [raw.extract([(1, "late")], at=2) for raw in (both.duckdb, both.databricks)]
    both.load([(2, "b")], at=3)
    assert both.take(late)[0] == "RefusedLoadError"


def test_backfills_of_other_ranges_may_come_late(pair: MakePair) -> None:
    columns = {"id": "bigint", "at": "timestamp", "a": "string"}
    both = pair(columns=columns, mode="backfill", update_key="at")
    both.load(
        [(1, "2026-01-05", "new"), (2, None, "new")], window=window("2026-01-05", "2026-01-06", closed=False), at=9
    )
    late = window("2026-01-01", "2026-01-02", closed=False)
    assert both.load([(3, "2026-01-01", "late"), (2, None, "old")], window=late, at=5)["rows_updated"] == 0
    assert both.load([(1, "2026-01-05", "old")], window=window("2026-01-05"), at=6)[0] == "RefusedLoadError"
    state = both.states("at")
    assert state is not None
    assert state.watermark == "2026-01-05 00:00:00+00"


def test_where_the_table_stands(pair: MakePair) -> None:
    both = pair(columns={"id": "bigint", "n": "decimal(10,2)", "day": "date", "t": "timestamp_ntz", "a": "string"})
    assert both.states("n") is None
    source = {"files": [{"name": "x'\\.csv", "sha256": "1" * 64}]}
    both.load([(1, "1.50", "2026-01-01", "2026-01-01 10:00:00.5", "z"), (2, None, None, None, None)], source=source)
    for key in ("n", "day", "t", "a", None, "id"):
        assert both.states(key) is not None
    both.load([], source={"files": [{"name": "y.csv", "sha256": "2" * 64}]})
    state = both.states("id")
    assert state is not None
    assert {name for name, _ in state.files} == {"x'\\.csv", "y.csv"}


def test_columns_that_a_person_has_to_approve(pair: MakePair) -> None:
    """`on_schema_change: ask`: refused with the table as it was; once approved it is loaded as by `add`."""
    asking = Meta(on_schema_change="ask")
    both = pair(columns={"id": "bigint", "n": "smallint"}, policy=asking)
    both.load([(1, 1), (2, 2)])
    other = {"id": "bigint", "n": "bigint", "new": "date"}
    rows = [(2, 2**40, "2026-01-01"), (3, 30, None)]
    extractions = [raw.extract(rows, columns=other) for raw in (both.duckdb, both.databricks)]
    kind, text = both.take(extractions)
    assert kind == "SchemaChangeError"
    assert "it lacks the column new date" in text
    approved = both.take(extractions, asking.model_copy(update={"on_schema_change": "add"}))
    assert (approved["rows_inserted"], approved["rows_updated"], approved["repeated"]) == (1, 1, False)
    assert "it gets that type" in approved["schema_change"]


@pytest.mark.parametrize("policy", ["fail", "add", "ignore"])
def test_columns_that_change(pair: MakePair, policy: str) -> None:
    both = pair(columns={"id": "bigint", "n": "smallint", "old": "string"}, policy=Meta(on_schema_change=policy))
    both.load([(1, 1, "x"), (2, 2, "y")])
    other = {"id": "bigint", "n": "bigint", "new": "date"}
    fits = both.load([(2, 20, "2026-01-01"), (3, 30, None)], columns=other)
    assert (fits[0] == "SchemaChangeError") if policy == "fail" else fits["rows_total"] == 3
    too_large = both.load([(4, 2**40, None)], columns=other)
    refused = {"fail": "SchemaChangeError", "ignore": "RefusedLoadError"}
    assert too_large["rows_total"] == 4 if policy == "add" else too_large[0] == refused[policy]
    both.load([(1, "a", "b")], columns={"id": "bigint", "n": "string", "old": "string"})


def test_counts_that_have_to_agree(pair: MakePair) -> None:
    both = pair(policy=Meta(reconcile="exact"))
    both.load([(1, "a"), (2, "b")], source_rows=2)
    assert both.load([(3, "c")], source_rows=2)[0] == "ReconciliationError"
    both.load([(3, "c")], source_rows=3)


def test_a_table_with_a_key_twice_is_refused(pair: MakePair) -> None:
    both = pair(mode="full-refresh", key=())
    both.load([(1, "a"), (1, "b")])
    kind, text = both.load([(1, "c")], mode="incremental", primary_key=("id",))
    assert kind == "RefusedLoadError"
    assert "the table holds a primary key more than once: id = 1" in text


def test_a_part_does_not_make_a_table_that_is_gone(pair: MakePair) -> None:
    both = pair(columns={"id": "bigint", "at": "date"}, update_key="at")
    assert both.load([(1, "2026-01-02")], window=window("2026-01-01", "2026-01-02"))[0] == "RefusedLoadError"
    both.load([(1, "2026-01-02")], window=window(None, "2026-01-02"))
    for raw in (both.duckdb, both.databricks):
        raw.bench.query("DROP TABLE raw.orders")
    assert both.load([(2, "2026-01-03")], window=window("2026-01-02", "2026-01-03"))[0] == "RefusedLoadError"
    both.load([(1, "2026-01-02")], window=window(None, "2026-01-03"))


def test_a_long_life(pair: MakePair) -> None:
    """Twelve random loads of all modes into one table; the seed is in the message of a failure."""
    seed = 20260101
    chance, both = random.Random(seed), pair(policy=Meta(deletes="soft", allow_empty=True))
    source: dict[int, str | None] = {}
    for step in range(12):
        for key in chance.sample(range(12), 4):
            source[key] = chance.choice(["a", "b", "é'\\", "", None])
        for key in chance.sample(sorted(source), min(len(source), 2)):
            del source[key]
        changed = sorted(chance.sample(sorted(source.items(), key=str), len(source) // 2), key=str)
        mode = chance.choice(["full-refresh", "incremental", "incremental"])
        rows = sorted(source.items(), key=str) if mode == "full-refresh" or step == 0 else changed
        keys = [(key,) for key in sorted(source)] if mode == "incremental" else None
        result = both.load(rows, keys=keys, mode=mode)
        assert isinstance(result, dict), (seed, step, result)


def test_times_are_those_of_the_extraction(pair: MakePair) -> None:
    both = pair(mode="snapshot")
    both.load([(1, "a")])
    [(loaded,)] = both.databricks.bench.query("SELECT _loaded_at FROM raw.orders")
    assert loaded == datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
