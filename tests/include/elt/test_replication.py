"""Replication files: what Sling would ignore is refused, with file, stream and key."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from include.elt.contract import Column, Contract, read_contracts
from include.elt.errors import ReplicationError
from include.elt.paths import REPLICATIONS
from include.elt.replication import NOT_SUPPORTED, Meta, Replication, check_against, read_replication
from include.elt.settings import load_settings

VARIABLES = {"SHOP_FILES": "/srv/shop"}

GOOD = """
source: LOCAL
target: WAREHOUSE
env:
  FOLDER: ${SHOP_FILES}/today
defaults:
  mode: full-refresh
  primary_key: [id]
  source_options: {delimiter: ";", null_if: NA}
  meta: {on_bad_row: reject, max_rejects: 5}
streams:
  "file://{FOLDER}/orders.csv":
    object: raw.orders
    update_key: day
    source_options: {null_if: "-"}
    meta: {max_rejects: 0}
  "file://{FOLDER}/lines.csv":
    object: raw.lines
    primary_key: [order_id, number]
  "file://{FOLDER}/off.csv":
    object: raw.off
    disabled: true
"""
STREAM = """
source: LOCAL
target: WAREHOUSE
streams:
  file:///a.csv:
    object: raw.a
    mode: full-refresh
    primary_key: id
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop_files.yaml"


def read(file: Path, text: str | bytes) -> Replication:
    file.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
    return read_replication(file, VARIABLES)


def refused(file: Path, text: str | bytes) -> str:
    with pytest.raises(ReplicationError) as caught:
        read(file, text)
    message = str(caught.value)
    assert message.startswith(str(file))
    return message


class TestGood:
    def test_defaults_are_merged_and_variables_filled_in(self, file: Path) -> None:
        replication = read(file, GOOD)
        assert (replication.name, replication.source) == ("shop_files", "LOCAL")
        orders, lines = replication.streams
        assert orders.name == "file:///srv/shop/today/orders.csv"
        assert orders.path == Path("/srv/shop/today/orders.csv")
        assert (orders.id, orders.table, orders.mode) == ("orders", "raw.orders", "full-refresh")
        assert (orders.primary_key, orders.update_key) == (("id",), "day")
        assert (orders.source_options.delimiter, orders.source_options.null_if) == (";", "-")
        assert (orders.meta.on_bad_row, orders.meta.max_rejects) == ("reject", 0)
        assert (lines.primary_key, lines.update_key) == (("order_id", "number"), None)
        assert (lines.source_options.null_if, lines.meta.max_rejects) == ("NA", 5)

    def test_a_stream_alone_has_the_careful_defaults(self, file: Path) -> None:
        (stream,) = read(file, STREAM).streams
        assert stream.primary_key == ("id",)
        assert (stream.meta.on_bad_row, stream.meta.allow_empty) == ("fail", False)
        assert (stream.source_options.delimiter, stream.source_options.null_if) == (",", None)
        assert not stream.source_options.empty_as_null

    def test_disabled_streams_are_left_out(self, file: Path) -> None:
        assert [stream.id for stream in read(file, GOOD).streams] == ["orders", "lines"]

    def test_a_stream_may_say_nothing_of_its_own_but_its_table(self, file: Path) -> None:
        text = GOOD + '  "file://{FOLDER}/x.csv": {object: raw.x, meta: null, source_options: null}\n'
        assert read(file, text).stream("x").meta.max_rejects == 5

    def test_a_stream_is_found_by_its_id(self, file: Path) -> None:
        replication = read(file, GOOD)
        assert replication.stream("lines") is replication.streams[1]
        with pytest.raises(ReplicationError, match="no stream 'line'; there are orders, lines"):
            replication.stream("line")


FAULTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # what is replaced in STREAM, by what, what the message says
    "misspelt key": (
        "primary_key",
        "primry_key",
        ("stream file:///a.csv", "'primry_key'", "did you mean primary_key?"),
    ),
    "unknown key": ("mode:", "xyz: 1\n    mode:", ("'xyz'", "allowed: mode, object, primary_key")),
    "misspelt top key": ("streams:", "stream:", ("'stream'", "did you mean streams?")),
    "misspelt option": (
        "mode:",
        "source_options: {delimter: x}\n    mode:",
        ("source_options", "did you mean delimiter?"),
    ),
    "misspelt meta": ("mode:", "meta: {allow_emtpy: true}\n    mode:", ("meta", "did you mean allow_empty?")),
    "unknown option": (
        "mode:",
        "source_options: {header: false}\n    mode:",
        ("'header'", "allowed: format, delimiter, sheet, null_if"),
    ),
    "misspelt default": ("streams:", "defaults: {mod: x}\nstreams:", ("defaults", "did you mean mode?")),
    "unknown mode": ("full-refresh", "truncate", ("mode: got 'truncate'", "'full-refresh'")),
    "no mode": ("mode: full-refresh", "disabled: false", ("mode is missing",)),
    "no object": ("object: raw.a", "disabled: false", ("object is missing",)),
    "no primary key": ("primary_key: id", "disabled: false", ("primary_key is missing",)),
    "empty primary key": ("primary_key: id", "primary_key: []", ("primary_key", "at least 1")),
    "primary key of no text": ("primary_key: id", "primary_key: [1]", ("primary_key.0: got 1",)),
    "table without schema": ("raw.a", "a", ("object: got 'a'",)),
    "table in capitals": ("raw.a", "raw.Orders", ("object: got 'raw.Orders'",)),
    "table with SQL": ("raw.a", '"raw.a; drop"', ("object",)),
    "disabled as text": ("mode:", 'disabled: "false"\n    mode:', ("disabled: got 'false'", "true or false")),
    "all disabled": ("mode:", "disabled: true\n    mode:", ("every stream is disabled",)),
    "long delimiter": (
        "mode:",
        'source_options: {delimiter: ";;"}\n    mode:',
        ("delimiter: got ';;'", "one character"),
    ),
    "quote as delimiter": ("mode:", "source_options: {delimiter: '\"'}\n    mode:", ("delimiter", "one character")),
    "empty null_if": ("mode:", "source_options: {null_if: ''}\n    mode:", ("null_if: got ''",)),
    "null_if as number": ("mode:", "source_options: {null_if: 0}\n    mode:", ("null_if: got 0",)),
    "unknown policy": (
        "mode:",
        "meta: {on_bad_row: drop}\n    mode:",
        ("on_bad_row: got 'drop'", "'fail' or 'reject'"),
    ),
    "negative limit": ("mode:", "meta: {max_rejects: -1}\n    mode:", ("max_rejects: got -1",)),
    "limit as text": ("mode:", 'meta: {max_rejects: "5"}\n    mode:', ("max_rejects: got '5'",)),
    "truth as text": ("mode:", "meta: {allow_empty: 'yes'}\n    mode:", ("allow_empty: got 'yes'",)),
    "file through a connection": ("LOCAL", "shop", ("with source shop a stream is named schema.table",)),
    "no source": ("source: LOCAL", "", ("source is missing",)),
    "no target": ("target: WAREHOUSE", "", ("target is missing",)),
    "a table's name": ("file:///a.csv", "public.orders", ("stream public.orders", "a stream is named file:///path")),
    "a name of three parts": ("file:///a.csv", "db.public.orders", ("stream db.public.orders: with source LOCAL",)),
    "relative file": ("file:///a.csv", "file://a.csv", ("is named file:///path",)),
    "a number as stream": ("file:///a.csv", "7", ("stream 7",)),
    "unknown placeholder": ("file:///a.csv", '"file://{FOLDER}/a.csv"', ("{FOLDER} is not set under env",)),
    "missing env": (
        "streams:",
        "env: {FOLDER: '${HOME}'}\nstreams:",
        ("env: FOLDER", "the environment variable HOME is not set"),
    ),
    "env as list": ("streams:", "env: [FOLDER]\nstreams:", ("env: a mapping is needed",)),
    "key twice": ("mode:", "primary_key: x\n    mode:", ("'primary_key' is there twice", "line")),
    "stream twice": (
        "    object",
        "    object: raw.a\n  file:///a.csv:\n    object",
        ("'file:///a.csv' is there twice",),
    ),
    "top key twice": ("target:", "source: LOCAL\ntarget:", ("'source' is there twice",)),
    "tag of python": ("raw.a", "!!python/name:os.system", ("not a replication", "python/name")),
    "tabs": ("    object", "\tobject", ("not a replication",)),
    "list as stream": (
        "    object: raw.a\n    mode: full-refresh\n    primary_key: id",
        "    - a",
        ("mapping is needed",),
    ),
    "meta as text": ("mode:", "meta: reject\n    mode:", ("meta: a mapping is needed, got 'reject'",)),
}


