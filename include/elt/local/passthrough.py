"""`airflow …`: any command of Airflow with the environment of the local one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from include.elt.local.database import finish_migration, is_migrated, migrate
from include.elt.local.environment import Home, airflow_environment, choose_port
from include.elt.local.errors import StartError
from include.elt.local.server import in_use
from include.elt.paths import ROOT, shown

_TESTS = (("dags", "test"), ("tasks", "test"))
"""Commands that fail while a scheduler works on the same metadata database: it takes their tasks for lost ones."""


def airflow_command(arguments: Sequence[str]) -> NoReturn:
    """The command. This process becomes Airflow's.

    Args:
        arguments: what follows `airflow`.

    Raises:
        StartError: it is refused, or the metadata database could not be prepared.
    """
    home = Home.of(os.environ)
    keys = home.prepare()
    user = in_use(home)
    if user is not None and tuple(arguments[:2]) in _TESTS:
        raise StartError(
            f"process {user.get('pid', '?')} runs Airflow in {shown(home.folder)}, and its scheduler would fail the"
            f" tasks of `airflow {' '.join(arguments[:2])}`; stop it first"
        )
    port = (user or {}).get("port") or choose_port(os.environ)
    environment = airflow_environment(os.environ, home, keys, port, one_shot=False)
    if user is None and not is_migrated(home, environment):
        print("preparing the metadata database (once)", file=sys.stderr, flush=True)
        finish_migration(migrate(home, environment), home, environment)
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *arguments], environment)  # noqa: S606
