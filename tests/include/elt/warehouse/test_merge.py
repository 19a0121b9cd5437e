"""Modes `incremental` and `backfill`: rows are merged by their primary key, and nothing else changes."""

from __future__ import annotations

import pytest

from include.elt.errors import LoadError, RefusedLoadError
from include.elt.replication import Meta
from tests.support.loads import Raw, changes

MODES = pytest.mark.parametrize("mode", ["incremental", "backfill"])


@MODES
class TestMerge:
    def test_the_first_one_makes_the_table(self, raw: Raw, mode: str) -> None:
        result = raw.load([(1, "x"), (2, "y")], mode=mode)
        assert changes(result) == (2, 0, 0)
        assert raw.rows() == [(1, "x"), (2, "y")]
        assert raw.types() == {"id": "BIGINT", "a": "VARCHAR"}

    def test_inserts_what_is_new_and_replaces_what_differs(self, raw: Raw, mode: str) -> None:
        raw.load([(1, "x"), (2, "y"), (3, None), (4, "same")])
        result = raw.load([(2, "Y"), (3, "no longer NULL"), (4, "same"), (5, "new")], mode=mode)
        assert changes(result) == (1, 2, 0)
        assert (result.rows_loaded, result.rows_total) == (4, 5)
        assert raw.rows() == [(1, "x"), (2, "Y"), (3, "no longer NULL"), (4, "same"), (5, "new")]

    def test_a_value_becomes_null(self, raw: Raw, mode: str) -> None:
        raw.load([(1, "x")])
        assert changes(raw.load([(1, None)], mode=mode)) == (0, 1, 0)
        assert raw.rows() == [(1, None)]

    def test_nothing_new_is_fine_and_logged(self, raw: Raw, mode: str) -> None:
        raw.load([(1, "x")])
        assert changes(raw.load([], mode=mode)) == (0, 0, 0)
        assert raw.rows() == [(1, "x")]
        assert raw.bench.query("SELECT count(*) FROM ops.load_log") == [(2,)]

    def test_nothing_into_nothing_makes_an_empty_table(self, raw: Raw, mode: str) -> None:
        assert raw.load([], mode=mode).rows_total == 0
        assert raw.rows() == []

    def test_a_key_of_several_columns(self, raw: Raw, mode: str) -> None:
        raw.key, raw.columns = ("shop", "id"), {"shop": "string", "id": "int", "a": "string"}
        raw.load([("n", 1, "x"), ("s", 1, "y")])
        assert changes(raw.load([("s", 1, "Y"), ("s", 2, "z")], mode=mode)) == (1, 1, 0)
        assert raw.rows() == [("n", 1, "x"), ("s", 1, "Y"), ("s", 2, "z")]

    def test_a_table_of_keys_alone(self, raw: Raw, mode: str) -> None:
        raw.columns = {"id": "bigint"}
        raw.load([(1,), (2,)])
        assert changes(raw.load([(2,), (3,)], mode=mode)) == (1, 0, 0)
        assert raw.rows() == [(1,), (2,), (3,)]

    def test_odd_names(self, raw: Raw, mode: str) -> None:
        raw.columns = {"id": "bigint", "select": "string", "e": "string", "t": "int", "filename": "int"}
        raw.load([(1, "x", "e", 1, 7), (2, "x", "e", 1, 7)])
        assert changes(raw.load([(1, "x", "E", 1, 8), (3, "x", "e", 1, 7)], mode=mode)) == (1, 1, 0)
        assert raw.rows() == [(1, "x", "E", 1, 8), (2, "x", "e", 1, 7), (3, "x", "e", 1, 7)]

    def test_twice_changes_nothing_and_tells_the_figures_of_then(self, raw: Raw, mode: str) -> None:
        raw.load([(1, "x")])
        extraction = raw.extract([(1, "X"), (2, "y")], mode=mode, rows_duplicate=4, source_rows=2)
        first = raw.take(extraction)
        again = raw.take(extraction)
        assert (again.repeated, changes(again)) == (True, (1, 1, 0))
        assert {**vars(again), "repeated": False} == vars(first)
        assert raw.rows() == [(1, "X"), (2, "y")]

    def test_a_key_that_the_table_holds_twice_is_an_error_that_names_it(self, raw: Raw, mode: str) -> None:
        raw.load([(1, "x"), (2, "y"), (3, "z")])
        raw.bench.query("INSERT INTO raw.orders VALUES (2, 'by hand')")
        with pytest.raises(RefusedLoadError, match=r"raw\.orders: .* more than once: id = 2; remove .*full_refresh"):
            raw.load([(1, "X"), (2, "Y")], mode=mode)
        assert raw.rows() == [(1, "x"), (2, "by hand"), (2, "y"), (3, "z")]
        assert changes(raw.load([(3, "Z")], mode=mode)) == (0, 1, 0)

    def test_a_key_that_the_extraction_holds_twice_is_an_error(self, raw: Raw, mode: str) -> None:
        raw.load([(1, "x")])
        with pytest.raises(LoadError, match="the extraction holds a primary key twice"):
            raw.load([(1, "a"), (1, "b")], mode=mode)
        assert raw.rows() == [(1, "x")]

    def test_without_a_primary_key_is_an_error(self, raw: Raw, mode: str) -> None:
        with pytest.raises(LoadError, match="names no primary key"):
            raw.load([(1, "x")], mode=mode, primary_key=())

    def test_a_column_that_duckdb_needs_itself_is_refused(self, raw: Raw, mode: str) -> None:
        with pytest.raises(RefusedLoadError, match="the column rowid"):
            raw.load([(1, 1)], mode=mode, columns={"id": "bigint", "rowid": "bigint"})

    def test_rows_that_do_not_add_up_are_rolled_back(self, raw: Raw, mode: str) -> None:
        from dataclasses import replace

        raw.load([(1, "x")])
        manifest, folder = raw.extract([(1, "X"), (2, "y")], mode=mode)
        wrong = replace(manifest, files=(replace(manifest.files[0], rows=1),))
        with pytest.raises(LoadError, match="2 rows arrived of 1; the load was rolled back"):
            raw.take((wrong, folder))
        assert raw.rows() == [(1, "x")]

    def test_the_watermark_is_that_of_the_whole_table(self, raw: Raw, mode: str) -> None:
        raw.update_key = "id"
        raw.load([(7, "x")])
        assert raw.load([(3, "y")], mode=mode).watermark == "7"

    def test_nan_is_equal_to_itself(self, raw: Raw, mode: str) -> None:
        raw.columns = {"id": "bigint", "x": "double"}
        raw.load([(1, "nan")])
        assert changes(raw.load([(1, "nan")], mode=mode)) == (0, 0, 0)


