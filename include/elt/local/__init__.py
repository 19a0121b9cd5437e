"""Airflow on this computer in one command: `python -m include.elt.local run`, `up`, `airflow …` and `query`."""
