"""Names, values and types in the words of Databricks."""

from __future__ import annotations

import pytest

from include.elt.warehouse.databricks.text import as_text, literal, quoted, type_of


def test_names_and_values_cannot_break_out() -> None:
    assert quoted("main.raw.a`b") == "`main`.`raw`.`a``b`"
    assert literal("it's") == r"'it\'s'"  # 'it''s' would be its
    assert literal("a\\") == r"'a\\'"
    assert literal("\\'; DROP TABLE x --") == r"'\\\'; DROP TABLE x --'"


@pytest.mark.parametrize(
    ("contract", "there"),
    [
        ("integer", "int"),
        ("varchar(10)", "string"),
        ("decimal(16,2)", "decimal(16,2)"),
        ("timestamp", "timestamp"),
        ("DECIMAL(16, 2)", "decimal(16,2)"),
    ],
)
def test_types(contract: str, there: str) -> None:
    assert type_of(contract) == there


def test_an_instant_has_its_offset() -> None:
    assert as_text("max(`at`)", "timestamp") == "concat(CAST(max(`at`) AS STRING), '+00')"
    assert as_text("max(`n`)", "bigint") == "CAST(max(`n`) AS STRING)"
