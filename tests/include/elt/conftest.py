"""What the tests of include/elt share: an environment without our settings, and a bench to work at."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.elt.settings import Settings
from tests.support.elt import Bench


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the settings of this computer out of the environment."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def bench(tmp_path: Path, no_settings: None) -> Bench:
    """A bench in the test's own folder."""
    return Bench(tmp_path)
