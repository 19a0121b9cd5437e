"""Build the images on stand-ins for their bases and run the platform in them, without Docker: `make test-image`.

It needs root, buildah, podman, runc and debootstrap, a Python 3.12 to put into the bases, and what the package registry
and Debian's mirror give. It takes about five minutes and 6 GB, under /var/tmp (STANDIN: another folder), and nothing of
it touches other images of this computer.

usage: python -m tests.ship.standin [build] [alone] [stack] [chart]     the first three without an argument

build   both targets of the Dockerfile, unchanged; their layers with sizes; what must not be in them
alone   one container: migration, pools, `airflow dags test jaffle_shop`, as uid 50000 and as 12345:0
stack   the services of compose.yml as they stand there, over a real PostgreSQL: jaffle_shop by the scheduler, and the
        memory that each service needs
chart   pods of the Helm chart, likewise; it needs helm and the unpacked chart (HELM_CHART, see tests/helm/profiles.py)

Every container has a read-only root, no capabilities and no new privileges. None has a network that leads out.

What this leaves out: whatever else the real bases hold and their entrypoints do, `astro dev`, arm64, and every service
of compose.yml that has an image of its own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from include.elt.paths import ROOT, SAMPLE_DATA
from tests.helm.profiles import present
from tests.ship.standin import chart, container, stack

HERE = Path(__file__).parent
TARGETS = {"airflow": "apache/airflow", "astro": "astrocrpublic.azurecr.io/runtime"}
PACKAGES = (
    "ca-certificates,curl,dumb-init,libbz2-1.0,libexpat1,libffi8,libgdbm6,liblzma5,libncursesw6,libnsl2,libreadline8,"
    "libsqlite3-0,libssl3,libstdc++6,libtirpc3,libuuid1,procps,zlib1g"
)
"""Of Debian, what Python and the entrypoint need."""

console = Console(width=120, highlight=False)


def refuse(reason: str) -> None:
    """End with exit code 2 and one sentence."""
    print(f"test-image: {reason}", file=sys.stderr)
    raise SystemExit(2)


def python_3_12() -> Path:
    """The prefix of a Python 3.12 that can be copied: STANDIN_PYTHON, the one this runs on, or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for place in (os.environ.get("STANDIN_PYTHON", ""), sys.base_prefix, *sorted(map(str, pyenv.glob("3.12.*")))):
        if place and (Path(place) / "bin/python3.12").is_file() and (Path(place) / "lib/python3.12/os.py").is_file():
            return Path(place)
    refuse("no Python 3.12 was found to put into the image; name its prefix in STANDIN_PYTHON")
    raise AssertionError


