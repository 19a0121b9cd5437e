"""The recipes of CONTRIBUTING.md, carried out as they stand there on a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from include.elt.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEP = re.compile(r"^(New file|Append to) `([^`]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def copy_of_the_project(target: Path) -> Path:
    """Every file that git knows or would add, without the recipes' own test."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def carry_out(root: Path) -> list[str]:
    """Do what the recipes say; returns the files they touch."""
    steps = STEP.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    for action, name, text in steps:
        file = root / name
        if action == "New file":
            assert not file.exists(), name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        else:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(text)
    return [name for _, name, _ in steps]


def module(root: Path, environment: dict[str, str], name: str) -> str:
    """Run one of the project's modules there; returns what it prints."""
    result = subprocess.run(
        [sys.executable, "-m", name],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_recipes_do_what_they_say(deployment: Any, tmp_path: Path) -> None:
    deployment.root = copy_of_the_project(tmp_path / "project")
    touched = carry_out(deployment.root)
    assert len(touched) == 7
    (deployment.files / "raw_products.csv").write_text("id,name,price\n1,Cup,7.50\n2,Jaffle,5\n")
    stock = deployment.folder / "stock"
    stock.mkdir()
    (stock / "levels.csv").write_text(
        "site;product_id;pieces;counted_at\nnorth;1;40;2026-01-01 10:00\nnorth;2;many;2026-01-01 10:00\n"
    )
    deployment.settings["STOCK_FILES"] = str(stock)

    checked = module(deployment.root, deployment.environment, "include.elt.check")
    module(deployment.root, deployment.environment, "include.elt.manifest")
    shop, levels = deployment.run("jaffle_shop"), deployment.run("stock")

    assert "stock_files: stock_levels" in checked
    assert (shop.state, levels.state) == ("success", "success"), (shop.tasks, shop.log[-3000:])
    assert deployment.query("FROM raw.raw_products ORDER BY id") == [
        (1, "Cup", Decimal("7.50")),
        (2, "Jaffle", Decimal("5.00")),
    ]
    assert deployment.query("SELECT site, product_id, pieces FROM raw.stock_levels") == [("north", 1, 40)]
    assert levels.assets["raw.stock_levels"]["rows_rejected"] == 1
    assert "dbt.daily_revenue" in shop.tasks
    assert deployment.query("SELECT sum(revenue), sum(number_of_orders) FROM marts.daily_revenue") == deployment.query(
        "SELECT sum(amount), count(*) FROM marts.orders"
    )
    assert "marts.daily_revenue" in shop.assets
