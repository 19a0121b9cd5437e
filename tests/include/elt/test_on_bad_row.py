"""Rows that do not fit: the stream fails and says where, or sets them aside and counts them."""

from __future__ import annotations

from typing import Any

import pytest

from include.elt.errors import DataError
from tests.support.elt import Bench

COLUMNS = {"id": "bigint", "day": "date", "note": "varchar(5)"}
DATA = """id,day,note
1,2024-01-01,ok

2,2024-02-30,"two
lines"
x,2024-01-03,"three
lines
!"
4,2024-01-04,ok
5,yesterday,too long
"""
REJECT = {"on_bad_row": "reject"}


def failure(bench: Bench, data: str, **what: Any) -> str:
    with pytest.raises(DataError) as caught:
        bench.extract(data, **{"columns": COLUMNS} | what)
    assert not list(bench.lake.root.rglob("*.parquet"))
    return str(caught.value)


class TestFail:
    def test_says_file_row_line_column_value_and_type(self, bench: Bench) -> None:
        lines = failure(bench, DATA).splitlines()
        assert lines[0] == f"{bench.file}: 3 rows do not fit the contract"
        assert lines[1:4] == [
            "  row 2 (line 4): column day: '2024-02-30' is not a date",
            "  row 2 (line 4): column note: 'two\\nlines' is not a varchar(5)",
            "  row 3 (line 6): column id: 'x' is not a bigint",
        ]
        assert "raw.orders" in lines[4]
        assert "sources.yml" in lines[4]
        assert "meta.on_bad_row: reject" in lines[4]

    def test_counts_all_bad_rows_however_many(self, bench: Bench) -> None:
        data = "id,day,note\n" + "".join(f"{number},never,ok\n" for number in range(1500))
        message = failure(bench, data)
        assert "1,500 rows do not fit" in message
        assert len(message.splitlines()) == 5

    def test_a_row_far_beyond_the_sample(self, bench: Bench) -> None:
        rows = [f"{number},2024-01-01,ok\n" for number in range(1, 4001)]
        rows[2999] = "3000,2024-01-32,ok\n"
        message = failure(bench, "id,day,note\r\n" + "".join(rows))
        assert "1 row does not fit" in message
        assert "row 3000 (line 3001): column day: '2024-01-32' is not a date" in message

    def test_a_long_value_is_cut(self, bench: Bench) -> None:
        assert len(failure(bench, f"id,day,note\n1,{'9' * 5000},ok\n")) < 1000

    def test_the_null_of_a_primary_key(self, bench: Bench) -> None:
        message = failure(bench, "id,day,note\n1,,ok\n,,ok\n")
        assert "row 2 (line 3): column id: NULL is not a primary key, which is never NULL" in message

    def test_a_repeated_primary_key_names_both_rows(self, bench: Bench) -> None:
        message = failure(bench, "id,day,note\n1,,a\n2,,b\n1,,c\n")
        assert "1 row does not fit" in message
        assert "row 3 (line 4): column id: '1' is not a primary key, and row 1 has the same one" in message

    def test_another_spelling_of_a_key_is_the_same_key(self, bench: Bench) -> None:
        message = failure(bench, "id,day,note\n1,,a\n01,,b\n 1.0,,c\n")
        assert "2 rows do not fit" in message
        assert "row 3 (line 4): column id: ' 1.0'" in message

    def test_a_key_of_text_is_compared_as_it_is(self, bench: Bench) -> None:
        extracted = bench.extract("id,a,b\n1,x,\n1,x ,\n1,X,\n1,,\n", key=("id", "a"))
        assert [row[1] for row in extracted.rows] == ["x", "x ", "X", ""]

    def test_a_composite_key_may_repeat_its_parts(self, bench: Bench) -> None:
        assert len(bench.extract("id,a,b\n1,x,\n1,y,\n2,x,\n", key=("id", "a")).rows) == 3

    def test_a_repeated_composite_key(self, bench: Bench) -> None:
        message = failure(
            bench, "id,a,b\n1,x,\n1,y,\n1,x,\n", columns={"id": "bigint", "a": "string", "b": "string"}, key=("id", "a")
        )
        assert "row 3 (line 4): column id, a: '1, x' is not a primary key, and row 1 has the same one" in message


