"""What the tests of the warehouse share."""

from __future__ import annotations

import pytest

from tests.support.elt import Bench
from tests.support.loads import Raw


@pytest.fixture
def raw(bench: Bench) -> Raw:
    """A raw table that is not there yet."""
    return Raw(bench)
