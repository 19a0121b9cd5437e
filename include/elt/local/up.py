"""`up`: Airflow with its user interface, until it is told to stop."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import httpx
from rich.text import Text

from include.elt.local import signals
from include.elt.local.console import make_console
from include.elt.local.environment import PREFERRED_PORT, USER, Home, choose_port
from include.elt.local.errors import StartError
from include.elt.local.server import Airflow, running_airflow
from include.elt.local.supervisor import wait_for
from include.elt.paths import shown
from include.elt.settings import load_settings

HEALTH_TIMEOUT = 60.0
"""Seconds after the API answers until every component must have reported itself."""

CHECK_EVERY = 1.0
"""Seconds between two looks at the components."""


def bring_up() -> int:
    """The command. Ends with a signal only.

    Returns:
        Never; for the type checker.

    Raises:
        SettingsError: a setting is not allowed.
        StartError: Airflow could not be started.
        Interrupted: a signal ended the command.
    """
    started = time.monotonic()
    console = make_console()

    def say(text: str) -> None:
        console.print(Text(f"[{time.monotonic() - started:6.1f}s] {text}"), soft_wrap=True)

    settings = load_settings()
    home = Home.of(os.environ)
    keys = home.prepare()
    port = choose_port(os.environ, PREFERRED_PORT)
    if port != PREFERRED_PORT and not os.environ.get("AIRFLOW_PORT"):
        say(f"port {PREFERRED_PORT} is in use, taking {port}")
    with signals.as_exceptions(), running_airflow(home, keys, port, settings.pools(), say, one_shot=False) as airflow:
        if not wait_for(lambda: not _unhealthy(airflow), airflow.supervisor, HEALTH_TIMEOUT):
            raise StartError(f"not healthy: {_unhealthy(airflow)}; see {shown(home.component_logs)}")
        say("Airflow is up")
        console.print(f"\n  address   {airflow.url}\n  user      {USER}\n  password  {keys.password}", soft_wrap=True)
        console.print(f"            (kept in {shown(home.passwords)})\n\nCtrl-C stops it.\n", soft_wrap=True)
        was = ""
        while True:
            time.sleep(CHECK_EVERY)
            airflow.supervisor.check()
            now = _unhealthy(airflow)
            if now != was:
                say(f"not healthy: {now}" if now else "healthy again")
                was = now


def _unhealthy(airflow: Airflow) -> str:
    """The components that do not report themselves, or nothing."""
    with suppress(httpx.HTTPError, ValueError):
        return ", ".join(name for name, status in airflow.client.health().items() if status != "healthy")
    return "the API does not answer"