class TestDeletes:
    def test_hard_removes_them(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="hard")
        raw.load([(1, "x"), (2, "y"), (3, "z")])
        result = raw.load([(4, "new")], keys=[(1,), (4,)])
        assert (changes(result), result.rows_total) == ((1, 0, 2), 2)
        assert raw.rows() == [(1, "x"), (4, "new")]

    def test_soft_marks_them_once(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="soft")
        raw.load([(1, "x"), (2, "y"), (3, "z")], at=1)
        assert changes(raw.load([], keys=[(1,), (2,)], at=2)) == (0, 0, 1)
        result = raw.load([], keys=[(1,)], at=3)
        assert (changes(result), result.rows_total) == ((0, 0, 1), 3)
        assert raw.rows() == [(1, "x", None), (2, "y", 3), (3, "z", 2)]
        assert raw.types()["_deleted_at"] == "TIMESTAMP WITH TIME ZONE"

    @pytest.mark.parametrize("mode", ["incremental", "backfill"])
    def test_a_row_that_is_back_is_no_longer_marked(self, raw: Raw, mode: str) -> None:
        raw.policy = Meta(deletes="soft")
        raw.load([(1, "x"), (2, "y")])
        raw.load([], keys=[(1,)])
        assert changes(raw.load([(2, "y")], mode=mode)) == (0, 1, 0)
        assert raw.rows() == [(1, "x", None), (2, "y", None)]

    def test_a_row_that_is_back_with_the_same_values_is_found_among_the_keys_only_when_it_is_read(
        self, raw: Raw
    ) -> None:
        raw.policy = Meta(deletes="soft")
        raw.load([(1, "x"), (2, "y")], at=1)
        raw.load([], keys=[(1,)], at=2)
        raw.load([], keys=[(1,), (2,)], at=3)
        assert raw.rows("id, _deleted_at") == [(1, None), (2, 2)]

    @pytest.mark.parametrize("deletes", ["hard", "soft"])
    def test_no_keys_over_rows_is_refused_unless_allowed(self, raw: Raw, deletes: str) -> None:
        raw.policy = Meta(deletes=deletes)  # type: ignore[arg-type]
        raw.load([(1, "x"), (2, "y")])
        extraction = raw.extract([], keys=[])
        with pytest.raises(RefusedLoadError, match=r"list of keys .* 2 rows.*meta\.allow_empty: true"):
            raw.take(extraction)
        assert len(raw.rows()) == 2
        result = raw.take(extraction, Meta(deletes=deletes, allow_empty=True))  # type: ignore[arg-type]
        assert result.rows_deleted == 2

    def test_no_keys_over_a_table_without_live_rows_is_fine(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="soft")
        raw.load([], keys=[])
        raw.load([(1, "x")])
        raw.take(raw.extract([], keys=[]), Meta(deletes="soft", allow_empty=True))
        assert raw.load([], keys=[]).rows_deleted == 0

    def test_are_ignored_by_policy_and_in_a_backfill(self, raw: Raw) -> None:
        raw.load([(1, "x"), (2, "y")])
        assert raw.load([], keys=[(1,)]).rows_deleted == 0
        raw.policy = Meta(deletes="hard")
        assert raw.load([], keys=[(1,)], mode="backfill").rows_deleted == 0
        assert raw.load([]).rows_deleted == 0
        assert len(raw.rows()) == 2

    def test_a_table_from_before_the_policy_gets_the_column(self, raw: Raw) -> None:
        raw.load([(1, "x"), (2, "y")])
        raw.policy = Meta(deletes="soft")
        raw.load([(3, "z")], keys=[(1,), (3,)], at=9)
        assert raw.rows() == [(1, "x", None), (2, "y", 9), (3, "z", None)]

    def test_a_damaged_list_of_keys_is_refused(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="hard")
        raw.load([(1, "x")])
        manifest, folder = raw.extract([], keys=[(1,)])
        (folder / "keys.parquet").write_bytes(b"PAR1")
        with pytest.raises(LoadError, match=r"keys\.parquet is not the file that was extracted"):
            raw.take((manifest, folder))

    def test_keys_of_several_columns(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="hard")
        raw.key, raw.columns = ("shop", "id"), {"shop": "string", "id": "int", "a": "string"}
        raw.load([("n", 1, "x"), ("s", 1, "y"), ("s", 2, "z")])
        assert changes(raw.load([], keys=[("n", 1), ("s", 2)])) == (0, 0, 1)
        assert raw.rows() == [("n", 1, "x"), ("s", 2, "z")]


