# Everything a person does with this project. `make help` lists it.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
RUN := .venv/bin/python -m include.elt.local
.DEFAULT_GOAL := help
.SILENT:

## -- use it
run: manifest ## set everything up, run the DAG jaffle_shop once, show the result (SHOP_FILES=folder: your files)
	$(RUN) run

up: manifest ## the whole local Airflow with its UI, in the foreground until Ctrl-C
	$(RUN) up

query: setup ## one query on the warehouse, e.g. make query SQL='from marts.customers limit 5'
	$(RUN) query "$(SQL)"

airflow: manifest ## any airflow command, e.g. make airflow ARGS='dags test jaffle_shop'
	$(RUN) airflow $(ARGS)

env: ## random passwords and keys for compose.yml, into .env; what is there is never replaced
	$(PYTHON) docker/make_env.py

backup: setup ## copy the DuckDB file and the lake, consistent and with checksums (BACKUPS=folder)
	$(RUN) backup $(if $(BACKUPS),--backups "$(BACKUPS)")

restore: setup ## put the newest backup back (BACKUP=folder: that one; FORCE=1: over what is there, which is kept)
	$(RUN) restore $(if $(BACKUPS),--backups "$(BACKUPS)") $(if $(BACKUP),--backup "$(BACKUP)") $(if $(filter 1,$(FORCE)),--force)

## -- check it
test: manifest ## set everything up and run the tests (PYTEST='-k name' for some of them)
	.venv/bin/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(PYTEST)

test-databricks: manifest ## the tests on a local stand-in for Databricks, in an environment of its own (needs a JDK and port 443)
	.venv/bin/python -m tests.support.databricks_standin.environment
	.venv/bin/python -m pytest -n logical --maxprocesses 2 --dist loadfile -m databricks_standin $$(grep -rl --include="test_*.py" databricks_standin tests) $(PYTEST)

test-celery: manifest ## watched dbt nodes with Celery and a real Redis, in an environment of its own (needs redis-server)
	test -x .celery/venv/bin/python || .venv/bin/uv venv --quiet --python .venv/bin/python .celery/venv
	.venv/bin/uv pip sync --quiet --python .celery/venv/bin/python --require-hashes requirements-image.lock
	.venv/bin/python -m pytest -n 0 tests/include/dbt_watch/test_executors.py $(PYTEST)

smoke-databricks: setup ## the shop through your workspace, in schemas of its own (docs/databricks.md; ORDERS=100000: generated)
	.venv/bin/python -m include.elt.smoke $(if $(ORDERS),--orders $(ORDERS))

check: manifest ## validate replications against contracts, silences, and the generated documents; runs nothing
	.venv/bin/python -m include.elt.check
	AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR .venv/bin/python -m include.elt.documentation --check

bench-page: setup ## the page's API with 1,000 streams x 20 loads and 2,000 models: seconds and queries
	.venv/bin/python -m benchmarks.page

lint: setup ## style of the code and of the documentation
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: setup ## types of the code
	.venv/bin/mypy

bench: manifest ## everything about speed, half an hour and more: rows, dbt in Airflow, parsing, the pipeline (RUNS=3, ALL=1)
	.venv/bin/python -m benchmarks.run --runs $(or $(RUNS),3)
	.venv/bin/python -m benchmarks.models --models 8 200 1000 --runs $(or $(RUNS),3) --ways ours watcher local $(if $(ALL),--all)
	.venv/bin/python -m benchmarks.pipeline --runs $(or $(RUNS),3)

bench-models: setup ## dbt models in Airflow beside plain dbt build (MODELS='200 1000', RUNS=3, WAYS='ours watcher local', ALL=1)
	.venv/bin/python -m benchmarks.models --models $(or $(MODELS),200) --runs $(or $(RUNS),3) --ways $(or $(WAYS),ours) $(if $(ALL),--all)

bench-pipeline: manifest ## a run of jaffle_shop beside Sling, dlt and Dagster, each with dbt, and where its time goes (RUNS=5)
	.venv/bin/python -m benchmarks.pipeline --runs $(or $(RUNS),5)

bench-sources: setup ## PostgreSQL into DuckDB beside dlt and plain Sling (ROWS='1000000 10000000', RUNS=3)
	.venv/bin/python -m benchmarks.sources --rows $(or $(ROWS),1000000) --runs $(or $(RUNS),3)

test-image: setup ## build both images on stand-ins for their bases, run the platform in them (root, buildah, podman)
	.venv/bin/python -m tests.ship.standin $(STEPS)

## -- deploy it
deploy: ## the Helm release: ENVIRONMENT=prod IMAGE_TAG=<commit or version> (EXECUTOR=celery, HELM_ARGS=--dry-run=server)
	ENVIRONMENT='$(ENVIRONMENT)' IMAGE_TAG='$(IMAGE_TAG)' EXECUTOR='$(or $(EXECUTOR),kubernetes)' \
	WAREHOUSE='$(or $(WAREHOUSE),duckdb)' helm/deploy.sh $(HELM_ARGS)

## -- change it
setup: ## make .venv from the lock file
	$(PYTHON) bootstrap.py

manifest: setup ## parse the dbt project ahead of time, so that no DAG parse has to
	.venv/bin/python -m include.elt.manifest

lock: setup ## resolve all requirements again into their lock files
	.venv/bin/uv pip compile $(LOCK) requirements-dev.txt -o requirements-dev.lock
	.venv/bin/uv pip compile $(LOCK) requirements.txt -c requirements-dev.lock -o requirements.lock
	.venv/bin/uv pip compile $(LOCK) requirements-image.txt -c requirements-dev.lock -o requirements-image.lock
	.venv/bin/uv pip compile $(LOCK) benchmarks/dlt.txt -o benchmarks/dlt.lock
	.venv/bin/uv pip compile $(LOCK) benchmarks/dagster.txt -o benchmarks/dagster.lock
	.venv/bin/uv pip compile $(LOCK) $(DATABRICKS)/requirements.txt -o $(DATABRICKS)/requirements.lock
DATABRICKS := tests/support/databricks_standin
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(UPGRADE)

sample-data: setup ## write the sample files again from their seed
	.venv/bin/python -m include.sample_data.generate

readme: setup ## write the generated parts of README.md again
	.venv/bin/python -m include.elt.readme

docs: manifest ## write docs/DAGS.md, docs/DATA.md and docs/metrics.md again
	AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR .venv/bin/python -m include.elt.documentation

format: setup ## bring the code into its style
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean: ## remove what was made here: warehouse, lake, local Airflow, caches (not .venv)
	rm -rf data .airflow dbt/target dbt/logs .pytest_cache .mypy_cache .ruff_cache

help: ## this list
	awk 'BEGIN {FS = ":.*## "} /^## --/ {printf "\n%s\n", substr($$0, 7)} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: $(shell awk -F: '/^[a-z-]+:/ {print $$1}' $(MAKEFILE_LIST))
