"""The command line: `python -m include.elt.local run | up | airflow … | query SQL | backup | restore`.

Exit codes: 0 success, 1 the run (or the query) failed, 2 it could not start or was refused, 128 + n ended by signal n.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from include.elt.errors import EltError
from include.elt.local.environment import read_dotenv
from include.elt.local.signals import Interrupted

DEFAULT_DAG = "jaffle_shop"


def _conf(text: str) -> dict[str, Any]:
    """The value of --conf."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"a JSON object is needed, not {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.elt.local", description="Airflow on this computer.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one DAG to its end, then stop")
    run.add_argument("--dag", default=DEFAULT_DAG, help="which (default: %(default)s)")
    run.add_argument("--conf", type=_conf, default={}, metavar="JSON", help="conf of the run, a JSON object")
    run.add_argument(
        "--timeout", type=float, default=3600, metavar="S", help="seconds it may take (default: %(default)s)"
    )
    commands.add_parser("up", help="Airflow with its user interface, until Ctrl-C")
    airflow = commands.add_parser("airflow", help="any command of Airflow, with the same settings", add_help=False)
    airflow.add_argument("arguments", nargs=argparse.REMAINDER)
    query = commands.add_parser("query", help="a query on the DuckDB file, read-only")
    query.add_argument("sql")
    backup = commands.add_parser("backup", help="copy the DuckDB file and the lake, consistent and with checksums")
    restore = commands.add_parser("restore", help="put a backup back, every file verified first")
    for command in (backup, restore):
        command.add_argument("--backups", metavar="FOLDER", help="folder of the backups (default: data/backups)")
    restore.add_argument("--backup", metavar="FOLDER", help="which (default: the newest one)")
    restore.add_argument("--force", action="store_true", help="replace what is there; it is kept beside itself")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command line; that of the process by default.

    Returns:
        The exit code.
    """
    given = _parser().parse_args(arguments)
    for name, value in read_dotenv().items():
        os.environ.setdefault(name, value)
    try:
        match given.command:
            case "run":
                from include.elt.local.run import run_dag

                return run_dag(given.dag, given.conf, given.timeout)
            case "up":
                from include.elt.local.up import bring_up

                return bring_up()
            case "airflow":
                from include.elt.local.passthrough import airflow_command

                airflow_command(given.arguments)
            case "backup":
                from include.elt.local.backup import backup_command

                return backup_command(given.backups)
            case "restore":
                from include.elt.local.backup import restore_command

                return restore_command(given.backups, given.backup, force=given.force)
            case _:
                from include.elt.local.query import query_warehouse

                return query_warehouse(given.sql)
    except EltError as error:
        print(error, file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print(f"stopped ({interrupted})", file=sys.stderr)
        return interrupted.exit_code
    except KeyboardInterrupt:  # before anything was started
        return 130


if __name__ == "__main__":
    sys.exit(main())
