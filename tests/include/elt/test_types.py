"""The types of a contract: text becomes exactly the value it says, or it is a bad value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.elt.contract import Column
from tests.support.elt import Bench

BIG = 2**63

GOOD: dict[str, dict[str, Any]] = {
    "tinyint": {"127": 127, "-128": -128, "+5": 5, "0": 0, "-0": 0, " 12 ": 12, "12.0": 12, "007": 7},
    "smallint": {"32767": 32767, "-32768": -32768},
    "int": {"2147483647": 2**31 - 1, "-2147483648": -(2**31), "12.": 12},
    "integer": {"2147483647": 2**31 - 1, "-2147483648": -(2**31)},
    "bigint": {
        str(BIG - 1): BIG - 1,
        str(-BIG): -BIG,
        "9223372036854775807.000": BIG - 1,
        "9007199254740993": 2**53 + 1,
    },
    "decimal(10,2)": {
        "1.10": Decimal("1.10"),
        "99999999.99": Decimal("99999999.99"),
        "-99999999.99": Decimal("-99999999.99"),
        "1.100000": Decimal("1.10"),
        ".5": Decimal("0.50"),
        "5.": Decimal("5.00"),
        " 7 ": Decimal("7.00"),
        "+0.01": Decimal("0.01"),
    },
    "decimal(38,0)": {"9" * 38: Decimal("9" * 38), "-" + "9" * 38: Decimal("-" + "9" * 38)},
    "decimal(38,10)": {f"{'8' * 28}.{'7' * 10}": Decimal(f"{'8' * 28}.{'7' * 10}")},
    "double": {
        "0.1": 0.1,
        "1e5": 1e5,
        "2.5E-3": 0.0025,
        "-1.7976931348623157e308": -1.7976931348623157e308,
        "5e-324": 5e-324,
        "0e-999": 0.0,
        "-0.000": 0.0,
        ".5": 0.5,
        "inf": float("inf"),
        "-Infinity": -float("inf"),
    },
    "boolean": {
        **dict.fromkeys(["true", "TRUE", "True", "t", "yes", "Y", "1", " true "], True),
        **dict.fromkeys(["false", "FALSE", "f", "no", "n", "0"], False),
    },
    "date": {
        "2024-02-29": date(2024, 2, 29),
        "0001-01-01": date(1, 1, 1),
        "9999-12-31": date(9999, 12, 31),
        "1582-10-10": date(1582, 10, 10),
        " 2024-01-01 ": date(2024, 1, 1),
    },
    "timestamp_ntz": {
        "2024-01-02 03:04:05.123456": datetime(2024, 1, 2, 3, 4, 5, 123456),
        "2024-01-02T03:04:05": datetime(2024, 1, 2, 3, 4, 5),
        "2024-01-02 03:04": datetime(2024, 1, 2, 3, 4),
        "2024-01-02": datetime(2024, 1, 2),
        "2024-01-02 03:04:05.1234560000": datetime(2024, 1, 2, 3, 4, 5, 123456),
        "2024-01-02 03:04:05.1": datetime(2024, 1, 2, 3, 4, 5, 100000),
        "0001-01-01 00:00:00": datetime(1, 1, 1),
        "9999-12-31 23:59:59.999999": datetime(9999, 12, 31, 23, 59, 59, 999999),
    },
    "timestamp": {
        "2024-01-02 03:04:05": "2024-01-02 03:04:05+00",
        "2024-01-02 03:04:05Z": "2024-01-02 03:04:05+00",
        "2024-01-02T03:04:05.123456+02:00": "2024-01-02 01:04:05.123456+00",
        "2024-01-02 03:04:05+02": "2024-01-02 01:04:05+00",
        "2024-01-02 03:04:05-0330": "2024-01-02 06:34:05+00",
        "2024-03-31 02:30:00": "2024-03-31 02:30:00+00",
        "2024-01-02": "2024-01-02 00:00:00+00",
        "0001-01-01 00:00:00Z": "0001-01-01 00:00:00+00",
        "9999-12-31 23:59:59.999999Z": "9999-12-31 23:59:59.999999+00",
    },
    "varchar(3)": {"abc": "abc", "äöü": "äöü", "👍👍👍": "👍👍👍", " x ": " x ", "": "", "\n\n\n": "\n\n\n"},
    "string": {"0012": "0012", " ": " ", "": "", "x" * 500: "x" * 500},
}

# fmt: off
BAD: dict[str, list[str]] = {
    "tinyint": ["128", "-129", "1.5", "x"],
    "smallint": ["32768", "-32769"],
    "int": ["2147483648", "-2147483649"],
    "integer": ["2147483648", "1e2"],
    "bigint": [
        "2.7", "2.0000000001", "1e5", str(BIG), str(-BIG - 1), "1_000", "1,000", "0x10", "--1", "- 1", "1 2", "x", ".",
        "\t1", "1\n", "NULL", "\\N", "NaN", "true", "\uff11", "+", " ",
    ],
    "decimal(10,2)": ["1.005", "1.001", "1e5", "100000000", "-100000000.00", "1,10", "1_0", "NaN", ".", "+.", "x"],
    "decimal(38,0)": ["1" + "0" * 38, "0.5", "1.0000000000000000000000000000000000000001"],
    "decimal(38,10)": [f"{'9' * 29}.0", "0.00000000001"],
    "double": ["1e309", "-1e309", "1e-400", "1_000", "1,5", "0x10", "1e", ".", "1f", "\t1", "infinite", "nano", "--1"],
    "boolean": ["on", "2", "1.0", "ja", "truee", "-1"],
    "date": [
        "2018-02-30", "2023-02-29", "2024-13-01", "2024-00-10", "2024-1-1", "24-01-01", "01/02/2024", "20240101",
        "2024-01-01 00:00:00", "epoch", "infinity", "0000-01-01", "10000-01-01", "-2024-01-01", "today",
    ],
    "timestamp_ntz": [
        "2024-01-02 03:04:05.1234567", "2024-01-02 03:04:05Z", "2024-01-02 03:04:05+02", "2024-02-30 00:00:00",
        "2024-01-02 24:00:00", "2024-01-02 23:59:60", "2024-01-02 25:00", "infinity", "epoch", "now",
        "1704164645", "02/01/2024 03:04", "0000-01-01 00:00:00", "2024-01-02  03:04:05",
    ],
    "timestamp": [
        "2024-01-02 03:04:05.1234567+02", "2024-01-02 03:04:05+99", "2024-01-02 03:04:05+02:75", "infinity",
        "2024-01-02 24:00:00Z", "2024-01-02 03:04:05 Europe/Berlin", "2024-01-02 03:04:05 CET", "epoch",
        "0001-01-01 00:00:00+14", "9999-12-31 23:59:59-12", "2024-01-02+02",
    ],
    "varchar(3)": ["abcd", "abc ", "👍👍👍👍", "e\u0301e\u0301"],
}
# fmt: on


PRINTED = {
    "date": [
        "2024-01-02",
        "0001-01-01",
        "9999-12-31",
        "10000-01-01",
        "0044-03-15 BC",
        "1974-03-15 BC",
        "infinity",
        "-infinity",
    ],
    "timestamp_ntz": [
        *("2024-01-02 03:04:05", "2024-01-02 03:04:05.123456", "1973-01-01 00:00:00", "1972-12-31 23:59:59.999999"),
        *("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "10000-01-01 00:00:00", "11974-03-15 00:00:00"),
        *("0044-03-15 00:00:00 BC", "1974-03-15 00:00:00 BC", "infinity", "-infinity"),
    ],
    "timestamp": [
        *("2024-01-02 03:04:05+00", "2024-01-02 03:04:05.1-03:30", "1890-01-01 00:00:00+00:53:28", "infinity"),
        *(
            "0001-01-01 00:00:00+14:00",
            "0001-01-01 00:00:00-14:00",
            "9999-12-31 23:59:59-12:00",
            "9999-12-31 00:00:00Z",
        ),
        *("0044-03-15 00:00:00+00 BC", "1974-03-15 00:00:00+00 BC", "12024-01-02 03:04:05+00"),
        *("1972-01-07 00:44:29-00:44:30", "1972-12-31 23:00:00-02", "9999-12-30 23:00:00-02", "9999-12-31 23:00:00-02"),
    ],
    "double": ["NaN", "Infinity", "-Infinity", "1e-07", "-0"],
    "boolean": ["true", "false"],
}
"""What databases print, of those types where it is more than the type holds."""


def csv_of(texts: Iterable[str]) -> str:
    quoted = ('"' + text.replace('"', '""') + '"' for text in texts)
    return "id,v\n" + "".join(f"{number},{text}\n" for number, text in enumerate(quoted, 1))


@pytest.mark.parametrize("data_type", GOOD)
def test_good_values_arrive_exactly(bench: Bench, data_type: str) -> None:
    extracted = bench.extract(csv_of(GOOD[data_type]), columns={"id": "bigint", "v": data_type})
    assert [row[1] for row in extracted.rows] == list(GOOD[data_type].values())
    assert {type(row[1]) for row in extracted.rows} == {type(value) for value in GOOD[data_type].values()}


@pytest.mark.parametrize("data_type", BAD)
def test_values_that_do_not_fit_exactly_are_bad(bench: Bench, data_type: str) -> None:
    texts = BAD[data_type]
    extracted = bench.extract(csv_of(texts), columns={"id": "bigint", "v": data_type}, meta={"on_bad_row": "reject"})
    assert extracted.rows == []
    assert [reject["record"]["v"] for reject in extracted.rejects] == texts
    for reject, text in zip(extracted.rejects, texts, strict=True):
        assert reject["reasons"] == [{"column": "v", "value": text, "expected": data_type}]


def test_every_type_has_its_cases() -> None:
    assert set(GOOD) == {*BAD, "string"}
    assert all(Column("v", data_type).duckdb_type for data_type in GOOD)


@pytest.mark.parametrize("data_type", GOOD)
def test_the_strict_cast_gives_the_same_values_and_fails_at_the_others(data_type: str) -> None:
    column = Column("v", data_type)
    cases = [(text, False) for text in [*GOOD[data_type], *BAD.get(data_type, ())]]
    cases += [(text, True) for text in PRINTED.get(data_type, [text for text in GOOD[data_type] if text])]
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        for text, canonical in cases:
            lenient = (
                f"SELECT {column.fits('v', canonical=canonical)}, ({column.value('v', canonical=canonical)})::VARCHAR"
            )
            strict = f"SELECT ({column.strict_value('v', canonical=canonical)})::VARCHAR"
            fits, value = sql.execute(f"{lenient} FROM (SELECT ?::VARCHAR AS v)", [text]).fetchone() or ()
            if fits:
                assert sql.execute(f"{strict} FROM (SELECT ?::VARCHAR AS v)", [text]).fetchone() == (value,), text
            else:
                with pytest.raises(
                    duckdb.InvalidInputException, match=f"v: not {re.escape(data_type)}: {re.escape(text)}"
                ):
                    sql.execute(f"{strict} FROM (SELECT ?::VARCHAR AS v)", [text])
            assert sql.execute(f"{strict} FROM (SELECT NULL::VARCHAR AS v)").fetchone() == (None,)


# What follows asks DuckDB directly, with the SQL that the extraction uses: many texts at once, no Sling.

TYPES = [*BAD, "string"]

INTEGERS = {"tinyint": 8, "smallint": 16, "int": 32, "integer": 32, "bigint": 64}
NUMBER = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+) *", re.ASCII)
CLOCK = re.compile(
    r" *(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(?::(\d\d)(?:\.(\d{0,6})0*)?(Z|[+-]\d\d(?::?\d\d)?)?)?)? *", re.ASCII
)


def meaning(data_type: str, text: str) -> object:
    """What a text says, worked out in Python; raises ValueError when it says nothing of that type exactly."""
    if data_type == "string" or (data_type.startswith("varchar") and len(text) <= int(data_type[8:-1])):
        return text
    if data_type in INTEGERS or data_type.startswith("decimal"):
        if not NUMBER.fullmatch(text):
            raise ValueError(text)
        number = Decimal(text.strip(" "))
        precision, scale = map(int, data_type[8:-1].split(",")) if data_type.startswith("decimal") else (19, 0)
        _, digits, exponent = number.as_tuple()
        scaled = int("".join(map(str, digits))) * 10 ** max(0, int(exponent) + scale)
        if int(exponent) + scale < 0:
            scaled, lost = divmod(scaled, 10 ** -(int(exponent) + scale))
            if lost:
                raise ValueError(text)
        limit = 2 ** (INTEGERS[data_type] - 1) if data_type in INTEGERS else 10**precision
        signed = -scaled if number.is_signed() else scaled
        if not (-limit <= signed < limit if data_type in INTEGERS else -limit < signed < limit):
            raise ValueError(text)
        return signed
    if data_type == "double":
        if not re.fullmatch(r" *[+-]?(((\d+\.?\d*|\.\d+)(e[+-]?\d+)?)|inf|infinity|nan) *", text, re.ASCII | re.I):
            raise ValueError(text)
        value = float(text)
        mantissa = re.split("e", text, flags=re.I)[0]
        if (value == 0 and re.search("[1-9]", mantissa)) or (abs(value) == float("inf") and "n" not in text.lower()):
            raise ValueError(text)
        return repr(value)
    if data_type == "boolean":
        words = dict.fromkeys(["true", "t", "yes", "y", "1"], True) | dict.fromkeys(
            ["false", "f", "no", "n", "0"], False
        )
        try:
            return words[text.strip(" ").lower()]
        except KeyError:
            raise ValueError(text) from None
    if data_type == "date":
        if not re.fullmatch(r" *\d{4}-\d\d-\d\d *", text, re.ASCII):
            raise ValueError(text)
        return date.fromisoformat(text.strip(" "))
    match = CLOCK.fullmatch(text)
    if not match or (data_type == "timestamp_ntz" and match[5]):
        raise ValueError(text)
    day, minute, second, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{day} {minute or '00:00'}:{second or '00'}.{fraction or '0':0<6}")
    if zone and zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
        if hours > 18 or minutes > 59:
            raise ValueError(text)
        offset = timedelta(hours=hours, minutes=minutes)
        try:
            moment -= -offset if zone[0] == "-" else offset
        except OverflowError:
            raise ValueError(text) from None
    return moment


def judged(data_type: str, texts: list[str]) -> list[tuple[bool, object]]:
    """What the extraction's SQL makes of the texts: whether they fit, and the value, comparable with `meaning`."""
    column = Column("v", data_type)
    value = column.value("v")
    if data_type in INTEGERS:
        value = f"({value})::HUGEINT"
    elif data_type == "timestamp":
        value = f"timezone('UTC', {value})"
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        sql.execute("CREATE TABLE texts AS SELECT unnest(?::VARCHAR[]) AS v", [texts])
        rows = sql.execute(f"SELECT {column.fits('v')}, CASE WHEN {column.fits('v')} THEN {value} END FROM texts")
        found = rows.fetchall()
    if data_type.startswith("decimal"):
        scale = int(data_type[8:-1].split(",")[1])
        return [
            (fits, None if number is None else int(f"{number:f}".replace(".", "") or 0) if scale else int(number))
            for fits, number in found
        ]
    if data_type == "double":
        return [(fits, None if number is None else repr(number)) for fits, number in found]
    return found


