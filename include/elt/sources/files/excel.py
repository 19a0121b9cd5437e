"""Excel workbooks (.xlsx): one worksheet with a header in its first row.

A number is the one that is stored: a whole one without a point, any other in the shortest way that says it exactly. A
date or time is ISO 8601, a date with the time 00:00 is a date. A formula is what it gave when the workbook was saved.
Rows without any value are left out, like blank lines of a CSV file.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter
from zipfile import BadZipFile

from openpyxl.cell.text import Text
from openpyxl.reader.excel import ExcelReader
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.worksheet._reader import FORMULA_TAG, VALUE_TAG, WorkSheetParser
from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS
from openpyxl.xml.functions import iterparse

from include.elt.columns import Wanted
from include.elt.contract import Contract
from include.elt.errors import DataError
from include.elt.sources.files.found import Seen
from include.elt.sources.files.part import FileRows, LineMap, Part
from include.elt.sources.files.writer import write_text
from include.elt.text import TextFile

_NO_VALUE = "formula without a value"
"""Our data type of a cell whose formula was never calculated."""

_WHOLE = 2**63
"""Below this, a number without decimals is written as an integer."""


def _unescaped(text: str) -> str:
    """Text of a cell; `_x000D_` stands for the character of that number, as Office Open XML has it."""
    if "_x" not in text:
        return text
    return re.sub("_x([0-9A-Fa-f]{4})_", lambda match: _character(int(match[1], 16), match[0]), text)


def _character(code: int, spelling: str) -> str:
    return spelling if 0xD800 <= code <= 0xDFFF else chr(code)


class _Workbook(ExcelReader):  # type: ignore[misc]
    """openpyxl's reader; its own way with shared strings drops `x005F_` from them and leaves `_x000D_` as it is."""

    def read_strings(self) -> None:
        part = self.package.find(SHARED_STRINGS)
        if part is not None:
            with self.archive.open(part.PartName[1:]) as source:
                for _, node in iterparse(source):
                    if node.tag == f"{{{SHEET_MAIN_NS}}}si":
                        self.shared_strings.append(_unescaped(Text.from_tree(node).content))
                        node.clear()


class _Sheet(WorkSheetParser):  # type: ignore[misc]
    """openpyxl's parser of a sheet, below its worksheets, which hide a formula without a value."""

    def parse_cell(self, element: Any) -> dict[str, Any]:
        cell: dict[str, Any] = super().parse_cell(element)
        kind = element.get("t")
        if cell["value"] is None and element.find(FORMULA_TAG) is not None:
            if kind == "str" and element.find(VALUE_TAG) is not None:
                cell["value"] = ""
            else:
                cell["data_type"] = _NO_VALUE
        elif kind in ("inlineStr", "str") and cell["value"] is not None:
            cell["value"] = _unescaped(cell["value"])
        return cell


def read_excel(
    seen: Seen, wanted: Wanted, contract: Contract, sheet: str | None, null_if: str | None, work: Path, null: str
) -> Part:
    """Read one worksheet, row by row.

    Args:
        seen: the file.
        wanted: the columns; the header may spell them in any case.
        contract: the types of the columns.
        sheet: name of the worksheet; None for the first one.
        null_if: text that stands for NULL.
        work: an empty folder.
        null: text that stands for NULL in what is written.

    Raises:
        DataError: it is no workbook, has other columns, merged cells or a formula without a value, or a text column
            holds an error like `#N/A`. The message names the cell.
    """
    texts = tuple(column.name for column in contract.columns if column.is_text)
    reader = _Reader(seen, wanted, texts, null_if, null)
    path = work / "text.csv"
    try:
        with seen.path.open("rb") as stream, catch_warnings():
            simplefilter("ignore")  # of what openpyxl cannot keep: styles, validations
            book = _Workbook(stream, read_only=True, data_only=True, keep_links=False)
            book.read()
            write_text(path, wanted.names, reader.records(_opened(book, seen, sheet)))
    except FileNotFoundError:
        seen.check()
        raise
    except (BadZipFile, InvalidFileException, KeyError, ValueError, OSError, SyntaxError) as error:
        seen.check()
        raise DataError(
            f"{seen}: cannot be read as an Excel workbook (.xlsx without a password): {type(error).__name__}: {error}"
        ) from error
    return Part(
        files=(FileRows(seen, reader.rows, reader.lines.lines_of),),
        text=TextFile((path,), wanted.names, null, "", reader.longest),
        missing=reader.missing,
    )