class TestSoftFullRefresh:
    def test_rows_that_the_source_has_no_more_stay_marked(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="soft")
        raw.load([(1, "x"), (2, "y"), (3, "z")], mode="full-refresh", at=1)
        assert raw.rows("_deleted_at") == [(None,)] * 3
        result = raw.load([(1, "X"), (4, "new")], mode="full-refresh", at=2)
        assert (changes(result), result.rows_total) == ((2, 0, 2), 4)
        result = raw.load([(1, "X"), (2, "back")], mode="full-refresh", at=3)
        assert (changes(result), result.rows_total) == ((2, 0, 1), 4)
        assert raw.rows() == [(1, "X", None), (2, "back", None), (3, "z", 2), (4, "new", 3)]

    def test_they_take_the_new_shape(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="soft")
        columns = {"id": "bigint", "a": "string", "gone": "string"}
        raw.load([(1, "7", "g"), (2, "8", "g")], mode="full-refresh", columns=columns, at=1)
        raw.load([(1, 7, "n")], mode="full-refresh", columns={"id": "int", "a": "int", "new": "string"}, at=2)
        assert raw.rows() == [(1, 7, "n", None), (2, 8, None, 2)]

    def test_a_value_that_does_not_fit_the_new_shape_is_an_error(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="soft")
        raw.load([(1, "7"), (2, "eight")], mode="full-refresh")
        with pytest.raises(RefusedLoadError, match=r"deleted in the source has 'eight' in the column a.* int"):
            raw.load([(1, 7)], mode="full-refresh", columns={"id": "bigint", "a": "int"})
        assert raw.rows("id, a") == [(1, "7"), (2, "eight")]

    def test_an_empty_one_is_refused_unless_nothing_is_left_to_mark(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="soft")
        raw.load([(1, "x")], mode="full-refresh", at=1)
        empty = raw.extract([], mode="full-refresh", at=2)
        with pytest.raises(RefusedLoadError, match=r"meta\.allow_empty"):
            raw.take(empty)
        raw.take(empty, Meta(deletes="soft", allow_empty=True))
        assert raw.load([], mode="full-refresh", at=3).rows_deleted == 0
        assert raw.rows() == [(1, "x", 2)]

    def test_a_table_without_the_key_is_an_error(self, raw: Raw) -> None:
        raw.load([("x",)], mode="full-refresh", columns={"a": "string"})
        raw.policy = Meta(deletes="soft")
        with pytest.raises(RefusedLoadError, match="no column id"):
            raw.load([(1, "x")], mode="full-refresh")

    def test_with_another_policy_the_marked_rows_go(self, raw: Raw) -> None:
        raw.policy = Meta(deletes="soft")
        raw.load([(1, "x"), (2, "y")], mode="full-refresh")
        raw.load([(1, "x")], mode="full-refresh")
        raw.policy = Meta()
        raw.load([(1, "x")], mode="full-refresh")
        assert raw.rows() == [(1, "x")]


