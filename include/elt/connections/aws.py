"""An Airflow connection of type `aws`, as the API of one S3 bucket.

The amazon provider's own hook reads the connection, so that keys, roles, profiles, endpoints, proxies and instance
roles mean what its documentation says. What goes wrong becomes one of our errors: a line that names connection, bucket
and key, and never a secret.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk.exceptions import AirflowException
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import ConnectionError as NoConnectionError

from include.elt.connections import AirflowConnection
from include.elt.errors import ChangedObjectError, EltError, MissingObjectError, SettingsError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

LARGE = 64 * 1024 * 1024
"""Bytes from which a file is sent in parts."""

_BLOCK = 1024 * 1024
_RESUMED = 5
"""Times that a download goes on after the connection was lost, as long as something arrived each time."""

_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "total_max_attempts": 4},
    "tcp_keepalive": True,
}
"""What holds unless the connection's `config_kwargs` say otherwise."""

_NETWORK = (HTTPClientError, NoConnectionError, IncompleteReadError, FlexibleChecksumError, CredentialRetrievalError)
_PASSING = frozenset(
    {"BadDigest", "ConditionalRequestConflict", "IDPCommunicationError", "OperationAborted", "RequestTimeout"}
    | {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}
    | {"XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
"""Errors of the client's side by their status, which another try may mend all the same."""


@dataclass(frozen=True)
class S3Object:
    """An object as a bucket lists it.

    Attributes:
        key: its key.
        bytes: its size.
        etag: names its content within the bucket.
        modified: when it was written.
        knows_sha256: whether S3 may hold a SHA-256 of it.
    """

    key: str
    bytes: int
    etag: str
    modified: datetime
    knows_sha256: bool


@dataclass(frozen=True)
class Downloaded:
    """What a download brought.

    Attributes:
        bytes: size of the object.
        sha256: hexadecimal digest of its bytes, computed here.
        etag: names its content within the bucket.
        version: its version, in a bucket that keeps versions.
    """

    bytes: int
    sha256: str
    etag: str
    version: str | None


class _Hook(S3Hook):
    """The provider's hook on a connection that was looked up already."""

    def __init__(self, connection: AirflowConnection) -> None:
        super().__init__(aws_conn_id=connection.conn_id)
        self._connection = connection

    def get_connection(self, conn_id: str) -> AirflowConnection:  # type: ignore[override]  # noqa: ARG002
        return self._connection


def s3_client(connection: AirflowConnection) -> S3Client:
    """A client of S3 with time limits and a bounded number of tries.

    Raises:
        SettingsError: the connection is not of type `aws`, or something in it is not understood.
        BotoCoreError, ClientError: the credentials cannot be had, such as those of a role.
    """
    name = connection.conn_id
    if connection.conn_type != "aws":
        raise SettingsError(f"the connection {name} has the type {connection.conn_type!r}; S3 needs the type 'aws'")
    try:
        hook = _Hook(connection)
        given = hook.config
        # A signed body is checked by every S3 server, also by one that knows no checksums.
        s3: Any = {"payload_signing_enabled": True, **(getattr(given, "s3", None) or {})}
        hook.conn_config.botocore_config = Config(**_DEFAULTS).merge(given).merge(Config(s3=s3))  # STS uses it too
        return cast("S3Client", hook.get_conn())
    except (AirflowException, NotImplementedError, LookupError, TypeError, ValueError) as error:
        raise SettingsError(f"the connection {name} is refused: {_line(error)}") from None


class Bucket:
    """One bucket of S3 as a connection sees it.

    Args:
        client: boto3's client.
        name: the bucket.
        connection: id of the Airflow connection, for messages.
        lost: error for what another try may mend.
        refused: error for what it cannot.
    """

    def __init__(
        self, client: S3Client, name: str, connection: str, *, lost: type[EltError], refused: type[EltError]
    ) -> None:
        self.client = client
        self.name = name
        self.connection = connection
        self.lost = lost
        self.refused = refused
        # Such a server would ignore or refuse what it does not know; the signature of the body remains.
        self.checksums = getattr(client.meta.config, "request_checksum_calculation", "") != "when_required"

    @classmethod
    def open(cls, connection: AirflowConnection, name: str, *, lost: type[EltError], refused: type[EltError]) -> Bucket:
        """The bucket of that name; it is not asked for yet, but the role of the connection is assumed.

        Raises:
            SettingsError: the connection is not of type `aws`, or something in it is not understood.
            EltError: `lost` or `refused`, when its credentials cannot be had.
        """
        with _errors(connection.conn_id, f"s3://{name}", lost, refused):
            client = s3_client(connection)
        return cls(client, name, connection.conn_id, lost=lost, refused=refused)

    def url(self, key: str) -> str:
        """The URL of an object."""
        return f"s3://{self.name}/{key}"

    def check(self, prefix: str) -> None:
        """Ask for nothing in particular, to learn whether the bucket can be reached and we may list it."""
        with self._told(prefix):
            self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=1)

    def objects(self, prefix: str) -> Iterator[S3Object]:
        """All objects whose keys begin with `prefix`, in the order of their keys."""
        with self._told(prefix):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                for each in page.get("Contents", ()):
                    sha256 = "SHA256" in each.get("ChecksumAlgorithm", ())
                    yield S3Object(each["Key"], each["Size"], each["ETag"], each["LastModified"], sha256)

    def sha256(self, key: str, etag: str) -> str | None:
        """The SHA-256 that S3 holds of a whole object, as it was checked when the object was written; None without."""
        with self._told(key):
            found = self.client.head_object(Bucket=self.name, Key=key, IfMatch=etag, ChecksumMode="ENABLED")
        digest = found.get("ChecksumSHA256", "")
        if not digest or "-" in digest or found.get("ChecksumType") == "COMPOSITE":  # that of the parts' digests
            return None
        return base64.b64decode(digest).hex()

    def read(self, key: str) -> bytes:
        """The content of a small object."""
        with self._told(key):
            return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def download(self, key: str, target: Path, etag: str | None = None) -> Downloaded:
        """Write an object to a file; a connection that is lost on the way is taken up where it was.

        Args:
            key: the object.
            target: the file; overwritten.
            etag: what the object has to be still.

        Raises:
            MissingObjectError: there is no such object.
            ChangedObjectError: it is not that of the ETag, or was replaced while it was read.
        """
        digest, size, end, version = hashlib.sha256(), 0, -1, None
        with target.open("wb") as file:
            for attempt in itertools.count():
                before = size
                wanted: dict[str, Any] = {"Bucket": self.name, "Key": key}
                wanted |= ({"IfMatch": etag} if etag else {}) | ({"Range": f"bytes={size}-"} if size else {})
                try:
                    with self._told(key):
                        answer = self.client.get_object(**wanted)
                        etag, version, end = answer["ETag"], answer.get("VersionId"), size + answer["ContentLength"]
                        for block in answer["Body"].iter_chunks(_BLOCK):
                            file.write(block)
                            digest.update(block)
                            size += len(block)
                    break
                except self.lost as error:
                    if error.final or size in (before, end) or attempt == _RESUMED:
                        raise
                    log.info("%s; going on at byte %s", error, f"{size:,}")
        return Downloaded(size, digest.hexdigest(), etag or "", version)

    def upload(self, file: Path, key: str, sha256: str) -> None:
        """Send a file; S3 refuses it when the bytes that arrive are others than those of the digest.

        Args:
            file: the file; a large one goes in parts, each with a digest of its own, and is whole or not there.
            key: the object.
            sha256: hexadecimal digest of the file.
        """
        with self._told(key):
            if file.stat().st_size < LARGE:
                with file.open("rb") as body:
                    self.client.put_object(Bucket=self.name, Key=key, Body=body, **self._checksum(sha256))
                return
            config = TransferConfig(multipart_threshold=LARGE, multipart_chunksize=LARGE // 4, max_concurrency=4)
            extra = {"ChecksumAlgorithm": "SHA256"} if self.checksums else {}
            with create_transfer_manager(self.client, config) as transfer:
                transfer.upload(str(file), self.name, key, extra).result()

    def write(self, key: str, content: bytes) -> None:
        """Make a small object, in one step."""
        with self._told(key):
            checksum = self._checksum(hashlib.sha256(content).hexdigest())
            self.client.put_object(Bucket=self.name, Key=key, Body=content, **checksum)

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with self._told(key):
            self.client.delete_object(Bucket=self.name, Key=key)

    def _checksum(self, sha256: str) -> dict[str, Any]:
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": digest} if self.checksums else {}

    def _told(self, key: str) -> Any:
        return _errors(self.connection, self.url(key), self.lost, self.refused)


@contextmanager
def _errors(connection: str, url: str, lost: type[EltError], refused: type[EltError]) -> Iterator[None]:
    """Tell what boto3 raises in one line of ours."""
    try:
        yield
    except ClientError as error:
        answer: Any = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in ("NoSuchKey", "404", "NotFound"):
            raise MissingObjectError(f"{url} is not there (connection {connection})") from None
        if code in ("PreconditionFailed", "412"):
            raise ChangedObjectError(f"{url} was changed while it was read (connection {connection})") from None
        kind = refused if 300 <= status < 500 and status not in (408, 429) and code not in _PASSING else lost
        said = answer.get("Error", {}).get("Message") or error.operation_name
        raise kind(f"{url} through the connection {connection}: {code or status}: {_line(said)}") from None
    except BotoCoreError as error:
        kind = lost if isinstance(error, _NETWORK) else refused
        raise kind(f"{url} through the connection {connection}: {_line(error)}") from None


def _line(text: object) -> str:
    return " ".join(str(text).split())
