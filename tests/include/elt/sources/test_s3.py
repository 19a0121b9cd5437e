"""Files in S3 into the lake: each object is read once, as it was listed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from include.elt.errors import DataError, ExtractError, ReplicationError, SettingsError, SourceRefusedError
from include.elt.extract import Extraction
from include.elt.modes import Reading
from include.elt.replication import Replication, Stream
from include.elt.sources import open_source
from include.elt.sources.s3 import Objects, open_objects
from tests.support.elt import Bench, rows_of

CSV = b"id,a,b\n1,x,\xc3\xbc\n2,,y\n"


class Shop:
    """A bucket with files, and the way from there into the bench's lake."""

    def __init__(self, server: Any, bench: Bench) -> None:
        self.server = server
        self.bench = bench
        self.name = server.bucket()
        self.client = server.client()
        self.connection = server.connection("shop_s3")

    def put(self, key: str, data: bytes = CSV, **more: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data, **more)

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def extraction(self, key: str, **keys: Any) -> Extraction:
        keys = {"mode": "full-refresh", "object": "raw.orders", "primary_key": ("id",), **keys}
        stream = Stream(name=self.url(key), **keys)
        file = self.bench.root / "shop.yaml"
        replication = Replication(name="shop", file=file, source="shop_s3", streams=(stream,))
        contract, settings = self.bench.contract(), self.bench.settings()
        source = open_source(replication, stream, contract, settings, lambda _: self.connection)
        return Extraction(replication, stream, contract, settings, source)

    def objects(self, pattern: str) -> Objects:
        return open_objects(self.extraction(pattern).stream, self.connection)

    def names(self, pattern: str) -> list[str]:
        objects = self.objects(pattern)
        return [objects.name(each.key) for each in objects.listed()]

    def gets(self) -> list[str]:
        return [path for method, path, _ in self.server.requests if method == "GET" and "list-type" not in path]


@pytest.fixture
def bench(tmp_path: Path, no_settings: None) -> Bench:
    """Without a database server."""
    return Bench(tmp_path)


@pytest.fixture
def shop(s3: Any, bench: Bench) -> Shop:
    return Shop(s3, bench)


