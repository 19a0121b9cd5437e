"""The Dockerfile and what it is fed with. No image is built here: that takes a Docker daemon; see docs/images.md."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from include.elt.paths import ROOT
from tests.support.dockerfile import Stage, read_dockerfile

LOCK = ROOT / "requirements-image.lock"
HOMES = {"airflow": "/opt/airflow", "astro": "/usr/local/airflow"}


def pin(package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==(\S+)", LOCK.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return {stage.name: stage for stage in read_dockerfile(ROOT / "Dockerfile")}


def test_there_are_two_targets_and_the_last_is_what_astro_builds(stages: dict[str, Stage]) -> None:
    assert list(stages) == ["runtime", "airflow", "astro"]
    assert stages["runtime"].steps == [], "only a name, so that the first FROM is the runtime"
    assert stages["astro"].base == "runtime"


def test_every_base_is_literal_and_has_a_full_tag(stages: dict[str, Stage]) -> None:
    # `astro dev` reads the first FROM as text and can give no build argument.
    for stage in (stages["runtime"], stages["airflow"]):
        assert re.fullmatch(r"[a-z0-9./-]+:[0-9][A-Za-z0-9.-]+", stage.base), stage.base
        assert "latest" not in stage.base


def test_both_bases_have_the_airflow_of_the_lock_and_the_same_python(stages: dict[str, Stage]) -> None:
    airflow = pin("apache-airflow")

    assert stages["airflow"].base == f"apache/airflow:{airflow}-python3.12"
    runtime = re.fullmatch(r".*/runtime:(\d+\.\d+)-\d+-python-3\.12-base", stages["runtime"].base)
    assert runtime is not None, "-base: the other one installs requirements.txt by itself, without hashes"
    assert runtime[1] == airflow.rpartition(".")[0]


def test_the_image_of_astro_says_which_runtime_it_is(stages: dict[str, Stage]) -> None:
    tag = stages["runtime"].base.partition(":")[2]

    assert tag.startswith(stages["astro"].pairs("LABEL")["io.astronomer.docker.runtime.version"] + "-python")


def test_both_targets_do_the_same_steps_in_their_own_home(stages: dict[str, Stage]) -> None:
    def steps(name: str) -> dict[str, list[str]]:
        found = {word: stages[name].all(word) for word in ("ENV", "COPY", "RUN", "WORKDIR", "ARG")}
        return json.loads(json.dumps(found).replace(HOMES[name], "HOME"))  # type: ignore[no-any-return]

    assert steps("airflow") == steps("astro")
    names = [step.rpartition(" ")[2] for step in stages["airflow"].all("RUN")]
    assert names == ["packages", "dependencies", "folders", "project"]


def test_the_last_user_is_not_root(stages: dict[str, Stage]) -> None:
    assert stages["airflow"].all("USER")[-1] == "50000", "a number, so that Kubernetes can tell it from root"
    assert stages["astro"].all("USER")[-1] == "astro", "what the compose file of Astro says, too"


@pytest.mark.parametrize("name", HOMES)
def test_an_arbitrary_uid_has_a_name(stages: dict[str, Stage], name: str) -> None:
    # Airflow asks for one, and with a read-only root nobody can write /etc/passwd. It was seen to fail.
    assert stages[name].pairs("ENV")["LOGNAME"] == "airflow"


@pytest.mark.parametrize("name", HOMES)
def test_labels_say_what_it_is(stages: dict[str, Stage], name: str) -> None:
    labels = stages[name].pairs("LABEL")

    assert {
        f"org.opencontainers.image.{key}" for key in ("title", "description", "licenses", "version", "revision")
    } <= (labels.keys())
    base = stages["runtime" if name == "astro" else name].base
    assert labels["org.opencontainers.image.base.name"].removeprefix("docker.io/") == base
    assert labels["org.opencontainers.image.revision"] == "${REVISION}"
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert project is not None
    assert stages[name].pairs("ARG")["VERSION"] == project[1]


@pytest.mark.parametrize("name", HOMES)
def test_a_change_of_the_code_leaves_the_layer_of_the_dependencies_alone(stages: dict[str, Stage], name: str) -> None:
    words = [f"{word} {argument}" for word, argument in stages[name].steps]
    installed = next(n for n, step in enumerate(words) if step.endswith(" dependencies"))

    assert words.index(f"COPY . {HOMES[name]}/") > installed
    assert min(n for n, step in enumerate(words) if step.startswith("ARG")) > installed


class TestBuildScript:
    """docker/build.sh, as far as it can be looked at without a base image."""

    TEXT = (ROOT / "docker" / "build.sh").read_text()

    def test_only_what_the_lock_names_is_installed(self) -> None:
        for option in ("--require-hashes", "--no-deps", "--no-build", "--no-cache"):
            assert option in self.TEXT, option
        assert self.TEXT.count("pip install") == 1
        assert "requirements-image.lock" in self.TEXT

    def test_it_is_correct_bash(self) -> None:
        subprocess.run(["bash", "-n", str(ROOT / "docker" / "build.sh")], check=True)

    def test_no_compiler_is_installed(self) -> None:
        packages = re.sub(r"#.*", "", (ROOT / "packages.txt").read_text()).split()

        assert not {"gcc", "g++", "build-essential", "clang", "make"} & set(packages)

    @pytest.mark.parametrize("change", ["", "wrong version", "missing"])
    def test_the_check_of_the_dependencies(self, tmp_path: Path, change: str) -> None:
        lock = tmp_path / "lock.txt"
        entry = {"wrong version": "httpx==0.1", "missing": "no-such-package==1.0"}.get(change, "httpx==0.28.1")
        lock.write_text(f"{entry} \\\n    --hash=sha256:00\n    # via\nother==1 ; sys_platform == 'win32' \\\n")

        result = subprocess.run(
            [sys.executable, "docker/check_image.py", "dependencies", str(lock)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert result.returncode == (1 if change else 0), result.stderr
        assert ("instead of" in result.stderr) == bool(change)


class TestContext:
    """What travels to the builder: .dockerignore, as Docker reads it (the last line that matches decides)."""

    LINES = tuple(
        line.strip()
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    )

    def travels(self, path: str) -> bool:
        parts = path.split("/")
        parents = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        ignored = False
        for line in self.LINES:
            pattern = line.removeprefix("!").rstrip("/")
            patterns = [pattern, pattern.removeprefix("**/")] if pattern.startswith("**/") else [pattern]
            # A pattern with ** matches at any depth; any other one only from the root on, and * stops at a slash.
            if any(
                fnmatch.fnmatchcase(place.rpartition("/")[2] if "**/" in pattern else place, each)
                and (pattern.startswith("**/") or each.count("/") == place.count("/"))
                for place in parents
                for each in patterns
            ):
                ignored = not line.startswith("!")
        return not ignored

    @pytest.mark.parametrize(
        "path",
        [
            *(".env", ".env.local", "dags/.env", ".git/config", ".venv/bin/python", ".airflow/keys.json"),
            *("data/warehouse.duckdb", "tests/conftest.py", "backups/index.json", "airflow_settings.yaml"),
            *("dbt/target/manifest.json", "dbt/logs/dbt.log", "dbt/.user.yml", "include/elt/__pycache__/lake.pyc"),
            *(
                "include/sample_data/.env",
                "compose.yml",
                "benchmarks/run.py",
                "helm/values.yaml",
                "requirements-dev.lock",
            ),
        ],
    )
    def test_what_stays_here(self, path: str) -> None:
        assert not self.travels(path)

    @pytest.mark.parametrize(
        "path",
        [
            *("dags/jaffle_shop.py", "include/elt/settings.py", "include/replications/shop_files.yaml"),
            *("include/sample_data/raw_orders.csv", "dbt/dbt_project.yml", "dbt/models/marts/orders.sql"),
            *("plugins/page.py", "airflow_local_settings.py", "packages.txt", "requirements-image.lock"),
            *("docker/build.sh", "docker/check_image.py"),
        ],
    )
    def test_what_travels(self, path: str) -> None:
        assert self.travels(path)

    def test_everything_that_is_copied_travels(self, stages: dict[str, Stage]) -> None:
        for copied in stages["airflow"].all("COPY"):
            for source in copied.split()[:-1]:
                assert source == "." or self.travels(source), source
                assert (ROOT / source).exists()
