#!/usr/bin/env bash
# As the entrypoint of apache/airflow treats users and commands; without its waits for a database and a broker.
set -euo pipefail
if [[ $(id -g) != 0 && $(id -u) != 50000 ]]; then
    echo "ERROR! You should run the image with GID=0" >&2
    exit 1
fi
umask 0002
whoami &>/dev/null || export HOME=${AIRFLOW_USER_HOME_DIR:-$HOME}
case ${1:-} in
    bash | python) exec "$@" ;;
    airflow) shift ;;
esac
exec airflow "$@"