class TestExtract:
    @pytest.mark.parametrize("key", ["in/orders.csv", "orders.csv", "a b+c%20/ü#?.csv"])
    def test_an_object_arrives_as_a_local_file_would(self, shop: Shop, key: str) -> None:
        shop.put(key)
        shop.server.requests.clear()
        manifest, location = shop.extraction(key.replace("?", "*")).run("manual__1")
        local = shop.bench.extract(CSV)

        assert location
        assert rows_of(Path(location)) == local.rows
        assert manifest.rows_read == 2
        [file] = manifest.source["files"]
        assert (file["bytes"], file["sha256"]) == (len(CSV), hashlib.sha256(CSV).hexdigest())
        assert len(shop.gets()) == 1, "the source is read once"
        assert shop.bench.work_folders() == []

    def test_one_object_needs_no_right_to_list(self, shop: Shop) -> None:
        shop.put("in/orders.csv")
        rights = [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{shop.name}/in/*"}]
        shop.connection = shop.server.connection("shop_s3", shop.server.user(rights))
        assert shop.extraction("in/orders.csv").run("manual__1")[0].rows == 2
        with pytest.raises(SourceRefusedError, match=f"{shop.url('in/')} .*shop_s3: AccessDenied"):
            shop.extraction("in/").run("manual__1")

    def test_a_folder_of_several_formats_is_one_stream(self, shop: Shop) -> None:
        shop.put("in/1.csv")
        shop.put("in/more/2.jsonl", b'{"id": 3, "a": "z", "b": null}\n')
        shop.put("in/notes.txt", b"?")
        manifest, location = shop.extraction("in/").run("manual__1")
        assert [file["name"] for file in manifest.source["files"]] == ["1.csv", "more/2.jsonl"]
        assert location
        assert rows_of(Path(location)) == [(1, "x", "ü"), (2, "", "y"), (3, "z", None)]

    def test_only_new_objects_are_read(self, shop: Shop) -> None:
        shop.put("in/1.csv")
        first, _ = shop.extraction("in/", mode="incremental").run("manual__1", Reading("incremental"))
        known = frozenset((file["name"], file["sha256"]) for file in first.source["files"])
        shop.put("in/2.csv", b"id,a,b\n7,new,n\n")
        second, _ = shop.extraction("in/", mode="incremental").run(
            "manual__1", Reading("incremental", known_files=known)
        )
        assert ([file["name"] for file in second.source["files"]], second.rows) == (["2.csv"], 1)
        nothing = shop.extraction("none/", mode="incremental").run("manual__1", Reading("incremental"))
        assert nothing[0].rows == 0

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "the file is empty"),
            (b"id,a\n1,x\n", "line 1: no 'b'"),
            (b"id,a,b\n1,x,y,z\n", "line 2"),
            (b"id,a,b\none,x,y\n", "line 2"),
        ],
    )
    def test_messages_name_the_object(self, shop: Shop, data: bytes, message: str) -> None:
        shop.put("in/orders.csv", data)
        with pytest.raises(DataError) as caught:
            shop.extraction("in/orders.csv").run("manual__1")
        assert str(caught.value).startswith(f"{shop.url('in/orders.csv')}: ")
        assert message in str(caught.value)
        assert str(shop.bench.lake.root) not in str(caught.value)

    @pytest.mark.parametrize("key", ["in/none.csv", "none/", "in/none_*.csv"])
    def test_what_is_not_there(self, shop: Shop, key: str) -> None:
        shop.put("in/orders.csv")
        with pytest.raises(
            DataError, match=r"is not there.* \(connection shop_s3\)|no file (is there|has such)"
        ) as caught:
            shop.extraction(key).run("manual__1")
        assert str(caught.value).startswith(shop.url(key))
        assert caught.value.final

    def test_no_such_bucket(self, shop: Shop) -> None:
        shop.name = "none-of-ours"
        with pytest.raises(SourceRefusedError, match=r"s3://none-of-ours/x\.csv .* shop_s3: NoSuchBucket"):
            shop.extraction("x.csv").run("manual__1")

    def test_an_object_that_is_replaced_after_it_was_listed(self, shop: Shop) -> None:
        shop.put("in/orders_1.csv")

        def replaced(environ: dict[str, Any]) -> None:
            if environ["PATH_INFO"].endswith("orders_1.csv"):
                shop.server.faults.clear()
                shop.put("in/orders_1.csv", CSV + b"3,x,y\n")

        shop.server.faults.append(replaced)
        with pytest.raises(ExtractError, match=r"orders_1\.csv was changed while it was read.*; nothing") as caught:
            shop.extraction("in/orders_*.csv").run("manual__1")
        assert not caught.value.final

    def test_an_object_that_is_removed_after_it_was_listed(self, shop: Shop) -> None:
        shop.put("in/orders_1.csv")

        def removed(environ: dict[str, Any]) -> None:
            if environ["PATH_INFO"].endswith("orders_1.csv"):
                shop.server.faults.clear()
                shop.client.delete_object(Bucket=shop.name, Key="in/orders_1.csv")

        shop.server.faults.append(removed)
        with pytest.raises(ExtractError, match=r"orders_1\.csv is not there .*; it was a moment ago") as caught:
            shop.extraction("in/").run("manual__1")
        assert not caught.value.final

    def test_an_object_that_is_replaced_while_the_connection_is_lost(self, shop: Shop) -> None:
        shop.put("in/orders.csv", CSV * 1000)
        shop.server.cut[f"/{shop.name}/in/orders.csv"] = 5000

        def replaced(environ: dict[str, Any]) -> None:
            if "HTTP_RANGE" in environ:
                shop.server.faults.clear()
                shop.put("in/orders.csv", CSV * 2000)

        shop.server.faults.append(replaced)
        with pytest.raises(ExtractError, match=r"orders\.csv was changed while it was read"):
            shop.extraction("in/orders.csv").run("manual__1")


class TestListing:
    @pytest.fixture
    def keys(self, shop: Shop) -> None:
        for key in (
            *("in/orders_1.csv", "in/orders_2.csv", "in/orders_22.csv", "in/orders_1.csv.bak", "in/", "in/2024/"),
            *("in/2024/orders_3.csv", "in/_SUCCESS", "in/_tmp/x.csv", "in/.hidden.csv", "in2/orders_4.csv", "x"),
        ):
            shop.put(key)

    @pytest.mark.usefixtures("keys")
    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("in/orders_*.csv", ["orders_1.csv", "orders_2.csv", "orders_22.csv"]),
            ("in/orders_?.csv", ["orders_1.csv", "orders_2.csv"]),
            ("in/*/orders_*.csv", ["2024/orders_3.csv"]),
            ("in*/*_22.csv", ["in/orders_22.csv"]),
            ("in*/orders_?.csv", ["in/orders_1.csv", "in/orders_2.csv", "in2/orders_4.csv"]),
            ("in/_*", ["_SUCCESS"]),
            ("in/", ["2024/orders_3.csv", "orders_1.csv", "orders_2.csv", "orders_22.csv"]),
            ("in2/", ["orders_4.csv"]),
            ("i/", []),
            ("in/[o]rders_1.csv*", []),
        ],
    )  # fmt: skip
    def test_names_are_keys_below_the_folder(self, shop: Shop, pattern: str, names: list[str]) -> None:
        assert shop.names(pattern) == names

    @pytest.mark.usefixtures("keys")
    def test_a_whole_bucket(self, shop: Shop) -> None:
        stream = Stream(name=f"s3://{shop.name}/", mode="full-refresh", object="raw.orders", primary_key=("id",))
        objects = open_objects(stream, shop.connection)
        assert [objects.name(each.key) for each in objects.listed()][-2:] == ["in/orders_22.csv", "in2/orders_4.csv"]


