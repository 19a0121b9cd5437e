"""Files in S3: each object is read once, as it was listed, into the working folder, then like a local file."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from include.elt.connections import AirflowConnection
from include.elt.connections.aws import Bucket, S3Object
from include.elt.contract import Contract
from include.elt.errors import (
    ChangedObjectError,
    DataError,
    ExtractError,
    MissingObjectError,
    ReplicationError,
    SourceRefusedError,
)
from include.elt.modes import Reading
from include.elt.replication import Stream
from include.elt.settings import Settings
from include.elt.sources.files import FileSource, Found, fitting

log = logging.getLogger(__name__)

NOTHING: frozenset[tuple[str, str]] = frozenset()


class Objects:
    """The objects that a stream names.

    Args:
        bucket: their bucket.
        pattern: a key; one that ends with a slash, which means all objects of a known format below; or one with `*` and
            `?`, which stand for anything but a slash.
        stream: the stream that is read.
    """

    def __init__(self, bucket: Bucket, pattern: str, stream: Stream) -> None:
        self.stream = stream
        self.bucket = bucket
        self.pattern = pattern
        self.start = re.split(r"[*?]", pattern)[0]
        self.folder = self.start[: self.start.rfind("/") + 1]

    @property
    def several(self) -> bool:
        """Whether it may be more than one object."""
        return self.start != self.pattern or self.pattern == self.folder

    def listed(self) -> list[S3Object]:
        """The objects that are there, by key. Of a folder without those that begin with a dot or an underscore."""
        wanted = re.compile("".join({"*": "[^/]*", "?": "[^/]"}.get(each, re.escape(each)) for each in self.pattern))
        listed = [each for each in self.bucket.objects(self.start) if not each.key.endswith("/")]
        if self.pattern != self.folder:
            return [each for each in listed if wanted.fullmatch(each.key)]
        hidden = [each.key for each in listed if re.search(r"(^|/)[._]", self.name(each.key))]
        if hidden:
            log.info("%s: left out: %s", self.bucket.url(self.pattern), ", ".join(hidden[:10]))
        shown = {self.name(each.key): each for each in listed if each.key not in hidden}
        return [shown[name] for name in fitting(shown, self.stream)]

    def name(self, key: str) -> str:
        """What an object is called."""
        return key.removeprefix(self.folder)

    def bring(self, target: Path, known: frozenset[tuple[str, str]] = NOTHING) -> list[Found]:
        """Download the objects, each as it was when they were listed.

        Args:
            target: an empty folder.
            known: name and sha256 of files that are left out. Where S3 holds the SHA-256 of an object, such a file is
                not even downloaded.

        Returns:
            The files that are not known, by name; none where nothing fits a folder or a pattern.

        Raises:
            DataError: the single object is not there.
            ExtractError: an object was changed or removed meanwhile, or S3 could not be read.
        """
        try:
            if not self.several:  # which needs no right to list the bucket
                brought = [self._bring(self.pattern, target, 0, None, known)]
            else:
                brought = [
                    self._bring(each.key, target, number, each, known) for number, each in enumerate(self.listed())
                ]
        except MissingObjectError as error:
            if self.several:
                raise ExtractError(f"{error}; it was a moment ago") from None
            raise DataError(str(error)) from None
        except ChangedObjectError as error:
            raise ExtractError(f"{error}; nothing was loaded") from None
        return [found for found in brought if found]

    def _bring(
        self, key: str, target: Path, number: int, listed: S3Object | None, known: frozenset[tuple[str, str]]
    ) -> Found | None:
        """One object as a file; None when it is known."""
        name = self.name(key)
        if listed and listed.knows_sha256 and any(name == each for each, _ in known):
            digest = self.bucket.sha256(key, listed.etag)
            if digest and (name, digest) in known:
                return None
        ending = re.search(r"(\.[A-Za-z0-9]{1,10}){1,2}$", key)
        path = target / f"{number:05d}{ending[0] if ending else ''}"
        got = self.bucket.download(key, path, listed.etag if listed else None)
        if listed and got.bytes != listed.bytes:
            raise ExtractError(f"{self.bucket.url(key)}: {got.bytes:,} bytes arrived of {listed.bytes:,}")
        if (name, got.sha256) in known:
            path.unlink()
            return None
        log.info("%s downloaded: %s bytes", self.bucket.url(key), f"{got.bytes:,}")
        origin = {"etag": got.etag} | ({"version": got.version} if got.version else {})
        return Found(path, name, self.bucket.url(key), origin)


def open_objects(stream: Stream, connection: AirflowConnection) -> Objects:
    """The objects of a stream, by an Airflow connection of type `aws`.

    Raises:
        ReplicationError: the stream is no `s3://` URL.
        SettingsError: something in the connection is not understood.
    """
    match = re.fullmatch(r"s3://([^/]+)/(.*)", stream.name)
    if not match:
        raise ReplicationError(
            f"stream {stream.name}: with the connection {connection.conn_id} a stream is named s3://bucket/key"
        )
    bucket = Bucket.open(connection, match[1], lost=ExtractError, refused=SourceRefusedError)
    return Objects(bucket, match[2], stream)


def open_s3(stream: Stream, contract: Contract, settings: Settings, connection: AirflowConnection) -> FileSource:
    """The source of a stream in S3: its objects, brought to the disk and read like local files."""
    objects = open_objects(stream, connection)

    def find(folder: Path, reading: Reading) -> list[Found]:
        return objects.bring(folder, reading.known_files)

    return FileSource(stream, contract, settings, find)
