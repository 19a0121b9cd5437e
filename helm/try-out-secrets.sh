#!/usr/bin/env bash
# The Secrets that the values name, with random values, for a try-out: helm/try-out-secrets.sh | kubectl create -f -
# `create`, not `apply`: a second time would lock the release out of its database and its stored connections.
set -euo pipefail

random() { openssl rand -hex 32; }
secret() { # name, then key=value …
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: airflow}\nstringData:\n' "$1"
  shift
  for pair in "$@"; do printf '  %s: "%s"\n' "${pair%%=*}" "${pair#*=}"; done
}

database=$(random)
broker=$(random)
secret airflow-fernet-key "fernet-key=$(openssl rand -base64 32 | tr '+/' '-_')"
secret airflow-api-secret-key "api-secret-key=$(random)"
secret airflow-jwt-secret "jwt-secret=$(random)$(random)"
secret airflow-postgresql "postgres-password=$database"
# The database of the same release answers without TLS.
server="postgres:$database@airflow-postgresql:5432/postgres"
secret airflow-metadata "connection=postgresql://$server?sslmode=disable" "connection-async=postgresql+asyncpg://$server?ssl=disable"
secret airflow-connections "AIRFLOW_CONN_AWS_DEFAULT=aws://"
secret airflow-redis-password "password=$broker"
secret airflow-broker-url "connection=redis://:$broker@airflow-redis:6379/0"
secret airflow-result-backend "connection=db+postgresql://$server?sslmode=disable"