def pinned(package: str) -> str:
    """The version of a package in the lock of the development environment."""
    found = re.search(rf"^{re.escape(package)}==(\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert found
    return found[1]


def make_context(folder: Path) -> None:
    """What Containerfile copies: Debian as an archive, Python as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "entrypoint.sh", folder)
    archive, rootfs = folder / "rootfs.tar", folder.with_name("rootfs")
    if not archive.is_file():
        shutil.rmtree(rootfs, ignore_errors=True)
        container.run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", rootfs)
        # This computer's own certificate authorities: it may reach the registry through a proxy that has one.
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        if bundle.is_file():
            shutil.copy(bundle, rootfs / "etc/ssl/certs/")
        for cache in (rootfs / "var/cache/apt/archives", rootfs / "var/lib/apt/lists"):
            shutil.rmtree(cache)
            cache.mkdir()
        left_out = [f"--exclude=./{name}/*" for name in ("dev", "proc", "sys")]
        container.run("tar", "--directory", rootfs, *left_out, "--create", "--file", f"{archive}.new", ".")
        Path(f"{archive}.new").rename(archive)
        shutil.rmtree(rootfs)
    if not (folder / "python").is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "test", "share", "site-packages", "include")
        shutil.copytree(python_3_12(), folder / "python", symlinks=True, ignore=ignored)
        shutil.rmtree(folder / "python/bin")
        (folder / "python/bin").mkdir()
        shutil.copy(python_3_12() / "bin/python3.12", folder / "python/bin/")


def base_of(target: str) -> str:
    """The base that the Dockerfile names for a target, as the store has it."""
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith(f"FROM {TARGETS[target]}:"):
            name = line.split()[1]
            return name if "." in name.split("/")[0] else f"docker.io/{name}"
    raise AssertionError(target)


def build(target: str) -> None:
    """The stand-in for a target's base, under the name that the Dockerfile gives, then the target."""
    versions = (f"AIRFLOW_VERSION={pinned('apache-airflow')}", f"UV_VERSION={pinned('uv')}")
    stage = "airflow" if target == "airflow" else "runtime"
    container.build(container.WORK / "context", HERE / "Containerfile", stage, base_of(target), *versions)
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    revision = f"REVISION={git.stdout.strip() or 'unknown'}"
    started = time.monotonic()
    container.build(ROOT, ROOT / "Dockerfile", target, f"dbx-project:{target}", revision, pull_never=True)
    console.print(f"{target}: built in {time.monotonic() - started:.0f} s")


def show_layers(target: str) -> None:
    """What each layer of ours adds to the base."""

    def history(image: str) -> list[dict[str, Any]]:
        return json.loads(container.podman("history", "--format", "json", image))  # type: ignore[no-any-return]

    table = Table("layer", "MB", title=f"target {target}", title_justify="left")
    base = history(base_of(target))
    layers = history(f"dbx-project:{target}")[: -len(base)]
    for layer in reversed(layers):
        if layer["size"]:
            # What buildah wrote: `|2 NAME=value … /bin/sh -c …` where there are arguments of the build.
            step = re.sub(r"^(\|\d+ .*?)?/bin/sh -c (#\(nop\) )?", "", layer["CreatedBy"])
            table.add_row(re.sub(r"(dir|file|multi):\w+", r"\1", step)[:80], f"{layer['size'] / 1e6:,.1f}")
    table.add_row("together, on the base", f"{sum(layer['size'] for layer in layers) / 1e6:,.1f}")
    table.add_row("stand-in of the base", f"{sum(layer['size'] for layer in base) / 1e6:,.1f}")
    console.print(table)


def look_inside(target: str) -> None:
    """What must not be in an image, and what must."""
    home = "/opt/airflow" if target == "airflow" else "/usr/local/airflow"
    script = f"""
        set -u
        for program in gcc g++ cc clang make; do command -v $program && echo "compiler: $program"; done
        find / -xdev -path '*/.cache/*' -type f 2>/dev/null | sed 's/^/cache: /' | head -3
        find /var/lib/apt/lists /var/cache/apt/archives -type f -name '*.deb' 2>/dev/null | sed 's/^/package: /'
        find {home} -xdev -writable -type f -not -path '{home}/dbt/target/*' | sed 's/^/writable: /' | head -3
        for file in dbt/target/manifest.json dbt/target/partial_parse.msgpack airflow_local_settings.py; do
            [ -r {home}/$file ] || echo "missing: $file"
        done
        for file in .git .env tests helm data/warehouse.duckdb; do [ ! -e {home}/$file ] || echo "there: $file"; done
        sling=$(python -c 'from include.elt.settings import load_settings; print(load_settings().sling())')
        "$sling" --version > /dev/null || echo "sling: cannot run"
    """
    found = container.once(f"dbx-project:{target}", "bash", "-c", script, user="12345:0").strip()
    if found:
        refuse(f"target {target}:\n{found}")
    labels = json.loads(container.podman("inspect", f"dbx-project:{target}"))[0]["Labels"]
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"]), labels
    console.print(f"{target}: no compiler, no cache, nothing of the project writable; manifest, Sling and labels there")


def lines(table: str) -> int:
    """The rows of a sample file."""
    return len((SAMPLE_DATA / f"{table}.csv").read_text(encoding="utf-8").splitlines()) - 1


def run_alone(target: str, user: str) -> None:
    """A whole run in one container that has no network."""
    command = (
        "airflow db migrate > /tmp/log 2>&1 && python -m include.elt.pools > /tmp/pools.json"
        " && airflow pools import /tmp/pools.json >> /tmp/log 2>&1"
        " && airflow dags test jaffle_shop >> /tmp/log 2>&1 || { cat /tmp/log; exit 1; }\n"
        'python -c \'import duckdb; print(duckdb.connect("data/warehouse.duckdb", read_only=True)'
        '.sql("select count(*), sum(number_of_orders), sum(customer_lifetime_value) from marts.customers")'
        ".fetchall())'"
    )
    with ExitStack() as cleanup:
        volumes = container.volumes(cleanup, target, writer=user)
        started = time.monotonic()
        printed = container.once(
            f"dbx-project:{target}",
            "bash",
            "-c",
            command,
            user=user,
            volumes=volumes,
            environment={"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////tmp/airflow.db"},
        )
        answer = printed.strip().splitlines()[-1]
        if not answer.startswith(f"[({lines('raw_customers')}, {lines('raw_orders')},"):
            refuse(f"target {target} as {user}: the marts hold {answer}")
        console.print(f"{target} as {user}: jaffle_shop ran in {time.monotonic() - started:.0f} s: {answer}")


def refused(target: str) -> None:
    """A uid outside of group 0 is told so."""
    try:
        container.once(f"dbx-project:{target}", "airflow", "version", user="12345:12345")
    except container.FailedError as error:
        if "GID=0" in str(error):
            console.print(f"{target} as 12345:12345: refused, as the base does")
            return
        raise
    refuse(f"target {target} ran as 12345:12345")


def main(arguments: list[str]) -> int:
    """All steps, or those that are named; returns the exit code."""
    steps = arguments or ["build", "alone", "stack"]
    if unknown := set(steps) - {"build", "alone", "stack", "chart"}:
        refuse(f"unknown step {', '.join(sorted(unknown))}; known: build, alone, stack, chart")
    if "chart" in steps and not present():
        refuse("the step chart needs helm, and the unpacked chart in HELM_CHART")
    missing = [name for name in ("buildah", "podman", "runc", "debootstrap", "tar") if shutil.which(name) is None]
    if platform.system() != "Linux" or os.geteuid() or missing:
        refuse(f"it runs on Linux, as root, with buildah, podman, runc and debootstrap; missing: {missing or 'root'}")
    container.prepare()
    try:
        if "build" in steps:
            make_context(container.WORK / "context")
            for target in TARGETS:
                build(target)
                show_layers(target)
                look_inside(target)
        if "alone" in steps:
            for user in ("50000:0", "12345:0"):
                run_alone("airflow", user)
            run_alone("astro", "50000:0")
            refused("airflow")
        if "stack" in steps:
            console.print(stack.run())
        if "chart" in steps:
            console.print(chart.run())
    except container.FailedError as error:
        refuse(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