class TestReject:
    def test_writes_the_rejects_and_keeps_the_rest(self, bench: Bench) -> None:
        extracted = bench.extract(DATA, columns=COLUMNS, meta=REJECT)
        assert [row[0] for row in extracted.rows] == [1, 4]
        assert [(reject["row"], reject["line"]) for reject in extracted.rejects] == [(2, 4), (3, 6), (5, 10)]
        assert extracted.rejects[0] == {
            "file": "source.csv",
            "row": 2,
            "line": 4,
            "reasons": [
                {"column": "day", "value": "2024-02-30", "expected": "date"},
                {"column": "note", "value": "two\nlines", "expected": "varchar(5)"},
            ],
            "record": {"id": "2", "day": "2024-02-30", "note": "two\nlines"},
        }
        manifest = extracted.manifest
        assert (manifest.rows_read, manifest.rows_rejected, manifest.rows) == (5, 3, 2)
        assert manifest.files[0].rows == 2

    def test_the_lines_are_those_of_the_file_that_was_given(self, bench: Bench) -> None:
        data = 'id,day,note\r\n\r\n1,,"\r\n"\r\n\r\nx,,"a\rb"\r\n"y",,"\r\n\r\n"\r\nz,,\r\n'
        extracted = bench.extract(data, columns=COLUMNS, meta=REJECT)
        assert extracted.rows == [(1, None, "\r\n")]
        assert [(reject["row"], reject["line"]) for reject in extracted.rejects] == [(2, 6), (3, 7), (4, 10)]
        assert extracted.rejects[0]["record"] == {"id": "x", "day": None, "note": "a\rb"}

    def test_awkward_text_is_one_line_of_json(self, bench: Bench) -> None:
        extracted = bench.extract('id,a,b\nx,"p\u2028\nq\0""","é👍"\n', meta=REJECT)
        assert extracted.rejects[0]["record"] == {"id": "x", "a": 'p\u2028\nq\0"', "b": "é👍"}

    def test_no_rejects_no_file(self, bench: Bench) -> None:
        extracted = bench.extract("id,a,b\n1,x,y\n", meta=REJECT)
        assert sorted(path.name for path in extracted.folder.iterdir()) == ["manifest.json", "part-00000.parquet"]

    def test_keys(self, bench: Bench) -> None:
        data = "id,a,b\n1,x,first\n,x,no key\n1,x,again\n1,y,other\none,x,no number\n1,x,and again\n"
        extracted = bench.extract(data, key=("id", "a"), meta=REJECT)
        assert extracted.rows == [(1, "x", "first"), (1, "y", "other")]
        reasons = {reject["row"]: reject["reasons"][0] for reject in extracted.rejects}
        assert reasons == {
            2: {"column": "id", "value": None, "expected": "a primary key, which is never NULL"},
            3: {"column": "id, a", "value": "1, x", "expected": "a primary key, and row 1 has the same one"},
            5: {"column": "id", "value": "one", "expected": "bigint"},
            6: {"column": "id, a", "value": "1, x", "expected": "a primary key, and row 1 has the same one"},
        }

    def test_a_bad_row_does_not_take_the_key_of_a_good_one(self, bench: Bench) -> None:
        extracted = bench.extract("id,day,note\n1,never,bad\n1,,good\n1,,late\n", columns=COLUMNS, meta=REJECT)
        assert extracted.rows == [(1, None, "good")]
        assert [reject["row"] for reject in extracted.rejects] == [1, 3]
        assert "row 2 has the same" in extracted.rejects[1]["reasons"][0]["expected"]

    @pytest.mark.parametrize("bad", [3, 4], ids=["as many as allowed", "one more"])
    def test_max_rejects(self, bench: Bench, bad: int) -> None:
        data = "id,day,note\n1,,ok\n" + ",,\n" * bad
        meta = REJECT | {"max_rejects": 3}
        if bad == 3:
            assert bench.extract(data, columns=COLUMNS, meta=meta).manifest.rows_rejected == 3
        else:
            message = failure(bench, data, meta=meta)
            assert "4 rows do not fit" in message
            assert "meta.max_rejects allows 3" in message

    def test_all_rows_may_be_rejects(self, bench: Bench) -> None:
        extracted = bench.extract("id,a,b\nx,,\ny,,\n", meta=REJECT)
        assert (extracted.rows, extracted.manifest.rows, len(extracted.rejects)) == ([], 0, 2)

    def test_the_order_of_many_rows_is_kept(self, bench: Bench) -> None:
        numbers = range(30_000)
        data = "id,a,b\n" + "".join(
            f"{number if number % 1000 else 'x'},{'t' * (number % 50)},\n" for number in numbers
        )
        extracted = bench.extract(data, meta=REJECT)
        assert [row[0] for row in extracted.rows] == [number for number in numbers if number % 1000]
        assert [reject["row"] for reject in extracted.rejects] == list(range(1, 30_001, 1000))
        assert all(reject["line"] == reject["row"] + 1 for reject in extracted.rejects)