class TestATableThatIsGone:
    def test_is_not_filled_with_the_latest_rows_only(self, raw: Raw) -> None:
        raw.load([(1, "x")])
        latest = raw.extract([(2, "y")], window={"column": "id", "lower": "1", "upper": "2", "closed": True})
        raw.bench.query("DROP TABLE raw.orders")
        with pytest.raises(RefusedLoadError, match=r"the table is gone.*clear the extract task.*full_refresh"):
            raw.take(latest)
        assert raw.bench.warehouse().count("raw.orders") is None

    def test_nor_with_the_latest_files_only(self, raw: Raw) -> None:
        files = [{"name": f"{n}.csv", "sha256": n, "bytes": 1} for n in "ab"]
        raw.load([(1, "x")], source={"files": files[:1]})
        latest = raw.extract([(2, "y")], source={"files": files[1:]})
        raw.bench.query("DROP TABLE raw.orders")
        with pytest.raises(RefusedLoadError, match="the table is gone"):
            raw.take(latest)
        assert raw.load([(1, "x"), (2, "y")], source={"files": files}).rows_total == 2

    def test_can_be_made_anew_by_every_extraction_in_its_order(self, raw: Raw) -> None:
        first, second = raw.extract([(1, "x")]), raw.extract([(1, "X")])
        raw.take(first)
        raw.take(second)
        raw.bench.query("DROP TABLE raw.orders")
        assert not raw.take(first).repeated
        assert not raw.take(second).repeated
        assert raw.take(first).repeated
        assert raw.rows() == [(1, "X")]

    def test_a_backfill_makes_it(self, raw: Raw) -> None:
        window = {"column": "id", "lower": "1", "upper": "2", "closed": True}
        assert raw.load([(1, "x")], mode="backfill", window=window).rows_total == 1
