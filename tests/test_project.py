"""The files beside the code: README, lock files, set-up."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from typing import Any

import pytest

from include.elt.paths import ROOT
from include.elt.readme import README, rendered

PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)


def pins(file: str) -> dict[str, str]:
    return {name.lower().replace("_", "-"): version for name, version in PINNED.findall((ROOT / file).read_text())}


def test_the_settings_table_of_the_readme_is_the_one_of_the_code() -> None:
    text = README.read_text(encoding="utf-8")

    assert rendered(text) == text, "run `make readme`"


def test_the_readme_starts_with_the_two_commands() -> None:
    block = README.read_text(encoding="utf-8").split("```")[1].splitlines()

    assert [line.split("#")[0].strip() for line in block[1:3]] == ["make run", "make test"]


def test_every_target_of_the_makefile_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for file in (
            "README.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "benchmarks/README.md",
            "docs/backup.md",
            "docs/dbt.md",
            "docs/images.md",
        )
        for target in re.findall(r"`(?:[A-Z_]+=\S+ )?make ([a-z-]+)", (ROOT / file).read_text(encoding="utf-8"))
    }

    assert named <= targets


@pytest.mark.parametrize(
    "package",
    [
        "apache-airflow",
        "apache-airflow-providers-amazon",
        "apache-airflow-providers-databricks",
        "apache-airflow-providers-microsoft-mssql",
        "apache-airflow-providers-postgres",
        "astronomer-cosmos",
        "dbt-core",
        "dbt-databricks",
        "dbt-duckdb",
        "sling",
        "sling-linux-amd64",
        "sling-linux-arm64",
    ],
)
def test_what_the_product_is_made_of_is_pinned_and_locked(package: str) -> None:
    assert pins("requirements.lock")[package] == pins("requirements.txt")[package]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-image.lock"])
def test_a_lock_file_has_a_hash_for_everything_and_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())

    assert len(entries) > 200
    assert not [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry]
    assert "://" not in text


def test_the_two_lock_files_agree() -> None:
    production, development = pins("requirements.lock"), pins("requirements-dev.lock")

    assert {name: development.get(name) for name in production} == production


def test_the_images_hold_what_was_tested() -> None:
    image, production = pins("requirements-image.lock"), pins("requirements.lock")

    assert {name: image.get(name) for name in production} == production


def test_sling_and_its_binary_have_one_version() -> None:
    locked = pins("requirements.txt")

    assert locked["sling"] == locked["sling-linux-amd64"] == locked["sling-linux-arm64"]


class TestSetup:
    """bootstrap.py, as far as it refuses."""

    @pytest.fixture
    def bootstrap(self) -> dict[str, Any]:
        return runpy.run_path(str(ROOT / "bootstrap.py"))

    def test_another_python_is_refused_in_one_sentence(
        self, bootstrap: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "version_info", (3, 10, 0, "final", 0))

        with pytest.raises(SystemExit) as ended:
            bootstrap["check_platform"]()

        assert ended.value.code == 2
        message = capsys.readouterr().err
        assert "Python 3.11 to 3.13 is needed" in message
        assert message.count("\n") == 1

    def test_a_platform_without_a_sling_binary_is_refused_unless_one_is_given(
        self, bootstrap: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.delenv("SLING_BINARY", raising=False)

        with pytest.raises(SystemExit) as ended:
            bootstrap["check_platform"]()

        assert ended.value.code == 2
        assert "no Sling wheel for darwin" in capsys.readouterr().err
        monkeypatch.setenv("SLING_BINARY", "/usr/local/bin/sling")
        bootstrap["check_platform"]()

    def test_nothing_is_installed_twice(self, bootstrap: dict[str, Any]) -> None:
        assert bootstrap["STAMP"].read_text() == bootstrap["wanted"](), "the environment is not up to date: make setup"
        result = subprocess.run(
            [sys.executable, "bootstrap.py"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
