"""SIGKILL in mid-work, in a real Airflow: of Sling, of an extract task, of a load task. The retry puts it right."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ORDERS = 300_000


def sling_of(stream: str, folder: Path) -> psutil.Process | None:
    """The Sling process that extracts a stream of the deployment in that folder; other tests have such streams too."""
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if any(str(folder) in word and f"shop_files.{stream}." in word for word in command):
                return process
        except psutil.Error:
            continue
    return None


def writer_of(file: Path) -> int | None:
    """The process that holds a file open; asked of the kernel directly, because a load is over in a moment."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            for handle in (entry / "fd").iterdir():
                if handle.readlink() == file:
                    return int(entry.name)
        except OSError:
            continue
    return None


class Killer:
    """Kills once each: the Sling of raw_orders, the extract task of raw_payments, the first task that loads."""

    def __init__(self, warehouse: Path) -> None:
        self.warehouse = warehouse
        self.killed: set[str] = set()

    def look(self) -> None:
        if "sling" not in self.killed and (sling := sling_of("raw_orders", self.warehouse.parent)):
            self._kill("sling", sling.pid)
        if (
            "extract" not in self.killed
            and (sling := sling_of("raw_payments", self.warehouse.parent))
            and (task := sling.parent())
        ):
            self._kill("extract", task.pid)
        if "load" not in self.killed and (pid := writer_of(self.warehouse)):
            self._kill("load", pid)

    def _kill(self, what: str, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.killed.add(what)


def test_tasks_that_are_killed_are_tried_again_and_lose_nothing(deployment: Any) -> None:
    subprocess.run(
        [sys.executable, "-m", "include.sample_data.generate", "--out", str(deployment.files), "--orders", str(ORDERS)],
        check=True,
        timeout=120,
    )
    killer = Killer(deployment.warehouse)
    deployment.settings |= {"AIRFLOW_HOME": str(deployment.folder / "local"), "NO_COLOR": "1"}
    log = deployment.folder / "run.log"

    with log.open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "include.elt.local", "run"],
            cwd=deployment.root,
            env=deployment.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while run.poll() is None:
                if len(killer.killed) < 3:
                    killer.look()
                time.sleep(0.01 if len(killer.killed) < 3 else 0.5)
        finally:
            if run.poll() is None:
                run.terminate()
                run.wait(60)

    assert killer.killed == {"sling", "extract", "load"}, log.read_text()
    assert run.returncode == 0, log.read_text()
    with duckdb.connect() as truth:
        for stream in ("raw_customers", "raw_orders", "raw_payments"):
            [(expected, total)] = truth.execute(
                f"SELECT count(*), sum(id) FROM read_csv('{deployment.files}/{stream}.csv', all_varchar = false)"
            ).fetchall()
            assert deployment.query(f"SELECT count(*), sum(id), count(DISTINCT id) FROM raw.{stream}") == [
                (expected, total, expected)
            ]
    assert deployment.query("SELECT table_name, count(*) FROM ops.load_log GROUP BY 1 ORDER BY 1") == [
        ("raw.raw_customers", 1),
        ("raw.raw_orders", 1),
        ("raw.raw_payments", 1),
    ]
    assert not list((deployment.folder / "lake" / ".work").iterdir()), "a killed extraction left something over"
    with (deployment.files / "raw_orders.csv").open(newline="") as stream:
        assert deployment.query("SELECT count(*) FROM marts.orders") == [(sum(1 for _ in csv.reader(stream)) - 1,)]
