"""SQL Server's types: how they are declared, stored in DuckDB, and put on the wire (MS-TDS 2.2.5.4 and 2.2.5.5).

A stored value is lossless: dates and times are counts of 100 ns since 0001-01-01 (since midnight for `time`), a
`datetimeoffset` such a count in UTC and its offset, a `uniqueidentifier` upper-case text.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

from tests.support.tds.errors import SqlError, refusal

MAX = -1
"""Length of nvarchar(max) and its like."""

COLLATION = bytes.fromhex("0904d00034")
"""SQL_Latin1_General_CP1_CI_AS on the wire."""

WIDE_ENOUGH = Context(prec=80)
"""For decimals of 38 digits; Python's default would round them to 28."""

SECOND = 10_000_000
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND
DAY_OF_1900 = date(1900, 1, 1).toordinal() - 1

INTEGERS = {"tinyint": 1, "smallint": 2, "int": 4, "bigint": 8}
EXACT = {"decimal", "money", "smallmoney"}
APPROXIMATE = {"real": 4, "float": 8}
NUMBERS = {*INTEGERS, *EXACT, *APPROXIMATE, "bit"}
MOMENTS = {"date", "smalldatetime", "datetime", "datetime2", "datetimeoffset"}
SCALED = {"time": 0x29, "datetime2": 0x2A, "datetimeoffset": 0x2B}
WIDE = {"nchar", "nvarchar", "xml"}
TEXTS = {"char", "varchar", "nchar", "nvarchar"}
BINARIES = {"binary", "varbinary"}

PRECEDENCE = (
    "datetimeoffset", "datetime2", "datetime", "smalldatetime", "date", "time", "float", "real", "decimal",
    "money", "smallmoney", "bigint", "int", "smallint", "tinyint", "bit", "uniqueidentifier", "nvarchar",
    "nchar", "varchar", "char", "varbinary", "binary",
)  # fmt: skip
"""Which of two types the other is converted to."""

_STORED = {
    "tinyint": "UTINYINT",
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "bit": "BOOLEAN",
    "real": "FLOAT",
    "float": "DOUBLE",
    "money": "DECIMAL(19,4)",
    "smallmoney": "DECIMAL(10,4)",
    **dict.fromkeys([*MOMENTS, "time"], "BIGINT"),
    "datetimeoffset": "STRUCT(utc BIGINT, minutes SMALLINT)",
    **dict.fromkeys([*TEXTS, "xml", "uniqueidentifier"], "VARCHAR"),
    **dict.fromkeys(BINARIES, "BLOB"),
}


@dataclass(frozen=True)
class SqlType:
    """A declared type.

    Attributes:
        name: without its arguments; always the canonical name.
        length: characters or bytes, or MAX.
        precision: of a decimal.
        scale: of a decimal, or digits of a second.
        collation: of text: `default`, `binary`, or `catalogue` for names of objects.
    """

    name: str
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    collation: str = field(default="default", compare=False)

    def __str__(self) -> str:
        if self.name == "decimal":
            return f"decimal({self.precision},{self.scale})"
        if self.length is not None:
            return f"{self.name}({'max' if self.length == MAX else self.length})"
        return f"{self.name}({self.scale})" if self.name in SCALED else self.name

    @property
    def stored(self) -> str:
        """DuckDB's type for it."""
        return f"DECIMAL({self.precision},{self.scale})" if self.name == "decimal" else _STORED[self.name]

    @property
    def is_text(self) -> bool:
        return self.name in TEXTS

    @property
    def is_wide(self) -> bool:
        return self.name in WIDE

    @property
    def is_max(self) -> bool:
        return self.length == MAX or self.name == "xml"


_SYNONYMS = {"integer": "int", "dec": "decimal", "numeric": "decimal", "timestamp": "rowversion"}


