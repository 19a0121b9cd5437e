"""Whatever is loaded in whatever sequence: the raw table is what a few lines of Python say it is."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from include.elt.errors import RefusedLoadError
from include.elt.replication import Meta
from tests.support.elt import Bench
from tests.support.loads import Raw, changes

Key = tuple[str, int]
Rows = dict[Key, tuple[str | None, int | None]]

COLUMNS = {"shop": "string", "id": "int", "a": "string", "n": "int"}

keys = st.tuples(st.sampled_from(["n", "s'"]), st.integers(0, 3))
rows = st.dictionaries(
    keys, st.tuples(st.sampled_from([None, "", "x", "ä"]), st.none() | st.integers(0, 1)), max_size=6
)


@dataclass(frozen=True)
class Step:
    """An extraction that is loaded, or one that was loaded earlier and is loaded again."""

    mode: str
    rows: Rows = field(default_factory=dict)
    keys: frozenset[Key] | None = None


steps = st.one_of(
    st.builds(Step, st.just("full-refresh"), rows),
    st.builds(Step, st.just("incremental"), rows),
    st.builds(Step, st.just("incremental"), rows, st.frozensets(keys, max_size=6)),
    st.builds(Step, st.just("backfill"), rows),
    st.just(Step("again")),
    st.just(Step("older")),
)


class Model:
    """The raw table: value and mark of each key."""

    def __init__(self, deletes: str) -> None:
        self.deletes = deletes
        self.rows: dict[Key, tuple[tuple[str | None, int | None], int | None]] = {}

    def take(self, step: Step, minute: int) -> tuple[int, int, int]:
        """Load; returns how many rows are inserted, updated, deleted."""
        before = self.rows
        arrived: dict[Key, Any] = {key: (value, None) for key, value in step.rows.items()}
        if step.mode == "full-refresh":
            missed = {key: row for key, row in before.items() if key not in arrived and self.deletes == "soft"}
            self.rows = arrived | {key: (row, mark or minute) for key, (row, mark) in missed.items()}
            return len(arrived), 0, sum(mark is None for _, mark in missed.values())
        self.rows = before | arrived
        inserted = len(arrived.keys() - before.keys())
        updated = sum(before[key] != row for key, row in arrived.items() if key in before)
        gone = [
            key for key, (_, mark) in self.rows.items() if step.keys is not None and key not in step.keys and not mark
        ]
        for key in gone:
            if self.deletes == "hard":
                del self.rows[key]
            elif self.deletes == "soft":
                self.rows[key] = (self.rows[key][0], minute)
        return inserted, updated, len(gone) if self.deletes != "ignore" else 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["ignore", "soft", "hard"]), st.lists(steps, min_size=1, max_size=7))
@example("soft", [Step("incremental", {("n", 1): ("x", 1)}, frozenset()), Step("incremental", {("n", 1): ("x", 1)})])
def test_the_table_is_what_the_model_says(no_settings: None, deletes: str, sequence: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        policy = Meta(deletes=deletes, allow_empty=True)  # type: ignore[arg-type]
        raw = Raw(Bench(Path(folder)), COLUMNS, policy, key=("shop", "id"))
        model = Model(deletes)
        taken: list[Any] = []
        for minute, step in enumerate(sequence, 1):
            match step.mode:
                case "again":
                    for extraction in taken:
                        assert raw.take(extraction).repeated
                case "older" if taken:
                    with pytest.raises(RefusedLoadError, match="newer extraction"):
                        raw.load([("n", 0, "old", 0)], at=0)
                case "full-refresh" | "incremental" | "backfill":
                    given_keys = None if step.keys is None else sorted(step.keys)
                    lines = [(*key, *row) for key, row in step.rows.items()]
                    taken.append(raw.extract(lines, given_keys, at=minute, mode=step.mode))
                    result = raw.take(taken[-1])
                    assert changes(result) == model.take(step, minute)
                    assert result.rows_total == len(model.rows)
        if taken:
            marked = "_deleted_at" if deletes == "soft" else "NULL"
            there = {(shop, id_): ((a, n), mark) for shop, id_, a, n, mark in raw.rows(f"shop, id, a, n, {marked}")}
            assert there == model.rows