def _opened(book: _Workbook, seen: Seen, sheet: str | None) -> _Sheet:
    """The parser of the wanted worksheet."""
    sheets = {each.title: each for each in book.wb.worksheets}
    if not sheets or (sheet is not None and sheet not in sheets):
        raise DataError(f"{seen}: no sheet {sheet!r} (source_options.sheet); there are {', '.join(sheets) or 'none'}")
    chosen = sheets[sheet] if sheet is not None else next(iter(sheets.values()))
    return _Sheet(
        chosen._get_source(),  # noqa: SLF001  (openpyxl is pinned)
        book.shared_strings,
        data_only=True,
        epoch=book.wb.epoch,
        date_formats=book.wb._date_formats,  # noqa: SLF001
        timedelta_formats=book.wb._timedelta_formats,  # noqa: SLF001
    )


class _Reader:
    """Turns the cells of a sheet into rows of text."""

    def __init__(self, seen: Seen, wanted: Wanted, texts: tuple[str, ...], null_if: str | None, null: str) -> None:
        self.seen = seen
        self.wanted = wanted
        self.texts = texts
        self.null_if = null_if
        self.null = null
        self.rows = self.longest = 0
        self.lines = LineMap()
        self.missing: frozenset[str] = frozenset()

    def records(self, sheet: _Sheet) -> Iterator[list[str]]:
        """The rows, in the order of the wanted columns."""
        places: dict[int, int | None] | None = None
        for number, cells in sheet.parse():
            filled = [cell for cell in cells if cell["value"] is not None or cell["data_type"] == _NO_VALUE]
            if places is None:
                if number > 1 or not filled:
                    break
                places = self._header(filled)
                continue
            if not filled:
                continue
            row = [self.null] * len(self.wanted.names)
            for cell in filled:
                if cell["column"] not in places:
                    raise self._error(cell, f"{cell['value']!r} stands outside the columns of the header")
                place = places[cell["column"]]
                if place is not None:
                    text = self._text(cell, self.wanted.names[place])
                    if text != self.null_if:
                        row[place] = text
            self.rows += 1
            self.lines.add(self.rows, number)
            self.longest = max(self.longest, sum(map(len, row)))
            yield row
        if places is None:
            raise DataError(f"{self.seen}: row 1 of the sheet is empty; {self.wanted.expectation}")
        if sheet.merged_cells and sheet.merged_cells.mergeCell:
            merged = ", ".join(each.ref for each in sheet.merged_cells.mergeCell[:3])
            raise DataError(f"{self.seen}: merged cells {merged}: which rows have the value? Unmerge them")

    def _header(self, cells: list[dict[str, Any]]) -> dict[int, int | None]:
        """The place of each column of the sheet among the wanted ones; None for those that are left out."""
        names = self.wanted.check([str(cell["value"]) for cell in cells], f"{self.seen}: row 1")
        self.missing = frozenset(self.wanted.names) - set(names)
        return {
            cell["column"]: self.wanted.names.index(name) if name in self.wanted.names else None
            for cell, name in zip(cells, names, strict=True)
        }

    def _text(self, cell: dict[str, Any], name: str) -> str:
        value = cell["value"]
        match cell["data_type"], value:
            case "e", _:
                if name in self.texts:  # elsewhere it does not fit, and the stream's policy for bad rows decides
                    raise self._error(cell, f"column {name}: the error {value}")
                return f"{value} in {_cell(cell)}"
            case data_type, _ if data_type == _NO_VALUE:
                raise self._error(
                    cell, f"column {name}: a formula without a value; open the workbook in Excel, calculate and save it"
                )
            case _, str():
                return value
            case _, bool():
                return "true" if value else "false"
            case _, float() if value.is_integer() and abs(value) < _WHOLE:
                return str(int(value))
            case _, dt.datetime() if value.time() == dt.time():
                return value.date().isoformat()
            case _, dt.datetime():
                return value.isoformat(" ")
            case _, dt.date() | dt.time():
                return value.isoformat()
            case _, dt.timedelta():
                return _duration(value)
        return repr(value)

    def _error(self, cell: dict[str, Any], what: str) -> DataError:
        return DataError(f"{self.seen}: cell {_cell(cell)}: {what}")


def _cell(cell: dict[str, Any]) -> str:
    return f"{get_column_letter(cell['column'])}{cell['row']}"


def _duration(value: dt.timedelta) -> str:
    """A duration as hours, minutes and seconds, like `30:00:00`."""
    sign = "-" if value < dt.timedelta() else ""
    seconds, rest = divmod(abs(value), dt.timedelta(seconds=1))
    minutes, second = divmod(seconds, 60)
    fraction = f".{rest.microseconds:06d}" if rest else ""
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{fraction}"
