"""A Databricks workspace for tests, at the wire: see README.md in this folder."""
