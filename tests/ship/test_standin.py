"""`make test-image`, as far as it goes without root: what the containers are given is what compose.yml says."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from include.elt.paths import ROOT
from tests.ship.standin import __main__ as command
from tests.ship.standin import container, stack
from tests.support.dockerfile import read_dockerfile


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return stack.secrets()


@pytest.fixture(scope="module")
def defined(variables: dict[str, str]) -> dict[str, Any]:
    return stack.services(variables, 55432)


def test_every_variable_of_compose_is_filled_in(defined: dict[str, Any], variables: dict[str, str]) -> None:
    text = repr(defined)

    assert "${" not in text
    assert "run make env" not in text
    environment = defined["scheduler"]["environment"]
    password = variables["STACK_METADATA_PASSWORD"]
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith(f"airflow:{password}@metadata:55432/airflow")
    assert environment["SHOP_SOURCE"] == "postgres"
    assert '"$STACK_AIRFLOW_PASSWORD"' in defined["api-server"]["command"][-1]


@pytest.mark.parametrize("name", [*stack.RUNS_ON, "airflow-init", "seed"])
def test_a_service_keeps_its_limits(defined: dict[str, Any], name: str) -> None:
    options = stack.Stack(defined, {}, ExitStack())._options(name)

    assert set(container.CONFINED) <= set(options)
    assert {f"{key}={value}" for key, value in defined[name]["environment"].items()} <= set(options)


def test_a_word_of_compose_that_it_does_not_know_is_no_option_less(defined: dict[str, Any]) -> None:
    service = {**defined["scheduler"], "privileged": True}

    with pytest.raises(AssertionError, match="privileged"):
        stack.Stack({"scheduler": service}, {}, ExitStack())._options("scheduler")


def test_the_stand_ins_are_for_the_bases_of_the_dockerfile() -> None:
    stages = {stage.name: stage for stage in read_dockerfile(ROOT / "Dockerfile")}

    assert command.base_of("airflow") == f"docker.io/{stages['airflow'].base}"
    assert command.base_of("astro") == stages["runtime"].base
    made = {stage.name for stage in read_dockerfile(Path(command.HERE) / "Containerfile")}
    assert {"airflow", "runtime"} <= made


@pytest.mark.parametrize("user", [0, 1000])
def test_it_refuses_in_one_sentence_what_it_cannot_do(
    user: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.os, "geteuid", lambda: user)
    monkeypatch.setattr(command.shutil, "which", lambda name: None)

    with pytest.raises(SystemExit) as ended:
        command.main(["build"])

    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(r"needs? root|as root", message)
    with pytest.raises(SystemExit):
        command.main(["everything"])
    assert "unknown step everything" in capsys.readouterr().err
