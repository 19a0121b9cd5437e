import pytest


@pytest.fixture(autouse=True)
def _no_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own .env does not reach the tests that run in this process."""
    monkeypatch.setattr("include.elt.local.__main__.read_dotenv", dict)
