#!/usr/bin/env bash
# tests/ship/kind.sh TAG: on a kind cluster that runs, with dbx-project:TAG built here. Installs it as docs/deploy.md says,
# has the KubernetesExecutor run jaffle_shop to its end, checks who may enter, upgrades, rolls back. Needs docker, kind,
# kubectl and helm. The cluster is left as it is then; `kind delete cluster` removes it.
set -euo pipefail
cd "$(dirname "$0")/../.."

tag=$1
space=(--namespace airflow)

say() { printf '\n== %s\n' "$*"; }
show() { # why it failed, before the cluster is gone
  say "what there is"
  kubectl "${space[@]}" get pods,events --sort-by=.metadata.creationTimestamp || true
  kubectl "${space[@]}" logs deployment/airflow-scheduler --container scheduler --tail 80 || true
}
trap '[[ $? == 0 ]] || show' EXIT

airflow() { kubectl "${space[@]}" exec deployment/airflow-scheduler --container scheduler -- airflow "$@"; }

jaffle_shop() { # a run of the DAG, to its end
  local id=$1 state=""
  for _ in {1..60}; do # until the DAG processor has read it
    if airflow dags details jaffle_shop >/dev/null 2>&1; then break; fi
    sleep 5
  done
  airflow dags unpause jaffle_shop
  airflow dags trigger jaffle_shop --run-id "$id"
  for _ in {1..90}; do
    state=$(airflow dags list-runs jaffle_shop --output json |
      sed -n '/^\[/,$p' | jq --raw-output --arg id "$id" '.[] | select(.run_id == $id) | .state')
    [[ $state != success ]] || return 0
    if [[ $state == failed ]]; then break; fi
    sleep 10
  done
  echo "jaffle_shop $id: $state" >&2
  return 1
}

say "the image, the namespace, the volume, the secrets"
kind load docker-image "dbx-project:$tag"
kubectl apply -f helm/namespace.yaml -f helm/volume.yaml
helm/try-out-secrets.sh | kubectl create -f -

say "install"
make deploy ENVIRONMENT=kind IMAGE_TAG="$tag"

say "a run, each task a pod"
jaffle_shop first

say "no stranger reaches the API server, which its own tasks have just reached"
address=$(kubectl "${space[@]}" get service airflow-api-server --output jsonpath='{.spec.clusterIP}')
if kubectl --namespace default run stranger --rm --attach --quiet --restart Never --image "dbx-project:$tag" \
  --image-pull-policy Never --command -- curl --silent --max-time 10 "http://$address:8080/api/v2/version"; then
  echo "the network policy let a pod of another namespace in" >&2
  exit 1
fi

say "an upgrade to another tag of the same image, and back"
docker tag "dbx-project:$tag" dbx-project:0.0.1
kind load docker-image dbx-project:0.0.1
make deploy ENVIRONMENT=kind IMAGE_TAG=0.0.1
jaffle_shop second
helm rollback airflow 1 "${space[@]}"
kubectl "${space[@]}" rollout status deployment,statefulset --selector release=airflow --timeout 15m
jaffle_shop third
say "install, run, upgrade and rollback went through"
