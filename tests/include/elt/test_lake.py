"""The lake: a complete extraction or none, checked again before it is loaded."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import duckdb
import pytest

from include.elt.errors import LoadError
from include.elt.lake import MANIFEST, read_manifest, slug, verify
from include.elt.lake.local import LocalLake
from include.elt.sql import literal, parquet
from tests.support.elt import Bench

ROWS = "SELECT 1::BIGINT AS id, 'x' AS a"


def test_a_manifest_comes_back_as_it_was(bench: Bench) -> None:
    manifest, folder = bench.publish(ROWS, run_id="scheduled__2024-01-01T00:00:00+00:00/é", source={"file": "ü.csv"})
    assert read_manifest(folder) == manifest
    assert (manifest.rows, manifest.bytes) == (1, (folder / "part-00000.parquet").stat().st_size)


def test_an_extraction_lies_in_a_folder_named_after_run_and_id(bench: Bench) -> None:
    manifest, folder = bench.publish(ROWS, run_id="manual__2024-01-01T00:00:00+00:00")
    assert folder == bench.lake.root / "shop" / "orders" / f"manual__2024-01-01T00_00_00_00_00--{manifest.id[:12]}"


def test_the_longest_run_id_of_airflow_fits(bench: Bench) -> None:
    manifest, folder = bench.publish(ROWS, run_id="é" * 125 + "x" * 125)
    assert read_manifest(folder).run_id == manifest.run_id
    manifest, folder = bench.publish(ROWS, run_id="x" * 250)
    assert read_manifest(folder) == manifest


def test_nothing_is_visible_before_all_of_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Path]] = []
    rename = Path.rename

    def spied(self: Path, target: Path) -> Path:
        assert (self / "manifest.json").is_file()
        seen.append(list(bench.lake.root.glob("shop/orders/*")))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", spied)
    _, folder = bench.publish(ROWS)
    assert seen == [[]]
    assert list(bench.lake.root.glob("shop/orders/*")) == [folder]
    assert bench.work_folders() == []


def test_a_failed_publication_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="disk full"):
        bench.publish(ROWS)
    assert [path for path in bench.lake.root.rglob("*") if path.is_file()] == []


class TestVerify:
    def test_gives_the_files(self, bench: Bench) -> None:
        manifest, folder = bench.publish(ROWS)
        assert verify(folder, manifest) == [folder / "part-00000.parquet"]

    def test_a_missing_file(self, bench: Bench) -> None:
        manifest, folder = bench.publish(ROWS)
        (folder / "part-00000.parquet").unlink()
        with pytest.raises(LoadError, match=r"part-00000\.parquet is not there; clear the extract task"):
            verify(folder, manifest)

    @pytest.mark.parametrize("how", ["one bit", "cut", "longer", "another file"])
    def test_a_changed_file(self, bench: Bench, how: str) -> None:
        manifest, folder = bench.publish(ROWS)
        file = folder / "part-00000.parquet"
        content = file.read_bytes()
        other = bytearray(content)
        other[20] ^= 1
        file.write_bytes(
            {"one bit": bytes(other), "cut": content[:-1], "longer": content + b"\0", "another file": b""}[how]
        )
        with pytest.raises(LoadError, match="is not the file that was extracted"):
            verify(folder, manifest)


class TestReadManifest:
    def test_none_there(self, bench: Bench) -> None:
        with pytest.raises(LoadError, match=r"manifest\.json is not there; clear the extract task"):
            read_manifest(bench.root / "nowhere")

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "{}", "null", '{"files": 1, "columns": []}', '{"files": [{}], "columns": []}']
    )
    def test_not_one_of_ours(self, bench: Bench, text: str) -> None:
        (bench.root / "manifest.json").write_text(text)
        with pytest.raises(LoadError, match="is not a manifest"):
            read_manifest(bench.root)

    def test_a_field_too_many(self, bench: Bench) -> None:
        _, folder = bench.publish(ROWS)
        file = folder / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"surprise": 1}))
        with pytest.raises(LoadError, match="surprise"):
            read_manifest(folder)


class TestPrune:
    def published(self, bench: Bench, count: int) -> list[Path]:
        """Extractions with manifests that are a minute apart, oldest first."""
        folders = [bench.publish(ROWS, run_id=f"run_{9 - number}")[1] for number in range(count)]
        for number, folder in enumerate(folders):
            os.utime(folder / "manifest.json", (1_700_000_000 + 60 * number,) * 2)
        return folders

    @pytest.mark.parametrize("keep", [1, 2, 4, 9])
    def test_keeps_the_newest(self, bench: Bench, keep: int) -> None:
        folders = self.published(bench, 4)
        removed = bench.lake.prune("shop", "orders", keep)
        assert sorted(removed) == sorted(map(str, folders[: max(0, 4 - keep)]))
        assert sorted(bench.lake.root.glob("shop/orders/*")) == sorted(folders[max(0, 4 - keep) :])

    def test_of_another_stream_removes_nothing(self, bench: Bench) -> None:
        folders = self.published(bench, 2)
        assert bench.lake.prune("shop", "customers", 1) == bench.lake.prune("other", "orders", 1) == []
        assert all(folder.is_dir() for folder in folders)

    def test_removes_the_manifest_first(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        folders = self.published(bench, 3)
        monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # killed in between
        bench.lake.prune("shop", "orders", 2)
        assert {path.parent for path in bench.lake.root.rglob(MANIFEST)} == set(folders[1:])

    def test_removes_what_a_killed_one_left_a_day_ago(self, bench: Bench) -> None:
        old, new, whole = self.published(bench, 3)
        for folder, age in ((old, 25), (new, 23)):
            (folder / MANIFEST).unlink()
            os.utime(folder, (time.time() - age * 3600,) * 2)
        os.utime(whole, (0, 0))
        assert bench.lake.prune("shop", "orders", 2) == []
        assert (old.exists(), new.exists(), whole.exists()) == (False, True, True)

    def test_of_an_empty_lake_is_nothing(self, tmp_path: Path) -> None:
        assert LocalLake(tmp_path / "none").prune("shop", "orders", 1) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("orders", "orders"),
        ("Ab-9_x.y", "Ab-9_x.y"),
        ("manual__2024-01-01T00:00:00+00:00", "manual__2024-01-01T00_00_00_00_00"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("ü ß/\\", "_"),
        ("", ""),
    ],
)
def test_slug(text: str, name: str) -> None:
    assert slug(text) == name


def test_an_extraction_s_parquet_is_compressed_with_zstd(bench: Bench) -> None:
    extracted = bench.extract("id,a,b\n1,x,y\n")
    with duckdb.connect() as sql:
        file = literal(extracted.folder / "part-00000.parquet")
        codecs = sql.execute(f"SELECT DISTINCT compression FROM parquet_metadata({file})").fetchall()
    assert codecs == [("ZSTD",)]


def test_parquet_files_are_read_as_they_are_whatever_their_path(tmp_path: Path) -> None:
    """A path is no pattern, and a folder `id=5` is not the value of the column `id`."""
    with duckdb.connect() as sql:
        files = [
            tmp_path / folder / "p.parquet" for folder in ("l1", "l2", "l[12]", "l*", "l?", "id=99", "l'1", "l[[]1]")
        ]
        for number, file in enumerate(files):
            file.parent.mkdir()
            sql.execute(f"COPY (SELECT {number} AS id) TO {literal(file)} (FORMAT parquet)")
        for number, file in enumerate(files):
            assert sql.execute(f"SELECT id FROM {parquet([file])}").fetchall() == [(number,)]
        assert len(sql.execute(f"SELECT id FROM {parquet(files)}").fetchall()) == len(files)