class TestRefused:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_names_file_stream_and_key(self, file: Path, fault: str) -> None:
        old, new, parts = FAULTS[fault]
        assert old in STREAM
        message = refused(file, STREAM.replace(old, new, 1))
        for part in parts:
            assert part in message

    @pytest.mark.parametrize("key", sorted(NOT_SUPPORTED))
    @pytest.mark.parametrize("place", ["stream", "defaults"])
    def test_keys_of_sling_that_are_not_supported_say_why(self, file: Path, key: str, place: str) -> None:
        new = f"defaults: {{{key}: x}}\nstreams:" if place == "defaults" else f"streams:\n  file:///b.csv: {{{key}: x}}"
        message = refused(file, STREAM.replace("streams:", new, 1))
        assert f"{key} is not supported: {NOT_SUPPORTED[key]}" in message
        assert place in message

    @pytest.mark.parametrize("table", ["raw.a", "other.a"], ids=["one table", "one name in two schemas"])
    def test_two_streams_for_one_target(self, file: Path, table: str) -> None:
        text = STREAM + f"  file:///b.csv: {{object: {table}, mode: full-refresh, primary_key: id}}\n"
        message = refused(file, text)
        assert f"stream file:///b.csv: object {table} has the same table name as stream file:///a.csv" in message

    def test_a_disabled_twin_is_none(self, file: Path) -> None:
        text = STREAM + "  file:///b.csv: {object: raw.a, mode: full-refresh, primary_key: id, disabled: true}\n"
        assert len(read(file, text).streams) == 1

    def test_every_fault_of_a_stream_has_its_line(self, file: Path) -> None:
        message = refused(
            file, STREAM.replace("primary_key: id", "").replace("full-refresh", "x").replace("raw.a", "a")
        )
        assert len(message.splitlines()) == 3

    @pytest.mark.parametrize("text", ["", "- a", "text", "streams: [a]", b"\xff\xfe", "{", "source: LOCAL\n"])
    def test_something_else_than_a_replication(self, file: Path, text: str | bytes) -> None:
        refused(file, text)

    def test_a_missing_file(self, file: Path) -> None:
        with pytest.raises(ReplicationError, match=r"shop_files\.yaml: cannot be read: No such file"):
            read_replication(file, VARIABLES)


def contract(*names: str) -> dict[str, Contract]:
    return {"raw.a": Contract("raw.a", "shop.a", tuple(Column(name, "bigint") for name in names), Path("sources.yml"))}


class TestAgainstContracts:
    def test_all_is_well(self, file: Path) -> None:
        check_against(read(file, STREAM), contract("id", "other"))

    def test_a_table_without_a_contract(self, file: Path) -> None:
        with pytest.raises(
            ReplicationError, match=r"stream file:///a\.csv: object raw\.a has no contract;.*sources\.yml"
        ):
            check_against(read(file, STREAM), {})

    def test_a_primary_key_that_is_no_column(self, file: Path) -> None:
        with pytest.raises(ReplicationError, match=r"primary_key id is not a column of raw\.a; there are key, name"):
            check_against(read(file, STREAM), contract("key", "name"))

    def test_an_update_key_that_is_no_column(self, file: Path) -> None:
        replication = read(file, STREAM + "    update_key: day\n")
        with pytest.raises(ReplicationError, match="update_key day is not a column"):
            check_against(replication, contract("id"))

    def test_every_fault_has_its_line(self, file: Path) -> None:
        replication = read(file, GOOD)
        with pytest.raises(ReplicationError) as caught:
            check_against(replication, {"raw.lines": contract("x")["raw.a"]})
        assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("path", sorted(REPLICATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_replications_fit_the_shipped_contracts(path: Path, no_settings: None) -> None:
    replication = read_replication(path, load_settings(_env_file=None).variables())
    contracts = read_contracts()
    check_against(replication, contracts)
    assert {stream.table for stream in replication.streams} <= set(contracts)


def test_there_are_shipped_replications() -> None:
    assert list(REPLICATIONS.glob("*.yaml"))


DATABASE = """
source: shop_db
target: WAREHOUSE
streams:
  public.orders:
    object: raw.orders
    mode: incremental
    primary_key: id
    update_key: upd
"""


class TestDatabases:
    def test_the_keys_of_a_database(self, file: Path) -> None:
        more = """    select: [id, upd, a]
    where: a <> 'x'
    meta: {lookback: 3 days, deletes: soft, on_schema_change: add, reconcile: 0.5%, parallel: 4}
"""
        [stream] = read(file, DATABASE + more).streams
        assert (stream.mode, stream.select, stream.where) == ("incremental", ("id", "upd", "a"), "a <> 'x'")
        meta = stream.meta
        assert (meta.lookback, meta.deletes, meta.on_schema_change, meta.parallel) == ("3 days", "soft", "add", 4)
        assert meta.tolerated(1000) == 5

    @pytest.mark.parametrize(("given", "columns"), [("upd", ("upd",)), ("[upd, id]", ("upd", "id")), ("[]", ())])
    def test_clustering(self, file: Path, given: str, columns: tuple[str, ...]) -> None:
        [stream] = read(file, DATABASE + f"    meta: {{cluster_by: {given}}}\n").streams
        assert stream.meta.cluster_by == columns

    def test_a_query_has_any_name_and_keeps_slings_placeholders(self, file: Path) -> None:
        text = DATABASE.replace("public.orders", "open_orders")
        more = "    sql: select * from o where {incremental_where_cond} and s = '{STATE}'\nenv: {STATE: open}\n"
        [stream] = read(file, text + more).streams
        assert stream.name == "open_orders"
        assert stream.sql == "select * from o where {incremental_where_cond} and s = 'open'"

    @pytest.mark.parametrize(("reconcile", "tolerated"), [(None, None), ("exact", 0), (7, 7), ("1%", 10), ("0.25%", 2)])
    def test_what_a_reconciliation_tolerates(self, reconcile: int | str | None, tolerated: int | None) -> None:
        assert Meta(reconcile=reconcile).tolerated(1000) == tolerated

    @pytest.mark.parametrize(
        ("columns", "chosen"), [([], "id a b"), (["id", "b"], "id b"), (["-a"], "id b"), (["-a", "-b"], "id")]
    )
    def test_selected_columns(self, file: Path, columns: list[str], chosen: str) -> None:
        [stream] = read(file, DATABASE + (f"    select: {columns}\n" if columns else "")).streams
        assert stream.selected(["id", "a", "b"]) == tuple(chosen.split())

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("update_key: null", "update_key is missing; mode incremental of a database needs it"),
            ("select: [id, -a]", "select: got"),
            ("sql: select {NAME}", "{NAME} is not set under env"),
            ("meta: {lookback: soon}", "meta.lookback: got 'soon'; a time span like `3 days`"),
            ("meta: {lookback: -1}", "meta.lookback: got -1"),
            ("meta: {reconcile: about}", "meta.reconcile: got 'about'; `exact`"),
            ("meta: {deletes: all}", "meta.deletes: got 'all'"),
            ("meta: {parallel: 0}", "meta.parallel: got 0"),
            ("meta: {cluster_by: [a, b, c, d, e]}", "meta.cluster_by"),
            ("source_options: {delimiter: ;}", "source_options are for files"),
        ],
    )
    def test_what_a_database_refuses(self, file: Path, line: str, message: str) -> None:
        key = line.split(":")[0]
        kept = "".join(f"{each}\n" for each in DATABASE.splitlines() if not each.strip().startswith(f"{key}:"))
        assert message in refused(file, f"{kept}    {line}\n")

    def test_a_snapshot_has_no_deletes(self, file: Path) -> None:
        text = DATABASE.replace("incremental", "snapshot") + "    meta: {deletes: hard}\n"
        assert "meta.deletes is for tables that hold each row once" in refused(file, text)

    @pytest.mark.parametrize(
        "line", ["where: a", "select: [a]", "sql: select 1", "meta: {parallel: 2}", "meta: {deletes: soft}"]
    )
    def test_what_only_a_database_has(self, file: Path, line: str) -> None:
        assert " is for databases" in refused(file, STREAM + f"    {line}\n")


