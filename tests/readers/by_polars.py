"""Polars: its own parquet reader, on files and deletion vectors that it finds through the log."""

import contextlib

import polars

import by_deltalake
import nested


@contextlib.contextmanager
def opened():
    yield read


def read(job, schema):
    location = job["location"]
    options = by_deltalake.storage_options(location)
    scan = polars.scan_delta(location, version=job.get("version"), storage_options=options)
    if job.get("where"):
        scan = scan.filter(polars.sql_expr(job["where"]))
    rows = scan.select([field["name"] for field in schema["fields"]]).collect()
    return nested.rows([column.to_list() for column in rows.iter_columns()], schema)
