"""CSV files of every kind through the real Sling: what is in the file arrives, or an error says where it is bad."""

from __future__ import annotations

import codecs

import pytest

from include.elt.errors import DataError, ExtractError
from tests.support.elt import Bench, Row

HEAD = "id,a,b\n"
MANY = "".join(f"{number},x,y\n" for number in range(1, 2501))
"""More rows than Sling looks at before it decides what the file is like (900), and more than it buffers (2000)."""

GOOD: dict[str, tuple[str | bytes, list[Row]]] = {
    "header only": (HEAD, []),
    "header only, no line end": ("id,a,b", []),
    "no line end after the last record": (HEAD + "1,x,y", [(1, "x", "y")]),
    "columns in another order": ("b,id,a\ny,1,x\n", [(1, "x", "y")]),
    "header in another case": ("ID,A,b\n1,x,y\n", [(1, "x", "y")]),
    "quoted header": ('"id","a","b"\n1,x,y\n', [(1, "x", "y")]),
    "byte order mark": (codecs.BOM_UTF8 + b"id,a,b\n1,x,y\n", [(1, "x", "y")]),
    "byte order mark and quoted header": (codecs.BOM_UTF8 + b'"id",a,b\n1,x,y\n', [(1, "x", "y")]),
    "CRLF line ends": ("id,a,b\r\n1,x,y\r\n2,p,q\r\n", [(1, "x", "y"), (2, "p", "q")]),
    "CRLF and LF mixed": ("id,a,b\r\n1,x,y\n2,p,q\r\n", [(1, "x", "y"), (2, "p", "q")]),
    "quotes": (HEAD + '1,"say ""hi""",","\n2,"""",""""""\n', [(1, 'say "hi"', ","), (2, '"', '""')]),
    "quote inside an unquoted field": (HEAD + '1,5" pipe,6"\n', [(1, '5" pipe', '6"')]),
    "LF in quotes": (HEAD + '1,"p\nq","\n"\n', [(1, "p\nq", "\n")]),
    "CR in quotes": (HEAD + '1,"p\rq","\r"\n', [(1, "p\rq", "\r")]),
    "CRLF in quotes": (HEAD + '1,"p\r\nq","\r\n"\n', [(1, "p\r\nq", "\r\n")]),
    "CRLF in quotes and as line end": ('id,a,b\r\n1,"p\r\nq","r\ns\rt"\r\n', [(1, "p\r\nq", "r\ns\rt")]),
    "UTF-16 LE": ('\ufeffid,a,b\n1,é👍,"\r\n"\n'.encode("utf-16-le"), [(1, "é👍", "\r\n")]),
    "UTF-16 BE": ('\ufeffid,a,b\r\n1,é👍,"p\nq"\r\n'.encode("utf-16-be"), [(1, "é👍", "p\nq")]),
    "blank lines": (HEAD + "\n1,x,y\n\n\r\n2,p,q\n\n", [(1, "x", "y"), (2, "p", "q")]),
    "NUL character": (HEAD + "1,p\0q,\0\n", [(1, "p\0q", "\0")]),
    "backslashes are text": (HEAD + "1,\\,\\n\n2,\\\\,p\\\n", [(1, "\\", "\\n"), (2, "\\\\", "p\\")]),
    "more rows than Sling samples": (HEAD + MANY, [(number, "x", "y") for number in range(1, 2501)]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_file_arrives_as_it_is(bench: Bench, kind: str) -> None:
    data, rows = GOOD[kind]
    extracted = bench.extract(data)
    assert extracted.rows == rows
    assert (extracted.manifest.rows_read, extracted.manifest.rows_rejected) == (len(rows), 0)
    assert extracted.rejects == []
    assert extracted.manifest.source["files"][0]["bytes"] == bench.file.stat().st_size


BAD: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("is empty", "id, a, b")),
    "only blank lines": ("\n\n", ("line 1", "'id'")),
    "no header": ("1,x,y\n2,p,q\n", ("line 1", "'1'", "'x'")),
    "column renamed": ("id,a,c\n1,x,y\n", ("line 1", "no 'b'", "unknown 'c'")),
    "column dropped": ("id,a\n1,x\n", ("line 1", "no 'b'")),
    "column added": ("id,a,b,c\n1,x,y,z\n", ("line 1", "unknown 'c'", "sources.yml")),
    "column twice": ("id,a,b,A\n1,x,y,z\n", ("line 1", "a is there twice")),
    "header with a space": ("id, a,b\n1,x,y\n", ("line 1", "unknown ' a'")),
    "semicolons": ("id;a;b\n1;x;y\n", ("line 1", "delimiter ','", "separated by ';'", "source_options.delimiter")),
    "tabs": ("id\ta\tb\n1\tx\ty\n", ("line 1", "separated by '\\t'")),
    "pipes": ("id|a|b\n1|x|y\n", ("line 1", "separated by '|'")),
    "cut in mid-record": (HEAD + "1,x,y\n2,p", ("line 3", "2 fields, expected 3", "'2', 'p'")),
    "cut inside quotes": (HEAD + '1,x,y\n2,"p', ("starts in line 3", "broken")),
    "cut inside a character": (HEAD.encode() + b"1,x,y\n2,p,\xf0\x9f", ("not valid text", "line 3", "byte 5")),
    "extra field early": (HEAD + "1,x,y\n2,p,q,r\n3,x,y\n", ("line 3", "4 fields, expected 3", "'r'")),
    "missing field early": (HEAD + "1,x,y\n2,p\n3,x,y\n", ("line 3", "2 fields, expected 3")),
    "extra field late": (HEAD + MANY + "0,p,q,r\n" + MANY, ("line 2502", "4 fields, expected 3")),
    "missing field late": (HEAD + MANY + "0,p\n" + MANY, ("line 2502", "2 fields, expected 3")),
    "unquoted delimiter": (HEAD + "1,Smith, John,y\n", ("line 2", "4 fields")),
    "unclosed quote": (HEAD + '1,"x,y\n2,p,q\n3,p,q\n', ("starts in line 2", "broken", "not closed")),
    "unclosed quote late": (HEAD + MANY + '0,"p,q\n' + MANY, ("starts in line 2502", "broken")),
    "text after a closing quote": (HEAD + '1,x,y\n2,"p"q,r\n', ("starts in line 3", "broken")),
    "invalid UTF-8": (HEAD.encode() + b"1,x,y\n2,caf\xe9,z\n", ("line 3", "byte 6", "xe9", "utf-8")),
    "invalid UTF-8 late": ((HEAD + MANY).encode() + b"0,caf\xe9,z\n", ("line 2502", "byte 6")),
    "UTF-16 of odd length": ("\ufeffid,a,b\n1,x,y\n".encode("utf-16-le") + b"2", ("utf-16", "incomplete")),
    "UTF-16 without a mark": ("id,a,b\n1,x,y\n".encode("utf-16-le"), ("line 1", "id")),
    "CR line ends": ("id,a,b\r1,x,y\r", ("line 1", "broken")),
    "a binary file": (b"PK\x03\x04\x14\x00\x06\x00\xff\xfe,\x00", ("line 1", "not valid text")),
    "wrong line after newlines in quotes": (HEAD + '1,"p\n\nq",y\n\n2,p\n', ("line 6", "2 fields")),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_where_it_is_bad(bench: Bench, kind: str) -> None:
    data, fragments = BAD[kind]
    with pytest.raises(DataError) as caught:
        bench.extract(data)
    message = str(caught.value)
    assert str(bench.file) in message
    for fragment in fragments:
        assert fragment in message
    assert not list(bench.lake.root.rglob("*.parquet"))
    assert not bench.work_folders()


def test_a_missing_file_is_refused(bench: Bench) -> None:
    with pytest.raises(DataError, match=r"source\.csv: no such file"):
        bench.extract()


def test_a_folder_is_no_file(bench: Bench) -> None:
    bench.file.mkdir()
    with pytest.raises(DataError, match=r"source\.csv: no such file"):
        bench.extract()


@pytest.mark.parametrize(
    ("data", "delimiter"),
    [('id;a;b\n1;x,y;"p;q"\n', ";"), ('id\ta\tb\n1\tx,y\t"p\tq"\n', "\t"), ('id|a|b\n1|x,y|"p|q"\n', "|")],
    ids=["semicolon", "tab", "pipe"],
)
def test_another_delimiter(bench: Bench, data: str, delimiter: str) -> None:
    assert bench.extract(data, options={"delimiter": delimiter}).rows == [(1, "x,y", f"p{delimiter}q")]


@pytest.mark.parametrize(
    ("name", "text"),
    [("plain", "x" * 3_000_000), ("quotes and two bytes", 'é"' * 1_500_000), ("line breaks", "p\r\n" * 200_000)],
    ids=lambda value: value if len(value) < 100 else "",
)
def test_a_field_of_megabytes(bench: Bench, name: str, text: str) -> None:
    field = '"' + text.replace('"', '""') + '"'
    assert bench.extract(f"{HEAD}1,{field},y\n2,p,q\n").rows == [(1, text, "y"), (2, "p", "q")], name


def test_a_field_beyond_the_limit_is_refused(bench: Bench) -> None:
    with pytest.raises(DataError, match="starts in line 2 is broken: field larger than field limit"):
        bench.extract(HEAD + "1," + "x" * (64 * 1024 * 1024 + 1) + ",y\n")


class TestASingleColumn:
    def test_arrives(self, bench: Bench) -> None:
        extracted = bench.extract('a\nx\n"y\nz"\n', columns={"a": "string"}, key=("a",))
        assert extracted.rows == [("x",), ("y\nz",)]

    @pytest.mark.parametrize("line", ["", '""'], ids=["blank line", "quoted empty"])
    def test_cannot_tell_an_empty_field_from_a_blank_line(self, bench: Bench, line: str) -> None:
        with pytest.raises(DataError, match="line 3"):
            bench.extract(f"a\nx\n{line}\ny\n", columns={"a": "string"}, key=("a",))

    def test_takes_any_delimiter_as_text(self, bench: Bench) -> None:
        assert bench.extract("a\nx;y\n", columns={"a": "string"}, key=("a",)).rows == [("x;y",)]


@pytest.mark.parametrize(
    "folder", ["my data", "50%", "a%20b", "a#b", "o'brien", "a[b]", "ünï", "id=5", "a=b&c", "locked", "$HOME"]
)
def test_any_folder_name_will_do(tmp_path: pytest.TempPathFactory, bench: Bench, folder: str) -> None:
    root = bench.root / folder
    root.mkdir()
    odd = Bench(root)
    extracted = odd.extract(HEAD + "1,x,y\n")
    odd.warehouse().load(extracted.manifest, extracted.folder)
    assert extracted.rows == odd.query("SELECT * FROM raw.orders") == [(1, "x", "y")]


@pytest.mark.parametrize("folder", ["a*b", "a?b", "a\\b"])
def test_a_folder_that_sling_cannot_read_is_an_error(bench: Bench, folder: str) -> None:
    root = bench.root / folder
    root.mkdir()
    with pytest.raises(ExtractError, match="Sling failed"):
        Bench(root).extract(HEAD + "1,x,y\n")


def test_columns_may_have_any_name_that_a_contract_allows(bench: Bench) -> None:
    names = [
        "_row",
        "row",
        "first_row",
        "text",
        "numbered",
        "faulty",
        "col",
        "val",
        "expected",
        "select",
        "null",
        "id2",
    ]
    columns = {"id": "bigint", **dict.fromkeys(names, "string")}
    row = ",".join(names)
    extracted = bench.extract(f"id,{row}\n1,{row}\n1,{row}\nx,{row}\n", columns=columns, meta={"on_bad_row": "reject"})
    assert extracted.rows == [(1, *names)]
    assert [reject["row"] for reject in extracted.rejects] == [2, 3]


def test_two_extractions_of_a_file_give_the_same_bytes(bench: Bench) -> None:
    data = HEAD + "".join(f'{number},"text {number % 7}",\n' for number in range(3000))
    first, second = bench.extract(data), bench.extract(data)
    assert [file.sha256 for file in first.manifest.files] == [file.sha256 for file in second.manifest.files]
    assert first.manifest.source == second.manifest.source
    assert first.manifest.schema_hash == second.manifest.schema_hash
    assert first.folder != second.folder


def test_a_dry_run_checks_everything_and_leaves_nothing(bench: Bench) -> None:
    bench.write(HEAD + "1,x,y\n")
    manifest, folder = bench.extraction().run("manual__1", dry_run=True)
    assert (manifest.rows, folder) == (1, None)
    assert [path for path in bench.lake.root.rglob("*") if path.is_file()] == []
    bench.write(HEAD + "one,x,y\n")
    with pytest.raises(DataError, match="column id: 'one'"):
        bench.extraction().run("manual__2", dry_run=True)
