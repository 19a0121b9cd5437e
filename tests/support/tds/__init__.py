"""A stand-in for SQL Server that speaks its protocol, TDS 7.4, over a real socket.

It proves plumbing: log-in, TLS, what is sent, how values travel, what becomes of errors. It proves nothing about SQL
Server itself. A statement outside a small subset, in which the answers are believed to be SQL Server's, is refused by
name; a stand-in that answers wrongly would be worse than none.
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.tds.engine import Database
from tests.support.tds.errors import DEADLOCK, DENIED, SqlError
from tests.support.tds.server import Entry, Fault, Server

PASSWORD = "p$@/: %'\";{}+&=?#\\ü"
"""Every character that a URL, a connection string, a shell or a template could trip over."""


@dataclass
class Standin:
    """A running stand-in.

    Attributes:
        server: the server behind it.
        user: the one who may log in.
        password: their password.
        database: the one database.
        certificate: PEM file of the certificate, for clients that check it; None without TLS.
    """

    server: Server
    user: str = "reader"
    password: str = PASSWORD
    database: str = "shop"
    certificate: Path | None = None

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def journal(self) -> list[Entry]:
        """Everything that clients have asked for."""
        return self.server.journal

    @property
    def statements(self) -> list[str]:
        """The statements of clients, in their order."""
        return [entry.sql for entry in self.journal if entry.kind == "batch"]

    @property
    def arguments(self) -> dict[str, Any]:
        """As arguments of `pymssql.connect`."""
        return {
            "server": "127.0.0.1",
            "port": str(self.port),
            "user": self.user,
            "password": self.password,
            "database": self.database,
        }

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run T-SQL directly, beside the wire and the journal; the rows of the last result, as they are stored."""
        session = self.server.database.session()
        rows: list[tuple[Any, ...]] = []
        try:
            for result in session.batch(sql):
                rows = [row for chunk in result.rows for row in chunk]
        finally:
            session.close()
        return rows

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Put Python values into a table, as SQL Server would store them."""
        session = self.server.database.session()
        try:
            session.insert(table, rows)
        finally:
            session.close()

    def fail(self, pattern: str, error: SqlError = DEADLOCK, times: int = 1, after_rows: int = 0) -> None:
        """Let the next statements that match a regular expression fail, perhaps after some rows."""
        self.server.faults.append(Fault(pattern, error, times, after_rows))

    def drop(self, pattern: str, times: int = 1, after_rows: int = 0) -> None:
        """Let the next statements that match a regular expression lose their connection."""
        self.server.faults.append(Fault(pattern, None, times, after_rows))

    def forget(self) -> None:
        """Empty the journal and take back faults that nobody has met."""
        self.server.journal.clear()
        self.server.faults.clear()


@contextmanager
def running_standin(tls: str = "off", password: str = PASSWORD) -> Iterator[Standin]:
    """A stand-in with an empty database, for as long as the block lasts.

    Args:
        tls: `off`, `optional` (what the client asks for), or `required`.
        password: of the one user.
    """
    with tempfile.TemporaryDirectory(prefix="elt-tds-") as folder:
        certificate, context = None, None
        if tls != "off":
            certificate, context = _certificate(Path(folder))
        server = Server(Database("shop"), Standin.user, password, context, tls)
        try:
            yield Standin(server, password=password, certificate=certificate)
        finally:
            server.close()


def _certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-made certificate for 127.0.0.1 and localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "TDS stand-in")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Up to TDS 7.4 the handshake is wrapped in packets, and TLS 1.3 would send tickets after it, outside of them.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(public, private)
    return public, context


__all__ = ["DEADLOCK", "DENIED", "PASSWORD", "Entry", "SqlError", "Standin", "running_standin"]
