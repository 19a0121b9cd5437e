"""`python -m include.elt.pools`: the pools that have to exist before a DAG runs, for `airflow pools import`."""

from __future__ import annotations

import json
import sys

from include.elt.errors import EltError
from include.elt.settings import Settings, load_settings


def pools_json(settings: Settings) -> str:
    """The pools of a deployment as JSON."""
    pools = {
        name: {"slots": slots, "description": "made by the deployment", "include_deferred": False}
        for name, slots in settings.pools().items()
    }
    return json.dumps(pools, indent=1)


def main() -> int:
    """Print them; returns the exit code."""
    try:
        print(pools_json(load_settings()))
    except EltError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
