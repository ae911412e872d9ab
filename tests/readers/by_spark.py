"""Apache Spark with Delta's own connector, the reference that all others are measured by. One JVM reads all tables."""

import contextlib
import datetime
import json
import os
import sys
import tempfile

# tests/services puts Delta's jars into the virtual environment.
JARS = os.path.join(sys.prefix, "jars-delta")


@contextlib.contextmanager
def opened():
    # Rows come as datetimes of the process's zone; in UTC there is no hour that occurs twice.
    os.environ["TZ"] = "UTC"
    from pyspark.sql import SparkSession

    with tempfile.TemporaryDirectory() as scratch:
        builder = SparkSession.builder.master("local[2]").appName("alluvium-readers")
        for key, value in settings(scratch).items():
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        try:
            yield lambda job, schema: read(session, job, schema)
        finally:
            session.stop()


def settings(scratch):
    jars = ":".join(os.path.join(JARS, name) for name in sorted(os.listdir(JARS)))
    return {
        "spark.driver.extraClassPath": jars,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": scratch,
        "spark.local.dir": scratch,
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
    }


def read(session, job, schema):
    reader = session.read.format("delta")
    if job.get("version") is not None:
        reader = reader.option("versionAsOf", job["version"])
    table = reader.load(job["location"])
    if job.get("where"):
        table = table.where(job["where"])
    rows = table.select([f"`{field['name'].replace('`', '``')}`" for field in schema["fields"]])
    found = json.loads(rows.schema.json())["fields"]
    for field, own in zip(schema["fields"], found):
        if (field["name"], field["type"]) != (own["name"], own["type"]):
            raise TypeError(f"Spark reads the column as {own}, the log declares {field}")
    kinds = [field["type"] for field in schema["fields"]]
    for row in rows.collect():
        yield [python_value(value, kind) for value, kind in zip(row, kinds)]


def python_value(value, kind):
    """Gives instants their zone, which Python's side of Spark leaves out, and structs their names."""
    if value is None:
        return None
    if isinstance(kind, dict):
        if kind["type"] == "array":
            return [python_value(item, kind["elementType"]) for item in value]
        if kind["type"] == "struct":
            return {f["name"]: python_value(item, f["type"]) for f, item in zip(kind["fields"], value)}
        return {
            python_value(key, kind["keyType"]): python_value(item, kind["valueType"]) for key, item in value.items()
        }
    return value.replace(tzinfo=datetime.timezone.utc) if kind == "timestamp" else value
