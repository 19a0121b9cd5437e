"""Silences: what they hold for, until when, and what is wrong with a file of them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from include.elt.alerts.causes import Alert
from include.elt.alerts.silences import SILENCES, SilenceError, read_silences, silenced

ALERT = Alert("rejected rows", "raw_orders", "jaffle_shop", "manual__1", "data", "2 of 10 rows")
ENTRY = "- {until: 2026-03-31, reason: the shop mends it, kind: rejected rows, subject: 'raw_*'}\n"


def test_a_silence_holds_until_its_last_day_and_not_a_day_longer(tmp_path: Path) -> None:
    file = tmp_path / "silences.yaml"
    file.write_text(ENTRY)
    silences = read_silences(file)

    assert silenced(ALERT, silences, date(2026, 3, 31)) is silences[0]
    assert silenced(ALERT, silences, date(2026, 4, 1)) is None


@pytest.mark.parametrize("change", [{"kind": "failed test"}, {"subject": "stg_orders"}])
def test_it_holds_for_what_it_names_only(tmp_path: Path, change: dict[str, str]) -> None:
    file = tmp_path / "silences.yaml"
    file.write_text(ENTRY)
    other = Alert(**{**vars(ALERT), **change})

    assert silenced(other, read_silences(file), date(2026, 3, 1)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {reason: for ever}\n", "entry 1: until: Field required"),
        ("- {until: 2026-03-31}\n", "entry 1: reason: Field required"),
        ("- {until: soon, reason: because}\n", "entry 1: until"),
        (ENTRY + "- {until: 2026-03-31, reason: because, stream: a}\n", "entry 2: stream: Extra inputs"),
        ("until: 2026-03-31\n", "a list of silences is needed"),
        ("- {", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_entry(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "silences.yaml"
    file.write_text(text)

    with pytest.raises(SilenceError, match=r"silences\.yaml") as raised:
        read_silences(file)

    assert message in str(raised.value)


def test_no_file_silences_nothing(tmp_path: Path) -> None:
    assert read_silences(tmp_path / "none.yaml") == []


def test_the_projects_own_silences_can_be_read() -> None:
    read_silences(SILENCES)
