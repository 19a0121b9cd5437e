"""Text stays as it is: whatever Python's csv writer can write arrives in the lake unchanged, through the real Sling."""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.elt import Bench, Row

# fmt: off
AWKWARD = [
    "NULL", "null", "Null", "\\N", "\\n", "None", "nil", "NaN", "nan", "undefined", "N/A", "#N/A", "-", "<null>",
    " ", "  x", "x  ", "\t", "\tx\t", "\u00a0", "\u3000x", "\u200b", "\v\f", " NULL ", "''", '""', '"', '","', "'",
    "0012", "1e5", "1.10", "1,10", "+1", "-0", "0x1F", "1_000", "007", ".5", "5.", "12345678901234567890", "1" * 60,
    "01/02/2024", "31/12/2024", "2024-01-01", "2024-02-30", "10:30", "2024-01-01T00:00:00Z", "24:00", "0000-00-00",
    "true", "False", "t", "yes", "{}", "[1]", '{"a": 1.10}', "#comment", "# x", "//", "/*", "--", ";", "|", "=1+1",
    "\n", "\r", "\r\n", "\n\r", "\r\r\n", "\n\n", "a\nb", "a\rb", "a\r\nb", "a\r", "\ra", "\r\n\r\n", "\\\n", '"\n"',
    "\u2028", "\u2029", "\u0085", "\x1c\x1d\x1e", "\x1a", "\x00", "\x7f", "\x80", "\ufeff", "\ufeffx", "x\ufeff",
    "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\ud7ff", "\ue000", "é", "e\u0301", "👍", "👩\u200d👧", "\u017f", "ß",
    "{stream_name}", "${HOME}", "%s", "%41", "&amp;", "\\", "\\\\", '\\"', "\\u0041", "`", "<cr>", "x" * 500, "é" * 500,
]
# fmt: on


def csv_of(rows: Iterable[tuple[Any, ...]], **dialect: Any) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, **dialect)
    writer.writerow(["id", "a", "b"])
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["quoted where needed", "all quoted"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_awkward_text_arrives_unchanged(bench: Bench, quoting: int, end: str) -> None:
    rows: list[Row] = [(number, text, AWKWARD[-number]) for number, text in enumerate(AWKWARD, 1)]
    written = [row for row in rows if end == "\r\n" or quoting == csv.QUOTE_ALL or "\r" not in f"{row[1]}{row[2]}"]
    assert bench.extract(csv_of(written, quoting=quoting, lineterminator=end)).rows == written


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_character_there_is_arrives_unchanged(bench: Bench, encoding: str) -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    rows: list[Row] = [
        (start, "".join(characters[start : start + 2000]), characters[start])
        for start in range(0, len(characters), 2000)
    ]
    assert bench.extract(csv_of(rows).encode(encoding)).rows == rows


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text("\r\n\"', \\N\0\ufeffx", max_size=8)
TEXT |= st.sampled_from(AWKWARD)


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(fields=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=40))
def test_any_text_arrives_unchanged(fields: list[tuple[str, str]]) -> None:
    rows: list[Row] = [(number, *each) for number, each in enumerate(fields)]
    with tempfile.TemporaryDirectory() as folder:
        assert Bench(Path(folder)).extract(csv_of(rows)).rows == rows


class TestNull:
    """Which text is NULL, and which is not."""

    COLUMNS = {"id": "bigint", "a": "string", "b": "varchar(20)", "n": "int", "d": "date"}  # noqa: RUF012
    DATA = 'id,a,b,n,d\n1,,"",,""\n2,NULL,\\N,7,2024-01-01\n3,NA, NA,8,\n4,na,"NA",,2024-01-02\n'

    def extract(self, bench: Bench, **options: Any) -> list[Row]:
        rows = bench.extract(self.DATA, columns=self.COLUMNS, options=options).rows
        return [tuple(str(value) if hasattr(value, "year") else value for value in row) for row in rows]

    def test_an_empty_field_is_empty_text_and_null_in_every_other_type(self, bench: Bench) -> None:
        assert self.extract(bench) == [
            (1, "", "", None, None),
            (2, "NULL", "\\N", 7, "2024-01-01"),
            (3, "NA", " NA", 8, None),
            (4, "na", "NA", None, "2024-01-02"),
        ]

    def test_null_if_is_the_one_text_that_stands_for_null(self, bench: Bench) -> None:
        assert self.extract(bench, null_if="NA") == [
            (1, "", "", None, None),
            (2, "NULL", "\\N", 7, "2024-01-01"),
            (3, None, " NA", 8, None),
            (4, "na", None, None, "2024-01-02"),
        ]

    @pytest.mark.parametrize(("null_if", "row"), [("NULL", (2, None, "\\N")), ("\\N", (2, "NULL", None))])
    def test_null_if_may_be_what_others_write_for_null(self, bench: Bench, null_if: str, row: Row) -> None:
        assert self.extract(bench, null_if=null_if)[1][:3] == row

    def test_empty_as_null(self, bench: Bench) -> None:
        rows = self.extract(bench, empty_as_null=True)
        assert rows[:2] == [(1, None, None, None, None), (2, "NULL", "\\N", 7, "2024-01-01")]

    def test_both(self, bench: Bench) -> None:
        rows = self.extract(bench, empty_as_null=True, null_if="NULL")
        assert [row[1:3] for row in rows] == [(None, None), (None, "\\N"), ("NA", " NA"), ("na", "NA")]

    def test_null_if_applies_to_other_types_too(self, bench: Bench) -> None:
        extracted = bench.extract(
            "id,n\n1,-999\n2,5\n", columns={"id": "bigint", "n": "int"}, options={"null_if": "-999"}
        )
        assert extracted.rows == [(1, None), (2, 5)]

    def test_null_if_may_be_any_text(self, bench: Bench) -> None:
        null_if = ' say "a,b"\nü '
        rows: list[Row] = [(1, null_if, "x"), (2, "x", null_if), (3, null_if + "x", null_if.strip())]
        extracted = bench.extract(csv_of(rows), options={"null_if": null_if})
        assert extracted.rows == [(1, None, "x"), (2, "x", None), rows[2]]

    def test_null_if_works_next_to_carriage_returns(self, bench: Bench) -> None:
        extracted = bench.extract(csv_of([(1, "NA", "a\r\nb"), (2, "\r", "NA")]), options={"null_if": "NA"})
        assert extracted.rows == [(1, None, "a\r\nb"), (2, "\r", None)]
