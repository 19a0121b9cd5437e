"""Everything behind the DAG files: the library `include.elt`, the replications and the sample data."""
