"""The web shop's operational PostgreSQL database: into the warehouse once a day, and the dbt models on top of it.

| tasks | what they do |
|---|---|
| `web.<table>.extract` | read what is new with Sling, check every value against the contract, write typed Parquet |
| `web.<table>.load` | merge, append or replace `raw.<table>` in one transaction; emits the asset `raw.<table>` |
| `dbt.*` | one task per source, model and its tests; one `dbt build` behind them |

How each table is read stands in `include/replications/web_postgres.yaml`; the connection is `web_postgres`.

Every run has a day as its data interval. A scheduled run reads on from where the raw table stands, whatever the day; a
backfill (*Trigger → Backfill*, or `airflow backfill create --dag-id web_shop --from-date … --to-date …`, ends included)
reads its days again and merges them. A range can also be given to a single run, with `range_start` and `range_end`.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable

from include.elt.alerts.deadlines import run_deadline
from include.elt.alerts.run import report_run
from include.elt.paths import REPLICATIONS
from include.elt.replication import read_replication
from include.elt.settings import load_settings
from include.elt.tasks import DEFAULT_ARGS, extract_and_load, pipeline_params
from include.elt.transform import transform

settings = load_settings()
web = read_replication(REPLICATIONS / "web_postgres.yaml", settings.variables())

with DAG(
    dag_id="web_shop",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    deadline=run_deadline(after=timedelta(hours=2)),
    on_success_callback=report_run,
    on_failure_callback=report_run,
    default_args=DEFAULT_ARGS,
    params=pipeline_params(web),
    tags=["elt", "web"],
    doc_md=__doc__,
):
    loads = extract_and_load(web, settings)
    transform(settings, after=loads)
