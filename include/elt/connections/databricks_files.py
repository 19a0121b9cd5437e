"""A volume of Unity Catalog through the Files API, with the methods of a bucket in S3.

The API checks no digest, so a file's size is compared after it was sent, and whoever reads it compares its SHA-256.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated
from databricks.sdk.errors.base import DatabricksError
from databricks.sdk.service.files import DirectoryEntry

from include.elt.connections.databricks import Workspace
from include.elt.errors import EltError, LakeError, LakeRefusedError, MissingObjectError

log = logging.getLogger(__name__)

_BLOCK = 1024 * 1024
_TIMEOUTS = {"http_timeout_seconds": 60, "retry_timeout_seconds": 300}


@dataclass(frozen=True)
class StoredFile:
    """A file as its volume lists it; when it was written."""

    key: str
    modified: datetime


@dataclass(frozen=True)
class Downloaded:
    """What a download brought: the hexadecimal digest of its bytes."""

    sha256: str


class Volume:
    """A volume as a connection sees it. A key is what comes behind the volume's path.

    Args:
        workspace: who we are and where.
        path: `/Volumes/catalog/schema/volume`.
    """

    def __init__(self, workspace: Workspace, path: str) -> None:
        self.workspace = workspace
        self.path = path
        with self._told(path):
            self._files = WorkspaceClient(config=workspace.config(**_TIMEOUTS)).files

    def url(self, key: str) -> str:
        """The path of a file."""
        return f"{self.path}/{key}"

    def check(self, prefix: str) -> None:  # noqa: ARG002
        """Ask whether the volume is there and we may see it.

        Raises:
            LakeError: it cannot be reached.
            LakeRefusedError: it is not there, or lets us in no further.
        """
        with self._told(self.path):
            try:
                next(iter(self._files.list_directory_contents(f"{self.path}/", page_size=1)), None)
            except NotFound as error:
                raise LakeRefusedError(
                    f"{self.path} through the connection {self.workspace.connection}: {self.workspace.redacted(error)}"
                    " Make the volume, or grant READ VOLUME and WRITE VOLUME on it"
                ) from None

    def objects(self, prefix: str) -> Iterator[StoredFile]:
        """All files below a folder, in the order of their keys.

        Args:
            prefix: the folder, with a slash at its end.
        """
        for entry in sorted(self._entries(prefix), key=lambda each: str(each.path)):
            key = str(entry.path).rstrip("/").removeprefix(f"{self.path}/")
            if entry.is_directory:
                yield from self.objects(f"{key}/")
            else:
                yield StoredFile(key, datetime.fromtimestamp((entry.last_modified or 0) / 1000, UTC))

    def _entries(self, prefix: str) -> list[DirectoryEntry]:
        with self._told(self.url(prefix)):
            try:
                return list(self._files.list_directory_contents(self.url(prefix)))
            except NotFound:
                return []

    def read(self, key: str) -> bytes:
        """The content of a small file."""
        with self._told(self.url(key)):
            contents = self._files.download(self.url(key)).contents
            assert contents is not None  # noqa: S101  (the type of an answer's optional field)
            with contents:
                return contents.read()

    def download(self, key: str, target: Path) -> Downloaded:
        """Write a file of the volume to a local one."""
        digest = hashlib.sha256()
        with self._told(self.url(key)):
            contents = self._files.download(self.url(key)).contents
            assert contents is not None  # noqa: S101
            with contents, target.open("wb") as file:
                while block := contents.read(_BLOCK):
                    file.write(block)
                    digest.update(block)
        return Downloaded(digest.hexdigest())

    def upload(self, file: Path, key: str, sha256: str) -> None:  # noqa: ARG002
        """Send a file; it is there as a whole or not at all.

        Raises:
            LakeError: it did not arrive as a whole.
        """
        with self._told(self.url(key)):
            with file.open("rb") as content:
                self._files.upload(self.url(key), content, overwrite=True)
            arrived = self._files.get_metadata(self.url(key)).content_length
        if arrived != file.stat().st_size:
            raise LakeError(f"{self.url(key)}: {arrived} bytes arrived of {file.stat().st_size}")

    def write(self, key: str, content: bytes) -> None:
        """Make a small file, in one step."""
        with self._told(self.url(key)):
            self._files.upload(self.url(key), BytesIO(content), overwrite=True)

    def delete(self, key: str) -> None:
        """Remove a file, and its folder with the last one; one that is not there is no error."""
        with self._told(self.url(key)):
            with suppress(NotFound):
                self._files.delete(self.url(key))
            with suppress(DatabricksError):  # it holds other files still
                self._files.delete_directory(self.url(key).rpartition("/")[0])

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Tell what the SDK raises in one line of ours."""
        name = self.workspace.connection
        try:
            yield
        except EltError:
            raise
        except NotFound:
            raise MissingObjectError(f"{path} is not there (connection {name})") from None
        except (PermissionDenied, Unauthenticated) as error:
            raise LakeRefusedError(f"{path} through the connection {name}: {self.workspace.redacted(error)}") from None
        except (DatabricksError, requests.RequestException, OSError, ValueError) as error:
            # The SDK tells a login that was refused in a ValueError.
            refused = isinstance(error, ValueError) and not isinstance(error, OSError)
            kind = LakeRefusedError if refused else LakeError
            raise kind(f"{path} through the connection {name}: {self.workspace.redacted(error)}") from None
