"""`make readme`: the parts of README.md that are generated, so that they cannot drift."""

from __future__ import annotations

import re
from typing import get_args

from pydantic import BaseModel

from include.elt.paths import ROOT
from include.elt.replication import Meta, SourceOptions
from include.elt.settings import settings_table

README = ROOT / "README.md"


def keys_table(model: type[BaseModel]) -> str:
    """The keys of a part of a replication file as a Markdown table."""
    rows = ["| key | default | what it is |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        nothing = field.default in (None, ())
        default = "" if nothing else f"`{field.default}`".replace("True", "true").replace("False", "false")
        words = [value for value in get_args(field.annotation) if isinstance(value, str)]
        choice = f" ({' / '.join(words)})" if words else ""
        rows.append(f"| `{name}` | {default} | {field.description}{choice} |")
    return "\n".join(rows)


def rendered(text: str) -> str:
    """`text` with every generated table between its two marks."""
    tables = {"settings": settings_table(), "meta": keys_table(Meta), "source_options": keys_table(SourceOptions)}
    for name, table in tables.items():
        block = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
        text = re.sub(rf"<!-- {name} -->.*<!-- /{name} -->", lambda _, block=block: block, text, flags=re.DOTALL)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
