"""The shop: its tables, from where `SHOP_SOURCE` says into the warehouse, and the dbt project `jdbt` on top of them.

| tasks | what they do |
|---|---|
| `shop.<table>.extract` | read the source with Sling, check every value against the contract, write typed Parquet |
| `shop.<table>.load` | bring the Parquet into `raw.<table>` in one transaction; emits the asset `raw.<table>` |
| `dbt.*` | one task per source, model, snapshot and its tests; one `dbt build` behind them |

A stream that fails stops only the models that depend on it. Every task can be cleared and run again: nothing is loaded
twice. Trigger it with other parameters to choose streams or models, to rebuild everything, or to look first (dry run).
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from include.elt.alerts.deadlines import run_deadline
from include.elt.alerts.run import report_run
from include.elt.replication import read_replication
from include.elt.settings import load_settings
from include.elt.tasks import DEFAULT_ARGS, extract_and_load, pipeline_params
from include.elt.transform import transform

settings = load_settings()
shop = read_replication(settings.shop_replication(), settings.variables())

with DAG(
    dag_id="jaffle_shop",
    schedule="0 5 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    deadline=run_deadline(after=timedelta(hours=2)),
    on_success_callback=report_run,
    on_failure_callback=report_run,
    default_args=DEFAULT_ARGS,
    params=pipeline_params(shop),
    tags=["elt", "shop"],
    doc_md=__doc__,
):
    loads = extract_and_load(shop, settings)
    transform(settings, after=loads)
