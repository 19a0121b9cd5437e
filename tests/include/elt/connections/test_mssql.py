"""Airflow connections of type mssql, by themselves and as Sling and Airflow's hook log in with them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymssql
import pytest
from airflow.sdk import Connection

from include.elt.connections.mssql import MssqlConnection
from include.elt.errors import ExtractError, SettingsError
from include.elt.settings import load_settings
from include.elt.sling import SlingRun
from tests.support.tds import PASSWORD, Standin, running_standin

FIELDS: dict[str, Any] = {
    "conn_id": "shop_mssql",
    "conn_type": "mssql",
    "host": "db.example",
    "login": "reader",
    "password": "p$@/: %'",
    "schema": "shop",
}


def mapped(extra: dict[str, Any] | None = None, **fields: Any) -> MssqlConnection:
    return MssqlConnection.from_airflow(Connection(**FIELDS | fields, extra=json.dumps(extra or {})))


def to(standin: Standin, extra: dict[str, Any] | None = None, **fields: Any) -> MssqlConnection:
    own = {"host": "127.0.0.1", "port": standin.port, "password": standin.password}
    return mapped({"encrypt": "disable"} if extra is None else extra, **own | fields)


class TestMapping:
    def test_a_connection_is_mapped_for_sling(self) -> None:
        connection = mapped({"application_intent": "readonly", "app_name": "load & go"}, port=14330)

        assert connection.sling() == {
            "type": "sqlserver",
            "url": (
                "sqlserver://db.example:14330?user%20id=reader&password=p%24%40%2F%3A%20%25%27&database=shop"
                "&encrypt=true&TrustServerCertificate=false&app_name=load%20%26%20go&ApplicationIntent=ReadOnly"
                "&dial%20timeout=30"
            ),
        }

    def test_a_connection_is_mapped_for_the_driver(self) -> None:
        assert mapped({"encrypt": False, "application_intent": "ReadOnly"}).driver(60) == {
            "appname": "dbx-project",
            "read_only": True,
            "login_timeout": 30,
            "timeout": 60,
            "autocommit": True,
            "tds_version": "7.4",
            "encryption": "request",
        }

    def test_port_and_extras_have_safe_defaults(self) -> None:
        connection = mapped()

        assert (connection.port, connection.encrypt, connection.trust_server_certificate) == (1433, "true", False)
        assert connection.application_intent == "ReadWrite"

    def test_an_address_of_version_6_is_put_in_brackets(self) -> None:
        assert mapped(host="::1").sling()["url"].startswith("sqlserver://[::1]:1433?")

    def test_the_password_is_not_in_what_is_printed(self) -> None:
        assert "p$@" not in repr(mapped())

    @pytest.mark.parametrize(("field", "name"), [("host", "host"), ("login", "login"), ("schema", "schema")])
    def test_what_is_missing_is_named(self, field: str, name: str) -> None:
        with pytest.raises(SettingsError, match=f"the connection shop_mssql has no {name}"):
            mapped(**{field: None})

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ({"encrypt": "yes"}, "has encrypt='yes'; allowed: disable, false, true, strict"),
            ({"trust_server_certificate": "perhaps"}, "has trust_server_certificate='perhaps'; allowed: true, false"),
            ({"application_intent": "Read"}, "has application_intent='Read'; allowed: ReadWrite, ReadOnly"),
            ({"trust_server_certifcate": True}, "has the unknown extra trust_server_certifcate; known: encrypt, "),
            ({"certificate": "missing.pem"}, "has certificate='missing.pem', and there is no such file"),
            ({"encrypt": "strict", "trust_server_certificate": True}, "encrypt=strict, which does not go with"),
        ],
    )
    def test_what_is_not_allowed_is_refused(self, extra: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            mapped(extra)

    @pytest.mark.parametrize("host", ["db\\instance", "db,1433", "tcp:db", "db?x=1", "db/x", "a b"])
    def test_a_host_is_a_host(self, host: str) -> None:
        with pytest.raises(SettingsError, match="without port or instance"):
            mapped(host=host)

    @pytest.mark.parametrize("password", ["emoji 😀", "nul \0", "x" * 129])
    def test_a_password_that_could_not_travel_is_refused_and_not_shown(self, password: str) -> None:
        with pytest.raises(SettingsError, match=r"has a password that .* cannot carry") as refused:
            mapped(password=password)
        assert password not in str(refused.value)


@pytest.fixture(scope="module")
def plain() -> Iterator[Standin]:
    with running_standin() as standin:
        standin.execute("CREATE TABLE dbo.orders (id int NOT NULL PRIMARY KEY, note nvarchar(max))")
        standin.execute("INSERT INTO dbo.orders VALUES (1, N'ü'), (2, NULL)")
        yield standin


@pytest.fixture(scope="module")
def secure() -> Iterator[Standin]:
    with running_standin("optional") as standin:
        standin.execute("CREATE TABLE dbo.orders (id int NOT NULL PRIMARY KEY, note nvarchar(max))")
        yield standin


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"plain", "secure"} & set(request.fixturenames):
        standin = request.getfixturevalue(name)
        standin.server.password = PASSWORD
        standin.forget()


def extract(connection: MssqlConnection, work: Path, sql: str = "SELECT id FROM dbo.orders") -> str:
    """Let Sling log in and read a table."""
    target = work / "orders.csv"
    home = work / "sling"
    home.mkdir()
    run = SlingRun(
        load_settings().sling(),
        home,
        {"SOURCE": connection.sling(), "LAKE": {"type": "file", "null_as": "~"}},
        secrets=[connection.password],
    )
    run.run("SOURCE", "LAKE", "orders", {"mode": "full-refresh", "sql": sql, "object": f"file://{target}"}, 60)
    return target.read_text(encoding="utf-8")


def count(connection: MssqlConnection) -> int:
    """Let Airflow's hook log in and count a table."""
    with closing(connection.connect(30)) as connected, connected.cursor() as cursor:
        cursor.execute("SELECT COUNT_BIG(*) FROM dbo.orders")
        return int(cursor.fetchall()[0][0])


