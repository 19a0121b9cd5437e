"""Several files as one stream: which are read, in which order, and what a message calls a row."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from openpyxl import Workbook

from include.elt.errors import DataError, ExtractError, ReplicationError
from include.elt.modes import Reading
from include.elt.replication import read_replication
from include.elt.sources.files import Found, delimited, found
from tests.support.elt import Bench, Row

HEAD = "id,a,b\n"
ODD = ["plain", "with space", "[1]", "50%", "%41", "a#b", "o'brien", "é👍", 'say "x"', "a&b=c", "$HOME", "a;b,c", "~"]


def row(number: int) -> str:
    return f"{HEAD}{number},x,y\n"


def numbers(rows: list[Row]) -> list[Any]:
    return [each[0] for each in rows]


class TestWhichFiles:
    def test_a_folder_is_every_file_of_a_known_format_in_it_by_name(self, bench: Bench) -> None:
        for number, name in enumerate(["b.csv", "a.csv", "c.CSV", "10.csv", "9.csv"]):
            bench.write(row(number), f"in/{name}")
        for name in (".hidden.csv", "readme.txt", "sub/d.csv", "x.csv.part", "y.parquet.gz"):
            bench.write("nothing", f"in/{name}")
        (bench.root / "in" / "folder.csv").mkdir()
        extracted = bench.extract(name="in/")
        assert numbers(extracted.rows) == [3, 4, 1, 0, 2]
        assert [each["name"] for each in extracted.manifest.source["files"]] == [
            *("10.csv", "9.csv", "a.csv", "b.csv", "c.CSV"),
        ]

    def test_a_pattern_is_every_file_whose_name_it_fits(self, bench: Bench) -> None:
        for number, name in enumerate(["orders_1.csv", "orders_10.csv", "orders_.csv", "Orders_2.csv", "orders_1.txt"]):
            bench.write(row(number), f"in/{name}")
        assert numbers(bench.extract(name="in/orders_*.csv").rows) == [2, 0, 1]
        assert numbers(bench.extract(name="in/orders_?.csv").rows) == [0]
        assert numbers(bench.extract(name="in/*_2.*").rows) == [3]

    def test_brackets_are_no_pattern(self, bench: Bench) -> None:
        bench.write(row(1), "in/orders[12].csv")
        bench.write(row(2), "in/orders1.csv")
        assert numbers(bench.extract(name="in/orders[12].csv").rows) == [1]
        assert numbers(bench.extract(name="in/orders[12]*").rows) == [1]

    @pytest.mark.parametrize("name", ODD)
    @pytest.mark.parametrize("way", ["alone", "folder", "pattern"])
    def test_a_name_may_be_any(self, bench: Bench, name: str, way: str) -> None:
        bench.write(row(1), f"in {name}/{name}.csv")
        bench.write('{"id": 2, "a": "x", "b": "y"}\n', f"in {name}/{name}.jsonl")
        duckdb.execute(f"COPY (SELECT 3 AS id, 'x' a, 'y' b) TO '{bench.root}/p.parquet'")
        (bench.root / "p.parquet").rename(bench.root / f"in {name}" / f"{name}.parquet")
        stream = {"alone": f"in {name}/{name}.csv", "folder": f"in {name}/", "pattern": f"in {name}/*.*"}[way]
        assert numbers(bench.extract(name=stream).rows) == ([1] if way == "alone" else [1, 2, 3])

    def test_a_name_that_is_no_text_is_refused(self, bench: Bench) -> None:
        bench.write(row(1), "in/a.csv")
        (bench.root / "in" / "a.csv").rename(bench.root / "in" / "\udcff.csv")  # the byte FF
        with pytest.raises(DataError, match="is not a name in UTF-8"):
            bench.extract(name="in/")

    def test_links_are_followed(self, bench: Bench) -> None:
        bench.write(row(1), "elsewhere/x.csv")
        (bench.root / "in").mkdir()
        (bench.root / "in" / "a.csv").symlink_to("../elsewhere/x.csv")
        assert numbers(bench.extract(name="in/").rows) == [1]

    def test_a_link_that_leads_nowhere_is_refused(self, bench: Bench) -> None:
        (bench.root / "in").mkdir()
        (bench.root / "in" / "a.csv").symlink_to("gone.csv")
        with pytest.raises(DataError, match=r"a\.csv: a link that leads nowhere"):
            bench.extract(name="in/")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("in/", r"in: no file is there"),
            ("in/*.csv", r"\*\.csv: no file has such a name"),
            ("gone/", "gone: no such folder"),
            ("gone/*.csv", "gone: no such folder"),
            ("in", "in: no such file, but a folder; .* is named .*/in/$"),
            ("in/a.csv", r"a\.csv: no such file"),
        ],
    )
    def test_no_file_is_an_error(self, bench: Bench, name: str, message: str) -> None:
        bench.write("", "in/.hidden.csv")
        with pytest.raises(DataError, match=message):
            bench.extract(name=name)

    @pytest.mark.parametrize("name", ["in/", "in/*.csv"])
    def test_no_file_is_nothing_new_for_an_incremental_stream(self, bench: Bench, name: str) -> None:
        (bench.root / "in").mkdir()
        extracted = bench.extract(name=name, mode="incremental", reading=Reading("incremental"))
        assert (extracted.rows, extracted.manifest.rows_read, extracted.manifest.source) == ([], 0, {"files": []})

    @pytest.mark.parametrize("name", ["gone/", "in/gone.csv"])
    def test_a_missing_folder_or_single_file_is_an_error_all_the_same(self, bench: Bench, name: str) -> None:
        (bench.root / "in").mkdir()
        with pytest.raises(DataError, match="no such"):
            bench.extract(name=name, mode="incremental", reading=Reading("incremental"))

    def test_another_ending_is_refused_with_those_that_are_allowed(self, bench: Bench) -> None:
        bench.write(row(1), "in/a.txt")
        for name in ("in/a.txt", "in/a*"):
            with pytest.raises(
                DataError, match=r"a\.txt: no known format; .*\.csv, \.csv\.gz, .*source_options\.format"
            ):
                bench.extract(name=name)

    def test_the_format_may_be_said(self, bench: Bench) -> None:
        bench.write(row(1), "in/a.txt")
        bench.write(gzip.compress(row(2).encode()), "in/b.txt.gz")
        bench.write('{"id": 3}', "in/c.jsonl")
        assert numbers(bench.extract(name="in/", options={"format": "csv"}).rows) == [1, 2, 3]

    @pytest.mark.parametrize("name", ["file:///a/*/b.csv", "file:///a/**", "file:///a?/", "file:///a/**/*.csv"])
    def test_a_pattern_of_folders_is_refused(self, tmp_path: Path, name: str) -> None:
        file = tmp_path / "r.yaml"
        stream = f'  "{name}": {{object: raw.a, mode: full-refresh, primary_key: id}}\n'
        file.write_text(f"source: LOCAL\ntarget: W\nstreams:\n{stream}")
        with pytest.raises(ReplicationError, match=r"last part of the path only"):
            read_replication(file, {})


class TestTogether:
    def test_files_of_all_formats_are_one_stream(self, bench: Bench) -> None:
        bench.write(row(1), "in/1.csv")
        bench.write(gzip.compress(row(2).encode()), "in/2.csv.gz")
        bench.write('{"id": 3, "a": "x", "b": "y"}\n', "in/3.jsonl")
        bench.write(gzip.compress(b'{"id": 4, "a": "x", "b": "y"}\n'), "in/4.ndjson.gz")
        duckdb.execute(f"COPY (SELECT 5 AS id, 'x' a, 'y' b) TO '{bench.root}/in/5.parquet'")
        book = Workbook()
        for cells in (["id", "a", "b"], [6, "x", "y"]):
            book.active.append(cells)
        book.save(bench.root / "in" / "6.xlsx")
        bench.write(row(7), "in/7.csv")
        extracted = bench.extract(name="in/")
        assert extracted.rows == [(number, "x", "y") for number in range(1, 8)]
        assert [each["rows"] for each in extracted.manifest.source["files"]] == [1] * 7

    def test_each_csv_file_has_its_own_order_encoding_line_ends_and_mark(self, bench: Bench) -> None:
        bench.write("\ufeffid,a,b\n1,é,y\n", "in/1.csv")
        bench.write("B,ID,A\r\ny,2,é\r\n", "in/2.csv")
        bench.write("\ufeffid,a,b\n3,é,y".encode("utf-16-le"), "in/3.csv")
        bench.write('"id","a","b"\n4,"é","y"', "in/4.csv")
        bench.write('id,a,b\n\n5,é,"y\r\nz\rz"\n\n', "in/5.csv")
        bench.write("id,a,b", "in/6.csv")
        bench.write(gzip.compress(b"\xef\xbb\xbfid,a,b\n7,\xc3\xa9,y\n"), "in/7.csv.gz")
        bench.write(gzip.compress(b"id,a,b\n8,\xc3\xa9,") + gzip.compress(b"y\n"), "in/8.csv.gz")
        bench.write('"i\nd",a,b\n', "in/.9.csv")
        extracted = bench.extract(name="in/")
        want = [(number, "é", "y\r\nz\rz" if number == 5 else "y") for number in (1, 2, 3, 4, 5, 7, 8)]
        assert extracted.rows == want
        assert [each["rows"] for each in extracted.manifest.source["files"]] == [1, 1, 1, 1, 1, 0, 1, 1]

    def test_options_hold_for_every_file(self, bench: Bench) -> None:
        bench.write("id;a;b\n1;NA;\n", "in/1.csv")
        bench.write("b;a;id\n;NA;2\n", "in/2.csv")
        bench.write('{"id": 3, "a": "NA", "b": ""}\n', "in/3.jsonl")
        options = {"delimiter": ";", "null_if": "NA", "empty_as_null": True}
        assert bench.extract(name="in/", options=options).rows == [(1, None, None), (2, None, None), (3, None, None)]

    def test_small_files_travel_together_and_large_ones_do_not(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(delimited, "_TOGETHER", 40_000)
        calls: list[str] = []
        start = delimited.SlingRun.start
        monkeypatch.setattr(
            delimited.SlingRun, "start", lambda self, *args: (calls.append(args[2]), start(self, *args))[1]
        )
        sizes = [10, 3000, 1000, 1000, 10, 3000, 1]
        starts = [0, *itertools.accumulate(sizes)]
        for number, (first, size) in enumerate(zip(starts, sizes, strict=False)):
            text = "".join(f"{each},x,{'r' * (each % 7)}\n" for each in range(first, first + size))
            bench.write(HEAD + text, f"in/{number}.csv")
        extracted = bench.extract(name="in/")
        assert numbers(extracted.rows) == list(range(sum(sizes)))
        assert 2 < len(calls) < len(sizes)

    def test_a_bad_file_is_named_and_nothing_is_loaded(self, bench: Bench) -> None:
        for number in range(5):
            bench.write(row(number), f"in/{number}.csv")
        bench.write(HEAD + '7,"x,y\n', "in/3.csv")
        with pytest.raises(DataError, match=rf"{bench.root}/in/3\.csv: the record that starts in line 2 is broken"):
            bench.extract(name="in/")
        assert not list(bench.lake.root.rglob("*.parquet"))
        assert not bench.work_folders()

    def test_an_empty_file_among_others_is_refused(self, bench: Bench) -> None:
        bench.write(row(1), "in/1.csv")
        bench.write("", "in/2.csv")
        with pytest.raises(DataError, match=r"2\.csv: the file is empty"):
            bench.extract(name="in/")

    @pytest.mark.parametrize("fault", ["not packed", "cut off", "only its start", "a wrong byte"])
    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_a_broken_gzip_file_is_refused(self, bench: Bench, fault: str, kind: str) -> None:
        plain = (row(1) if kind == "csv" else '{"id": 1}\n').encode()
        packed = bytearray(gzip.compress(plain))
        packed[-6] ^= 1
        data = {
            "not packed": plain,
            "cut off": gzip.compress(plain)[:-9],
            "only its start": b"\x1f\x8b",
            "a wrong byte": bytes(packed),
        }
        bench.write(data[fault], f"in/1.{kind}.gz")
        with pytest.raises(DataError, match=r"1\.\w+\.gz: not a whole gzip file"):
            bench.extract(name=f"in/1.{kind}.gz")

    def test_what_sling_changes_is_told_with_its_file(self, bench: Bench) -> None:
        bench.write(row(1), "in/1.csv")
        bench.write(HEAD + "2,x,y\n3,hello,y\n", "in/2.csv")
        standin = bench.standin("other_text", old="hello", new="bye")
        message = r"in/2\.csv: Sling changed the data: row 2: '3', 'hello', 'y' became '3', 'bye', 'y'"
        with pytest.raises(ExtractError, match=message):
            bench.extract(name="in/", sling_binary=standin)

    @pytest.mark.parametrize(
        ("behaviour", "message"),
        [
            ("one_row_less", r"2\.csv: Sling changed the data: row 1: '2', 'x', 'y' became nothing"),
            ("one_row_more", r"2\.csv: Sling changed the data: row 2: nothing became '2', 'x', 'y'"),
            ("rows_swapped", r"1\.csv: Sling changed the data: row 1: "),
        ],
    )
    def test_what_sling_loses_between_files_is_found_out(self, bench: Bench, behaviour: str, message: str) -> None:
        for number in (1, 2):
            bench.write(row(number), f"in/{number}.csv")
        with pytest.raises(ExtractError, match=message):
            bench.extract(name="in/", sling_binary=bench.standin(behaviour))


class TestPlaces:
    def files(self, bench: Bench) -> None:
        bench.write(HEAD + "1,x,y\n\nbad,x,y\n", "in/1.csv")
        bench.write('{"id": 2}\n\n{"id": "worse"}\n', "in/2.jsonl")
        duckdb.execute(f"COPY (SELECT unnest(['3', 'worst']) AS id, 'x' a, 'y' b) TO '{bench.root}/in/3.parquet'")
        book = Workbook()
        for cells in (["id", "a", "b"], [4], [], ["bad too"]):
            book.active.append(cells)
        book.save(bench.root / "in" / "4.xlsx")
        bench.write(HEAD + "2,x,y\n5,x,y\n", "in/5.csv")

    def test_a_message_names_file_row_and_line(self, bench: Bench) -> None:
        self.files(bench)
        with pytest.raises(DataError) as caught:
            bench.extract(name="in/")
        lines = str(caught.value).splitlines()
        assert lines[0] == f"{bench.root}/in: 5 rows do not fit the contract"
        assert lines[1:4] == [
            "  1.csv: row 2 (line 4): column id: 'bad' is not a bigint",
            "  2.jsonl: row 2 (line 3): column id: 'worse' is not a bigint",
            "  3.parquet: row 2: column id: 'worst' is not a bigint",
        ]

    def test_rejects_have_file_row_and_line(self, bench: Bench) -> None:
        self.files(bench)
        extracted = bench.extract(name="in/", meta={"on_bad_row": "reject"})
        assert numbers(extracted.rows) == [1, 2, 3, 4, 5]
        assert [(each["file"], each["row"], each["line"]) for each in extracted.rejects] == [
            ("1.csv", 2, 4),
            ("2.jsonl", 2, 3),
            ("3.parquet", 2, None),
            ("4.xlsx", 2, 4),
            ("5.csv", 1, 2),
        ]
        assert extracted.rejects[-1]["reasons"] == [
            {"column": "id", "value": "2", "expected": "a primary key, and row 1 of 2.jsonl has the same one"}
        ]

    def test_rows_of_thousands_of_lines_are_found(self, bench: Bench) -> None:
        for number in range(30):
            rows = [f"{number * 1000 + each}" for each in range(1000)]
            rows[number] = "bad"
            names = ("id", "a") if number % 3 else ("a", "id")
            fields = ["{},x" if number % 3 else "x,{}"] * 1000
            text = "".join(field.format(each) + "\n" for field, each in zip(fields, rows, strict=True))
            bench.write(",".join(names) + "\n" + text, f"in/{number:02}.csv")
        extracted = bench.extract(name="in/", columns={"id": "bigint", "a": "string"}, meta={"on_bad_row": "reject"})
        assert [(each["file"], each["row"]) for each in extracted.rejects] == [
            (f"{number:02}.csv", number + 1) for number in range(30)
        ]


class TestNewFilesOnly:
    INCREMENTAL = "incremental"

    def known(self, *extracted: Any) -> Reading:
        files = {(each["name"], each["sha256"]) for one in extracted for each in one.manifest.source["files"]}
        return Reading("incremental", known_files=frozenset(files))

    def test_files_that_were_loaded_are_left_out(self, bench: Bench) -> None:
        bench.write(row(1), "in/1.csv")
        first = bench.extract(name="in/", mode="incremental", reading=self.known())
        bench.write('{"id": 2}', "in/0.jsonl")
        (bench.root / "in" / "1.csv").touch()
        second = bench.extract(name="in/", mode="incremental", reading=self.known(first))
        assert (numbers(first.rows), numbers(second.rows)) == ([1], [2])
        third = bench.extract(name="in/", mode="incremental", reading=self.known(first, second))
        assert (third.rows, third.manifest.mode, third.manifest.source) == ([], "incremental", {"files": []})

    def test_an_old_file_that_comes_late_is_new(self, bench: Bench) -> None:
        import os

        first = bench.extract(row(1), mode="incremental", name="*.csv")
        os.utime(bench.write(row(2), "late.csv"), (0, 0))
        second = bench.extract(name="*.csv", mode="incremental", reading=self.known(first))
        assert numbers(second.rows) == [2]

    def test_a_known_name_with_other_content_is_read_again(self, bench: Bench) -> None:
        import os

        file = bench.write(row(1), "in/1.csv")
        first = bench.extract(name="in/", mode="incremental", reading=self.known())
        status = file.stat()
        bench.write(row(7), "in/1.csv")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert numbers(bench.extract(name="in/", mode="incremental", reading=self.known(first)).rows) == [7]

    def test_known_content_under_another_name_is_read(self, bench: Bench) -> None:
        bench.write(row(1), "in/1.csv")
        first = bench.extract(name="in/", mode="incremental", reading=self.known())
        bench.write(row(1), "in/2.csv")
        second = bench.extract(name="in/", mode="incremental", reading=self.known(first))
        assert [each["name"] for each in second.manifest.source["files"]] == ["2.csv"]

    def test_rows_of_one_key_in_two_new_files_count_once(self, bench: Bench) -> None:
        bench.write(HEAD + "1,x,old\n", "in/1.csv")
        bench.write(HEAD + "1,y,new\n", "in/2.csv")
        extracted = bench.extract(name="in/", mode="incremental", reading=self.known())
        assert (extracted.rows, extracted.manifest.rows_duplicate) == ([(1, "y", "new")], 1)

    def test_the_manifest_says_what_was_read(self, bench: Bench) -> None:
        data = row(1).encode()
        assert bench.extract(data).manifest.source == {
            "files": [{"name": "source.csv", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows": 1}]
        }


class TestChangesMeanwhile:
    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "xlsx"])
    @pytest.mark.parametrize("how", ["append", "replace", "remove"])
    def test_a_file_that_changes_after_the_look_is_refused(
        self, bench: Bench, kind: str, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = bench.root / f"source.{kind}"
        if kind == "parquet":
            duckdb.execute(f"COPY (SELECT 1 AS id, 'x' a, 'y' b) TO '{file}'")
        elif kind == "xlsx":
            book = Workbook()
            for cells in (["id", "a", "b"], [1, "x", "y"]):
                book.active.append(cells)
            book.save(file)
        else:
            file.write_text(row(1) if kind == "csv" else '{"id": 1}\n')
        data = file.read_bytes()
        accept = found.Seen.check

        def change(self: found.Seen) -> None:
            """After the cast has begun; the first check belongs to the look."""
            if how == "append":
                file.write_bytes(data + b"\n")
            elif how == "replace":
                other = file.with_suffix(".new")
                other.write_bytes(data)
                other.rename(file)
            else:
                file.unlink(missing_ok=True)
            accept(self)

        look = found.look

        def looked(each: Found) -> found.Seen:
            seen = look(each)
            monkeypatch.setattr(found.Seen, "check", change)
            return seen

        monkeypatch.setattr("include.elt.sources.files.look", looked)
        with pytest.raises(ExtractError, match=rf"source\.{kind}: the file was changed while it was read") as caught:
            bench.extract(name=f"source.{kind}")
        assert not caught.value.final
        assert not list(bench.lake.root.rglob("*.parquet"))

    @pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet", "xlsx"])
    def test_a_file_that_goes_away_before_it_is_read(
        self, bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = bench.write(b"something", f"source.{kind}")
        look = found.look

        def looked(each: Found) -> found.Seen:
            seen = look(each)
            file.unlink()
            return seen

        monkeypatch.setattr("include.elt.sources.files.look", looked)
        with pytest.raises(ExtractError, match=r"changed while it was read|no such file"):
            bench.extract(name=f"source.{kind}")

    def test_a_file_that_may_not_be_read(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> Any:
            raise PermissionError(13, "Permission denied")

        bench.write(row(1))
        monkeypatch.setattr(found.hashlib, "file_digest", refuse)
        with pytest.raises(ExtractError, match=r"source\.csv: cannot be read: Permission denied") as caught:
            bench.extract()
        assert caught.value.final


class TestElsewhere:
    """A source that brings its files to the disk first."""

    def test_its_names_are_used(self, bench: Bench) -> None:
        def find(folder: Path, reading: Reading) -> list[Found]:
            assert not list(folder.iterdir())
            files = []
            for number, name in enumerate(["2024/a.csv", "2024/b.csv"], 1):
                path = folder / str(number)
                path.write_text(row(number) + ("x,,\n" if number == 2 else ""))
                files.append(Found(path, name, f"s3://bucket/{name}", {"etag": f"e{number}"}))
            return files

        extracted = bench.extract(name="*.csv", find=find, meta={"on_bad_row": "reject"})
        assert numbers(extracted.rows) == [1, 2]
        assert [each["name"] for each in extracted.manifest.source["files"]] == ["2024/a.csv", "2024/b.csv"]
        assert [each["etag"] for each in extracted.manifest.source["files"]] == ["e1", "e2"]
        assert extracted.rejects[0]["file"] == "2024/b.csv"

    def test_messages_use_its_label(self, bench: Bench) -> None:
        def find(folder: Path, reading: Reading) -> list[Found]:
            (folder / "1").write_text("id\n")
            return [Found(folder / "1", "a.csv", "s3://bucket/a.csv")]

        with pytest.raises(DataError, match=re.escape("s3://bucket/a.csv: line 1: ")):
            bench.extract(find=find)

    def test_two_files_of_one_name_are_refused(self, bench: Bench) -> None:
        def find(folder: Path, reading: Reading) -> list[Found]:
            return [Found(bench.write(row(1)), "a.csv"), Found(bench.write(row(2)), "a.csv")]

        with pytest.raises(DataError, match=r"a\.csv: found twice"):
            bench.extract(find=find)


class TestSchemaChange:
    COLUMNS = {"id": "bigint", "a": "string", "b": "string"}  # noqa: RUF012
    IGNORE = {"on_schema_change": "ignore"}  # noqa: RUF012
    MORE = 'my col,ID,1st,a,my col\n"x\ny",1,"2,""",é,3\n,2,,"p\r\nq",\n'

    def test_ignore_leaves_out_what_the_contract_does_not_have(self, bench: Bench) -> None:
        bench.write(self.MORE, "in/1.csv")
        bench.write("id,a,b\n3,x,y\n", "in/2.csv")
        bench.write('{"id": 4, "x": [1], "a": "p"}\n', "in/3.jsonl")
        duckdb.execute(f"COPY (SELECT 5 AS id, 'x' c) TO '{bench.root}/in/4.parquet'")
        extracted = bench.extract(name="in/", meta=self.IGNORE)
        assert extracted.rows == [
            (1, "é", None),
            (2, "p\r\nq", None),
            (3, "x", "y"),
            (4, "p", None),
            (5, None, None),
        ]

    def test_ignore_says_so(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("INFO"):
            bench.extract("id,a,c\n1,x,y\n", meta=self.IGNORE)
        assert "source.csv: line 1: left out, because the contract does not have it: c" in caplog.text
        assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [
            f"{bench.file}: line 1: no b; it is NULL"
        ]

    def test_a_merge_keeps_what_the_raw_table_has_of_a_missing_column(self, bench: Bench) -> None:
        reading = Reading("incremental")
        bench.write("id,a\n1,x\n", "in/1.csv")
        extracted = bench.extract(name="in/", mode="incremental", meta=self.IGNORE, reading=reading)
        assert [name for name, _ in extracted.manifest.columns] == ["id", "a"]
        bench.write("id,b\n2,y\n", "in/2.csv")
        extracted = bench.extract(name="in/", mode="incremental", meta=self.IGNORE, reading=reading)
        assert extracted.rows == [(1, "x", None), (2, None, "y")]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ("a,b\nx,y\n", "no 'id'"),
            ("id,a,A\n1,x,y\n", "a is there twice"),
            ("id;a;b\n1;x;y\n", "separated by ';'"),
        ],
    )
    def test_even_ignore_has_its_limits(self, bench: Bench, data: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            bench.extract(data, meta=self.IGNORE)

    @pytest.mark.parametrize("policy", ["fail", "add"])
    def test_the_others_refuse(self, bench: Bench, policy: str) -> None:
        with pytest.raises(DataError, match=r"unknown 'c'.*sources\.yml"):
            bench.extract("id,a,b,c\n1,x,y,z\n", meta={"on_schema_change": policy})

    def test_a_record_of_another_width_is_refused_as_ever(self, bench: Bench) -> None:
        with pytest.raises(DataError, match="line 3: 3 fields, expected 5"):
            bench.extract("id,a,b,c,d\n1,x,y,z,\n1,x,y\n", meta=self.IGNORE)
