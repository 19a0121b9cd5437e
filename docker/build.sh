#!/usr/bin/env bash
# The steps of both images, each a layer: build.sh packages | dependencies | folders | project
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# The group root may do what the user may: an arbitrary uid in group 0 has to be as good as the image's own user.
umask 0002

packages() { # Debian packages, if packages.txt names any
    local names
    mapfile -t names < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/packages.txt")
    if ((${#names[@]})); then
        apt-get update
        apt-get install --yes --no-install-recommends "${names[@]}"
        rm -rf /var/lib/apt/lists/*
    fi
}

dependencies() { # the lock, all of it and nothing else, each file by its hash; wheels only, so that no compiler is needed
    local where=()
    [[ -n "${VIRTUAL_ENV:-}" ]] || where=(--system)
    # Compiled now: a container with a read-only root would compile everything again at each start.
    uv pip install "${where[@]}" --no-cache --no-deps --no-build --require-hashes --compile-bytecode \
        --requirement "$here/requirements-image.lock"
    python "$here/check_image.py" dependencies "$here/requirements-image.lock"
    # The base brings packages that nothing here uses; what they miss is worth a line, not a failed build.
    uv pip check "${where[@]}" || echo "build: the packages above are of the base image and not of the lock"
}

folders() { # what is written at run time, if no volume is mounted there, and dbt's target for the next step; bytecode
    local owner
    owner=$(id -u astro 2>/dev/null || echo 50000)
    install -d -m 2775 -o "$owner" -g 0 data logs dbt/target
    # The bytecode too, as the dependencies have it; by content, so that the times of the files do not matter.
    local place
    for place in airflow_local_settings.py dags include plugins; do
        [[ ! -e $place ]] || python -m compileall -q --invalidation-mode checked-hash "$place"
    done
}

project() { # dbt's manifest as the runtime's profile has it, then every DAG parsed
    local scratch
    scratch=$(mktemp -d)
    export PYTHONDONTWRITEBYTECODE=1
    # A lake that Databricks could read has to be named; nothing that is parsed depends on it.
    [[ ${WAREHOUSE:-duckdb} != databricks ]] || export LAKE=s3://no-lake/build
    HOME=$scratch AIRFLOW_HOME=$scratch python -m include.elt.manifest
    HOME=$scratch AIRFLOW_HOME=$scratch AIRFLOW__CORE__DAGS_FOLDER=$PWD/dags \
        python "$here/check_image.py" project
    chmod -R g=u dbt/target
    rm -rf "$scratch" /tmp/cosmos /tmp/dbt-logs
}

"$1"
