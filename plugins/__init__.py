"""What the platform adds to Airflow itself: the "Data platform" page, its API and the webhook."""
