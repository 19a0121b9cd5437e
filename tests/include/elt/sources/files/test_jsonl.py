"""JSON lines: every value arrives as it is written, or an error names file, line and key."""

from __future__ import annotations

import json
import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.elt.errors import DataError
from include.elt.sources.files import jsonl
from tests.support.elt import Bench

NAME = "orders.jsonl"
ANY = {"id": "bigint", "v": "string"}


def values(bench: Bench, *texts: str, data_type: str = "string", **what: Any) -> list[Any]:
    """What becomes of values, given as JSON text."""
    bench.write("".join(f'{{"id":{number},"v":{text}}}\n' for number, text in enumerate(texts)), NAME)
    return [row[1] for row in bench.extract(name=NAME, columns={"id": "bigint", "v": data_type}, **what).rows]


# as it is written in the file → as it arrives in a text column
TEXTS: dict[str, str | None] = {
    "null": None,
    "true": "true",
    "false": "false",
    "0": "0",
    "-0": "-0",
    "-0.0": "-0.0",
    "1.10": "1.10",
    "1e5": "1e5",
    "1E+400": "1E+400",
    "0.1000000000000000055511151231257827": "0.1000000000000000055511151231257827",
    "9007199254740993": "9007199254740993",
    "12345678901234567890": "12345678901234567890",
    "1" * 5000: "1" * 5000,
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    '""': "",
    '"null"': "null",
    '"NULL"': "NULL",
    '" "': " ",
    '"1.10"': "1.10",
    r'"\"\\\/\b\f\n\r\t"': '"\\/\b\f\n\r\t',
    r'"a\r\nb\rc"': "a\r\nb\rc",
    r'"\u0000"': "\0",
    r'"\ud83d\udc4d \u00e9"': "👍 é",
    '"\u2028\u0085\x7f\ufeff"': "\u2028\u0085\x7f\ufeff",
    '","': ",",
    '"é👍"': "é👍",
    "[]": "[]",
    "{}": "{}",
    '[1, 1.10, 12345678901234567890, "1.10", true, null, NaN, {"b": 1, "a": [[]]}]': (
        '[1,1.10,12345678901234567890,"1.10",true,null,NaN,{"b":1,"a":[[]]}]'
    ),
    r'{"z": "\"\n\u00e9", "\"k": {"": 1e2}}': r'{"z":"\"\né","\"k":{"":1e2}}',
}


def test_awkward_values_arrive_as_they_are_written(bench: Bench) -> None:
    assert values(bench, *TEXTS) == list(TEXTS.values())


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
def test_each_of_them_alone_too(bench: Bench, text: str) -> None:
    assert values(bench, text) == [TEXTS[text]]


def test_numbers_fit_their_types_exactly(bench: Bench) -> None:
    bench.write('{"id":9007199254740993,"d":1.10,"f":0.1,"b":true,"t":"2024-01-02","s":1.50}\n', NAME)
    columns = {
        "id": "bigint",
        "d": "decimal(20,2)",
        "f": "double",
        "b": "boolean",
        "t": "date",
        "s": "string",
    }
    assert bench.extract(name=NAME, columns=columns).rows == [
        (9007199254740993, Decimal("1.10"), 0.1, True, date(2024, 1, 2), "1.50")
    ]