def expected(data_type: str, text: str) -> tuple[bool, object]:
    try:
        return True, meaning(data_type, text)
    except ValueError:
        return False, None


LIMITS = [str(sign * 2**bits + more) for bits in (7, 15, 31, 63) for more in (-1, 0, 1) for sign in (1, -1)]
DAY_LIKE, CLOCK_LIKE = r"[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]", r"[0-2][0-9]:[0-6][0-9](:[0-6][0-9](\.[0-9]{0,8})?)?"
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
WORDS = [
    "true",
    "FALSE",
    "t",
    "F",
    "yes",
    "No",
    "1",
    "0",
    "on",
    "inf",
    "-nan",
    "Infinity",
    "infinite",
    "epoch",
    "today",
]

NUMBERS = st.one_of(
    st.from_regex(r"\A *[+-]?[0-9]{0,25}\.?[0-9]{0,12}([eE][+-]?[0-9]{1,3})?[ _]?\Z"),
    st.integers(-(2**65), 2**65).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map("{:f}".format),
    st.floats().map(repr),
    st.sampled_from(LIMITS),
)
MOMENTS = st.one_of(
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes(timezones=ZONES).map(datetime.isoformat),
    st.from_regex(rf"\A{DAY_LIKE}([ T]{CLOCK_LIKE})?(Z|[+-][0-2][0-9](:?[0-6][0-9])?)?\Z"),
)
ANYTHING = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.text(" +-.:eE0129Tz", max_size=8),
)


@pytest.mark.parametrize("data_type", TYPES)
def test_any_text_fits_if_and_only_if_its_value_is_exact(data_type: str) -> None:
    likely = MOMENTS if data_type in {"date", "timestamp", "timestamp_ntz"} else NUMBERS

    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(likely | ANYTHING | likely.map(" {} ".format), min_size=1, max_size=60))
    def check(texts: list[str]) -> None:
        for text, (fits, value) in zip(texts, judged(data_type, texts), strict=True):
            assert (text, fits, value) == (text, *expected(data_type, text))

    check()


@pytest.mark.parametrize("data_type", TYPES)
def test_the_named_cases_hold_for_the_oracle_too(data_type: str) -> None:
    texts = [*GOOD[data_type], *BAD.get(data_type, [])]
    assert judged(data_type, texts) == [expected(data_type, text) for text in texts]


@pytest.mark.parametrize("data_type", TYPES)
def test_null_always_fits(data_type: str) -> None:
    column = Column("v", data_type)
    with duckdb.connect() as sql:
        row = sql.execute(f"SELECT {column.fits('v')}, {column.value('v')} FROM (SELECT NULL::VARCHAR AS v)").fetchone()
    assert row == (True, None)