class TestPasswords:
    PASSWORDS = (
        PASSWORD,
        " leading and trailing ",
        "$HOME",
        "${HOME}",
        "%41",
        "a;database=master",
        "{a}}b",
        "'q'",
        '"q"',
        "日本",
        "tab\tand\nline",
        "a+b c%20d",
        "null",
        "x" * 128,
    )

    @pytest.mark.parametrize("password", PASSWORDS)
    def test_sling_logs_in_with_it(self, plain: Standin, tmp_path: Path, password: str) -> None:
        plain.server.password = password
        assert extract(to(plain, password=password), tmp_path) == "id\n1\n2\n"

    @pytest.mark.parametrize("password", PASSWORDS)
    def test_the_hook_logs_in_with_it(self, plain: Standin, password: str) -> None:
        plain.server.password = password
        assert count(to(plain, password=password)) == 2

    def test_every_single_ascii_character_travels(self, plain: Standin, tmp_path: Path) -> None:
        password = "".join(map(chr, range(0x20, 0x7F)))
        plain.server.password = password
        assert count(to(plain, password=password)) == 2
        assert extract(to(plain, password=password), tmp_path) == "id\n1\n2\n"

    def test_it_is_in_no_log(
        self, plain: Standin, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        plain.server.password = "another"
        for ask in (lambda: extract(to(plain), tmp_path), lambda: count(to(plain))):
            # of a second refusal in one process pymssql has the number only
            with pytest.raises((ExtractError, pymssql.Error), match=r"Login failed|18456") as refused:
                ask()
            shown = caplog.text + "".join(capfd.readouterr()) + str(refused.value)
            assert PASSWORD not in shown
            assert "p%24" not in shown


class TestLogIn:
    def test_who_asks_is_told_to_the_server(self, plain: Standin, tmp_path: Path) -> None:
        connection = to(plain, {"encrypt": "disable", "app_name": "load ü", "application_intent": "ReadOnly"})
        extract(connection, tmp_path)
        count(connection)
        logins = [entry for entry in plain.journal if entry.kind == "login"]
        assert [(entry.sql, entry.app, entry.database, entry.read_only) for entry in logins] == [
            ("reader", "load ü", "shop", True)
        ] * 2

    def test_another_database_is_refused(self, plain: Standin, tmp_path: Path) -> None:
        with pytest.raises(ExtractError, match=r"Login failed|Cannot open database"):
            extract(to(plain, schema="no & such"), tmp_path)
        assert plain.journal[0].database == "no & such"
        assert plain.journal[0].error == 4060

    def test_an_azure_user_reaches_the_server(self, plain: Standin, tmp_path: Path) -> None:
        with pytest.raises(ExtractError, match="Login failed for user 'reader@server'"):
            extract(to(plain, login="reader@server"), tmp_path)

    def test_the_environment_is_as_before(self, plain: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FREETDSCONF", "/own/freetds.conf")
        count(to(plain))
        assert os.environ["FREETDSCONF"] == "/own/freetds.conf"


class TestTls:
    @pytest.mark.parametrize(
        ("extra", "login", "statements"),
        [
            ({"encrypt": "disable"}, "", ""),
            ({"encrypt": "false"}, "TLSv1.2", ""),
            ({"encrypt": "true"}, "TLSv1.2", "TLSv1.2"),
            ({"encrypt": "strict"}, "TLSv1.2", "TLSv1.2"),
        ],
    )
    @pytest.mark.parametrize("ask", ["sling", "hook"])
    def test_what_is_encrypted(
        self, secure: Standin, tmp_path: Path, ask: str, extra: dict[str, Any], login: str, statements: str
    ) -> None:
        connection = to(secure, extra | {"certificate": str(secure.certificate)})
        _ = extract(connection, tmp_path) if ask == "sling" else count(connection)
        assert {entry.tls for entry in secure.journal if entry.kind == "login"} == {login}
        assert {entry.tls for entry in secure.journal if entry.kind == "batch"} == {statements}

    @pytest.mark.parametrize("encrypt", ["false", "true", "strict"])
    @pytest.mark.parametrize("ask", ["sling", "hook"])
    def test_a_certificate_of_an_unknown_authority_is_refused(
        self, secure: Standin, tmp_path: Path, ask: str, encrypt: str
    ) -> None:
        connection = to(secure, {"encrypt": encrypt})
        with pytest.raises((ExtractError, pymssql.Error), match=r"unknown authority|connection failed"):
            _ = extract(connection, tmp_path) if ask == "sling" else count(connection)
        assert secure.journal == []  # above all, no password was sent

    @pytest.mark.parametrize("ask", ["sling", "hook"])
    def test_any_certificate_will_do_where_that_is_said(self, secure: Standin, tmp_path: Path, ask: str) -> None:
        connection = to(secure, {"encrypt": "true", "trust_server_certificate": True})
        _ = extract(connection, tmp_path) if ask == "sling" else count(connection)
        assert {entry.tls for entry in secure.journal} == {"TLSv1.2"}

    @pytest.mark.parametrize(("name", "good"), [("localhost", True), ("db.example", False)])
    @pytest.mark.parametrize("ask", ["sling", "hook"])
    def test_the_name_in_the_certificate_counts(
        self, secure: Standin, tmp_path: Path, ask: str, name: str, good: bool
    ) -> None:
        extra = {"certificate": str(secure.certificate), "hostname_in_certificate": name}
        connection = to(secure, extra)
        if good:
            _ = extract(connection, tmp_path) if ask == "sling" else count(connection)
        else:
            with pytest.raises((ExtractError, pymssql.Error)):
                _ = extract(connection, tmp_path) if ask == "sling" else count(connection)
            assert secure.journal == []

    @pytest.mark.parametrize("ask", ["sling", "hook"])
    def test_a_server_without_tls_gets_no_password(self, plain: Standin, tmp_path: Path, ask: str) -> None:
        connection = to(plain, {"encrypt": "true", "trust_server_certificate": True})
        with pytest.raises((ExtractError, pymssql.Error)):
            _ = extract(connection, tmp_path) if ask == "sling" else count(connection)
        assert plain.journal == []
