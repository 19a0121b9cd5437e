"""A bench of files, where the folder above has one of databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.elt import Bench


@pytest.fixture
def bench(tmp_path: Path, no_settings: None) -> Bench:
    """A bench in the test's own folder."""
    return Bench(tmp_path)
