#!/usr/bin/env bash
# `make deploy`: install or upgrade the release with one environment's values and one image, then wait until it runs.
# Further arguments go to helm, e.g. --dry-run=server.
set -euo pipefail
cd "$(dirname "$0")"

CHART_VERSION=1.22.0
release=airflow # the network policies name it

fail() {
  echo "$1" >&2
  exit 2
}

values="values-${ENVIRONMENT:-}.yaml"
[[ "${ENVIRONMENT:-}" =~ ^[a-z][a-z0-9-]*$ && ! "$ENVIRONMENT" =~ ^(celery|databricks)$ && -f "$values" ]] ||
  fail "ENVIRONMENT='${ENVIRONMENT:-}' is refused; helm/values-<environment>.yaml has to exist, e.g. ENVIRONMENT=prod"
# A tag that moves would give two nodes two images, and a rollback the image it is to get rid of.
[[ "${IMAGE_TAG:-}" =~ ^([0-9a-f]{7,40}|v?[0-9]+\.[0-9]+\.[0-9]+([._-][0-9A-Za-z._-]+)?)$ ]] ||
  fail "IMAGE_TAG='${IMAGE_TAG:-}' is refused; a tag that is never pushed twice is needed: a commit (7 to 40 hex digits) or a version (1.2.3)"
files=(--values values.yaml)
case "${EXECUTOR:-kubernetes}" in
  kubernetes) ;;
  celery) files+=(--values values-celery.yaml) ;;
  *) fail "EXECUTOR='$EXECUTOR' is refused; allowed: kubernetes, celery" ;;
esac
layers=("$values")
case "${WAREHOUSE:-duckdb}" in
  duckdb) ;;
  databricks) layers=(values-databricks.yaml "$values") ;;
  *) fail "WAREHOUSE='$WAREHOUSE' is refused; allowed: duckdb, databricks" ;;
esac
for layer in "${layers[@]}"; do
  if left=$(grep -nE '^[^#]*(example|:000000000000:)' "$layer"); then
    fail "helm/$layer still has placeholders:"$'\n'"$left"
  fi
  files+=(--values "$layer")
done

# CHART: an unpacked chart, an archive or a mirror's oci:// address instead of the project's own repository.
chart=(airflow --repo https://airflow.apache.org --version "$CHART_VERSION")
[[ -z "${CHART:-}" ]] || chart=("$CHART" --version "$CHART_VERSION")

# No --wait: at a first install the pods wait for the migration job, which helm would start after them.
helm upgrade --install "$release" "${chart[@]}" --namespace airflow "${files[@]}" \
  --set-string "defaultAirflowTag=$IMAGE_TAG" --timeout 20m "$@"
for argument in "$@"; do
  [[ "$argument" != --dry-run* ]] || exit 0
done
kubectl --namespace airflow rollout status deployment,statefulset --selector "release=$release" --timeout 15m
