"""Airflow connections of type aws: what the provider documents reaches S3, and errors are ours."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from moto.iam.models import iam_backends

from include.elt import tasks
from include.elt.connections import secrets_of
from include.elt.connections.aws import Bucket, s3_client
from include.elt.errors import (
    ChangedObjectError,
    EltError,
    ExtractError,
    MissingObjectError,
    SettingsError,
    SourceRefusedError,
)
from tests.support.s3 import ACCOUNT, REGION, SECRET


def opened(connection: Any, name: str) -> Bucket:
    return Bucket.open(connection, name, lost=ExtractError, refused=SourceRefusedError)


@pytest.fixture
def name(s3: Any) -> str:
    return str(s3.bucket())


@pytest.fixture
def bucket(s3: Any, name: str) -> Bucket:
    return opened(s3.connection("lake"), name)


def error_of(bucket: Bucket, key: str = "x") -> EltError:
    with pytest.raises(EltError) as caught:
        bucket.read(key)
    message = str(caught.value)
    assert f"s3://{bucket.name}/{key}" in message
    assert "connection lake" in message
    assert "\n" not in message
    assert SECRET not in message
    return caught.value


@pytest.mark.parametrize("key", ["a", "a/b c+%.txt", "ü/ß'\"&?#x=1", "a//b", "*[]{}"])
def test_a_key_with_any_characters_signs_and_names_objects(bucket: Bucket, key: str, tmp_path: Path) -> None:
    """The secret key holds slashes, pluses and equals signs; the server checks the signature."""
    bucket.write(key, b"hello")
    assert bucket.read(key) == b"hello"
    assert [each.key for each in bucket.objects("")] == [key]
    assert bucket.download(key, tmp_path / "x").bytes == 5
    bucket.delete(key)
    bucket.delete(key)
    assert list(bucket.objects("")) == []


class TestConnection:
    @pytest.mark.parametrize("where", ["login", "extra", "session_kwargs"])
    def test_keys_from_where_the_provider_looks(self, s3: Any, name: str, where: str) -> None:
        login, secret = s3.user()
        pair = {"aws_access_key_id": login, "aws_secret_access_key": secret}
        extra: dict[str, Any] = {"login": {}, "extra": pair, "session_kwargs": {"session_kwargs": pair}}[where]
        keys = (login, secret) if where == "login" else ("", "")
        opened(s3.connection(keys=keys, **extra), name).check("")

    def test_the_endpoint_of_s3_alone(self, s3: Any, name: str) -> None:
        connection = s3.connection(endpoint_url=None, service_config={"s3": {"endpoint_url": s3.url}})
        opened(connection, name).check("")

    def test_a_role_is_assumed(self, s3: Any, name: str) -> None:
        login, _ = keys = s3.user([{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}])
        iam = iam_backends[ACCOUNT]["aws"]
        user = iam.get_user_from_access_key_id(login)
        trust = {"Effect": "Allow", "Principal": {"AWS": user.arn}, "Action": "sts:AssumeRole"}
        role = iam.create_role(
            f"lake-{name}", json.dumps({"Version": "2012-10-17", "Statement": [trust]}), "/", None, "", [], 3600
        )
        rights = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_role_policy(role.name, "rights", json.dumps(rights))
        with pytest.raises(SourceRefusedError, match="AccessDenied"):
            opened(s3.connection(keys=keys), name).check("")
        s3.requests.clear()

        extra = {"role_arn": role.arn, "service_config": {"sts": {"endpoint_url": s3.url}}}
        opened(s3.connection(keys=keys, assume_role_kwargs={"ExternalId": "x1"}, **extra), name).check("")

        [assumed, listed] = [headers["authorization"] for _, _, headers in s3.requests]
        assert f"Credential={login}/" in assumed
        assert f"Credential={login}/" not in listed

    def test_a_role_that_is_refused(self, s3: Any, name: str) -> None:
        keys = s3.user([{"Effect": "Deny", "Action": "sts:AssumeRole", "Resource": "*"}])
        extra = {
            "role_arn": f"arn:aws:iam::{ACCOUNT}:role/none",
            "service_config": {"sts": {"endpoint_url": s3.url}},
        }
        with pytest.raises(
            SourceRefusedError, match=f"s3://{name} through the connection lake: AccessDenied"
        ) as caught:
            opened(s3.connection("lake", keys, **extra), name)
        assert caught.value.final

    def test_time_limits_and_tries_hold_unless_the_connection_says_otherwise(self, s3: Any) -> None:
        usual = s3_client(s3.connection()).meta.config
        assert (usual.connect_timeout, usual.read_timeout, usual.retries["total_max_attempts"]) == (10, 60, 4)
        given = {"read_timeout": 5, "s3": {"addressing_style": "path"}}
        own = s3_client(s3.connection(config_kwargs=given)).meta.config
        assert (own.connect_timeout, own.read_timeout) == (10, 5)
        assert (own.s3["addressing_style"], own.s3["payload_signing_enabled"]) == ("path", True)
        assert own.region_name == REGION

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ({"endpoint_url": "nowhere"}, "Invalid endpoint: nowhere"),
            ({"config_kwargs": {"colour": 1}}, "colour"),
            ({"role_arn": "arn:x", "assume_role_method": "magic"}, "assume_role_method='magic'"),
        ],
    )
    def test_what_is_not_understood_is_refused(self, s3: Any, extra: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError, match=f"the connection lake is refused: .*{message}"):
            opened(s3.connection("lake", **extra), "bucket")

    def test_a_profile_that_is_not_there(self, s3: Any) -> None:
        with pytest.raises(SourceRefusedError, match=r"profile \(none\) could not be found"):
            opened(s3.connection("lake", profile_name="none"), "bucket")

    def test_another_type(self) -> None:
        with pytest.raises(SettingsError, match="the connection lake has the type 'postgres'; S3 needs the type 'aws'"):
            s3_client(Connection(conn_id="lake", conn_type="postgres"))


class TestErrors:
    def test_no_such_object(self, bucket: Bucket, tmp_path: Path) -> None:
        assert isinstance(error_of(bucket), MissingObjectError)
        with pytest.raises(MissingObjectError):
            bucket.download("x", tmp_path / "x")

    def test_no_such_bucket(self, s3: Any) -> None:
        error = error_of(opened(s3.connection("lake"), "no-such-bucket"))
        assert "NoSuchBucket" in str(error)
        assert error.final

    @pytest.mark.parametrize(
        ("keys", "code"), [(("AKIAUNKNOWN", SECRET), "InvalidAccessKeyId"), ((None, "wr/ong"), "SignatureDoesNotMatch")]
    )
    def test_a_wrong_key(self, s3: Any, name: str, keys: tuple[str | None, str], code: str) -> None:
        error = error_of(opened(s3.connection("lake", (keys[0] or s3.user()[0], keys[1])), name))
        assert code in str(error)
        assert "wr/ong" not in str(error)
        assert isinstance(error, SourceRefusedError)

    def test_a_missing_right(self, s3: Any, name: str) -> None:
        keys = s3.user([{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}])
        assert "AccessDenied" in str(error_of(opened(s3.connection("lake", keys), name)))

    def test_no_keys_at_all(self, s3: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        error = error_of(opened(s3.connection("lake", ("", "")), name))
        assert "Unable to locate credentials" in str(error)
        assert error.final

    def test_an_endpoint_that_nobody_answers_at(self, s3: Any, name: str) -> None:
        started = time.monotonic()
        error = error_of(opened(s3.connection("lake", endpoint_url="http://127.0.0.1:9"), name))
        assert "Could not connect" in str(error)
        assert not error.final
        assert time.monotonic() - started < 30

    @pytest.mark.parametrize(
        ("answer", "final"),
        [
            ((503, "SlowDown", "slower"), False),
            ((500, "InternalError", "oh"), False),
            ((400, "RequestTimeout", "late"), False),
            ((403, "ExpiredToken", "old"), True),
            ((400, "AuthorizationHeaderMalformed", "no"), True),
            ((403, "InvalidObjectState", "it is in Glacier"), True),
        ],
    )
    def test_what_another_try_may_mend(
        self, s3: Any, bucket: Bucket, answer: tuple[int, str, str], final: bool
    ) -> None:
        s3.faults.append(lambda _: answer)
        error = error_of(bucket)
        assert f"{answer[1]}: {answer[2]}" in str(error)
        assert error.final == final

    def test_a_fault_that_passes_is_not_noticed(self, s3: Any, bucket: Bucket) -> None:
        bucket.write("x", b"hello")
        answers = [(503, "SlowDown", "slower"), (500, "InternalError", "oh")]
        s3.faults.append(lambda _: answers.pop() if answers else None)
        assert bucket.read("x") == b"hello"
        assert answers == []

    def test_an_object_that_is_another_by_now(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.write("x", b"old")
        [listed] = bucket.objects("x")
        bucket.write("x", b"new")
        with pytest.raises(ChangedObjectError, match="x was changed while it was read"):
            bucket.download("x", tmp_path / "x", listed.etag)

    def test_an_answer_that_always_breaks_off(self, s3: Any, bucket: Bucket, tmp_path: Path) -> None:
        bucket.write("x", b"hello" * 1000)
        path = f"/{bucket.name}/x"

        def again(environ: dict[str, Any]) -> None:
            s3.cut[path] = 10

        s3.faults.append(again)
        with pytest.raises(ExtractError, match=r"10 read, but total bytes expected is 49\d\d") as caught:
            bucket.download("x", tmp_path / "x")
        assert not caught.value.final
        assert len([path for method, path, _ in s3.requests if method == "GET"]) == 6


class TestSecrets:
    def test_of_a_connection(self) -> None:
        extra = {
            "aws_session_token": "tok",
            "region_name": "eu",
            "aws_access_key_id": "AKIA",
            "session_kwargs": {"aws_secret_access_key": "nested"},
            "assume_role_with_saml": {"idp_password": ["listed"], "port": 1},
            "token_count": 3,
        }
        connection = Connection(conn_id="x", conn_type="aws", login="AKIA", password="pw", extra=json.dumps(extra))
        assert list(secrets_of(connection)) == ["pw", "tok", "nested", "listed"]
        assert list(secrets_of(Connection(conn_id="x", conn_type="aws"))) == []

    def test_are_masked_in_the_log_of_a_task(self, monkeypatch: pytest.MonkeyPatch) -> None:
        masked: list[str] = []
        extra = json.dumps({"aws_session_token": "to/k+en=", "aws_secret_access_key": "k/ey"})
        connection = Connection(conn_id="x", conn_type="aws", extra=extra)
        monkeypatch.setattr(tasks.Connection, "get", lambda name: connection)
        monkeypatch.setattr(tasks, "mask_secret", masked.append)
        tasks.look_up("x")
        assert masked == ["to/k+en=", "to%2Fk%2Ben%3D", "to%2Fk%2Ben%3D", "k/ey", "k%2Fey", "k%2Fey"]
