"""As much of a TDS client as is needed to ask what no driver here asks: procedure calls, transaction requests."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.support.tds import Standin
from tests.support.tds.protocol import short_text
from tests.support.tds.types import SqlType, encoder, null_value, type_info

_HEADERS = struct.pack("<IIHQI", 22, 18, 2, 0, 1)


class Client:
    """A connection without TLS that is logged in."""

    def __init__(self, connection: socket.socket, standin: Standin) -> None:
        self.socket = connection
        head = struct.pack(">BHHBHH", 0, 11, 6, 1, 17, 1) + b"\xff"
        self.ask(18, head + bytes(6) + b"\x02")
        fixed, data = b"", b""
        texts = ["", standin.user, standin.password, "test", "", "", "", "", standin.database]
        for place, text in enumerate(texts):
            raw = text.encode("utf-16-le")
            if place == 2:
                raw = bytes(((byte << 4 | byte >> 4) & 0xFF) ^ 0xA5 for byte in raw)
            fixed += struct.pack("<HH", 94 + len(data), len(raw) // 2)
            data += raw
        fixed += bytes(94 - 36 - len(fixed))
        start = struct.pack("<IIIIIIBBBBII", 94 + len(data), 0x74000004, 4096, 0, 1, 0, 0, 0, 0, 0, 0, 0)
        assert b"\xad" in self.ask(16, start + fixed + data)

    def ask(self, kind: int, body: bytes) -> bytes:
        """Send a message and read the answer."""
        self.socket.sendall(struct.pack(">BBHHBB", kind, 1, len(body) + 8, 0, 1, 0) + body)
        answer, last = b"", 0
        while not last:
            _, last, size = struct.unpack(">BBHxxxx", self._exactly(8))
            answer += self._exactly(size - 8)
        return answer

    def call(self, procedure: int | str, *arguments: tuple[str, SqlType, Any]) -> bytes:
        """Call a procedure by number or name."""
        name = struct.pack("<HH", 0xFFFF, procedure) if isinstance(procedure, int) else _unicode(procedure)
        body = _HEADERS + name + b"\0\0"
        for argument, kind, value in arguments:
            data = null_value(kind) if value is None else encoder(kind)(value)
            body += short_text(argument) + b"\0" + type_info(kind) + data
        return self.ask(3, body)

    def transaction(self, request: int) -> bytes:
        """Begin (5), commit (7) or roll back (8)."""
        return self.ask(14, _HEADERS + struct.pack("<HBB", request, 0, 0))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the server is gone")
            data += part
        return data


def _unicode(text: str) -> bytes:
    return struct.pack("<H", len(text)) + text.encode("utf-16-le")


@contextmanager
def client(standin: Standin) -> Iterator[Client]:
    """A client for as long as the block lasts."""
    with closing(socket.create_connection(("127.0.0.1", standin.port), timeout=10)) as connection:
        yield Client(connection, standin)
