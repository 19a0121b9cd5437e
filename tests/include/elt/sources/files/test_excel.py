"""Excel workbooks: every cell arrives as it is stored, or an error names it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from openpyxl import Workbook

from include.elt.errors import DataError
from tests.support.elt import Bench

NAME = "orders.xlsx"
ANY = {"id": "bigint", "v": "string"}


def save(bench: Bench, rows: Iterable[Iterable[Any]], name: str = NAME) -> Workbook:
    book = Workbook()
    for row in rows:
        book.active.append(list(row))
    book.save(bench.root / name)
    return book


def write_sheet(bench: Bench, cells: str, strings: str = "", after: str = "") -> None:
    """A workbook whose first sheet has these cells in the words of Office Open XML, as Excel itself writes it."""
    save(bench, [["id", "v"]])
    file = bench.root / NAME
    with zipfile.ZipFile(file) as given:
        parts = {name: given.read(name) for name in given.namelist()}
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    header = (
        '<row r="1"><c r="A1" t="inlineStr"><is><t>id</t></is></c><c r="B1" t="inlineStr"><is><t>v</t></is></c></row>'
    )
    parts["xl/worksheets/sheet1.xml"] = (
        f"<worksheet {space}><sheetData>{header}{cells}</sheetData>{after}</worksheet>".encode()
    )
    parts["xl/sharedStrings.xml"] = f"<sst {space}>{strings}</sst>".encode()
    types = parts["[Content_Types].xml"].decode()
    if "sharedStrings" not in types:
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
        types = types.replace("</Types>", f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>')
    parts["[Content_Types].xml"] = types.encode()
    with zipfile.ZipFile(file, "w") as target:
        for name, data in parts.items():
            target.writestr(name, data)


def values(bench: Bench, *cells: str, data_type: str = "string", strings: str = "", **what: Any) -> list[Any]:
    """What becomes of cells, each given as `attributes>content`, in column B."""
    rows = (
        f'<row r="{number}"><c r="A{number}"><v>{number}</v></c><c r="B{number}" {cell}</c></row>'
        for number, cell in enumerate(cells, 2)
    )
    write_sheet(bench, "".join(rows), strings)
    return [row[1] for row in bench.extract(name=NAME, columns={"id": "bigint", "v": data_type}, **what).rows]


NUMBERS = {
    "1": "1",
    "-0": "0",
    "5.0": "5",
    "1E3": "1000",
    "0.1": "0.1",
    "1.1000000000000001": "1.1",
    "0.30000000000000004": "0.30000000000000004",
    "1.0000000000000001E-5": "1e-05",
    "9007199254740993": "9007199254740993",
    "12345678901234567890": "12345678901234567890",
    "1E+20": "1e+20",
    "1.7976931348623157E+308": "1.7976931348623157e+308",
}


def test_numbers_are_those_that_are_stored(bench: Bench) -> None:
    assert values(bench, *(f"><v>{number}</v>" for number in NUMBERS)) == list(NUMBERS.values())


def test_numbers_fit_their_types(bench: Bench) -> None:
    cells = ("><v>1.1000000000000001</v>", "><v>5.0</v>", "><v>1E3</v>", "><f>A2</f><v>7.25</v>")
    assert values(bench, *cells, data_type="decimal(10,2)") == [Decimal(text) for text in ("1.1", "5", "1000", "7.25")]
    assert values(bench, "><v>1E+20</v>", data_type="double") == [1e20]


SHARED = """<si><t>plain</t></si><si><t xml:space="preserve"> x </t></si><si><r><t>ri</t></r><r><t>ch</t></r></si>
<si><t></t></si><si><t>a_x000D_
b</t></si><si><t>_x005F_x000D_</t></si><si><t>x005F_</t></si><si><t>é👍&lt;&amp;"</t></si><si><t>_xD800_</t></si>
"""
STRINGS = ["plain", " x ", "rich", "", "a\r\nb", "_x000D_", "x005F_", 'é👍<&"', "_xD800_"]


def test_shared_texts_are_what_excel_shows(bench: Bench) -> None:
    assert values(bench, *(f't="s"><v>{n}</v>' for n in range(len(STRINGS))), strings=SHARED) == STRINGS


def test_other_texts_too(bench: Bench) -> None:
    cells = {
        't="inlineStr"><is><t>in_x000D_line</t></is>': "in\rline",
        't="inlineStr"><is><t></t></is>': "",
        't="str"><f>A1</f><v>NULL</v>': "NULL",
        't="str"><f>A1</f><v></v>': "",
        't="str"><f>A1</f><v>_x0041_</v>': "A",
        't="b"><v>1</v>': "true",
        't="b"><v>0</v>': "false",
        's="0"><v></v>': None,
        's="0">': None,
    }
    assert values(bench, *cells) == list(cells.values())


def test_python_s_values_arrive(bench: Bench) -> None:
    rows = [
        (1, date(2024, 2, 29)),
        (2, datetime(2024, 1, 2, 3, 4, 5, 678000)),
        (3, datetime(2024, 1, 2)),
        (4, time(1, 2, 3)),
        (5, timedelta(hours=30, milliseconds=5)),
        (6, True),
        (7, "2024-13-45"),
        (8, None),
        (9, date(1900, 1, 1)),
    ]
    save(bench, [("ID", "V"), *rows])
    assert [row[1] for row in bench.extract(name=NAME, columns=ANY).rows] == [
        *("2024-02-29", "2024-01-02 03:04:05.678000", "2024-01-02", "01:02:03", "30:00:00.005000", "true"),
        *("2024-13-45", None, "1900-01-01"),
    ]


@pytest.mark.parametrize("data_type", ["date", "timestamp_ntz"])
def test_dates_fit_their_types(bench: Bench, data_type: str) -> None:
    save(bench, [("id", "v"), (1, date(2024, 2, 29)), (2, datetime(9999, 12, 31))])
    expected = [date(2024, 2, 29), date(9999, 12, 31)]
    if data_type != "date":
        expected = [datetime(2024, 2, 29), datetime(9999, 12, 31)]
    assert [row[1] for row in bench.extract(name=NAME, columns={"id": "bigint", "v": data_type}).rows] == expected


def test_dates_since_1904(bench: Bench) -> None:
    from openpyxl.utils.datetime import CALENDAR_MAC_1904

    book = Workbook()
    book.epoch = CALENDAR_MAC_1904
    for row in [("id", "v"), (1, date(2024, 2, 29))]:
        book.active.append(row)
    book.save(bench.root / NAME)
    assert bench.extract(name=NAME, columns=ANY).rows == [(1, "2024-02-29")]


def test_columns_in_any_order_with_gaps_between(bench: Bench) -> None:
    save(bench, [("b", None, "ID", "a"), ("y", None, 1, "x"), (None, None, 2)])
    assert bench.extract(name=NAME).rows == [(1, "x", "y"), (2, None, None)]


def test_rows_without_values_are_left_out_and_lines_are_rows_of_the_sheet(bench: Bench) -> None:
    save(bench, [("id", "v"), (1, "x"), (), (None, None), ("bad", "y"), (), (3, "z"), (), ()])
    extracted = bench.extract(name=NAME, columns=ANY, meta={"on_bad_row": "reject"})
    assert extracted.rows == [(1, "x"), (3, "z")]
    assert [(each["file"], each["row"], each["line"]) for each in extracted.rejects] == [(NAME, 2, 5)]


def test_null_if_and_empty_as_null(bench: Bench) -> None:
    save(bench, [("id", "v"), (1, "-"), (2, "- ")])
    assert bench.extract(name=NAME, columns=ANY, options={"null_if": "-"}).rows == [(1, None), (2, "- ")]


class TestSheets:
    def book(self, bench: Bench) -> None:
        book = Workbook()
        for number, title in enumerate(["first", "Zwei é"], 1):
            sheet = book.active if number == 1 else book.create_sheet()
            sheet.title = title
            sheet.append(["id", "v"])
            sheet.append([number, title])
        book.save(bench.root / NAME)

    def test_the_first_one_is_read_by_default(self, bench: Bench) -> None:
        self.book(bench)
        assert bench.extract(name=NAME, columns=ANY).rows == [(1, "first")]

    def test_another_one_by_name(self, bench: Bench) -> None:
        self.book(bench)
        assert bench.extract(name=NAME, columns=ANY, options={"sheet": "Zwei é"}).rows == [(2, "Zwei é")]

    def test_one_that_is_not_there_is_refused_with_those_that_are(self, bench: Bench) -> None:
        self.book(bench)
        with pytest.raises(DataError, match=r"no sheet 'zwei' \(source_options\.sheet\); there are first, Zwei é"):
            bench.extract(name=NAME, columns=ANY, options={"sheet": "zwei"})


class TestBadCells:
    @pytest.mark.parametrize("error", ["#N/A", "#DIV/0!", "#REF!", "#VALUE!"])
    def test_an_error_is_a_bad_value_with_its_cell(self, bench: Bench, error: str) -> None:
        cells = ("><v>1</v>", f't="e"><f>1/0</f><v>{error}</v>')
        with pytest.raises(DataError, match=rf"row 2 \(line 3\): column v: '{error} in B3' is not a double"):
            values(bench, *cells, data_type="double")
        rows = values(bench, *cells, data_type="double", meta={"on_bad_row": "reject"})
        assert rows == [1.0]

    @pytest.mark.parametrize("data_type", ["string", "varchar(50)"])
    def test_an_error_is_no_text(self, bench: Bench, data_type: str) -> None:
        with pytest.raises(DataError, match=r"cell B2: column v: the error #N/A"):
            values(bench, 't="e"><v>#N/A</v>', data_type=data_type)

    @pytest.mark.parametrize("cell", ["><f>A1+1</f>", "><f>A1+1</f><v></v>", 't="str"><f>A1</f>'])
    def test_a_formula_without_a_value_is_refused(self, bench: Bench, cell: str) -> None:
        with pytest.raises(
            DataError, match=r"cell B3: column v: a formula without a value; open the workbook in Excel"
        ):
            values(bench, "><v>1</v>", cell)

    def test_a_date_that_is_none(self, bench: Bench) -> None:
        book = save(bench, [("id", "v"), (1, 10**9)])
        book.active["B2"].number_format = "yyyy-mm-dd"
        book.save(bench.root / NAME)
        with pytest.raises(DataError, match=r"'#VALUE! in B2' is not a date"):
            bench.extract(name=NAME, columns={"id": "bigint", "v": "date"})

    def test_a_value_outside_the_header(self, bench: Bench) -> None:
        save(bench, [("id", "v"), (1, "x"), (2, "y", None, "a note")])
        with pytest.raises(DataError, match=r"cell D3: 'a note' stands outside the columns of the header"):
            bench.extract(name=NAME, columns=ANY)


class TestHeader:
    @pytest.mark.parametrize(
        ("header", "message"),
        [
            (("id",), "row 1: no 'v'"),
            (("id", "v", "w"), "row 1: unknown 'w'"),
            (("id", "v", "V"), "row 1: the column v is there twice"),
            ((1, 2), "row 1: no 'id', 'v' and unknown '1', '2'"),
            ((), "row 1 of the sheet is empty"),
        ],
    )
    def test_another_one_is_refused(self, bench: Bench, header: tuple[Any, ...], message: str) -> None:
        save(bench, [header, (1, "x")])
        with pytest.raises(DataError, match=rf"orders\.xlsx: {message}"):
            bench.extract(name=NAME, columns=ANY)

    def test_a_title_above_it_is_refused(self, bench: Bench) -> None:
        save(bench, [("Orders of May",), ("id", "v"), (1, "x")])
        with pytest.raises(DataError, match="row 1: no 'id', 'v' and unknown 'Orders of May'"):
            bench.extract(name=NAME, columns=ANY)

    def test_only_a_header_is_no_rows(self, bench: Bench) -> None:
        save(bench, [("id", "v")])
        assert bench.extract(name=NAME, columns=ANY).rows == []

    @pytest.mark.parametrize("cells", ["A1:B1", "A1:A2", "B2:B3"])
    def test_merged_cells_are_refused(self, bench: Bench, cells: str) -> None:
        book = save(bench, [("id", "v"), (1, "x"), (2, None)])
        book.active.merge_cells(cells)
        book.save(bench.root / NAME)
        with pytest.raises(DataError, match=rf"merged cells {cells}|no 'v'|stands outside"):
            bench.extract(name=NAME, columns=ANY)

    def test_ignore_takes_what_is_common(self, bench: Bench) -> None:
        save(bench, [("my col", "id", "other"), ("x", 1, "y"), ("x", 2)])
        extracted = bench.extract(name=NAME, columns=ANY, meta={"on_schema_change": "ignore"})
        assert extracted.rows == [(1, None), (2, None)]


@pytest.mark.parametrize(
    "data",
    [b"", b"id,v\n1,x\n", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600],
    ids=["empty", "CSV", "cut off", "with a password"],
)
def test_what_is_no_workbook_is_refused(bench: Bench, data: bytes) -> None:
    bench.write(data, NAME)
    with pytest.raises(DataError, match=r"orders\.xlsx: cannot be read as an Excel workbook"):
        bench.extract(name=NAME, columns=ANY)


def test_broken_xml_is_refused(bench: Bench) -> None:
    write_sheet(bench, '<row r="2"><c r="A2"><v>1</v></c></row><row r="3"><c r="A3"><v>2</x></c></row>')
    with pytest.raises(DataError, match="cannot be read as an Excel workbook"):
        bench.extract(name=NAME, columns=ANY)


def test_another_ending_with_the_format_said(bench: Bench) -> None:
    save(bench, [("id", "v"), (1, "x")])
    (bench.root / NAME).rename(bench.root / "orders.bin")
    assert bench.extract(name="orders.bin", columns=ANY, options={"format": "xlsx"}).rows == [(1, "x")]


def test_wrong_dimensions_do_not_matter(bench: Bench) -> None:
    rows = "".join(f'<row r="{n}"><c r="A{n}"><v>{n}</v></c></row>' for n in range(2, 5))
    write_sheet(bench, rows)
    file = bench.root / NAME
    with zipfile.ZipFile(file) as given:
        parts = {name: given.read(name) for name in given.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b"<sheetData>", b'<dimension ref="A1:A2"/><sheetData>')
    with zipfile.ZipFile(file, "w") as target:
        for name, data in parts.items():
            target.writestr(name, data)
    assert [row[0] for row in bench.extract(name=NAME, columns=ANY).rows] == [2, 3, 4]


def test_cells_and_rows_may_leave_their_places_out(bench: Bench) -> None:
    write_sheet(bench, '<row><c><v>1</v></c><c t="b"><v>1</v></c></row><row r="9"><c><v>2</v></c></row>')
    assert bench.extract(name=NAME, columns=ANY).rows == [(1, "true"), (2, None)]