class TestAgainstTheContract:
    """What `make check` finds without asking a source."""

    def found(self, file: Path, text: str, *columns: str, added: tuple[str, ...] = ()) -> str:
        replication = read(file, text)
        shape = tuple(Column(*column.split()) for column in columns)
        contract = Contract("raw.orders", "shop.orders", shape, file, added)
        with pytest.raises(ReplicationError) as caught:
            check_against(replication, {"raw.orders": contract})
        return str(caught.value)

    def test_columns_that_the_load_adds(self, file: Path) -> None:
        snapshot = DATABASE.replace("incremental", "snapshot")
        columns = ("id bigint", "upd timestamp")
        assert "mode: snapshot adds the column _loaded_at: declare it" in self.found(file, snapshot, *columns)
        soft = DATABASE + "    meta: {deletes: soft}\n"
        assert "meta.deletes: soft adds the column _deleted_at: declare it" in self.found(file, soft, *columns)
        message = self.found(file, DATABASE, *columns, added=("_loaded_at",))
        assert "raw.orders has the column _loaded_at, which only mode: snapshot fills" in message

    def test_columns_to_cluster_by(self, file: Path) -> None:
        text = DATABASE + "    meta: {cluster_by: nope}\n"
        message = self.found(file, text, "id bigint", "upd timestamp")
        assert "meta.cluster_by nope is not a column of raw.orders; there are id, upd" in message

    @pytest.mark.parametrize(
        ("lookback", "data_type", "message"),
        [
            ("3", "timestamp", "meta.lookback: got 3; a time span"),
            ("3 days", "bigint", "upd is a bigint: a number is needed"),
            ("3", "string", "a look-back needs a date, time or number"),
        ],
    )
    def test_a_lookback_fits_its_update_key(self, file: Path, lookback: str, data_type: str, message: str) -> None:
        text = f"{DATABASE}    meta: {{lookback: {lookback}}}\n"
        assert message in self.found(file, text, "id bigint", f"upd {data_type}")
