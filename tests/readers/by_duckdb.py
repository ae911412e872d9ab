"""DuckDB with its delta extension: the delta kernel's C interface below DuckDB's own parquet reader."""

import contextlib
import os
import pathlib
import urllib.parse

import duckdb
import duckdb_extension_delta
import duckdb_extension_httpfs

EXTENSIONS = (("httpfs", duckdb_extension_httpfs), ("delta", duckdb_extension_delta))


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def connected():
    """Returns a connection with the extensions of the installed packages, so that nothing is fetched."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name, package in EXTENSIONS:
        folder = pathlib.Path(package.__file__).parent / "extensions" / f"v{duckdb.__version__}"
        connection.execute(f"LOAD {quoted(str(folder / f'{name}.duckdb_extension'))}")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def create_secret(connection):
    """Hands DuckDB the credentials of the environment, which its Delta extension does not read by itself."""
    options = {
        "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID"),
        "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN"),
        "REGION": os.environ.get("AWS_REGION", "us-east-1"),
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        url = urllib.parse.urlsplit(endpoint)
        options["ENDPOINT"] = url.netloc
        options["URL_STYLE"] = "path"
        options["USE_SSL"] = "true" if url.scheme == "https" else "false"
    given = ", ".join(f"{name} {quoted(value)}" for name, value in options.items() if value)
    connection.execute(f"CREATE OR REPLACE SECRET (TYPE s3, {given})")


@contextlib.contextmanager
def opened():
    with connected() as connection:
        if os.environ.get("AWS_ACCESS_KEY_ID"):
            create_secret(connection)
        yield lambda job, schema: read(connection, job, schema)


def read(connection, job, schema):
    columns = ", ".join('"' + field["name"].replace('"', '""') + '"' for field in schema["fields"])
    version = f", version => {int(job['version'])}" if job.get("version") is not None else ""
    condition = f" WHERE {job['where']}" if job.get("where") else ""
    table = f"delta_scan({quoted(job['location'])}{version})"
    return connection.execute(f"SELECT {columns} FROM {table}{condition}").fetchall()
