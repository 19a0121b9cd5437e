"""The workspace as an HTTPS server: `python -m tests.support.databricks_standin.server --help`.

It answers what our clients ask: the Thrift service of a SQL warehouse, OAuth for service principals, the Files API of
volumes, and the list of warehouses. It writes `ready` into its folder when it listens.
"""

from __future__ import annotations

import argparse
import base64
import http.server
import json
import os
import secrets
import socketserver
import ssl
import sys
import threading
import urllib.parse
from email.utils import formatdate
from pathlib import Path
from typing import Any

from thrift.protocol import TBinaryProtocol
from thrift.transport import TTransport

from tests.support.databricks_standin.certificates import CERTIFICATE, KEY, make_certificates
from tests.support.databricks_standin.engine import Engine
from tests.support.databricks_standin.faults import Faults
from tests.support.databricks_standin.journal import Journal
from tests.support.databricks_standin.thrift_service import Caller, Service
from tests.support.databricks_standin.volumes import Volumes

WAREHOUSE = "/sql/1.0/warehouses/standin"
_FILES, _DIRECTORIES = "/api/2.0/fs/files", "/api/2.0/fs/directories"


class Workspace:
    """Everything behind the server.

    Args:
        folder: its files.
        host: its address.
        token: the personal access token that it takes.
        principals: secret by client id of the service principals.
        service: the warehouse.
    """

    def __init__(self, folder: Path, host: str, token: str, principals: dict[str, str], service: Service) -> None:
        self.folder = folder
        self.host = host
        self.token = token
        self.principals = principals
        self.service = service
        self.issued: dict[str, str] = {}

    def user(self, authorization: str) -> str | None:
        """Who a header stands for; None for nobody."""
        kind, _, value = authorization.partition(" ")
        if kind != "Bearer" or not value:
            return None
        if secrets.compare_digest(value, self.token):
            return "token"
        return self.issued.get(value)

    def issue(self, authorization: str, form: dict[str, str]) -> str | None:
        """A new access token for a service principal; None for a wrong secret."""
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        if authorization.startswith("Basic "):
            client, _, secret = base64.b64decode(authorization[6:]).decode().partition(":")
        if not secret or self.principals.get(client) != secret:
            return None
        token = f"standin.{secrets.token_hex(16)}"
        self.issued[token] = f"principal:{client}"
        return token


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    workspace: Workspace

    def log_message(self, *values: Any) -> None:
        """Nothing; the journal has what is of interest."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def _answer(self, method: str) -> None:
        body, place = self._body(), self.workspace
        path = urllib.parse.unquote(self.path.split("?")[0])
        base = f"https://{place.host}"
        if path.startswith("/oidc/.well-known/"):
            urls = {"authorization_endpoint": f"{base}/oidc/v1/authorize", "token_endpoint": f"{base}/oidc/v1/token"}
            return self._send(200, {"issuer": f"{base}/oidc", **urls})
        if path == "/.well-known/databricks-config":
            return self._send(200, {"oidc_endpoint": f"{base}/oidc", "workspace_id": "1", "cloud": "AWS"})
        if path == "/oidc/v1/token":
            form = dict(urllib.parse.parse_qsl(body.decode()))
            token = place.issue(self.headers.get("Authorization", ""), form)
            if token is None:
                return self._send(401, {"error": "invalid_client", "error_description": "Client authentication failed"})
            return self._send(200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600})
        user = place.user(self.headers.get("Authorization", ""))
        if user is None:
            text = "Invalid access token."
            place.service.journal.write("unauthorized", path=path)
            answer = {"error_code": 403, "message": text}
            return self._send(403, answer, {"x-databricks-reason-phrase": text})
        place.service.caller.user = user
        place.service.caller.agent = self.headers.get("User-Agent", "")[:120]
        if method == "POST" and path == "/standin/faults":
            return self._send(200, place.service.faults.order(json.loads(body)))
        if method == "POST" and path == WAREHOUSE:
            return self._thrift(body)
        if path.startswith((_FILES + "/", _DIRECTORIES + "/")):
            return self._files(method, path, body)
        if path == "/api/2.0/sql/warehouses":
            odbc = {"hostname": place.host, "path": WAREHOUSE, "port": 443, "protocol": "https"}
            found = {"id": "standin", "name": "standin", "state": "RUNNING", "odbc_params": odbc}
            return self._send(200, {"warehouses": [found]})
        place.service.journal.write("unknown", method=method, path=path)
        return self._send(404, {"error_code": "ENDPOINT_NOT_FOUND", "message": f"the stand-in has no {method} {path}"})

    def _thrift(self, body: bytes) -> None:
        service = self.workspace.service
        if service.faults.asleep():
            service.journal.write("asleep")
            text = "TEMPORARILY_UNAVAILABLE: the warehouse is starting"
            return self._send(503, b"", {"Retry-After": "1", "x-databricks-reason-phrase": text})
        asked, answered = TTransport.TMemoryBuffer(body), TTransport.TMemoryBuffer()
        try:
            service.processor.process(TBinaryProtocol.TBinaryProtocol(asked), TBinaryProtocol.TBinaryProtocol(answered))
        except Exception as error:  # noqa: BLE001  (the client is to be told)
            service.journal.write("broken", error=repr(error))
            return self._send(500, b"", {"x-thriftserver-error-message": repr(error)[:200].replace("\n", " ")})
        return self._send(200, answered.getvalue(), {"Content-Type": "application/x-thrift"})

    def _files(self, method: str, path: str, body: bytes) -> None:
        volumes, faults = self.workspace.service.volumes, self.workspace.service.faults
        self.workspace.service.journal.write("file", method=method, path=path, bytes=len(body))
        if faults.files_denied:
            text = "User does not have WRITE VOLUME on Volume."
            return self._send(403, {"error_code": "PERMISSION_DENIED", "message": text})
        name = path.removeprefix(_FILES).removeprefix(_DIRECTORIES)
        there = volumes.path(name)
        if not volumes.exists(name):
            text = f"Volume '{'.'.join(name.split('/')[2:5])}' does not exist."
            return self._send(404, {"error_code": "NOT_FOUND", "message": text})
        if path.startswith(_DIRECTORIES):
            return self._directory(method, name, there)
        match method:
            case "PUT":
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(body)
                return self._send(204)
            case "GET" | "HEAD" if there.is_file():
                stat = there.stat()
                headers = {
                    "Content-Type": "application/octet-stream",
                    "Last-Modified": formatdate(stat.st_mtime, usegmt=True),
                }
                return self._send(200, there.read_bytes(), headers)
            case "DELETE" if there.is_file():
                there.unlink()
                return self._send(204)
        return self._send(404, {"error_code": "NOT_FOUND", "message": f"The file {name} does not exist."})

    def _directory(self, method: str, name: str, there: Path) -> None:
        if method == "PUT":
            there.mkdir(parents=True, exist_ok=True)
            return self._send(204)
        if not there.is_dir():
            return self._send(404, {"error_code": "NOT_FOUND", "message": f"The directory {name} does not exist."})
        if method == "DELETE":
            if any(there.iterdir()):
                return self._send(409, {"error_code": "ABORTED", "message": f"The directory {name} is not empty."})
            there.rmdir()
            return self._send(204)
        contents = [
            {
                "path": f"{name.rstrip('/')}/{each.name}",
                "name": each.name,
                "is_directory": each.is_dir(),
                "file_size": each.stat().st_size,
                "last_modified": int(each.stat().st_mtime * 1000),
            }
            for each in sorted(there.iterdir())
        ]
        return self._send(200, {"contents": contents})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A thread per connection, in which TLS is negotiated too: a client that was killed meanwhile holds up nobody."""

    daemon_threads = True
    request_queue_size = 64
    tls: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(60)
        with self.tls.wrap_socket(request, server_side=True) as secure:
            secure.settimeout(None)
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _end_with_parent() -> None:
    """End when whoever started us is gone, however it ended: it holds the other end of our standard input."""
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for all its files")
    parser.add_argument("--jar", type=Path, required=True, help="the compiled catalog")
    parser.add_argument("--host", required=True, help="address to listen on, port 443")
    parser.add_argument("--catalogs", default="main", help="names, with commas between them")
    given = parser.parse_args()
    # Secrets come through standard input: arguments can be read by everybody.
    access = json.loads(sys.stdin.readline())
    folder: Path = given.folder
    make_certificates(folder, given.host)
    engine = Engine(folder, given.jar, given.catalogs.split(","))
    service = Service(engine, Volumes(folder, access.get("s3")), Journal(folder / "journal.jsonl"), Faults(), Caller())
    Handler.workspace = Workspace(folder, given.host, access["token"], access["principals"], service)
    server = Server((given.host, 443), Handler)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    (folder / "ready").write_text("")
    server.serve_forever()


if __name__ == "__main__":
    main()
