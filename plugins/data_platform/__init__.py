"""The "Data platform" page: a read model over Airflow's metadata database, an API, a page without a build step."""
