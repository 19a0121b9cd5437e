"""A real S3 API for the tests: moto's server in a thread, on a free port.

Stricter than moto alone: requests have to be signed with the key of a user it knows, who has the right to do that
(moto checks both once it is told to), and bodies have to be those of their digests, as S3 checks. Faults can be put in
its way. What moto cannot say: whether AWS, MinIO or Ceph answer the same.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from uuid import uuid4

import boto3
from airflow.sdk import Connection
from moto import settings as moto_settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

ACCOUNT = "123456789012"
REGION = "eu-central-1"
SECRET = "s3cr/et+key=with%20every/sign+AWS=uses=="
"""A secret key with every character that a URL could trip over."""

Environ = dict[str, Any]
Fault = Callable[[Environ], tuple[int, str, str] | None]
"""Looks at a request and answers it with status, code and message, or leaves it to moto."""


@dataclass
class Server:
    """A running server.

    Attributes:
        port: where it listens.
        requests: method, path with query, and headers of each request.
        faults: asked in their order before moto is.
        cut: paths whose next answer breaks off after so many bytes of its body.
    """

    port: int
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def user(self, statements: list[dict[str, Any]] | None = None) -> tuple[str, str]:
        """A new key pair, of a user who may do anything with S3 or what the statements of a policy say."""
        iam = iam_backends[ACCOUNT]["aws"]
        name = uuid4().hex
        iam.create_user(REGION, name)
        allowed = statements or [{"Effect": "Allow", "Action": ["s3:*", "sts:*"], "Resource": "*"}]
        iam.put_user_policy(name, "rights", json.dumps({"Version": "2012-10-17", "Statement": allowed}))
        key = iam.create_access_key(name)
        key.secret_access_key = SECRET
        return key.access_key_id, SECRET

    def connection(self, name: str = "aws_default", keys: tuple[str, str] | None = None, **extra: Any) -> Connection:
        """An Airflow connection to this server."""
        login, password = keys or self.user()
        extra = {"endpoint_url": self.url, "region_name": REGION, **extra}
        return Connection(conn_id=name, conn_type="aws", login=login, password=password, extra=json.dumps(extra))

    def variable(self, keys: tuple[str, str] | None = None) -> str:
        """A connection as the value of an environment variable of Airflow."""
        connection = self.connection(keys=keys)
        fields = {"conn_type": "aws", "login": connection.login, "password": connection.password}
        return json.dumps(fields | {"extra": connection.extra_dejson})

    def client(self) -> Any:
        """boto3's own client, to look beside what is tested."""
        login, password = self.user()
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=login,
            aws_secret_access_key=password,
        )

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"bucket-{uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name

    def keys(self, bucket: str) -> list[str]:
        """Keys of a bucket."""
        return sorted(s3_backends[ACCOUNT]["aws"].buckets[bucket].keys)

    def object(self, bucket: str, key: str) -> Any:
        """moto's own object, whose time and content can be changed."""
        return s3_backends[ACCOUNT]["aws"].buckets[bucket].keys[key]


class _Quiet(MotoRequestHandler):
    def log_request(self, *args: Any) -> None:
        """Requests are in `Server.requests`."""


class _Strict:
    """Checks the bodies, and makes the faults, before moto sees a request."""

    def __init__(self, app: Any, server: Server) -> None:
        self.app = app
        self.server = server

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        path = environ["PATH_INFO"] + ("?" + environ["QUERY_STRING"] if environ["QUERY_STRING"] else "")
        headers = {name[5:].lower().replace("_", "-"): text for name, text in environ.items() if name[:5] == "HTTP_"}
        self.server.requests.append((environ["REQUEST_METHOD"], path, headers))
        digest = hashlib.sha256(body)
        answers = [fault(environ) for fault in self.server.faults]
        if headers.get("x-amz-content-sha256", digest.hexdigest()) != digest.hexdigest():
            answers.append((400, "XAmzContentSHA256Mismatch", "the body is not what was signed"))
        if headers.get("x-amz-checksum-sha256") not in (None, base64.b64encode(digest.digest()).decode()):
            answers.append((400, "BadDigest", "the body is not that of its SHA-256"))
        for answer in answers:
            if answer:
                status, code, message = answer
                text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
                start_response(f"{status} x", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
                return [text]
        found = self.app(environ, start_response)
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"] in self.server.cut:
            return [b"".join(found)[: self.server.cut.pop(environ["PATH_INFO"])]]
        return found


@contextmanager
def running_s3() -> Iterator[Server]:
    """A server without buckets, for as long as the block lasts."""
    server = Server(0)
    app = _Strict(DomainDispatcherApplication(create_backend_app), server)
    serving = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    server.port = serving.port
    before = moto_settings.INITIAL_NO_AUTH_ACTION_COUNT, ActionAuthenticatorMixin.request_count
    moto_settings.INITIAL_NO_AUTH_ACTION_COUNT = ActionAuthenticatorMixin.request_count = 0
    thread = Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        serving.shutdown()
        thread.join(30)
        serving.server_close()
        moto_settings.INITIAL_NO_AUTH_ACTION_COUNT, ActionAuthenticatorMixin.request_count = before
        s3_backends[ACCOUNT]["aws"].reset()
        iam_backends[ACCOUNT]["aws"].reset()
