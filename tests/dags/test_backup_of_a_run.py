"""A warehouse and a lake that a whole run has filled, lost and restored."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any


def command(deployment: Any, *words: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "include.elt.local", *words],
        cwd=deployment.root,
        env=deployment.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_after_the_loss_of_both_the_checksums_are_equal(used: Any, tmp_path: Path) -> None:
    checksums = used.checksums()
    command(used, "backup", "--backups", str(tmp_path / "backups"))
    used.warehouse.unlink()
    shutil.rmtree(used.folder / "lake")

    said = command(used, "restore", "--backups", str(tmp_path / "backups"))

    assert "all verified" in said
    assert used.checksums() == checksums
    assert checksums["marts.customers"][0] == 100
    assert used.query("SELECT count(*) FROM staging.stg_orders") == [(500,)], "views work, too"
