"""dbt's own documentation of the project, behind Airflow's login.

Cosmos would serve it too, but to everyone (astronomer-cosmos 1.15.1, issue 2972), so its option is left off. The page
is the one that dbt brings, filled as `dbt docs generate --static` fills it, without asking the warehouse: columns and
descriptions are those of the project. It is shown in a sandbox of its own, without Airflow's cookie.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from include.elt.paths import DBT_PROJECT

MANIFEST = DBT_PROJECT / "target" / "manifest.json"
"""The parsed project, as the image holds it."""

POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';"
    " style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'self'"
)
"""Content-Security-Policy of the page: its scripts are inline, and get an origin of their own."""

_MANIFEST_MARK, _CATALOG_MARK = '"MANIFEST.JSON INLINE DATA"', '"CATALOG.JSON INLINE DATA"'
_CATALOG: dict[str, object] = {"metadata": {}, "nodes": {}, "sources": {}, "errors": None}


def page() -> str | None:
    """The page, or None when the project was not parsed ahead of time."""
    if not MANIFEST.is_file():
        return None
    return _page(MANIFEST.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _page(changed: int) -> str | None:  # noqa: ARG001  (when the file changed is the key)
    found = find_spec("dbt.task.docs")
    places = list(found.submodule_search_locations or ()) if found else []
    template = next((file for place in places if (file := Path(place) / "index.html").is_file()), None)
    if template is None:
        return None
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    text = template.read_text(encoding="utf-8")
    for mark, value in ((_MANIFEST_MARK, manifest), (_CATALOG_MARK, _CATALOG)):
        # A description that says </script> stays inside the script that it is part of.
        text = text.replace(mark, json.dumps(value).replace("</", "<\\/").replace("<!--", "<\\!--"))
    return text
