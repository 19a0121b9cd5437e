"""buildah and podman with a store of their own, and containers as a cluster would confine them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from include.elt.paths import ROOT

WORK = Path(os.environ.get("STANDIN", "/var/tmp/dbx-project-standin"))
HOMES = {"airflow": "/opt/airflow", "astro": "/usr/local/airflow"}

CONFIGURATION = """\
[containers]
# What containers.conf gives by default needs CAP_SYS_RESOURCE, which root may lack in a sandbox.
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:mode=1777")


class FailedError(Exception):
    """A command failed; the message holds the end of what it said."""


def prepare() -> None:
    """The folder that everything lies in."""
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "containers.conf").write_text(CONFIGURATION)


def run(*command: object, timeout: int = 1800, cwd: Path | None = None) -> str:
    """Run a command to its end; returns what it printed.

    Args:
        command: the words of it.
        timeout: seconds.
        cwd: where.

    Raises:
        FailedError: it ended with another exit code than 0.
    """
    words = [str(word) for word in command]
    result = subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | {"CONTAINERS_CONF": str(WORK / "containers.conf")},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if result.returncode:
        said = (result.stdout + result.stderr).strip().splitlines()[-40:]
        raise FailedError(f"exit code {result.returncode}: {' '.join(words)[:300]}\n" + "\n".join(said))
    return result.stdout


def _store() -> tuple[str, ...]:
    return ("--root", f"{WORK}/store", "--runroot", f"{WORK}/run", "--storage-driver", "overlay")


def podman(*words: object, timeout: int = 600) -> str:
    """Call podman."""
    return run("podman", *_store(), *words, timeout=timeout)


def build(context: Path, file: Path, target: str, name: str, *arguments: str, pull_never: bool = False) -> None:
    """Build one target of a Dockerfile, each instruction a layer; nothing is pulled."""
    options = [word for argument in arguments for word in ("--build-arg", argument)]
    if pull_never:
        options.append("--pull-never")
    run(
        *(
            "buildah",
            *_store(),
            "build",
            "--isolation",
            "chroot",
            "--network",
            "host",
            "--layers",
            "--format",
            "docker",
        ),
        *("--target", target, "--tag", name, "--file", file, *options, context),
    )


def once(
    image: str,
    *command: str,
    user: str,
    volumes: Mapping[Path, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a confined container without a network to its end; returns what it printed."""
    mounts = [word for place, inside in (volumes or {}).items() for word in ("--volume", f"{place}:{inside}")]
    variables = [word for name, value in (environment or {}).items() for word in ("--env", f"{name}={value}")]
    options = ("--rm", "--network", "none", "--user", user, *CONFINED, *mounts, *variables)
    return podman("run", *options, image, *command)


def volumes(cleanup: ExitStack, target: str, writer: str) -> dict[Path, str]:
    """Empty volumes for data and logs as an orchestrator mounts them: of root, writable for the group 0 (fsGroup)."""
    folder = WORK / "volumes" / f"{target}-{writer.replace(':', '-')}"
    shutil.rmtree(folder, ignore_errors=True)
    cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
    found = {ROOT / "docker" / "airflow.cfg": f"{HOMES[target]}/airflow.cfg:ro"}
    for name in ("data", "logs"):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o2775)
        found[folder / name] = f"{HOMES[target]}/{name}"
    return found
