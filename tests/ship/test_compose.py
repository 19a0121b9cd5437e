"""compose.yml, its secrets, and what the Astro CLI is given. No container is started here."""

from __future__ import annotations

import base64
import os
import re
import runpy
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.elt.paths import REPLICATIONS, ROOT
from include.elt.pools import pools_json
from include.elt.settings import load_settings
from include.sample_data.seed import SOURCES
from tests.support.dockerfile import read_dockerfile

MAKE_ENV = runpy.run_path(str(ROOT / "docker" / "make_env.py"))
TEXT = (ROOT / "compose.yml").read_text(encoding="utf-8")
ASTRO = ("scheduler", "dag-processor", "triggerer", "api-server")


class Loader(yaml.SafeLoader):
    """YAML as Compose reads it; `<<` takes a list, too."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.load(TEXT, Loader)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]  # type: ignore[no-any-return]


def one_shot(name: str) -> bool:
    return name == "airflow-init" or name.startswith("seed")


class TestStack:
    """compose.yml."""

    def test_docker_compose_accepts_it(self, tmp_path: Path) -> None:
        docker = shutil.which("docker")
        if docker is None:
            pytest.skip("there is no docker here")
        if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
            pytest.skip("the docker here has no compose: compose.yml was read as YAML only")
        env = tmp_path / ".env"
        MAKE_ENV["make_env"](env)

        result = subprocess.run(
            [docker, "compose", "-f", "compose.yml", "--env-file", str(env), "--profile", "*", "config", "--quiet"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert result.returncode == 0, result.stderr

    def test_what_runs_on_is_started_again_and_tells_its_health(self, services: dict[str, Any]) -> None:
        for name, service in services.items():
            if one_shot(name):
                assert service["restart"] == "on-failure:3", name
            else:
                assert service["restart"] == "unless-stopped", name
                assert service["healthcheck"]["test"], name

    def test_every_image_is_pinned(self, services: dict[str, Any]) -> None:
        for name, service in services.items():
            tag = service["image"].rpartition(":")[2].rstrip("}")
            assert "latest" not in tag, name
            assert re.search(r"\d", tag) or service["build"]["target"] == "airflow", name
        assert services["postgres"]["image"].startswith("postgres:16.")
        assert services["mssql"]["image"].startswith("${STACK_MSSQL_IMAGE:-mcr.microsoft.com/mssql/server:2022-")

    def test_ports_are_open_to_this_computer_only(self, services: dict[str, Any]) -> None:
        ports = [port for service in services.values() for port in service.get("ports", ())]

        assert len(ports) == 4
        assert all(port.startswith("127.0.0.1:") for port in ports)

    def test_no_password_stands_in_it(self) -> None:
        secrets = re.findall(r"^\s+\w*(?:PASSWORD|SECRET|KEY): +(\S.*)$", TEXT, re.MULTILINE)

        assert len(secrets) > 10
        for value in secrets:
            assert re.fullmatch(r"\$\{STACK_[A-Z0-9_]+:\?run make env\}", value), value
        assert not re.findall(r"://\w+:(?!\$\{)[^@\s/]+@", TEXT)

    def test_it_asks_for_what_make_env_makes(self) -> None:
        asked = set(re.findall(r"\$\{(\w+):\?run make env\}", TEXT))

        assert asked == MAKE_ENV["SECRETS"].keys()

    def test_our_own_containers_can_do_little(self, services: dict[str, Any]) -> None:
        ours = {name: service for name, service in services.items() if "build" in service}

        assert {"seed", "scheduler", "api-server", "airflow-init"} <= ours.keys()
        for service in ours.values():
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]

    def test_the_configuration_is_a_file(self, compose: dict[str, Any]) -> None:
        # Compose copies `content` into the container, which a read-only root refuses.
        for config in compose["configs"].values():
            assert config.keys() == {"file"}
            assert (ROOT / config["file"]).is_file()

    def test_every_service_waits_for_what_there_is(self, services: dict[str, Any], compose: dict[str, Any]) -> None:
        for service in services.values():
            assert set(service.get("depends_on", ())) <= services.keys()
            for volume in service.get("volumes", ()):
                assert volume.partition(":")[0] in compose["volumes"]
        for name in ASTRO:
            assert services[name]["depends_on"]["airflow-init"] == {"condition": "service_completed_successfully"}

    def test_the_seeds_are_those_that_exist(self, services: dict[str, Any]) -> None:
        seeds = [services[name] for name in services if name.startswith("seed")]

        assert {name for service in seeds for name in service["command"]} == SOURCES.keys()
        # The entrypoint of the image would look for a metadata database, and there is none.
        assert all(service["entrypoint"][-1] == "include.sample_data.seed" for service in seeds)

    def test_each_connection_of_a_replication_is_given(self, services: dict[str, Any]) -> None:
        environment = services["scheduler"]["environment"]
        names = {str(yaml.safe_load(file.read_text())["source"]) for file in REPLICATIONS.glob("*.yaml")} - {"LOCAL"}

        assert {f"AIRFLOW_CONN_{name.upper()}" for name in names} <= environment.keys()

    def test_the_connections_can_be_read(self, services: dict[str, Any]) -> None:
        from airflow.sdk import Connection

        from include.elt.connections.mssql import MssqlConnection
        from include.elt.connections.postgres import PostgresConnection

        environment = services["scheduler"]["environment"]

        def connection(name: str) -> Any:
            value = re.sub(r"\$\{[^}]+\}", "p-aA1", environment[f"AIRFLOW_CONN_{name.upper()}"])
            read = Connection.from_json if value.startswith("{") else Connection.from_uri
            return read(value, conn_id=name)

        web = PostgresConnection.from_airflow(connection("web_postgres"))
        assert (web.host, web.user, web.password, web.database) == ("postgres", "reader", "p-aA1", "web")
        shop = MssqlConnection.from_airflow(connection("shop_mssql"))
        assert (shop.host, shop.port, shop.database, shop.trust_server_certificate) == ("mssql", 1433, "shop", True)
        assert connection("shop_s3").extra_dejson["endpoint_url"] == "http://s3:7070"

    def test_the_volume_of_the_data_is_where_the_settings_look(self, services: dict[str, Any]) -> None:
        home = next(stage for stage in read_dockerfile(ROOT / "Dockerfile") if stage.name == "airflow").all("WORKDIR")[
            0
        ]

        assert f"data:{home}/data" in services["scheduler"]["volumes"]
        assert "data/warehouse.duckdb" in str(type(load_settings()).model_fields["duckdb_path"].default)


def test_airflow_takes_the_pools(migrated_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    shutil.copytree(migrated_home, home)
    (home / "airflow.cfg").unlink(missing_ok=True)  # it names the database of the home that was copied
    file = tmp_path / "pools.json"
    file.write_text(pools_json(load_settings(_env_file=None, extract_slots=7)))

    subprocess.run(
        [sys.executable, "-m", "airflow", "pools", "import", str(file)],
        env=os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        check=True,
        capture_output=True,
        timeout=120,
    )

    with closing(sqlite3.connect(home / "airflow.db")) as database:
        pools = dict(database.execute("SELECT pool, slots FROM slot_pool").fetchall())
    assert {name: pools[name] for name in ("extract", "warehouse")} == {"extract": 7, "warehouse": 1}


class TestMakeEnv:
    """`make env`."""

    def test_it_makes_another_secret_each_time(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            assert MAKE_ENV["make_env"](tmp_path / name) is None

        texts = [(tmp_path / name).read_text().splitlines() for name in ("a", "b")]
        first, second = ({line.split("=")[0]: line.split("=", 1)[1] for line in text[1:]} for text in texts)
        assert first.keys() == second.keys() == {*MAKE_ENV["SECRETS"], *MAKE_ENV["FIXED"]}
        assert all(first[name] != second[name] for name in MAKE_ENV["SECRETS"])
        assert all(len(first[name]) >= 20 for name in MAKE_ENV["SECRETS"])
        assert len(base64.urlsafe_b64decode(first["STACK_FERNET_KEY"])) == 32
        assert len(first["STACK_JWT_SECRET"]) >= 64
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600

    def test_a_password_means_nothing_to_a_url_a_shell_or_compose(self, tmp_path: Path) -> None:
        for n in range(20):
            MAKE_ENV["make_env"](tmp_path / str(n))
            for line in (tmp_path / str(n)).read_text().splitlines()[1:]:
                assert re.fullmatch(r"[A-Z0-9_]+=[A-Za-z0-9_.-]+=?", line), line

    def test_it_refuses_to_replace_what_is_there(self, tmp_path: Path) -> None:
        env = tmp_path / ".env"
        env.write_text("STACK_JWT_SECRET=mine")

        assert "STACK_JWT_SECRET already" in MAKE_ENV["make_env"](env)
        assert env.read_text() == "STACK_JWT_SECRET=mine"

    def test_it_keeps_what_else_is_there(self, tmp_path: Path) -> None:
        env = tmp_path / ".env"
        env.write_text("LAKE_KEEP=7\nCOMPOSE_FILE=other.yml")

        assert MAKE_ENV["make_env"](env) is None

        lines = env.read_text().splitlines()
        assert lines[:2] == ["LAKE_KEEP=7", "COMPOSE_FILE=other.yml"]
        assert sum(line.startswith("COMPOSE_FILE") for line in lines) == 1

    def test_it_is_never_committed(self) -> None:
        assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


class TestAstro:
    """What `astro dev start` reads beside the Dockerfile."""

    def test_the_settings_have_the_pools_of_the_deployment(self) -> None:
        given = yaml.safe_load((ROOT / "airflow_settings.yaml").read_text())["airflow"]

        assert {pool["pool_name"]: pool["pool_slot"] for pool in given["pools"]} == (
            {name: pool["slots"] for name, pool in yaml.safe_load(pools_json(load_settings(_env_file=None))).items()}
        )

    def test_connections_are_named_and_nowhere_given(self) -> None:
        text = (ROOT / "airflow_settings.yaml").read_text()
        names = {str(yaml.safe_load(file.read_text())["source"]) for file in REPLICATIONS.glob("*.yaml")} - {"LOCAL"}

        assert yaml.safe_load(text)["airflow"]["connections"] == []
        assert {f"AIRFLOW_CONN_{name.upper()}" for name in names} == set(re.findall(r"AIRFLOW_CONN_\w+", text))

    def test_dbt_and_replications_are_mounted_where_the_image_has_them(self) -> None:
        override = yaml.safe_load((ROOT / "docker-compose.override.yml").read_text())
        home = next(stage for stage in read_dockerfile(ROOT / "Dockerfile") if stage.name == "astro").all("WORKDIR")[0]

        assert set(override["services"]) == set(ASTRO)
        for service in override["services"].values():
            assert {f"./dbt:{home}/dbt:ro", f"./include/replications:{home}/include/replications:ro"} <= {
                *service["volumes"]
            }

    def test_it_does_no_harm_to_compose_without_compose_file(self, services: dict[str, Any]) -> None:
        # Docker Compose merges it unless COMPOSE_FILE is set; a service that it alone knows would have no image.
        override = yaml.safe_load((ROOT / "docker-compose.override.yml").read_text())

        assert override["services"].keys() <= services.keys()

    def test_the_project_has_a_name(self) -> None:
        assert yaml.safe_load((ROOT / ".astro" / "config.yaml").read_text())["project"]["name"] == "dbx-project"
