"""The way of a row: replication and contract, extract into the lake, load into the warehouse, dbt on top."""