def declared(name: str, arguments: list[str]) -> SqlType:
    """The type of a declaration such as `decimal(18, 4)`; without a length, char and its like have one character."""
    name = _SYNONYMS.get(name.lower(), name.lower())
    numbers = [int(argument) for argument in arguments if argument.isdigit()]
    if name == "sysname":
        return SqlType("nvarchar", 128)
    if name == "decimal":
        precision, scale = [*numbers, *(18, 0)[len(numbers) :]][:2]
        if not 1 <= precision <= 38 or scale > precision:
            raise SqlError(1007, f"The precision or scale of decimal({precision},{scale}) is out of range.", 15)
        return SqlType(name, precision=precision, scale=scale)
    if name in SCALED:
        return SqlType(name, scale=numbers[0] if numbers else 7)
    if name == "float":
        return SqlType("real" if numbers and numbers[0] <= 24 else "float")
    if name in TEXTS | BINARIES:
        return SqlType(name, MAX if "max" in map(str.lower, arguments) else numbers[0] if numbers else 1)
    if name not in _STORED:
        raise refusal(f"the type {name}")
    return SqlType(name)


# -- constants -------------------------------------------------------------------------------------------------------

_MOMENT = re.compile(
    r"(?:(\d{4})-?(\d\d)-?(\d\d))?(?:(?<=\d)[ T]|^)?(?:(\d\d?):(\d\d)(?::(\d\d)(?:\.(\d+))?)?)? ?(Z|[+-]\d\d:\d\d)?"
)


