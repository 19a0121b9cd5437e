"""`make readme`: the parts of README.md that are generated, so that they cannot drift."""

from __future__ import annotations

import re

from include.elt.paths import ROOT
from include.elt.settings import settings_table

README = ROOT / "README.md"


def rendered(text: str) -> str:
    """`text` with the settings table between its two marks."""
    block = f"<!-- settings -->\n{settings_table()}\n<!-- /settings -->"
    return re.sub(r"<!-- settings -->.*<!-- /settings -->", lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
