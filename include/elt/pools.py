"""The pools a deployment needs, as the file that `airflow pools import` reads.

`python -m include.elt.pools > pools.json && airflow pools import pools.json`. The Helm values do that after the
migration of the metadata database; the local Airflow makes the same pools through its API.
"""

from __future__ import annotations

import json
import sys

from include.elt.settings import SettingsError, load_settings


def main() -> int:
    """Write the pools to the standard output; returns the exit code."""
    try:
        pools = load_settings().pools()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    description = "made from the settings"
    print(json.dumps({name: {"slots": slots, "description": description} for name, slots in pools.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
