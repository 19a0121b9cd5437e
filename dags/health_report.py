"""The state of the data, every morning: tables that are late, that grew or shrank unusually, tests that failed.

| task | what it does |
|---|---|
| `measure` | counts every raw table and mart in the warehouse; writes a row for each into `ops.completeness` |
| `report` | says what is late, unusual or failed, by that, the last loads and dbt's tests; the log has a table |

What is wrong goes out as one alert (`ALERTS`), with the whole list; nothing is sent when all is well. If the warehouse
cannot be asked, the report says so and goes by the loads alone. Run again, `measure` replaces the rows of the day.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from include.elt.alerts.deadlines import run_deadline
from include.elt.alerts.run import report_run
from include.elt.health import MEASURE, HealthReportOperator, MeasureOperator
from include.elt.settings import load_settings
from include.elt.tasks import DEFAULT_ARGS

with DAG(
    dag_id="health_report",
    schedule="0 7 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    deadline=run_deadline(after=timedelta(minutes=30)),
    on_success_callback=report_run,
    on_failure_callback=report_run,
    default_args=DEFAULT_ARGS,
    tags=["elt", "operations"],
    doc_md=__doc__,
):
    measure = MeasureOperator(task_id=MEASURE, settings=load_settings())
    measure >> HealthReportOperator(task_id="report", trigger_rule="all_done")
