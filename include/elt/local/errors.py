"""Why a local command could not start."""

from __future__ import annotations

from include.elt.errors import EltError


class StartError(EltError):
    """Airflow could not be started, or was refused; the message says why and what to do. Exit code 2."""
