"""The Python package deltalake: delta-rs with its own DataFusion."""

import contextlib
import os

import deltalake

import nested

OPTIONS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP")


def storage_options(location):
    if not location.startswith("s3://"):
        return None
    return {name: os.environ[name] for name in OPTIONS if os.environ.get(name)}


@contextlib.contextmanager
def opened():
    yield read


def read(job, schema):
    location = job["location"]
    table = deltalake.DeltaTable(location, version=job.get("version"), storage_options=storage_options(location))
    columns = ", ".join('"' + field["name"].replace('"', '""') + '"' for field in schema["fields"])
    condition = f" WHERE {job['where']}" if job.get("where") else ""
    rows = deltalake.QueryBuilder().register("t", table).execute(f"SELECT {columns} FROM t{condition}").read_all()
    return nested.rows([rows.column(index).to_pylist() for index in range(rows.num_columns)], schema)