@pytest.mark.parametrize(
    ("text", "data_type"),
    [
        ("9223372036854775808", "bigint"),
        ("2.7", "int"),
        ("1e2", "int"),
        ("1.005", "decimal(10,2)"),
        ('"x"', "double"),
        ("1e999", "double"),
        ("[1]", "int"),
        ("{}", "date"),
        ("1704067200", "timestamp"),
        ("2", "boolean"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_line(bench: Bench, text: str, data_type: str) -> None:
    with pytest.raises(DataError, match=r"row 2 \(line 2\): column v: .* is not an? "):
        values(bench, "null", text, data_type=data_type)


def test_an_empty_text_is_null_in_every_other_type(bench: Bench) -> None:
    assert values(bench, '""', '"5"', data_type="int") == [None, 5]


def test_null_if_and_empty_as_null(bench: Bench) -> None:
    options = {"null_if": "-9", "empty_as_null": True}
    assert values(bench, '"-9"', "-9", '""', '"-9 "', options=options) == [None, None, None, "-9 "]


def test_keys_may_be_missing_in_any_order_and_case(bench: Bench) -> None:
    bench.write('{"V": "x", "ID": 1}\n{"id": 2}\n{"Id": 3, "v": "y"}\n', NAME)
    assert bench.extract(name=NAME, columns=ANY).rows == [(1, "x"), (2, None), (3, "y")]


def test_a_column_that_no_row_has_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.write('{"id": 1}\n', NAME)
    assert bench.extract(name=NAME, columns=ANY).rows == [(1, None)]
    assert "orders.jsonl: no v; it is NULL" in caplog.text


GOOD = {
    "empty": (b"", []),
    "blank lines": (b'\n{"id":1}\n\r\n \t\n{"id":2}\n\n', [1, 2]),
    "no line end": (b'{"id":1}', [1]),
    "CRLF": (b'{"id":1}\r\n{"id":2}\r\n', [1, 2]),
    "byte order mark": (b'\xef\xbb\xbf{"id":1}\n', [1]),
    "spaces": (b' {"id" : 1 } \n', [1]),
    "separators of other kinds": ('{"id":1,"v":"a\u2028b\x85c"}\n{"id":2}\n'.encode(), [1, 2]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_file_is_read(bench: Bench, kind: str) -> None:
    data, ids = GOOD[kind]
    bench.write(data, NAME)
    extracted = bench.extract(name=NAME, columns=ANY)
    assert [row[0] for row in extracted.rows] == ids
    assert extracted.manifest.source["files"][0]["rows"] == len(ids)


BAD: dict[str, tuple[bytes, str]] = {
    "not JSON": (b'{"id":1}\n{"id":2,}\n', r"line 2: not JSON: .* at character 9"),
    "cut off": (b'{"id":1}\n{"id":2,"v":"x', "line 2: not JSON: Unterminated string"),
    "two objects": (b'{"id":1} {"id":2}\n', r"line 1: not JSON: more after the value at character 9"),
    "over several lines": (b'{\n"id":1\n}\n', "line 1: not JSON"),
    "an array": (b'[{"id":1}]\n', r"line 1: an object is needed, got .*a JSON array is no JSON lines"),
    "a number": (b'{"id":1}\n7\n', "line 2: an object is needed, got '7'"),
    "null": (b"null\n", "line 1: an object is needed, got 'null'"),
    "bad UTF-8": (b'{"id":1}\n{"id":2,"v":"caf\xe9"}\n', r"line 2: byte 17 of the line: .*xe9.* is not valid UTF-8"),
    "UTF-16": ('\ufeff{"id":1}\n'.encode("utf-16-le"), "line 1: byte 1 of the line"),
    "a key twice": (b'{"id":1,"v":1,"v":2}\n', "line 1: the key v is there twice"),
    "a key twice, nested": (b'{"id":1,"v":{"x":[{"k":1,"k":1}]}}\n', "line 1: the key k is there twice"),
    "a key in two spellings": (b'{"id":0}\n{"id":1,"v":null,"V":2}\n', "line 2: the column v is there twice: v, V"),
    "an unknown key": (b'{"id":1}\n{"id":2,"w":1}\n', r"line 2: unknown key 'w'; expected the columns id, v.*sources"),
    "half a character": (b'{"id":1,"v":"\\ud83d"}\n', r"line 1: column 'v': half a character"),
    "half a character, nested": (b'{"id":1,"v":["\\udc00"]}\n', r"line 1: column 'v': half a character"),
    "half a character as a key": (b'{"id":1,"v":{"\\udc00":1}}\n', r"line 1: column 'v': half a character"),
    "a tab in a text": (b'{"id":1,"v":"a\tb"}\n', "line 1: not JSON: Invalid control character"),
    "nested too deeply": (b'{"id":1,"v":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1: nested too deeply"),
    "single quotes": (b"{'id':1}\n", "line 1: not JSON"),
    "CSV": (b"id,v\n1,x\n", "line 1: not JSON"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_where_it_is_bad(bench: Bench, kind: str) -> None:
    data, message = BAD[kind]
    bench.write(data, NAME)
    with pytest.raises(DataError, match=rf"orders\.jsonl: {message}"):
        bench.extract(name=NAME, columns=ANY)
    assert not list(bench.lake.root.rglob("*.parquet"))


def test_ignore_leaves_unknown_keys_out_but_not_twins(bench: Bench) -> None:
    bench.write('{"id":1,"x":{"y":1},"X":2,"v":[1.0]}\n', NAME)
    assert bench.extract(name=NAME, columns=ANY, meta={"on_schema_change": "ignore"}).rows == [(1, "[1.0]")]
    bench.write('{"id":1,"ID":1}\n', NAME)
    with pytest.raises(DataError, match="the column id is there twice"):
        bench.extract(name=NAME, columns=ANY, meta={"on_schema_change": "ignore"})


def test_a_line_beyond_the_limit_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LARGEST_FIELD", 1000)
    assert values(bench, f'"{"x" * 900}"') == ["x" * 900]
    with pytest.raises(DataError, match="line 1: longer than 1,000 bytes"):
        values(bench, f'"{"x" * 1000}"')


def test_a_value_of_megabytes(bench: Bench) -> None:
    text = 'é"\r\n,' * 1_000_000
    assert values(bench, json.dumps(text, ensure_ascii=False), "1") == [text, "1"]


def test_more_kinds_of_keys_than_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_KEYS", 3)
    bench.write('{"id":1,"a":1}\n{"id":2,"b":2}\n{"id":3,"c":3}\n', NAME)
    with pytest.raises(DataError, match="line 3: more than 3 different keys"):
        bench.extract(name=NAME, columns=ANY, meta={"on_schema_change": "ignore"})


SCALARS = st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False)
SCALARS |= st.text(st.characters(exclude_categories=["Cs"])) | st.text('"\\,\r\n\0', max_size=6)
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=8
)


def spelt(value: Any) -> str:
    """A value as JSON text, its decimals with all their digits; nested values as they are to arrive."""
    if isinstance(value, Decimal):
        return str(value).replace("E+", "e+")
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{spelt(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spelt, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(given_values=st.lists(NESTED, min_size=1, max_size=20), escaped=st.booleans())
def test_any_value_arrives_as_it_is_written(given_values: list[Any], escaped: bool) -> None:
    try:
        texts = [spelt(value) for value in given_values]
        "".join(texts).encode()
    except UnicodeEncodeError:
        return
    expected = [
        None if value is None else value if isinstance(value, str) else text
        for value, text in zip(given_values, texts, strict=True)
    ]
    if escaped:  # the same texts, every character beyond ASCII as \uXXXX
        texts = [
            json.dumps(value) if isinstance(value, str) else text
            for value, text in zip(given_values, texts, strict=True)
        ]
    with tempfile.TemporaryDirectory() as folder:
        assert values(Bench(Path(folder)), *texts) == expected
