"""The server: log-in, requests, answers, a journal of them, and faults on demand."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.support.tds import protocol as tds
from tests.support.tds.engine import Database, Result, Session
from tests.support.tds.errors import SqlError, refusal
from tests.support.tds.protocol import Hangup, Transport

_OFF, _ON, _NOT_SUPPORTED, _REQUIRED = 0, 1, 2, 3
_TDS_8 = 0x08000000
_SILENCE = 120.0
"""Seconds after which a silent client is dropped, so that no thread stays for ever."""


@dataclass
class Entry:
    """A line of the journal.

    Attributes:
        kind: login or batch.
        sql: the statement; of a log-in the user.
        spid: number of the connection.
        app: name that the client gave itself.
        database: that it logged in to.
        read_only: whether it said that it only reads (application intent).
        tls: TLS version of the connection when the entry was made, or ''.
        rows: sent.
        error: number of the SQL error that was sent.
        dropped: whether the connection was dropped on purpose.
        cancelled: whether the client called it off.
    """

    kind: str
    sql: str
    spid: int
    app: str = ""
    database: str = ""
    read_only: bool = False
    tls: str = ""
    rows: int = 0
    error: int = 0
    dropped: bool = False
    cancelled: bool = False


@dataclass
class Fault:
    """What the next statements that match a pattern meet instead of an answer.

    Attributes:
        pattern: regular expression, without regard to case.
        error: the error that is sent; None drops the connection.
        times: how often; counted down.
        after_rows: rows that are sent before.
    """

    pattern: str
    error: SqlError | None
    times: int = 1
    after_rows: int = 0


class Server:
    """Accepts connections, each in a thread of its own.

    Args:
        database: the one database there is.
        user: the one who may log in.
        password: their password.
        context: the certificate; None for a server without TLS.
        encryption: `optional`, or `required` for a server that takes no other connection.
    """

    def __init__(
        self, database: Database, user: str, password: str, context: ssl.SSLContext | None, encryption: str
    ) -> None:
        self.database = database
        self.user = user
        self.password = password
        self.context = context
        self.encryption = encryption
        self.journal: list[Entry] = []
        self.faults: list[Fault] = []
        self.broken: list[Exception] = []
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._numbers = iter(range(51, 1 << 15))
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Drop every connection and stop."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join(5)
        with self._lock:
            connections, threads = list(self._connections), list(self._threads)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        if self.broken:
            raise AssertionError("the stand-in itself has failed") from self.broken[0]

    def note(self, entry: Entry) -> Entry:
        """Write a line of the journal."""
        with self._lock:
            self.journal.append(entry)
        return entry

    def fault(self, sql: str) -> Fault | None:
        """The fault that a statement meets; it counts."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, sql, re.IGNORECASE | re.DOTALL):
                    fault.times -= 1
                    return fault
        return None

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(_SILENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._connections.add(connection)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            Connection(self, connection, next(self._numbers)).run()
        except Hangup:
            pass
        except Exception as error:  # noqa: BLE001  (a fault of the stand-in; it is raised when the server is closed)
            self.broken.append(error)
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()


class Connection:
    """One client.

    Args:
        server: what it has connected to.
        connection: its socket.
        number: its number.
    """

    def __init__(self, server: Server, connection: socket.socket, number: int) -> None:
        self.server = server
        self.number = number
        self.wire = Transport(connection, number)
        self.session: Session | None = None
        self.app = ""
        self._read_only = False

    def run(self) -> None:
        """Serve the client until it goes."""
        try:
            self._pre_login()
            self._login()
            while True:
                self._request(*self.wire.receive())
        finally:
            if self.session is not None:
                self.session.close()

    # -- log-in

    def _pre_login(self) -> None:
        context = self.server.context
        strict = self.wire.socket.recv(1, socket.MSG_PEEK) == b"\x16"
        if strict:  # TDS 8: TLS before everything else
            if context is None:
                raise Hangup("no TLS here")
            self.wire.handshake(context, wrapped=False)
        kind, body = self.wire.receive()
        if kind != tds.PRELOGIN:
            raise Hangup(f"a message of kind {kind} before PRELOGIN")
        wanted, place = _OFF, 0
        while body[place] != 0xFF:
            option, start, size = struct.unpack_from(">BHH", body, place)
            if option == 1 and size:
                wanted = body[start]
            place += 5
        required = self.server.encryption == "required"
        if context is None or strict:
            answer = _NOT_SUPPORTED
        elif wanted == _NOT_SUPPORTED:
            answer = _REQUIRED if required else _NOT_SUPPORTED
        else:
            answer = _REQUIRED if required and wanted == _OFF else _ON if wanted in (_ON, _REQUIRED) else _OFF
        options = [(0, bytes([16, 0, 0x0F, 0xA0, 0, 0])), (1, bytes([answer])), (2, b"\0"), (3, b""), (4, b"\0")]
        head, data, start = b"", b"", 5 * len(options) + 1
        for option, value in options:
            head += struct.pack(">BHH", option, start + len(data), len(value))
            data += value
        self.wire.send(head + b"\xff" + data)
        if answer != _NOT_SUPPORTED and context is not None:
            if wanted == _NOT_SUPPORTED:
                raise Hangup("the client has no TLS, and the server requires it")
            self.wire.handshake(context, wrapped=True)
        self._login_only = answer == _OFF

    def _login(self) -> None:
        kind, body = self.wire.receive()
        if kind != tds.LOGIN:
            raise Hangup(f"a message of kind {kind} instead of LOGIN7")
        version, packet_size = struct.unpack_from("<II", body, 4)

        def text(place: int) -> bytes:
            start, length = struct.unpack_from("<HH", body, place)
            return body[start : start + length * 2]

        user, self.app = text(40).decode("utf-16-le"), text(48).decode("utf-16-le")
        swapped = bytes(byte ^ 0xA5 for byte in text(44))
        password = bytes(byte << 4 & 0xF0 | byte >> 4 for byte in swapped).decode("utf-16-le", "replace")
        database = text(68).decode("utf-16-le")
        self._read_only = bool(body[26] & 0x20)
        entry = self._note("login", user, database=database)
        if self._login_only:
            self.wire.plain()
        errors = self._refused(version, user, password, database)
        if errors:
            entry.error = errors[0].number
            self.wire.send(b"".join(map(tds.message, errors)) + tds.done(tds.FAILED))
            raise Hangup(str(errors[0]))
        self.session = self.server.database.session(user, self.number, self._wait)
        packet_size = min(max(packet_size, 512), 32767) if packet_size else 4096
        self.wire.send(
            tds.logged_in(
                version if version == _TDS_8 else min(version, 0x74000004), self.server.database.name, packet_size
            )
        )
        self.wire.packet_size = packet_size

    def _refused(self, version: int, user: str, password: str, database: str) -> list[SqlError]:
        """What SQL Server says to who may not come in."""
        failed = SqlError(18456, f"Login failed for user '{user}'.", 14)
        if version < 0x730B0003 and version != _TDS_8:
            return [refusal(f"TDS version {version:08x}, older than 7.3")]
        if (user, password) != (self.server.user, self.server.password):
            return [failed]
        if (database or self.server.database.name).lower() != self.server.database.name.lower():
            message = f'Cannot open database "{database}" requested by the login. The login failed.'
            return [SqlError(4060, message, 11), failed]
        return []

    def _note(self, kind: str, sql: str, **more: Any) -> Entry:
        tls = (self.wire.tls.version() or "") if self.wire.tls else ""
        entry = Entry(kind, sql, self.number, self.app, self.server.database.name, self._read_only, tls)
        for name, value in more.items():
            setattr(entry, name, value)
        return self.server.note(entry)

    # -- requests

    def _request(self, kind: int, body: bytes) -> None:
        if kind == tds.ATTENTION:
            self.wire.send(tds.done(tds.ATTENTION_SEEN))
            return
        if kind != tds.BATCH:
            error = refusal(f"a request of kind {kind}")
            self.wire.send(tds.message(error) + tds.done(tds.FAILED))
            return
        (headers,) = struct.unpack_from("<I", body)
        self._answer(body[headers:].decode("utf-16-le"))

    def _answer(self, sql: str) -> None:
        """Run a batch and send what it answers."""
        assert self.session is not None
        entry = self._note("batch", sql)
        last = b""
        fault = self.server.fault(sql)
        try:
            if fault and not fault.after_rows:
                self._meet(fault, entry)
            for result in self.session.batch(sql):
                if last:
                    self.wire.send(last, last=False)
                last = self._result(result, entry, fault)
            if fault and fault.after_rows:
                self._meet(fault, entry)
        except SqlError as error:
            entry.error = error.number
            if last:
                self.wire.send(last, last=False)
            last = tds.message(error) + tds.done(tds.FAILED)
        except _Cancelled:
            entry.cancelled = True
            self.wire.send(tds.done(tds.ATTENTION_SEEN))
            return
        if not last:
            last = tds.done(0)
        _, seen, command, count = struct.unpack("<BHHQ", last[-13:])  # the batch ends with its last result
        self.wire.send(last[:-13] + tds.done(seen & ~tds.MORE, count, command))

    def _meet(self, fault: Fault, entry: Entry) -> None:
        if fault.error is not None:
            raise fault.error
        entry.dropped = True
        linger = struct.pack("ii", 1, 0)  # a reset, as of a server that died
        self.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise Hangup("dropped on purpose")

    def _wait(self, seconds: float) -> None:
        """WAITFOR, which the client can call off."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.wire.waiting(left):
                self._attention()

    def _attention(self) -> None:
        kind, _ = self.wire.receive()
        self.wire.forget()
        if kind == tds.ATTENTION:
            raise _Cancelled
        raise Hangup(f"a message of kind {kind} during an answer")

    def _result(self, result: Result, entry: Entry, fault: Fault | None) -> bytes:
        """Send a result but for its DONE, which is given back with the mark that more follows."""
        if result.columns is None:
            status = tds.MORE | (0 if result.count is None else tds.COUNTED)
            return tds.done(status, result.count or 0)
        self.wire.send(tds.columns(result.columns), last=False)
        encode, sent = tds.row_encoder(result.columns), 0
        for chunk in result.rows:
            if fault and fault.after_rows and sent + len(chunk) >= fault.after_rows:
                part = chunk[: fault.after_rows - sent]
                self.wire.send(b"".join(map(encode, part)), last=False)
                entry.rows += len(part)
                self._meet(fault, entry)
            self.wire.send(b"".join(map(encode, chunk)), last=False)
            sent += len(chunk)
            entry.rows += len(chunk)
            if self.wire.waiting():
                self._attention()
        return tds.done(tds.COUNTED | tds.MORE, sent, tds.SELECT)


class _Cancelled(Exception):  # noqa: N818
    """The client has called its request off."""
