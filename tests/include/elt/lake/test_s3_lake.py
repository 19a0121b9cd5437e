"""A lake in S3, against a real API: an extraction is there when its manifest is, and what comes back is what went."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from include.elt.connections import aws
from include.elt.connections.aws import Bucket
from include.elt.errors import LakeError, LakeRefusedError, LoadError, SettingsError
from include.elt.extract import Extraction
from include.elt.lake import MANIFEST, open_lake
from include.elt.lake.remote import RemoteLake
from include.elt.paths import ROOT
from include.elt.replication import Replication
from include.elt.sql import literal
from tests.support.elt import Bench, rows_of

ROWS = "SELECT 1::BIGINT AS id, 'x' AS a"
MANY = "SELECT range AS id, repeat(md5(range::VARCHAR), 4) AS a FROM range(200_000)"  # about 8 MB

MakeLake = Callable[..., RemoteLake]


@pytest.fixture
def bucket(s3: Any) -> str:
    return str(s3.bucket())


@pytest.fixture
def make(s3: Any, bucket: str, bench: Bench) -> MakeLake:
    """Opens the lake `s3://<bucket>/my/lake` by a connection of its own."""

    def lake(prefix: str = "my/lake", **connection: Any) -> RemoteLake:
        settings = bench.settings(lake=f"s3://{bucket}/{prefix}".rstrip("/"), scratch=bench.root / "scratch")
        opened = open_lake(settings, lambda name: s3.connection(name, **connection))
        assert isinstance(opened, RemoteLake)
        return opened

    return lake


@pytest.fixture
def lake(make: MakeLake) -> RemoteLake:
    return make()


def left(lake: RemoteLake) -> list[Path]:
    return list(lake.scratch.glob("*"))


@pytest.mark.parametrize("prefix", ["my/lake", "", "ü b+c%20/x"])
def test_what_comes_back_is_what_went(bench: Bench, make: MakeLake, s3: Any, bucket: str, prefix: str) -> None:
    lake = make(prefix)
    manifest, location = bench.publish_to(lake, ROWS, run_id="manual__2024-01-01T00:00:00+00:00", source={"file": "ü"})
    place = "/".join(filter(None, (prefix, f"shop/orders/manual__2024-01-01T00_00_00_00_00--{manifest.id[:12]}")))

    assert location == f"s3://{bucket}/{place}"
    assert s3.keys(bucket) == [f"{place}/manifest.json", f"{place}/part-00000.parquet"]
    assert lake.read_manifest(location) == manifest
    with lake.fetch(location, manifest) as folder:
        assert rows_of(folder) == [(1, "x")]
        assert bench.warehouse().load(manifest, folder).rows_total == 1
    assert left(lake) == []


def test_an_extraction_arrives_with_its_rejects_and_its_keys(
    bench: Bench, lake: RemoteLake, s3: Any, bucket: str
) -> None:
    with lake.workplace("shop", "orders") as work:
        (work / "a.parquet").write_bytes(b"a")
        (work / "keys.parquet").write_bytes(b"keys")
        (work / "rejects.jsonl").write_bytes(b"{}\n")
        manifest, _ = bench.publish(ROWS)
        digests = {name: hashlib.sha256(name[:-8].encode()).hexdigest() for name in ("a.parquet", "keys.parquet")}
        files = {name: replace(manifest.files[0], name=name, sha256=digest) for name, digest in digests.items()}
        manifest = replace(manifest, files=(files["a.parquet"],), keys=files["keys.parquet"])
        location = lake.publish(work, manifest)

    names = [key.rsplit("/", 1)[1] for key in s3.keys(bucket)]
    assert names == ["a.parquet", "keys.parquet", "manifest.json", "rejects.jsonl"]
    with lake.fetch(location, lake.read_manifest(location)) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            "a.parquet": b"a",
            "keys.parquet": b"keys",
        }


def test_every_body_carries_a_digest_that_s3_checks_and_the_manifest_comes_last(
    bench: Bench, lake: RemoteLake, s3: Any
) -> None:
    s3.requests.clear()
    bench.publish_to(lake, ROWS)

    puts = [(path.rsplit("/", 1)[1], headers) for method, path, headers in s3.requests if method == "PUT"]
    assert [name for name, _ in puts] == ["part-00000.parquet", "manifest.json"]
    assert all("x-amz-checksum-sha256" in headers and len(headers["x-amz-content-sha256"]) == 64 for _, headers in puts)


def test_a_server_without_checksums_gets_none_but_a_signed_body(bench: Bench, make: MakeLake, s3: Any) -> None:
    lake = make(config_kwargs={"request_checksum_calculation": "when_required", "s3": {"addressing_style": "path"}})
    s3.requests.clear()
    bench.publish_to(lake, ROWS)

    puts = [headers for method, _, headers in s3.requests if method == "PUT"]
    assert len(puts) == 2
    assert not [name for headers in puts for name in headers if "checksum" in name]
    assert all(len(headers["x-amz-content-sha256"]) == 64 for headers in puts)


def test_bytes_that_change_on_the_way_are_refused_and_nothing_is_there(
    bench: Bench, lake: RemoteLake, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Bucket.upload
    monkeypatch.setattr(Bucket, "upload", lambda self, file, key, sha256: upload(self, file, key, "0" * 64))

    with pytest.raises(LakeError, match="BadDigest") as caught:
        bench.publish_to(lake, ROWS)

    assert not caught.value.final
    assert s3.keys(bucket) == []


class TestLargeFiles:
    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(aws, "LARGE", 24 * 1024 * 1024)  # so parts of 6 MB; S3 takes none below 5

    def published(self, lake: RemoteLake, bench: Bench, megabytes: int) -> tuple[Any, str]:
        with lake.workplace("shop", "orders") as work:
            file = work / "part-00000.parquet"
            file.write_bytes(os.urandom(1024 * 1024) * megabytes)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            manifest, _ = bench.publish(ROWS)
            manifest = replace(manifest, files=(replace(manifest.files[0], sha256=digest),))
            return manifest, lake.publish(work, manifest)

    def test_go_in_parts_each_with_a_digest(self, bench: Bench, lake: RemoteLake, s3: Any) -> None:
        manifest, location = self.published(lake, bench, 25)

        parts = [headers for method, path, headers in s3.requests if method == "PUT" and "partNumber=" in path]
        assert len(parts) == 5
        assert all("x-amz-checksum-sha256" in headers for headers in parts)
        with lake.fetch(location, manifest) as folder:
            assert (folder / "part-00000.parquet").stat().st_size == 25 * 1024 * 1024

    def test_a_part_that_fails_is_sent_again(self, bench: Bench, lake: RemoteLake, s3: Any) -> None:
        failures = [(503, "SlowDown", "slower")] * 2
        s3.faults.append(
            lambda environ: failures.pop() if "partNumber=3" in environ["QUERY_STRING"] and failures else None
        )
        manifest, location = self.published(lake, bench, 25)

        with lake.fetch(location, manifest):
            assert failures == []

    def test_one_that_fails_for_good_leaves_nothing(self, bench: Bench, lake: RemoteLake, s3: Any, bucket: str) -> None:
        s3.faults.append(
            lambda environ: (403, "AccessDenied", "no") if "partNumber=3" in environ["QUERY_STRING"] else None
        )
        with pytest.raises(LakeRefusedError, match=f"s3://{bucket}/my/lake/shop/orders/.*part-00000.parquet .*no"):
            self.published(lake, bench, 25)

        assert s3.keys(bucket) == []
        assert "Uploads" not in s3.client().list_multipart_uploads(Bucket=bucket)

    def test_memory_stays_flat(self, bench: Bench, lake: RemoteLake, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """moto holds the object in this process, so only the download is measured."""
        monkeypatch.setattr(aws, "LARGE", 1024**3)
        manifest, location = self.published(lake, bench, 40)
        tracemalloc.start()
        with lake.fetch(location, manifest):
            peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 90 * 1024 * 1024, "what moto needs to answer, and a block"


PUBLISHING = """
import sys
from pathlib import Path
from airflow.sdk import Connection
from include.elt.connections.aws import Bucket
from include.elt.lake import open_lake
from tests.support.elt import Bench