def _rounded(ticks: int, scale: int) -> int:
    unit: int = 10 ** (7 - scale)
    return (ticks + unit // 2) // unit * unit


def moment(text: str, kind: SqlType) -> Any:
    """The stored value of a date or time that is written as text."""
    failed = SqlError(241, "Conversion failed when converting date and/or time from character string.")
    found = _MOMENT.fullmatch(text.strip())
    if not found or not (found[1] or found[4]):
        raise failed
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - 1 if year else DAY_OF_1900
    except ValueError:
        raise failed from None
    if int(hour or 0) > 23 or int(minute or 0) > 59 or int(second or 0) > 59:
        raise failed
    ticks = ((int(hour or 0) * 60 + int(minute or 0)) * 60 + int(second or 0)) * SECOND
    ticks += int((fraction or "").ljust(7, "0")[:7])
    digits = len(fraction or "")
    if digits > (3 if kind.name in ("datetime", "smalldatetime") else 7) or (zone and kind.name != "datetimeoffset"):
        raise failed
    whole = days * DAY + ticks
    if kind.name == "datetimeoffset":
        minutes = 0 if zone in (None, "Z") else int(zone[0] + "1") * (int(zone[1:3]) * 60 + int(zone[4:6]))
        return {"utc": _rounded(whole, kind.scale or 0) - minutes * MINUTE, "minutes": minutes}
    if kind.name == "time":
        return _rounded(ticks, kind.scale or 0) % DAY
    return as_moment(whole, kind)


def as_moment(ticks: int, kind: SqlType) -> int:
    """A count of 100 ns as precise as a type without an offset keeps it."""
    if kind.name == "date":
        return ticks // DAY * DAY
    if kind.name == "datetime2":
        return _rounded(ticks, kind.scale or 0)
    thirds = (ticks * 3 + 50_000) // 100_000  # datetime counts 1/300 s
    ticks = (thirds * 100_000 + 1) // 3
    if kind.name == "smalldatetime":
        ticks = (ticks + MINUTE // 2) // MINUTE * MINUTE
    first, last = (1900, 2079) if kind.name == "smalldatetime" else (1753, 9999)
    if not first <= date.fromordinal(min(ticks // DAY + 1, date.max.toordinal())).year <= last:
        raise SqlError(
            242, f"The conversion of a varchar data type to a {kind} data type resulted in an out-of-range value."
        )
    return ticks


def stored_constant(value: Any, of: SqlType, kind: SqlType) -> Any:
    """A constant of one type as the stored value of another.

    Raises:
        SqlError: SQL Server would not convert it, or the stand-in does not.
    """
    if value is None:
        return None
    name = kind.name
    if name in TEXTS and of.is_text:
        return _stored_text(value, kind)
    if name == "xml" and of.is_text:
        return value
    if name in BINARIES and of.name in BINARIES:
        data = bytes(value)
        if kind.length not in (None, MAX) and len(data) > (kind.length or 0):
            raise SqlError(2628, "String or binary data would be truncated.")
        return data.ljust(kind.length or 0, b"\0") if name == "binary" else data
    if name == "uniqueidentifier" and of.name in {*TEXTS, name}:
        try:
            return str(uuid.UUID(value)).upper()
        except ValueError:
            raise SqlError(
                8169, "Conversion failed when converting from a character string to uniqueidentifier."
            ) from None
    if name in MOMENTS | {"time"}:
        if of.is_text:
            return moment(value, kind)
        if of == kind:
            return value
        if of.name in MOMENTS - {"datetimeoffset"} and name in MOMENTS - {"datetimeoffset"}:
            return as_moment(value, kind)
        raise refusal(f"a conversion of a constant from {of} to {kind}")
    if name in NUMBERS and (of.name in NUMBERS or of.is_text):
        return _stored_number(value, of, kind)
    raise refusal(f"a conversion of a constant from {of} to {kind}")


def _stored_text(value: str, kind: SqlType) -> str:
    units = len(value.encode("utf-16-le", "surrogatepass")) // 2 if kind.is_wide else len(value)
    if not kind.is_wide:
        code_page(value)
    if kind.length != MAX and units > (kind.length or 0):
        if value[kind.length :].strip(" "):
            raise SqlError(
                2628, f"String or binary data would be truncated. Truncated value: '{value[: kind.length]}'."
            )
        value, units = value[: kind.length], kind.length or 0
    return value + " " * ((kind.length or 0) - units) if kind.name in ("char", "nchar") else value


def code_page(value: str) -> bytes:
    """Text in code page 1252; SQL Server would put question marks for what is not in it."""
    try:
        return value.encode("cp1252")
    except UnicodeEncodeError:
        raise refusal(
            f"characters outside code page 1252 in varchar ({value[:20]!r}); write N'…' and nvarchar"
        ) from None


def _stored_number(value: Any, of: SqlType, kind: SqlType) -> Any:
    try:
        number = Decimal((value.strip() or "0") if of.is_text else str(int(value) if of.name == "bit" else value))
    except InvalidOperation:
        message = f"Conversion failed when converting the {of} value '{value}' to {kind}."
        raise SqlError(8114 if kind.name in EXACT else 245, message) from None
    if not number.is_finite():
        raise SqlError(8114, f"Error converting data type {of} to {kind}.")
    overflow = SqlError(8115, f"Arithmetic overflow error converting {of} to data type {kind}.")
    if kind.name == "bit":
        return bool(number)
    if kind.name in INTEGERS:
        if of.is_text and number != number.to_integral_value():
            raise SqlError(245, f"Conversion failed when converting the {of} value '{value}' to data type {kind}.")
        whole, size = int(number), INTEGERS[kind.name] * 8
        low, high = (0, 255) if kind.name == "tinyint" else (-(1 << size - 1), (1 << size - 1) - 1)
        if not low <= whole <= high:
            raise overflow
        return whole
    if kind.name in APPROXIMATE:
        try:
            return struct.unpack("<f", struct.pack("<f", float(number)))[0] if kind.name == "real" else float(number)
        except OverflowError:
            raise overflow from None
    precision, scale = {"money": (19, 4), "smallmoney": (10, 4)}.get(kind.name, (kind.precision or 0, kind.scale or 0))
    digits = int(number.scaleb(scale, WIDE_ENOUGH).to_integral_value(ROUND_HALF_UP, WIDE_ENOUGH))
    size = {"money": 2**63, "smallmoney": 2**31}.get(kind.name, 10**precision)
    if not -size <= digits < size or (kind.name == "decimal" and digits == -size):
        raise overflow
    return Decimal(digits).scaleb(-scale, WIDE_ENOUGH)


# -- the wire --------------------------------------------------------------------------------------------------------


def type_info(kind: SqlType) -> bytes:
    """TYPE_INFO of a column."""
    name = kind.name
    if name in INTEGERS:
        return bytes([0x26, INTEGERS[name]])
    if name in APPROXIMATE:
        return bytes([0x6D, APPROXIMATE[name]])
    if name == "decimal":
        return bytes([0x6A, _decimal_size(kind) + 1, kind.precision or 0, kind.scale or 0])
    if name in SCALED:
        return bytes([SCALED[name], kind.scale or 0])
    fixed = {
        "bit": b"\x68\x01",
        "money": b"\x6e\x08",
        "smallmoney": b"\x6e\x04",
        "datetime": b"\x6f\x08",
        "smalldatetime": b"\x6f\x04",
        "date": b"\x28",
        "uniqueidentifier": b"\x24\x10",
        "xml": b"\xf1\x00",
    }
    if name in fixed:
        return fixed[name]
    code = {"nvarchar": 0xE7, "nchar": 0xEF, "varchar": 0xA7, "char": 0xAF, "varbinary": 0xA5, "binary": 0xAD}[name]
    size = 0xFFFF if kind.is_max else (kind.length or 1) * (2 if kind.is_wide else 1)
    return struct.pack("<BH", code, size) + (COLLATION if kind.is_text else b"")


def encoder(kind: SqlType) -> Callable[[Any], bytes]:
    """What turns stored values of a type, which are not NULL, into bytes."""
    name, size, scale = kind.name, INTEGERS.get(kind.name, 0), kind.scale or 0
    if name in INTEGERS:
        whole = struct.Struct({1: "<BB", 2: "<Bh", 4: "<Bi", 8: "<Bq"}[size])
        return lambda value: whole.pack(size, value)
    if name in APPROXIMATE:
        real = struct.Struct("<Bf" if name == "real" else "<Bd")
        return lambda value: real.pack(APPROXIMATE[name], value)
    if name == "decimal":
        width = _decimal_size(kind)

        def exact(value: Decimal) -> bytes:
            digits = int(value.scaleb(scale, WIDE_ENOUGH))
            return bytes([width + 1, digits >= 0]) + abs(digits).to_bytes(width, "little")

        return exact
    if kind.is_text or name in BINARIES or name == "xml":
        encoding = "utf-16-le" if kind.is_wide else "cp1252" if kind.is_text else None

        def varying(value: Any) -> bytes:
            data = value.encode(encoding) if encoding else bytes(value)
            if not kind.is_max:
                return struct.pack("<H", len(data)) + data
            chunk = struct.pack("<I", len(data)) + data if data else b""
            return struct.pack("<Q", len(data)) + chunk + b"\0\0\0\0"

        return varying
    width = 3 if scale <= 2 else 4 if scale <= 4 else 5
    days: Callable[[int], bytes] = lambda ticks: (ticks // DAY).to_bytes(3, "little")  # noqa: E731
    time: Callable[[int], bytes] = lambda ticks: (ticks % DAY // 10 ** (7 - scale)).to_bytes(width, "little")  # noqa: E731
    others: dict[str, Callable[[Any], bytes]] = {
        "bit": lambda value: b"\x01\x01" if value else b"\x01\x00",
        "money": lambda value: struct.pack("<BiI", 8, int(value.scaleb(4)) >> 32, int(value.scaleb(4)) & 0xFFFFFFFF),
        "smallmoney": lambda value: struct.pack("<Bi", 4, int(value.scaleb(4))),
        "uniqueidentifier": lambda value: b"\x10" + uuid.UUID(value).bytes_le,
        "date": lambda ticks: b"\x03" + days(ticks),
        "time": lambda ticks: bytes([width]) + time(ticks),
        "datetime2": lambda ticks: bytes([width + 3]) + time(ticks) + days(ticks),
        "datetimeoffset": lambda at: (
            bytes([width + 5]) + time(at["utc"]) + days(at["utc"]) + struct.pack("<h", at["minutes"])
        ),
        "datetime": lambda ticks: struct.pack(
            "<BiI", 8, ticks // DAY - DAY_OF_1900, (ticks % DAY * 3 + 50_000) // 100_000
        ),
        "smalldatetime": lambda ticks: struct.pack("<BHH", 4, ticks // DAY - DAY_OF_1900, ticks % DAY // MINUTE),
    }
    return others[name]


def _decimal_size(kind: SqlType) -> int:
    precision = kind.precision or 0
    return 4 if precision <= 9 else 8 if precision <= 19 else 12 if precision <= 28 else 16
