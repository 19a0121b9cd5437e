"""A Dockerfile as its stages and instructions; as much of the syntax as ours uses."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One FROM and what follows it.

    Attributes:
        base: what stands behind FROM.
        name: what stands behind AS.
        steps: instruction and its argument, continued lines joined, in order.
    """

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [argument for word, argument in self.steps if word == instruction]

    def pairs(self, instruction: str) -> dict[str, str]:
        """The `name=value` pairs of all LABEL, ENV or ARG instructions."""
        words = [word for argument in self.all(instruction) for word in shlex.split(argument)]
        return dict(word.partition("=")[::2] for word in words)


def read_dockerfile(file: Path) -> list[Stage]:
    """The stages in order; anything before the first FROM is refused, because the Astro CLI would stumble over it."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, argument = line.strip().partition(" ")
        if not word:
            continue
        if word.upper() == "FROM":
            base, _, name = argument.partition(" AS ")
            stages.append(Stage(base.strip(), name.strip()))
        else:
            stages[-1].steps.append((word.upper(), argument.strip()))
    return stages
