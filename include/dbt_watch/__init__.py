"""One Airflow task per dbt node at the speed of one `dbt build`.

One task (`operators.DbtBuild`) runs `dbt build` in a worker and publishes what becomes of each node. Every node is a
task of its own (`operators.DbtNode`) that takes no worker: it starts in the triggerer, waits there for its node and
ends there. Cosmos reads, selects and wires the project (`group.watched_group`).

| module | what it does |
|---|---|
| `project` | calls dbt in this process, with the project as it was parsed ahead of time |
| `results` | from dbt's results to one outcome per node; which tests belong to which node |
| `status` | the status of a build as it travels from worker to triggerer: the two ends of a few XComs |
| `verdict` | what a node's task makes of that status; no Airflow, no dbt |
| `trigger` | the trigger that ends a node's task; all nodes of a run share one poll loop |
| `operators` | the two operators |
| `group` | the task group |
| `triggerer` | three changes to Airflow's triggerer that make a thousand such tasks cheap |

Nothing in here knows the rest of this project, or which database dbt talks to.
"""
