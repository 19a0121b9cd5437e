# The two images of this project; docs/images.md says what for. They differ in their base only.
#   docker build --target airflow --build-arg REVISION="$(git rev-parse HEAD)" -t dbx-project:TAG .   for the Helm chart
#   astro dev start                                                     builds the last target; it can give no argument
#
# The runtime stands first because the Astro CLI reads its version from the first FROM; BuildKit skips what a target
# does not need. `-base` has no ONBUILD steps, which would install requirements.txt without hashes.
# LOGNAME gives an arbitrary uid a name, without which no command of Airflow starts.
FROM astrocrpublic.azurecr.io/runtime:3.3-8-python-3.12-base AS runtime


FROM apache/airflow:3.3.2-python3.12 AS airflow
ENV PYTHONPATH=/opt/airflow \
    PYTHONUNBUFFERED=1 \
    LOGNAME=airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__COSMOS__CACHE_DIR=/tmp/cosmos \
    AIRFLOW__COSMOS__ENABLE_TELEMETRY=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT=60 \
    DBT_LOG_PATH=/tmp/dbt-logs \
    DBT_SEND_ANONYMOUS_USAGE_STATS=false \
    DO_NOT_TRACK=1 \
    SCARF_ANALYTICS=false
WORKDIR /opt/airflow
USER 0
COPY packages.txt docker/build.sh docker/check_image.py /usr/local/share/dbx-project/
RUN bash /usr/local/share/dbx-project/build.sh packages
USER 50000
COPY requirements-image.lock /usr/local/share/dbx-project/
RUN bash /usr/local/share/dbx-project/build.sh dependencies
# Of root, so that nothing that runs in the container changes it.
COPY . /opt/airflow/
USER 0
RUN bash /usr/local/share/dbx-project/build.sh folders
USER 50000
# What dbt's project is parsed for; another one at run time costs a parse per build.
ARG WAREHOUSE=duckdb
ARG DATABRICKS_CATALOG=main
RUN bash /usr/local/share/dbx-project/build.sh project
# Last, for they change with every commit.
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="dbx-project" \
      org.opencontainers.image.description="An ELT platform as an Airflow DAG bundle, for the official Helm chart" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/apache/airflow:3.3.2-python3.12" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"


FROM runtime AS astro
ENV PYTHONPATH=/usr/local/airflow \
    PYTHONUNBUFFERED=1 \
    LOGNAME=airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__COSMOS__CACHE_DIR=/tmp/cosmos \
    AIRFLOW__COSMOS__ENABLE_TELEMETRY=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT=60 \
    DBT_LOG_PATH=/tmp/dbt-logs \
    DBT_SEND_ANONYMOUS_USAGE_STATS=false \
    DO_NOT_TRACK=1 \
    SCARF_ANALYTICS=false
WORKDIR /usr/local/airflow
USER 0
COPY packages.txt docker/build.sh docker/check_image.py /usr/local/share/dbx-project/
RUN bash /usr/local/share/dbx-project/build.sh packages
COPY requirements-image.lock /usr/local/share/dbx-project/
# Of root here: the runtime keeps its packages in the system's Python.
RUN bash /usr/local/share/dbx-project/build.sh dependencies
COPY . /usr/local/airflow/
RUN bash /usr/local/share/dbx-project/build.sh folders
# By name, as the Astro CLI has it.
# hadolint ignore=DL3066
USER astro
ARG WAREHOUSE=duckdb
ARG DATABRICKS_CATALOG=main
RUN bash /usr/local/share/dbx-project/build.sh project
ARG REVISION=unknown
ARG VERSION=0.1.0
# The Astro CLI refuses an image that does not say which runtime it is.
LABEL io.astronomer.docker.runtime.version="3.3-8" \
      org.opencontainers.image.title="dbx-project" \
      org.opencontainers.image.description="An ELT platform as an Airflow DAG bundle, for astro dev start" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="astrocrpublic.azurecr.io/runtime:3.3-8-python-3.12-base" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
