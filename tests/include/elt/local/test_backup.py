"""`make backup` and `make restore`, with a warehouse and a lake that extractions and loads have filled."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from include.elt.errors import LoadError, WarehouseBusyError
from include.elt.lake import MANIFEST
from include.elt.local import backup as module
from include.elt.local.__main__ import main
from include.elt.local.backup import INDEX, BackupError, back_up, latest, restore
from include.elt.settings import Settings
from tests.support.elt import Bench


@dataclass
class Place:
    """A bench with two extractions, both loaded, and a table that no load has made."""

    bench: Bench
    settings: Settings

    @property
    def warehouse(self) -> Path:
        return self.bench.database

    @property
    def lake(self) -> Path:
        return self.bench.lake.root

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        with duckdb.connect(str(self.warehouse), read_only=True) as sql:
            names = sql.execute("SELECT schema_name, table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
            return {
                f"{schema}.{name}": sql.execute(
                    "SELECT * FROM {}.{} ORDER BY ALL".format(*map(module._identifier, (schema, name)))
                ).fetchall()
                for schema, name in names
            }

    def files(self) -> dict[str, bytes]:
        return {
            str(file.relative_to(self.lake)): file.read_bytes()
            for file in self.lake.rglob("*")
            if file.is_file() and ".work" not in file.parts
        }

    def lose_everything(self) -> None:
        shutil.rmtree(self.lake)
        self.warehouse.unlink()

    def left_over(self) -> list[str]:
        return [path.name for path in self.bench.root.iterdir() if ".new-" in path.name]


@pytest.fixture
def place(bench: Bench) -> Place:
    for rows in ("(1, 'x')", "(1, 'new\nline'), (2, ''), (3, NULL)"):
        manifest, folder = bench.publish(f"SELECT id::BIGINT AS id, a FROM (VALUES {rows}) AS t(id, a)")
        bench.warehouse().load(manifest, folder)
    with duckdb.connect(str(bench.database)) as sql:
        sql.execute("CREATE SCHEMA marts; CREATE TABLE marts.twice AS SELECT 1 AS n FROM range(2)")
        sql.execute('CREATE TABLE marts."a.b ""c"" ß" AS SELECT 1 AS n')
    return Place(bench, bench.settings(lock_timeout=1))


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return tmp_path / "backups"


HOLDER = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def hold(place: Place) -> Any:
    """Hold the warehouse in a process of its own, for some seconds."""
    processes = []

    def start(seconds: float) -> None:
        command = [sys.executable, "-c", HOLDER, str(place.warehouse), str(seconds)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline() == "held\n"

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_after_the_loss_of_both_everything_is_the_same(place: Place, backups: Path) -> None:
    tables, files = place.tables(), place.files()
    backup = back_up(place.settings, backups)
    place.lose_everything()

    restore(place.settings, backup)

    assert place.tables() == tables
    assert place.files() == files
    assert len(tables) > 2
    assert len(files) > 2
    assert place.left_over() == []


def test_the_index_tells_every_file_and_table(place: Place, backups: Path) -> None:
    backup = back_up(place.settings, backups)

    index = json.loads((backup / INDEX).read_text())
    named = {each["path"] for each in index["files"]}
    there = {str(file.relative_to(backup)) for file in backup.rglob("*") if file.is_file()}
    assert there == named | {INDEX}
    assert index["tables"]["marts.twice"]["rows"] == 2
    assert index["tables"]["marts.twice"]["checksum"] != "0", "equal rows do not cancel each other out"
    assert backup.stat().st_mode & 0o077 == 0, "nobody else reads it"


def test_a_backup_changes_nothing(place: Place, backups: Path) -> None:
    tables, files = place.tables(), place.files()

    back_up(place.settings, backups)
    second = back_up(place.settings, backups)

    assert (place.tables(), place.files()) == (tables, files)
    assert latest(backups) == second


def test_what_is_only_in_the_log_of_the_file_is_in_the_backup(place: Place, backups: Path) -> None:
    # A process that is killed leaves what it committed in the log beside the file.
    script = (
        "import os, sys, duckdb; sql = duckdb.connect(sys.argv[1]);"
        " sql.execute('SET checkpoint_threshold = \\'1TB\\'');"
        " sql.execute('CREATE TABLE marts.late AS SELECT 42 AS n'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(place.warehouse)], check=True)
    assert place.warehouse.with_name("warehouse.duckdb.wal").is_file()

    backup = back_up(place.settings, backups)
    place.lose_everything()
    restore(place.settings, backup)

    assert place.tables()["marts.late"] == [(42,)]


class TestWriters:
    """Who else uses the warehouse."""

    def test_a_backup_waits_for_a_writer(self, place: Place, backups: Path, hold: Callable[[float], None]) -> None:
        hold(1.5)

        assert (back_up(place.settings.model_copy(update={"lock_timeout": 60}), backups) / INDEX).is_file()

    def test_a_backup_gives_up_after_the_lock_timeout(
        self, place: Place, backups: Path, hold: Callable[[float], None]
    ) -> None:
        hold(60)

        with pytest.raises(WarehouseBusyError, match="LOCK_TIMEOUT"):
            back_up(place.settings, backups)

        assert list(backups.iterdir()) == [], "nothing half done is left"

    def test_nobody_can_write_while_the_lake_is_copied(
        self, place: Place, backups: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Closing any handle of the file would end DuckDB's lock on it.
        tried = []

        def copy(*arguments: Any) -> Any:
            command = [sys.executable, "-c", HOLDER, str(place.warehouse), "0"]
            tried.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)
            return copy_extraction(*arguments)

        copy_extraction = module._copy_extraction
        monkeypatch.setattr(module, "_copy_extraction", copy)

        back_up(place.settings, backups)

        assert tried
        assert all("Could not set lock" in each for each in tried), tried

    def test_a_restore_does_not_replace_a_file_in_use(
        self, place: Place, backups: Path, hold: Callable[[float], None]
    ) -> None:
        backup = back_up(place.settings, backups)
        files = place.files()
        hold(60)

        with pytest.raises(WarehouseBusyError):
            restore(place.settings, backup, force=True)

        assert place.files() == files
        assert place.left_over() == []


class TestLake:
    """Extractions that come, go or are damaged."""

    def test_an_unfinished_extraction_is_left_out(self, place: Place, backups: Path) -> None:
        stream = next(place.lake.glob(f"*/*/*/{MANIFEST}")).parents[1]
        (stream / "half").mkdir()
        (stream / "half" / "part-00000.parquet").write_bytes(b"PAR1")

        backup = back_up(place.settings, backups)

        assert not list(backup.rglob("half"))

    def test_a_damaged_one_is_no_backup(self, place: Place, backups: Path) -> None:
        part = next(place.lake.rglob("*.parquet"))
        part.write_bytes(part.read_bytes()[:-1] + b"?")

        with pytest.raises(LoadError, match="sha256 differs"):
            back_up(place.settings, backups)

        assert list(backups.iterdir()) == []

    def test_one_that_is_pruned_meanwhile_is_left_out(
        self, place: Place, backups: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = min(place.lake.glob(f"*/*/*/{MANIFEST}")).parent

        def verify(folder: Path, *arguments: Any) -> Any:
            if folder.name == first.name and first.exists():
                shutil.rmtree(first)
                raise LoadError("gone")
            return really(folder, *arguments)

        really = module.verify
        monkeypatch.setattr(module, "verify", verify)

        backup = back_up(place.settings, backups)

        assert not list(backup.rglob(first.name))
        place.lose_everything()
        restore(place.settings, backup)
        assert len(list(place.lake.glob(f"*/*/*/{MANIFEST}"))) == 1

    def test_a_lake_in_a_bucket_is_not_copied(self, place: Place, backups: Path) -> None:
        settings = place.settings.model_copy(update={"lake": "s3://bucket/lake"})

        backup = back_up(settings, backups)
        assert [file.name for file in sorted(backup.iterdir())] == [INDEX, "warehouse.duckdb"]
        tables = place.tables()
        place.warehouse.unlink()
        restore(settings, backup)
        assert place.tables() == tables
        with pytest.raises(BackupError, match="holds a lake"):
            restore(settings, back_up(place.settings, backups), force=True)


class TestRefused:
    """A restore that would lose or break something."""

    @pytest.mark.parametrize("left", ["warehouse", "lake"])
    def test_nothing_is_overwritten_without_force(self, place: Place, backups: Path, left: str) -> None:
        backup = back_up(place.settings, backups)
        if left == "warehouse":
            shutil.rmtree(place.lake)
        else:
            place.warehouse.unlink()

        with pytest.raises(BackupError, match="FORCE=1"):
            restore(place.settings, backup)

        assert place.warehouse.exists() == (left == "warehouse")

    def test_with_force_what_was_there_is_kept_beside_it(self, place: Place, backups: Path) -> None:
        tables = place.tables()
        backup = back_up(place.settings, backups)
        place.warehouse.write_bytes(b"damaged")
        (place.lake / "note").write_text("kept")

        restore(place.settings, backup, force=True)

        assert place.tables() == tables
        assert not (place.lake / "note").exists()
        before = {path.name.partition(".before-")[0]: path for path in place.bench.root.glob("*.before-*")}
        assert before["warehouse.duckdb"].read_bytes() == b"damaged"
        assert (before["lake"] / "note").read_text() == "kept"

    @pytest.mark.parametrize("what", ["warehouse.duckdb", "lake"])
    @pytest.mark.parametrize("damage", ["changed", "missing"])
    def test_a_damaged_backup_touches_nothing(self, place: Place, backups: Path, what: str, damage: str) -> None:
        tables, files = place.tables(), place.files()
        backup = back_up(place.settings, backups)
        file = backup / what if what != "lake" else next((backup / "lake").rglob("*.parquet"))
        if damage == "missing":
            file.unlink()
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)

        with pytest.raises(BackupError, match="nothing was restored"):
            restore(place.settings, backup, force=True)

        assert (place.tables(), place.files()) == (tables, files)
        assert place.left_over() == []

    def test_a_table_that_is_another_than_the_index_says(self, place: Place, backups: Path) -> None:
        backup = back_up(place.settings, backups)
        index = json.loads((backup / INDEX).read_text())
        index["tables"]["marts.twice"]["rows"] = 3
        (backup / INDEX).write_text(json.dumps(index))
        place.lose_everything()

        with pytest.raises(BackupError, match=r"marts\.twice"):
            restore(place.settings, backup)

        assert not place.warehouse.exists()
        assert not place.lake.exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "not finished"),
            ("{", "damaged"),
            ('{"format": 99}', "format 99"),
            ('{"format": 1, "tables": {}, "files": [{"path": "lake/../../x", "bytes": 0, "sha256": ""}]}', "no backup"),
            ('{"format": 1, "tables": {}, "files": [{"path": "/etc/passwd", "bytes": 0, "sha256": ""}]}', "no backup"),
            ('{"format": 1, "tables": {}, "files": []}', "no warehouse"),
        ],
    )
    def test_an_index_that_is_none(self, place: Place, tmp_path: Path, text: str | None, message: str) -> None:
        (tmp_path / "b").mkdir()
        if text is not None:
            (tmp_path / "b" / INDEX).write_text(text)

        with pytest.raises(BackupError, match=message):
            restore(place.settings, tmp_path / "b", force=True)

    def test_a_full_disk(self, place: Place, small_disk: Path) -> None:
        with duckdb.connect(str(place.warehouse)) as sql:
            sql.execute("CREATE TABLE marts.large AS SELECT random() AS n FROM range(4000000)")

        with pytest.raises(BackupError, match="No space left"):
            back_up(place.settings, small_disk / "backups")

        assert list((small_disk / "backups").iterdir()) == []

    def test_a_rename_that_fails_is_undone(self, place: Place, backups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tables, files = place.tables(), place.files()
        backup = back_up(place.settings, backups)

        def rename(self: Path, target: Path) -> Path:
            if ".new-" in self.name and self.name.startswith("warehouse"):
                raise OSError("disk on fire")
            return really(self, target)

        really = Path.rename
        monkeypatch.setattr(Path, "rename", rename)

        with pytest.raises(BackupError, match="disk on fire"):
            restore(place.settings, backup, force=True)

        assert (place.tables(), place.files()) == (tables, files)

    def test_a_warehouse_that_is_not_there(self, bench: Bench, backups: Path) -> None:
        with pytest.raises(BackupError, match="nothing to back up"):
            back_up(bench.settings(), backups)

    def test_backups_within_the_lake(self, place: Place) -> None:
        with pytest.raises(BackupError, match="within the lake"):
            back_up(place.settings, place.lake / "backups")


class TestCommands:
    """What `make` calls."""

    @pytest.fixture(autouse=True)
    def settings(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DUCKDB_PATH", str(place.warehouse))
        monkeypatch.setenv("LAKE", str(place.lake))

    def test_there_and_back(self, place: Place, backups: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tables = place.tables()

        assert main(["backup", "--backups", str(backups)]) == 0
        assert "tables" in capsys.readouterr().out
        assert main(["restore", "--backups", str(backups)]) == 2
        assert "FORCE=1" in capsys.readouterr().err
        assert main(["restore", "--backup", str(latest(backups)), "--force"]) == 0
        assert "all verified" in capsys.readouterr().out
        assert place.tables() == tables

    def test_no_backup(self, backups: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["restore", "--backups", str(backups)]) == 2
        assert "make backup" in capsys.readouterr().err
