"""`make env`: the passwords and keys of compose.yml, random, into `.env`. Uses the standard library only.

What `.env` holds stays as it is. If it holds any of these names already, nothing is written: the volumes of the
databases know the old passwords.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

ENV = Path(__file__).resolve().parents[1] / ".env"


def _password() -> str:
    """Letters, digits, - and _, which mean nothing in a URL; with one of each kind, which SQL Server insists on."""
    return secrets.token_urlsafe(24) + "-aA1"


def _fernet() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


SECRETS: dict[str, Callable[[], str]] = {
    "STACK_METADATA_PASSWORD": _password,
    "STACK_POSTGRES_PASSWORD": _password,
    "STACK_READER_PASSWORD": _password,
    "STACK_MSSQL_PASSWORD": _password,
    "STACK_S3_ACCESS_KEY": lambda: secrets.token_hex(10),
    "STACK_S3_SECRET_KEY": _password,
    "STACK_AIRFLOW_PASSWORD": _password,
    "STACK_FERNET_KEY": _fernet,
    "STACK_JWT_SECRET": lambda: secrets.token_urlsafe(64),
    "STACK_API_SECRET": lambda: secrets.token_urlsafe(64),
}
"""What compose.yml asks for, and how it is made."""

FIXED = {"COMPOSE_FILE": "compose.yml"}
"""Docker Compose would merge docker-compose.override.yml, which is for the Astro CLI."""


def make_env(file: Path) -> str | None:
    """Write the secrets.

    Args:
        file: `.env`; what it holds already is kept.

    Returns:
        Why nothing was written; None when it was.
    """
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    named = {line.partition("=")[0].removeprefix("export ").strip() for line in before.splitlines()}
    taken = sorted(named & SECRETS.keys())
    if taken:
        return f"{file.name} holds {', '.join(taken)} already; nothing was written. Remove these lines to get new ones"
    values = {name: make() for name, make in SECRETS.items()} | {n: v for n, v in FIXED.items() if n not in named}
    lines = ["# Of compose.yml, made by `make env`. Not to be committed.", *(f"{n}={v}" for n, v in values.items())]
    gap = "" if not before or before.endswith("\n") else "\n"
    new = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(before + gap + "\n".join(lines) + "\n")
    new.replace(file)
    return None


def main() -> int:
    """The command; returns the exit code."""
    refused = make_env(ENV)
    if refused:
        print(refused, file=sys.stderr)
        return 2
    print(f"{ENV.name}: passwords and keys for compose.yml written, readable by you only")
    return 0


if __name__ == "__main__":
    sys.exit(main())
