"""The tokens of TDS 7.4 and the packets they travel in (MS-TDS 2.2)."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.tds.compiler import Output
from tests.support.tds.errors import SqlError
from tests.support.tds.types import COLLATION, encoder, type_info

BATCH, REPLY, ATTENTION, LOGIN, PRELOGIN = 1, 4, 6, 16, 18
MORE, FAILED, COUNTED, ATTENTION_SEEN = 1, 2, 0x10, 0x20
SELECT = 0xC1


def short_text(text: str) -> bytes:
    """B_VARCHAR."""
    return bytes([len(text)]) + text.encode("utf-16-le")


def message(error: SqlError, token: int = 0xAA) -> bytes:
    """ERROR, or INFO."""
    text = str(error)[:2000]
    body = (
        struct.pack("<iBB", error.number, 1, error.severity) + struct.pack("<H", len(text)) + text.encode("utf-16-le")
    )
    body += short_text("STANDIN") + short_text("") + struct.pack("<I", 1)
    return bytes([token]) + struct.pack("<H", len(body)) + body


def done(status: int, count: int = 0, command: int = 0) -> bytes:
    """DONE."""
    return struct.pack("<BHHQ", 0xFD, status, command, count)


def change(kind: int, new: bytes, old: bytes = b"\0") -> bytes:
    """ENVCHANGE."""
    body = bytes([kind]) + new + old
    return b"\xe3" + struct.pack("<H", len(body)) + body


def logged_in(version: int, database: str, packet_size: int) -> bytes:
    """What follows a good LOGIN7."""
    acknowledged = (
        b"\x01" + struct.pack(">I", version) + short_text("Microsoft SQL Server") + bytes([16, 0, 0x0F, 0xA0])
    )
    return (
        change(1, short_text(database), short_text("master"))
        + message(SqlError(5701, f"Changed database context to '{database}'.", 0), 0xAB)
        + change(7, b"\x05" + COLLATION)
        + change(2, short_text("us_english"))
        + message(SqlError(5703, "Changed language setting to us_english.", 0), 0xAB)
        + b"\xad"
        + struct.pack("<H", len(acknowledged))
        + acknowledged
        + change(4, short_text(str(packet_size)), short_text("4096"))
        + done(0)
    )


def columns(outputs: Sequence[Output]) -> bytes:
    """COLMETADATA."""
    parts = [b"\x81", struct.pack("<H", len(outputs))]
    for output in outputs:
        flags = 0x0008 | output.nullable
        parts.append(struct.pack("<IH", 0, flags) + type_info(output.type) + short_text(output.name))
    return b"".join(parts)


def row_encoder(outputs: Sequence[Output]) -> Callable[[tuple[Any, ...]], bytes]:
    """What makes ROW of a row, or NBCROW of one with NULLs."""
    encoders = [encoder(output.type) for output in outputs]
    size = (len(encoders) + 7) // 8

    def encoded(row: tuple[Any, ...]) -> bytes:
        if None not in row:
            return b"\xd1" + b"".join([encode(value) for encode, value in zip(encoders, row, strict=True)])
        nulls = bytearray(size)
        parts = []
        for place, value in enumerate(row):
            if value is None:
                nulls[place // 8] |= 1 << place % 8
            else:
                parts.append(encoders[place](value))
        return b"\xd2" + bytes(nulls) + b"".join(parts)

    return encoded


class Hangup(Exception):  # noqa: N818
    """The client is gone, or is to be dropped."""


class Transport:
    """Messages over a socket, with or without TLS.

    Args:
        connection: the accepted socket.
        number: of the connection, in every packet.
    """

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.socket = connection
        self.number = number
        self.packet_size = 4096
        self.tls: ssl.SSLObject | None = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._pending = bytearray()

    def receive(self) -> tuple[int, bytes]:
        """The next message: its kind and its body.

        Raises:
            Hangup: there is none.
        """
        body = bytearray()
        while True:
            kind, status, size = struct.unpack(">BBHxxxx", self._exactly(8))
            body += self._exactly(size - 8)
            if status & 1:
                return kind, bytes(body)

    def send(self, data: bytes, kind: int = REPLY, last: bool = True) -> None:
        """Send as much as fills packets; all of it when it is the last of a message."""
        self._pending += data
        step = self.packet_size - 8
        packets = bytearray()
        position = 0
        while len(self._pending) - position > step or (last and position <= len(self._pending)):
            part = self._pending[position : position + step]
            position += step
            end = last and position >= len(self._pending)
            packets += struct.pack(">BBHHBB", kind, end, len(part) + 8, self.number, 0, 0) + part
            if end:
                break
        del self._pending[:position]
        self._write(bytes(packets))

    def forget(self) -> None:
        """Drop what has not been sent yet."""
        self._pending.clear()

    def waiting(self, seconds: float = 0) -> bool:
        """Whether the client has said something."""
        if self.tls is not None and (self.tls.pending() or self._in.pending):
            return True
        return bool(select.select([self.socket], [], [], seconds)[0])

    def handshake(self, context: ssl.SSLContext, wrapped: bool) -> None:
        """Start TLS; up to TDS 7.4 its handshake travels inside PRELOGIN packets.

        Args:
            context: the server's certificate.
            wrapped: False for TDS 8, where TLS comes before everything else.
        """
        tls = context.wrap_bio(self._in, self._out, server_side=True)
        while True:
            try:
                tls.do_handshake()
                finished = True
            except ssl.SSLWantReadError:
                finished = False
            except ssl.SSLError as error:
                raise Hangup(f"TLS: {error.reason}") from error
            if self._out.pending:
                data = self._out.read()
                if wrapped:
                    self.send(data, PRELOGIN)
                else:
                    self.socket.sendall(data)
            if finished:
                self.tls = tls
                return
            self._in.write(self.receive()[1] if wrapped else self._some())

    def plain(self) -> None:
        """Go on without TLS, which was for the login only."""
        self.tls = None

    def _some(self) -> bytes:
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            raise Hangup(str(error)) from error
        if not data:
            raise Hangup("the client is gone")
        return data

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            if self.tls is None:
                try:
                    part = self.socket.recv(size - len(data))
                except OSError as error:
                    raise Hangup(str(error)) from error
            else:
                try:
                    part = self.tls.read(size - len(data))
                except ssl.SSLWantReadError:
                    self._in.write(self._some())
                    continue
                except ssl.SSLError as error:
                    raise Hangup(f"TLS: {error.reason}") from error
            if not part:
                raise Hangup("the client is gone")
            data += part
        return bytes(data)

    def _write(self, data: bytes) -> None:
        try:
            if self.tls is not None:
                self.tls.write(data)
                data = self._out.read()
            self.socket.sendall(data)
        except OSError as error:
            raise Hangup(str(error)) from error
