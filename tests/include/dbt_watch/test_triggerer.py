"""The changes to Airflow's triggerer fit the Airflow that is installed, and leave another one alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from include.dbt_watch import trigger, triggerer
from include.elt.paths import ROOT

APPLY = """
from airflow.jobs import triggerer_job_runner as airflow
before = airflow.TriggerRunner.cancel_triggers
{change}
from include.dbt_watch import triggerer
made = triggerer.apply()
assert made is triggerer.apply(), "once"
print(made, airflow.TriggerRunner.cancel_triggers is not before)
"""
OTHER = "airflow.TriggerRunnerSupervisor._create_workload = lambda self, trigger, session: None"


@pytest.mark.parametrize(("change", "expected"), [("", "True True"), (OTHER, "False False")])
def test_the_changes_fit_this_airflow_and_only_this(change: str, expected: str) -> None:
    """In a process of its own, for they are made to Airflow's classes."""
    command = [sys.executable, "-c", APPLY.format(change=change)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == expected


@pytest.mark.parametrize(("value", "wanted"), [(None, True), ("true", True), ("False", False), ("0", False)])
def test_a_setting_turns_them_off(value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("FAST_TRIGGERER", raising=False)
    else:
        monkeypatch.setenv("FAST_TRIGGERER", value)

    assert triggerer.wanted() is wanted


class Runner:
    """As much of Airflow's loop of triggers as a round needs; it is stopped after a few."""

    def __init__(self) -> None:
        self.stop = False
        self.rounds = 0
        self.comms_decoder = SimpleNamespace(_reader_task=SimpleNamespace(done=lambda: False))

    async def cleanup_finished_triggers(self) -> list[int]:
        return []

    async def sync_state_to_supervisor(self, finished: list[int]) -> None:
        assert finished == []

    async def create_triggers(self) -> None:
        self.rounds += 1
        self.stop = self.rounds == 3

    async def cancel_triggers(self) -> None:
        pass


def rounds(monkeypatch: pytest.MonkeyPatch) -> int:
    """Rounds that follow one of Airflow's own without its pause."""
    monkeypatch.setattr(triggerer, "LOOK_EVERY", 0)
    monkeypatch.setattr(Runner, "cancel_triggers", Runner.cancel_triggers)  # put back afterwards
    triggerer._without_a_second_of_sleep(Runner)
    runner: Any = Runner()
    asyncio.run(runner.cancel_triggers())
    return int(runner.rounds)


def test_rounds_are_quick_also_after_a_node_that_was_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small build has ended before a task of it is seen to wait; the tasks behind it must not pay a second each."""
    trigger.DbtNodeTrigger("model.shop.orders", "dbt.dbt_build")

    assert rounds(monkeypatch) == 3


def test_rounds_are_airflows_own_when_no_node_was_watched_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "_last_watched", time.monotonic() - triggerer.LINGER - 1)

    assert rounds(monkeypatch) == 0
