"""Load one extraction in a process of its own, to be killed: the details come as JSON on standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from include.elt.lake import read_manifest
from include.elt.replication import Meta
from tests.support.databricks_standin.bench import Loader
from tests.support.databricks_standin.running import StandIn


def main() -> None:
    """Load it."""
    given = json.loads(sys.stdin.readline())
    standin = StandIn(Path(given["standin"]), given["token"], given["secret"])
    folder = Path(given["folder"])
    Loader(standin).load(read_manifest(folder), folder, Meta(**given["policy"]))


if __name__ == "__main__":
    main()