bench = Bench(Path(sys.argv[1]))
settings = bench.settings(lake=sys.argv[2], scratch=bench.root / "scratch")
lake = open_lake(settings, Connection.get)
write = Bucket.write
def spied(self, key, content):
    print("before the manifest", flush=True)
    sys.stdin.readline()
    write(self, key, content)
Bucket.write = spied
bench.publish_to(lake, "SELECT 1::BIGINT AS id, 'x' AS a")
"""


def test_a_kill_before_the_manifest_leaves_no_extraction(bench: Bench, make: MakeLake, s3: Any, bucket: str) -> None:
    lake = make()
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHING, str(bench.root), f"s3://{bucket}/my/lake"],
        cwd=ROOT,
        env=os.environ | {"AIRFLOW_CONN_AWS_DEFAULT": s3.variable()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    with process:
        for line in process.stdout:
            if line == "before the manifest\n":
                break
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    [key] = s3.keys(bucket)
    assert key.endswith("/part-00000.parquet")
    with pytest.raises(LoadError, match=r"manifest\.json is not there; clear the extract task"):
        lake.read_manifest(f"s3://{bucket}/{key.rsplit('/', 1)[0]}")
    assert len(left(lake)) == 1
    with lake.workplace("shop", "orders") as work:
        assert left(lake) == [work], "what the killed one left is gone"

    assert lake.prune("shop", "orders", 2) == []
    assert s3.keys(bucket) == [key], "it may still be on its way"
    s3.object(bucket, key).last_modified -= timedelta(hours=25)
    assert lake.prune("shop", "orders", 2) == []
    assert s3.keys(bucket) == []


def test_two_extractions_at_once_do_not_meet(bench: Bench, make: MakeLake) -> None:
    def publish(number: int) -> tuple[Any, str]:
        return bench.publish_to(make(), f"SELECT {number}::BIGINT AS id, 'x' AS a", run_id="same")

    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(publish, range(4)))

    lake = make()
    for number, (manifest, location) in enumerate(published):
        with lake.fetch(location, lake.read_manifest(location)) as folder:
            assert lake.read_manifest(location) == manifest
            assert rows_of(folder) == [(number, "x")]


class TestFetch:
    def test_a_missing_file(self, bench: Bench, lake: RemoteLake, s3: Any, bucket: str) -> None:
        manifest, location = bench.publish_to(lake, ROWS)
        s3.client().delete_object(Bucket=bucket, Key=f"{location.removeprefix(f's3://{bucket}/')}/part-00000.parquet")
        with (
            pytest.raises(LoadError, match=f"{location}/part-00000.parquet is not there; clear the extract task"),
            lake.fetch(location, manifest),
        ):
            pass
        assert left(lake) == []

    @pytest.mark.parametrize("how", ["one bit", "cut", "longer", "empty"])
    def test_a_damaged_file(self, bench: Bench, lake: RemoteLake, s3: Any, bucket: str, how: str) -> None:
        manifest, location = bench.publish_to(lake, ROWS)
        key = f"{location.removeprefix(f's3://{bucket}/')}/part-00000.parquet"
        content = s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        flipped = bytes([*content[:20], content[20] ^ 1, *content[21:]])
        changed = {"one bit": flipped, "cut": content[:-1], "longer": content + b"\0", "empty": b""}[how]
        s3.client().put_object(Bucket=bucket, Key=key, Body=changed)
        with (
            pytest.raises(LoadError, match=rf"{location}/part-00000\.parquet is not the file that was extracted"),
            lake.fetch(location, manifest),
        ):
            pass
        assert left(lake) == []

    def test_goes_on_where_the_connection_was_lost(self, bench: Bench, lake: RemoteLake, s3: Any) -> None:
        manifest, location = bench.publish_to(lake, MANY)
        path = f"{location.removeprefix('s3:/')}/part-00000.parquet"
        s3.cut[path] = 3_000_000
        s3.requests.clear()
        with lake.fetch(location, manifest) as folder, duckdb.connect() as sql:
            file = literal(folder / "part-00000.parquet")
            assert sql.execute(f"SELECT count(*), max(id) FROM {file}").fetchone() == (200_000, 199_999)
        assert [headers.get("range") for _, _, headers in s3.requests] == [None, "bytes=3000000-"]

    def test_a_file_that_is_replaced_while_the_connection_is_lost(
        self, bench: Bench, lake: RemoteLake, s3: Any, bucket: str
    ) -> None:
        manifest, location = bench.publish_to(lake, MANY)
        key = f"{location.removeprefix(f's3://{bucket}/')}/part-00000.parquet"
        s3.cut[f"/{bucket}/{key}"] = 3_000_000

        def replaced(environ: dict[str, Any]) -> None:
            if "HTTP_RANGE" in environ:
                s3.faults.clear()
                s3.client().put_object(Bucket=bucket, Key=key, Body=b"other")

        s3.faults.append(replaced)
        with (
            pytest.raises(LoadError, match=rf"{location}/part-00000\.parquet is not the file"),
            lake.fetch(location, manifest),
        ):
            pass

    def test_a_location_of_another_lake(self, bench: Bench, lake: RemoteLake, make: MakeLake) -> None:
        manifest, location = bench.publish_to(make("other"), ROWS)
        with pytest.raises(LoadError, match=rf"{location} is not in the lake s3://.*/my/lake/; clear the extract task"):
            lake.read_manifest(location)
        with pytest.raises(LoadError, match=r"/tmp/x is not in the lake"), lake.fetch("/tmp/x", manifest):
            pass

    def test_a_manifest_that_is_none(self, bench: Bench, lake: RemoteLake, s3: Any, bucket: str) -> None:
        _, location = bench.publish_to(lake, ROWS)
        s3.client().put_object(
            Bucket=bucket, Key=f"{location.removeprefix(f's3://{bucket}/')}/{MANIFEST}", Body=b'{"files": 1}'
        )
        with pytest.raises(LoadError, match=rf"{location}/manifest\.json is not a manifest"):
            lake.read_manifest(location)


class TestPrune:
    def published(self, bench: Bench, lake: RemoteLake, s3: Any, count: int) -> list[str]:
        """Extractions that are a minute apart, oldest first."""
        locations = [bench.publish_to(lake, ROWS, run_id=f"run_{9 - number}")[1] for number in range(count)]
        for number, location in enumerate(locations):
            bucket, key = location.removeprefix("s3://").split("/", 1)
            s3.object(bucket, f"{key}/{MANIFEST}").last_modified -= timedelta(minutes=count - number)
        return locations

    @pytest.mark.parametrize("keep", [1, 2, 4, 9])
    def test_keeps_the_newest(self, bench: Bench, lake: RemoteLake, s3: Any, bucket: str, keep: int) -> None:
        locations = self.published(bench, lake, s3, 4)
        removed = lake.prune("shop", "orders", keep)
        assert sorted(removed) == sorted(locations[: max(0, 4 - keep)])
        kept = {f"s3://{bucket}/{key.rsplit('/', 1)[0]}" for key in s3.keys(bucket)}
        assert kept == set(locations[max(0, 4 - keep) :])

    def test_removes_the_manifest_first(self, bench: Bench, lake: RemoteLake, s3: Any) -> None:
        [old, *_] = self.published(bench, lake, s3, 3)
        s3.requests.clear()
        lake.prune("shop", "orders", 2)
        deleted = [path for method, path, _ in s3.requests if method == "DELETE"]
        assert deleted == [f"/{old.removeprefix('s3://')}/{name}" for name in (MANIFEST, "part-00000.parquet")]

    def test_of_another_stream_removes_nothing(self, bench: Bench, lake: RemoteLake, s3: Any, bucket: str) -> None:
        self.published(bench, lake, s3, 2)
        s3.client().put_object(Bucket=bucket, Key="my/lake/shop/orders_old/run--1/manifest.json", Body=b"")
        s3.client().put_object(Bucket=bucket, Key="my/lake/shop/orders_old/run--2/manifest.json", Body=b"")
        before = s3.keys(bucket)
        assert lake.prune("shop", "order", 1) == lake.prune("other", "orders", 1) == []
        assert len(lake.prune("shop", "orders", 1)) == 1
        assert len(s3.keys(bucket)) == len(before) - 2

    def test_sees_more_than_a_page(self, lake: RemoteLake, s3: Any, bucket: str) -> None:
        client = s3.client()

        def put(number: int) -> None:
            client.put_object(Bucket=bucket, Key=f"my/lake/shop/orders/run--{number:04d}/{MANIFEST}", Body=b"{}")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(put, range(1005)))
        s3.object(bucket, f"my/lake/shop/orders/run--1004/{MANIFEST}").last_modified += timedelta(minutes=1)
        s3.object(bucket, f"my/lake/shop/orders/run--1002/{MANIFEST}").last_modified -= timedelta(minutes=1)

        assert lake.prune("shop", "orders", 1004) == [f"s3://{bucket}/my/lake/shop/orders/run--1002"]


class TestErrors:
    def test_a_connection_of_another_type(self, bench: Bench) -> None:
        from airflow.sdk import Connection

        settings = bench.settings(lake="s3://bucket/lake")
        with pytest.raises(SettingsError, match="the connection aws_default has the type 'http'; S3 needs"):
            open_lake(settings, lambda name: Connection(conn_id=name, conn_type="http", host="x"))

    def test_no_airflow_to_ask(self, bench: Bench) -> None:
        with pytest.raises(SettingsError, match="LAKE='s3://bucket/lake' needs an Airflow connection"):
            open_lake(bench.settings(lake="s3://bucket/lake"))

    def test_a_lake_that_lets_nobody_in_is_told_before_the_source_is_read(
        self, bench: Bench, make: MakeLake, s3: Any, bucket: str
    ) -> None:
        lake = make(keys=(s3.user()[0], "wrong/key+x="))
        stream = bench.stream()
        replication = Replication(name="shop", file=bench.root / "shop.yaml", source="LOCAL", streams=(stream,))

        class Unread:
            def deliver(self, *args: Any) -> Any:
                raise AssertionError

        extraction = Extraction(replication, stream, bench.contract(), bench.settings(), Unread(), lake)  # type: ignore[arg-type]
        with pytest.raises(LakeRefusedError, match=f"s3://{bucket}/.* aws_default: SignatureDoesNotMatch") as caught:
            extraction.run("manual__1")
        assert "wrong" not in str(caught.value)
        assert left(lake) == []

    def test_no_right_to_delete(self, bench: Bench, make: MakeLake, s3: Any) -> None:
        allowed = [{"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"], "Resource": "*"}]
        lake = make(keys=s3.user(allowed))
        for _ in range(2):
            manifest, location = bench.publish_to(lake, ROWS)
        with lake.fetch(location, manifest):
            pass
        with pytest.raises(LakeRefusedError, match=r"manifest\.json .*AccessDenied"):
            lake.prune("shop", "orders", 1)
        assert lake.read_manifest(location) == manifest

    def test_a_scratch_folder_of_somebody_else(self, lake: RemoteLake, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        with (
            pytest.raises(LakeRefusedError, match="belongs to somebody else; choose a folder with SCRATCH"),
            lake.workplace("shop", "orders"),
        ):
            pass

    def test_the_scratch_folder_is_private(self, lake: RemoteLake) -> None:
        with lake.workplace("shop", "orders") as folder:
            assert folder.parent.stat().st_mode & 0o077 == 0