class TestBring:
    @pytest.fixture
    def target(self, tmp_path: Path) -> Path:
        (tmp_path / "target").mkdir()
        return tmp_path / "target"

    def test_each_object_is_a_file_with_its_ending(self, shop: Shop, target: Path) -> None:
        for key in ("in/a.csv", "in/b/c.csv.gz"):
            shop.put(key, key.encode())
        found = shop.objects("in/").bring(target)
        assert [(each.name, each.path.name, each.label) for each in found] == [
            ("a.csv", "00000.csv", shop.url("in/a.csv")),
            ("b/c.csv.gz", "00001.csv.gz", shop.url("in/b/c.csv.gz")),
        ]
        assert found[0].path.read_text() == "in/a.csv"

    @pytest.mark.parametrize("pattern", ["in/", "in/*.csv", "in/a.csv"])
    @pytest.mark.parametrize("sha256", [True, False])
    def test_known_ones_are_left_out(self, shop: Shop, target: Path, pattern: str, sha256: bool) -> None:
        shop.put("in/a.csv", b"a", **({"ChecksumAlgorithm": "SHA256"} if sha256 else {}))
        known = frozenset({("a.csv", hashlib.sha256(b"a").hexdigest()), ("b.csv", "other")})
        shop.server.requests.clear()
        assert shop.objects(pattern).bring(target, known) == []
        assert len(shop.gets()) == (0 if sha256 and pattern != "in/a.csv" else 1)
        assert list(target.iterdir()) == []

        shop.put("in/a.csv", b"changed", **({"ChecksumAlgorithm": "SHA256"} if sha256 else {}))
        [found] = shop.objects(pattern).bring(target, known)
        assert found.path.read_bytes() == b"changed"


@pytest.mark.parametrize(
    ("name", "connection", "error"),
    [
        ("s3://bucket/x", Connection(conn_id="shop_s3", conn_type="postgres"), "'postgres'; s3://bucket/x needs aws"),
        ("public.orders", Connection(conn_id="shop_s3", conn_type="aws"), "a stream is named s3://bucket/key"),
        (
            "public.orders",
            Connection(conn_id="shop_s3", conn_type="ftp"),
            "'ftp'; a replication reads",
        ),
    ],
)
def test_connection_and_stream_have_to_fit(bench: Bench, name: str, connection: Connection, error: str) -> None:
    stream = Stream(name=name, mode="full-refresh", object="raw.orders", primary_key=("id",))
    replication = Replication(name="shop", file=bench.root / "shop.yaml", source="shop_s3", streams=(stream,))
    with pytest.raises((SettingsError, ReplicationError), match=error):
        open_source(replication, stream, bench.contract(), bench.settings(), lambda _: connection)
