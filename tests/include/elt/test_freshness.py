"""How old data may be, as the dbt project says it."""

from __future__ import annotations

from typing import Any

import pytest

from include.elt.freshness import faults, of_model, seconds_of


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("90 minutes", 5400),
        ("1 hour", 3600),
        ("36 hours", 36 * 3600),
        ("2 days", 2 * 24 * 3600),
        ("36", None),
        ("36h", None),
        ("0 hours", None),
        ("36 hours or so", None),
        (36, None),
        ("", None),
        (None, None),
    ],
)
def test_a_span_is_a_number_and_a_period_of_dbt(said: Any, seconds: int | None) -> None:
    assert seconds_of(said) == seconds


def test_what_is_not_understood_is_a_fault_and_no_span_is_none() -> None:
    where = {"name": "orders", "original_file_path": "models/orders.yml"}
    good, none, bad = ({**where, "config": {"meta": meta}} for meta in ({"freshness": "1 day"}, {}, {"freshness": 36}))

    assert [of_model(node) for node in (good, none, bad)] == ["1 day", None, 36]
    assert faults({"nodes": {"a": good, "b": none}}) == []
    [fault] = faults({"nodes": {"a": bad}})
    assert fault.startswith("models/orders.yml: orders: meta.freshness is 36; needed is")
