"""The changes to Airflow's triggerer fit the Airflow that is installed, and leave another one alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from include.dbt_watch import triggerer
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
